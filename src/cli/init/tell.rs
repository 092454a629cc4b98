//! What is told of each step, and how a step stops everything.

use crate::cli::Exit;
use crate::cli::check::{Finding, Level};
use crate::cli::table::Style;
use crate::cli::terminal::Terminal;
use std::cell::RefCell;

/// Why `init` ends early. Everything is as it was then, but for new keys.
#[derive(Debug)]
pub enum Halt {
    /// A step found what stands in the way, and what to do; all of it where that is more.
    Found(Vec<Finding>, Exit),
    /// Something that nobody foresaw.
    Error(anyhow::Error),
}

impl Halt {
    /// What stands in the way, and what to do.
    pub fn at(what: &str, found: impl Into<String>, fix: impl Into<String>) -> Halt {
        let fix = Some(fix.into()).filter(|fix: &String| !fix.is_empty());
        Halt::Found(vec![Finding::fail(what, found, fix)], Exit::Problems)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Halt::Error(error.into())
    }
}

/// Tells steps as they are done, a line each; with `--json`, all of them at the end.
pub struct Teller<'a> {
    terminal: &'a Terminal,
    told: RefCell<Vec<Finding>>,
}

impl<'a> Teller<'a> {
    /// A teller that has told nothing.
    pub fn new(terminal: &'a Terminal) -> Self {
        Teller { terminal, told: RefCell::default() }
    }

    /// Tells one finding.
    pub fn tell(&self, finding: Finding) -> anyhow::Result<()> {
        if !self.terminal.is_json() {
            self.terminal.out(&self.line(&finding))?;
        }
        self.told.borrow_mut().push(finding);
        Ok(())
    }

    /// A step is done.
    pub fn done(&self, what: &str, found: impl Into<String>) -> anyhow::Result<()> {
        self.tell(Finding::ok(what, found))
    }

    /// Something is worth a look.
    pub fn warn(&self, what: &str, found: impl Into<String>, fix: &str) -> anyhow::Result<()> {
        let fix = Some(fix.to_owned()).filter(|fix| !fix.is_empty());
        self.tell(Finding::warn(what, found, fix))
    }

    /// Lines to copy, not indented.
    pub fn block(&self, text: &str) -> anyhow::Result<()> {
        if !self.terminal.is_json() {
            self.terminal.out(text)?;
        }
        Ok(())
    }

    /// Everything that was told.
    pub fn all(&self) -> Vec<Finding> {
        self.told.borrow().clone()
    }

    /// A mark on a terminal, a word elsewhere.
    fn line(&self, finding: &Finding) -> String {
        if !self.terminal.interactive() {
            return finding.text(self.terminal.color());
        }
        let (mark, style) = match finding.level {
            Level::Ok => ("✓", Style::Good),
            Level::Warn => ("!", Style::Warn),
            Level::Fail => ("✗", Style::Bad),
        };
        let mark = self.terminal.paint(style, mark);
        let fix = finding.fix.iter().map(|fix| format!("    -> {fix}\n")).collect::<String>();
        format!("{mark} {}: {}\n{fix}", finding.what, finding.found)
    }
}
