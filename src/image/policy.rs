//! Pure: which of an image's tags is the latest (Flux: ImagePolicy).
//!
//! Every tag gets a key: what the policy's `extract` makes of it, or the tag itself. The keys are
//! compared, and the best key's tag is chosen. Flux's rules hold to the letter, also the odd ones:
//! semver skips what is no version, numerical fails as a whole on one key that is no number, and
//! of several tags with one key the smallest tag stands for it.
//!
//! **Ties.** Keys that differ as text may be equal in the order: `1.0` and `1`, `v1.2.3` and
//! `1.2.3`. Flux decides by the order in which it meets them, which is random with a filter.
//! Here it is always the order that Flux has without one, keys from the greatest text down: under
//! semver the first stays, under numerical the last.
//!
//! **Numbers** are 64-bit floats ([`number`]): keys that differ beyond their 15 digits may be a tie.
//!
//! **One departure.** `20261122.9` and `20261122.10` are a date and a counter, but a number with
//! a fraction to numerical, and text to alphabetical: both put `.9` above `.10`. Where every key
//! that is compared has this form, and no wider, keys are ordered by date, then counter. If that
//! changes the choice, a [`Notice`] says so with a policy on which both agree.

mod number;
mod order;
#[cfg(test)]
mod tests;
mod trap;

use crate::flux::ImagePolicy;
use std::collections::BTreeMap;
pub use trap::{Notice, Suggestion};

/// The chosen tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The tag, as the registry lists it.
    pub tag: String,
    /// Said where Flux would have chosen otherwise.
    pub notice: Option<Notice>,
}

/// Why no tag could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The repository has no tags at all.
    #[error("the image has no tags")]
    NoTags,
    /// No tag matches the filter.
    #[error("none of {tags} tags matches filterTags.pattern {pattern:?}")]
    NoMatch {
        /// How many tags there are.
        tags: usize,
        /// The pattern.
        pattern: String,
    },
    /// One key of a numerical policy is no number, which fails the policy, as in Flux.
    #[error(
        "numerical policy: {key:?} of tag {tag:?} is no number; narrow filterTags.pattern so that \
         such tags do not match, or extract the number"
    )]
    NotANumber {
        /// The tag.
        tag: String,
        /// Its key.
        key: String,
    },
    /// No key is a version in the range.
    #[error("none of {tags} tags is a version in the range {range:?}")]
    NoneInRange {
        /// How many tags match the filter.
        tags: usize,
        /// The range.
        range: String,
    },
}

/// One tag and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The tag.
    pub tag: String,
    /// What is compared; `None` where the filter does not match.
    pub key: Option<String>,
    /// Whether it was chosen, or else why not.
    pub verdict: Verdict,
}

/// Whether a tag was chosen, or else why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This is the latest.
    Chosen,
    /// Comes after the chosen one in the policy's order.
    Lower,
    /// Equal to the chosen one in the policy's order; the tie rule put it second.
    Tied,
    /// Another tag has the same key and stands for it.
    SameKey(String),
    /// A version outside of the range.
    OutOfRange,
    /// Not a version of three parts.
    NotAVersion,
    /// Not a number.
    NotANumber,
    /// Not compared, since another tag fails the policy.
    NotCompared,
    /// Does not match `filterTags.pattern`.
    Filtered,
}

impl Verdict {
    /// A few words for a table.
    pub fn words(&self) -> String {
        match self {
            Verdict::Chosen => "chosen".to_owned(),
            Verdict::Lower => "lower".to_owned(),
            Verdict::Tied => "equal to the chosen one".to_owned(),
            Verdict::SameKey(tag) => format!("same key as {tag}"),
            Verdict::OutOfRange => "outside of the range".to_owned(),
            Verdict::NotAVersion => "not a version".to_owned(),
            Verdict::NotANumber => "not a number: fails the policy".to_owned(),
            Verdict::NotCompared => "not compared".to_owned(),
            Verdict::Filtered => "does not match filterTags.pattern".to_owned(),
        }
    }
}

/// Everything about one choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// All tags: those that were compared in order, best first, then the others.
    pub candidates: Vec<Candidate>,
    /// The choice, or why there is none.
    pub outcome: Result<Choice, ChooseError>,
}

/// Chooses the latest tag.
///
/// # Errors
///
/// See [`ChooseError`]; the policy then keeps its last choice.
pub fn choose(policy: &ImagePolicy, tags: &[String]) -> Result<Choice, ChooseError> {
    explain(policy, tags).outcome
}

/// Chooses the latest tag, and says of every other one why it lost.
pub fn explain(policy: &ImagePolicy, tags: &[String]) -> Explanation {
    let mut keyed = Keyed::read(policy, tags);
    let outcome = if tags.is_empty() {
        Err(ChooseError::NoTags)
    } else if let (Some(filter), true) = (&policy.filter, keyed.keys.is_empty()) {
        let pattern = filter.pattern.as_str().to_owned();
        Err(ChooseError::NoMatch { tags: tags.len(), pattern })
    } else {
        order::rank(&policy.order, tags, &mut keyed)
    };
    let Keyed { ranked: mut candidates, rejected, .. } = keyed;
    candidates.extend(rejected);
    Explanation { candidates, outcome }
}

/// The keys to compare and the tags that stand for them.
struct Keyed {
    /// Key to tag, in order of the keys.
    keys: BTreeMap<String, String>,
    ranked: Vec<Candidate>,
    rejected: Vec<Candidate>,
}

impl Keyed {
    fn read(policy: &ImagePolicy, tags: &[String]) -> Self {
        let mut distinct: Vec<&String> = tags.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let mut keyed = Keyed { keys: BTreeMap::new(), ranked: Vec::new(), rejected: Vec::new() };
        // From the smallest up: the first tag of a key keeps it.
        for tag in distinct {
            match key_of(policy, tag) {
                None => keyed.reject(tag, None, Verdict::Filtered),
                Some(key) => match keyed.keys.get(&key).cloned() {
                    Some(first) => keyed.reject(tag, Some(key), Verdict::SameKey(first)),
                    None => drop(keyed.keys.insert(key, tag.clone())),
                },
            }
        }
        keyed
    }

    fn reject(&mut self, tag: &str, key: Option<String>, verdict: Verdict) {
        self.rejected.push(Candidate { tag: tag.to_owned(), key, verdict });
    }
}

/// What is compared of a tag; `None` where the filter does not match.
fn key_of(policy: &ImagePolicy, tag: &str) -> Option<String> {
    match &policy.filter {
        None => Some(tag.to_owned()),
        Some(filter) if filter.extract.is_empty() => {
            filter.pattern.matches(tag).then(|| tag.to_owned())
        }
        Some(filter) => filter.pattern.extract(tag, &filter.extract),
    }
}
