//! What the demo prints: chapters, facts with their times, and claims that were checked.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The page as it is written.
pub struct Page {
    color: bool,
    began: Instant,
    held: usize,
    failed: Vec<String>,
}

impl Page {
    /// An empty page; colours only on a terminal, and not with `NO_COLOR`.
    pub fn new() -> Page {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = std::io::stdout().is_terminal() && !unwanted;
        Page { color, began: Instant::now(), held: 0, failed: Vec::new() }
    }

    /// Time since the page was begun.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        println!("\n{}", self.paint("1", title));
    }

    /// A plain line.
    pub fn say(&self, text: impl Display) {
        println!("  {text}");
    }

    /// A line with what it took.
    pub fn took(&self, took: Duration, text: impl Display) {
        println!("  {} {text}", self.paint("36", &format!("{:>8}", span(took))));
    }

    /// Lines of another program, set off.
    pub fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("    {} {line}", self.paint("2", "|"));
        }
    }

    /// Something that must hold; the page goes on if it does not.
    pub fn claim(&mut self, holds: bool, text: impl Display) {
        if holds {
            self.held += 1;
            println!("  {}  {text}", self.paint("32", "checked"));
        } else {
            println!("  {}   {text}", self.paint("31", "FAILED"));
            self.failed.push(text.to_string());
        }
    }

    /// The last lines. True when every claim held.
    pub fn end(&self) -> bool {
        let all = self.held + self.failed.len();
        println!();
        if self.failed.is_empty() {
            println!(
                "All {all} claims were checked and hold; the demo took {}.",
                span(self.elapsed())
            );
        } else {
            println!("{} of {all} claims failed:", self.failed.len());
            self.failed.iter().for_each(|claim| println!("  {claim}"));
        }
        self.failed.is_empty()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `730 µs`, `14 ms`, `2.31 s`.
pub fn span(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
