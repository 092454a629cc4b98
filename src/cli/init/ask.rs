//! Questions on a terminal: a line each, with what is taken when only Enter is pressed.
//!
//! Asked on stderr and read from stdin. No secret is ever asked for: secrets come by file.

use super::tell::Halt;
use crate::cli::Exit;
use crate::cli::check::Finding;
use std::io::{BufRead, IsTerminal, Read, Write};

/// Longest answer; nobody types more.
const MOST: u64 = 64 << 10;

/// Whether somebody is there to be asked.
pub fn possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line; `default` is shown in brackets and taken for an empty one.
pub fn line(question: &str, default: Option<&str>) -> Result<String, Halt> {
    let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
    let mut stderr = std::io::stderr();
    write!(stderr, "{question}{shown}: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    if std::io::stdin().lock().take(MOST).read_line(&mut answer)? == 0 {
        writeln!(stderr)?;
        let found = Finding::fail("questions", "stdin has ended; nothing was changed", None);
        return Err(Halt::Found(vec![found], Exit::Problems));
    }
    let answer = answer.trim();
    let taken = if answer.is_empty() { default.unwrap_or_default() } else { answer };
    Ok(taken.to_owned())
}

/// Asks until the answer is one that `read` takes.
pub fn until<T>(
    question: &str,
    default: Option<&str>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Halt> {
    loop {
        match read(&line(question, default)?) {
            Ok(taken) => return Ok(taken),
            Err(problem) => writeln!(std::io::stderr(), "  {problem}")?,
        }
    }
}

/// Asks yes or no.
pub fn yes(question: &str, default: bool) -> Result<bool, Halt> {
    let shown = if default { "Y/n" } else { "y/N" };
    until(question, Some(shown), |answer| match answer.to_lowercase().as_str() {
        "y/n" => Ok(default),
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("answer yes or no".to_owned()),
    })
}
