//! Pure: one line of a check.

use crate::cli::table::Style;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, or may work, but look at it.
    Warn,
    /// It will not work.
    Fail,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(what: &str, found: impl Into<String>) -> Self {
        Finding { level: Level::Ok, what: what.to_owned(), found: found.into(), fix: None }
    }

    /// Worth a look.
    pub fn warn(what: &str, found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { level: Level::Warn, what: what.to_owned(), found: found.into(), fix }
    }

    /// Broken.
    pub fn fail(what: &str, found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { level: Level::Fail, what: what.to_owned(), found: found.into(), fix }
    }

    /// The finding for a person: a line, and one for what to do.
    pub fn text(&self, color: bool) -> String {
        let (word, style) = match self.level {
            Level::Ok => ("ok  ", Style::Good),
            Level::Warn => ("warn", Style::Warn),
            Level::Fail => ("fail", Style::Bad),
        };
        let word = style.paint(word, color);
        let mut text = format!("{word}  {}: {}\n", self.what, self.found);
        if let Some(fix) = &self.fix {
            text.push_str(&format!("      -> {fix}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        let fix = Some("chmod 0600 it".to_owned());
        assert_eq!(
            Finding::warn("age key", "mode 0644", fix).text(false),
            "warn  age key: mode 0644\n      -> chmod 0600 it\n"
        );
        assert_eq!(Finding::ok("clock", "synchronised").text(false), "ok    clock: synchronised\n");
    }
}
