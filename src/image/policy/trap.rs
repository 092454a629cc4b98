//! Pure: keys of the form `20261122.10`, a date and a counter.
//!
//! It is how CI numbers the images of a day, and the one form in which neither numerical nor
//! alphabetical order means what was meant.

use crate::flux::{Direction, Pattern, Range, TagOrder, Version};
use std::collections::BTreeMap;
use std::fmt;

/// Date and counter, compared in that order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DateCounter {
    date: String,
    /// Digits of the counter first by number of digits: any length compares exactly.
    length: usize,
    counter: String,
}

impl DateCounter {
    /// Reads `^[0-9]{8}\.[0-9]+$`, and nothing else.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let (date, counter) = key.split_once('.')?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if date.len() != 8 || counter.is_empty() || !digits(date) || !digits(counter) {
            return None;
        }
        let counter = counter.trim_start_matches('0').to_owned();
        Some(DateCounter { date: date.to_owned(), length: counter.len(), counter })
    }
}

/// Flux would have chosen another tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The tag that was chosen.
    pub chosen: String,
    /// The tag that Flux would choose.
    pub flux: String,
    /// How the policy orders keys, by its name in the spec.
    pub order: &'static str,
    /// A policy on which both agree, where one could be made.
    pub suggestion: Option<Suggestion>,
}

/// A policy on which Flux and we agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// `spec.filterTags.pattern`
    pub pattern: String,
    /// `spec.filterTags.extract`
    pub extract: String,
    /// `spec.policy.semver.range`
    pub range: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is chosen by date and counter; Flux's {} order would choose {}.",
            self.chosen, self.order, self.flux
        )?;
        match &self.suggestion {
            Some(Suggestion { pattern, extract, range }) => write!(
                f,
                " Both agree on filterTags pattern '{pattern}', extract '{extract}', policy semver \
                 range '{range}'"
            ),
            None => write!(
                f,
                " To have both agree, write the counter with a fixed number of digits, or give \
                 date and counter groups of their own in filterTags.pattern, extract '$d.$n.0' and \
                 choose by semver range '{RANGE}'"
            ),
        }
    }
}

/// Any version at all.
const RANGE: &str = ">=0.0.0-0";

/// The notice for a choice, given all tags and the compared keys with their tags.
pub(super) fn notice(
    chosen: &str,
    flux: String,
    (order, direction): (&TagOrder, Direction),
    (tags, keys): (&[String], &BTreeMap<String, String>),
) -> Notice {
    let numerical = matches!(order, TagOrder::Numerical(_));
    let order = if numerical { "numerical" } else { "alphabetical" };
    // Semver knows the highest only.
    let suggestion = (direction == Direction::Asc).then(|| suggest(tags, keys)).flatten();
    let suggestion = suggestion.filter(|s| s.choice(tags) == Some(chosen));
    Notice { chosen: chosen.to_owned(), flux, order, suggestion }
}

/// A pattern of what stands before and after the key in all tags, if that is the same in all.
fn suggest(tags: &[String], keys: &BTreeMap<String, String>) -> Option<Suggestion> {
    let (key, tag) = keys.first_key_value()?;
    let (before, after) = tag.split_once(key.as_str())?;
    let same = keys.iter().all(|(key, tag)| *tag == format!("{before}{key}{after}"));
    let (before, after) = (regex::escape(before), regex::escape(after));
    let pattern = format!(r"^{before}(?P<d>\d{{8}})\.(?P<n>\d+){after}$");
    let of = |extract: &str| extract.to_owned();
    (same && !tags.is_empty()).then(|| Suggestion {
        pattern,
        extract: of("$d.$n.0"),
        range: of(RANGE),
    })
}

impl Suggestion {
    /// The tag that it chooses: it is only suggested where that is the right one.
    fn choice<'a>(&self, tags: &'a [String]) -> Option<&'a str> {
        let pattern = Pattern::parse(&self.pattern).ok()?;
        let range = Range::parse(&self.range).ok()?;
        let version = |tag: &String| {
            let key = pattern.extract(tag, &self.extract)?;
            Version::parse_strict(&key).filter(|version| range.matches(version))
        };
        let versions = tags.iter().filter_map(|tag| Some((version(tag)?, tag.as_str())));
        versions.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, tag)| tag)
    }
}
