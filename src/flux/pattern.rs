//! Pure: regular expressions as Go's `regexp` means them, which is what Flux matches tags with.
//!
//! Both Go and the `regex` crate search from left to right without back-references, but they
//! differ in what many patterns mean: `\d` knows Unicode here and ASCII there, `[a&&b]` is an
//! intersection here and four characters there, `\Q…\E` and `{,2}` are Go's alone. So a pattern is
//! translated into one that says the same ([`go`]); group names stay with us. A pattern matches
//! anywhere in the text unless it is anchored.

mod go;

use regex::bytes::{Captures, Regex, RegexBuilder};
use std::fmt;

/// A compiled Go pattern; equal to another of the same text.
#[derive(Clone)]
pub struct Pattern {
    said: String,
    regex: Regex,
    /// Names of the groups, by index; the whole match is group 0.
    names: Vec<Option<String>>,
}

/// Memory that one compiled pattern may take. Tags are short and patterns too: what needs more
/// than this is a mistake such as `(\w{1000}){1000}`.
const LARGEST: usize = 4 << 20;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// A sentence that names the pattern and what is wrong with it.
    pub fn parse(said: &str) -> Result<Self, String> {
        let wrong = |told: String| format!("{said:?} is not a regular expression of Go: {told}");
        let (translated, names) = go::translate(said).map_err(wrong)?;
        let built = RegexBuilder::new(&translated).size_limit(LARGEST).build();
        let regex = built.map_err(|error| wrong(short(&error)))?;
        Ok(Pattern { said: said.to_owned(), regex, names })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.said
    }

    /// Whether the pattern matches anywhere in the text.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// Expands Go's template with the groups of the first match; `None` without a match.
    ///
    /// `$name` and `$1` take the longest run of letters, digits and `_`, so `$1x` is the group
    /// `1x`, which is empty; `${1}x` says the other. `$$` is a dollar; a `$` before anything else
    /// stands for itself. A group that does not exist or took no part is empty.
    pub fn extract(&self, text: &str, template: &str) -> Option<String> {
        let captures = self.regex.captures(text.as_bytes())?;
        let mut expanded = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some((name, after)) = group_name(after) {
                expanded.push_str(&self.group(&captures, name));
                rest = after;
            } else {
                expanded.push('$');
                rest = after;
            }
        }
        expanded.push_str(rest);
        Some(expanded)
    }

    /// The text of a group, by its number or else by its name; of several groups with the name it
    /// is the first that took part.
    fn group(&self, captures: &Captures<'_>, name: &str) -> String {
        let found = match group_number(name) {
            Some(number) => captures.get(number),
            None => {
                let named = self.names.iter().enumerate();
                let mut named = named.filter(|(_, n)| n.as_deref() == Some(name));
                named.find_map(|(index, _)| captures.get(index))
            }
        };
        found.map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned()).unwrap_or_default()
    }
}

/// The name after a `$`, braced or not, and what follows it.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if name.is_empty() {
        return None;
    }
    let rest = if braced { rest.strip_prefix('}')? } else { rest };
    Some((name, rest))
}

/// A name of digits only is a number, unless it begins with a needless zero.
fn group_number(name: &str) -> Option<usize> {
    let needless = name.len() > 1 && name.starts_with('0');
    let digits = !needless && name.bytes().all(|b| b.is_ascii_digit());
    // A number that is too large is a number all the same: of a group that does not exist.
    digits.then(|| name.parse().unwrap_or(usize::MAX))
}

/// The last line of the crate's error, which draws the pattern that it got, not the one written.
fn short(error: &regex::Error) -> String {
    let told = error.to_string();
    let last = told.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
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

#[cfg(test)]
mod tests;
