//! Pure: regular expressions as Go's `regexp` means them.
//!
//! Flux matches tags with Go's RE2, unanchored.

use regex::bytes::Regex;
use std::fmt;

/// A compiled Go pattern; equal to another of the same text.
#[derive(Clone)]
pub struct Pattern {
    said: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// A sentence that names the pattern and what is wrong with it.
    pub fn parse(said: &str) -> Result<Self, String> {
        let wrong = |error: regex::Error| format!("{said:?} is not a pattern: {error}");
        Ok(Pattern { said: said.to_owned(), regex: Regex::new(said).map_err(wrong)? })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.said
    }

    /// Whether the pattern matches anywhere in the text.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.said)
    }
}
