//! Writes to stdout and stderr: colours, JSON, and the local time.

use super::table::Style;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// How results are written.
pub struct Terminal {
    color: bool,
    json: bool,
}

impl Terminal {
    /// Colours as said, else on a terminal unless `NO_COLOR` is set (no-color.org) or it is dumb.
    pub fn new(color: Option<bool>, json: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let auto = || io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Terminal { color: color.unwrap_or_else(auto), json }
    }

    /// True when stdout is to have colours.
    pub fn color(&self) -> bool {
        self.color
    }

    /// True when JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// True when a person looks at stdout.
    pub fn interactive(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes a result.
    pub fn out(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// Writes a result as JSON, indented for a person.
    pub fn json(&self, value: &impl Serialize) -> io::Result<()> {
        self.out(&serde_json::to_string_pretty(value)?)
    }

    /// Tells something on stderr; nobody may listen, which is no error.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Tells an error on stderr.
    pub fn error(&self, text: &str) {
        self.note(&format!("gitopsd: {text}"));
    }

    /// Text in a style, or as it is without colours.
    pub fn paint(&self, style: Style, text: &str) -> String {
        style.paint(text, self.color)
    }
}

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment in local time, `2026-11-22 20:14:05`.
pub fn local(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(moment) => moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "-".to_owned(),
    }
}
