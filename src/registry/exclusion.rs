//! Pure: `spec.exclusionList` of an ImageRepository: tags that are dropped before they are stored.
//!
//! The expressions are Go's, searched anywhere in the tag. Rust's `regex` reads the same syntax
//! with these differences: `\Q…\E` and `\C` are refused, and inside a class `[`, `&&`, `--` and
//! `~~` must be escaped; both end in an error that names the expression, so nothing is matched
//! by another meaning in silence. `\d`, `\w`, `\s` and `\b` mean ASCII, as in Go.

use regex::bytes::{Regex, RegexBuilder};

/// What counts where the list is absent or empty: the signatures that cosign leaves.
pub const DEFAULT_EXCLUSION: &str = r"^.*\.sig$";

/// Most expressions in one list, as in Flux.
const LIMIT: usize = 25;

/// A compiled list.
#[derive(Clone, Debug)]
pub struct Exclusions(Vec<Regex>);

impl Exclusions {
    /// Compiles a list; an empty one is the default list. All problems at once.
    pub fn parse(list: &[String]) -> Result<Exclusions, Vec<String>> {
        if list.is_empty() {
            return Exclusions::parse(&[DEFAULT_EXCLUSION.to_owned()]);
        }
        if list.len() > LIMIT {
            return Err(vec![format!("{} expressions, at most {LIMIT} are allowed", list.len())]);
        }
        let (mut compiled, mut problems) = (Vec::new(), Vec::new());
        for expression in list {
            match compile(expression) {
                Ok(regex) => compiled.push(regex),
                Err(what) => problems.push(format!("{expression:?}: {what}")),
            }
        }
        if problems.is_empty() { Ok(Exclusions(compiled)) } else { Err(problems) }
    }

    /// Whether a tag is to be dropped.
    pub fn excludes(&self, tag: &str) -> bool {
        self.0.iter().any(|regex| regex.is_match(tag.as_bytes()))
    }
}

/// Go's meaning of an expression, searched in text that is ASCII as every tag is.
pub(super) fn compile(expression: &str) -> Result<Regex, String> {
    let with = |unicode| RegexBuilder::new(expression).unicode(unicode).build();
    // Classes such as \pL exist with Unicode only; on ASCII text they mean the same.
    with(false).or_else(|_| with(true)).map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(expressions: &[&str]) -> Result<Exclusions, Vec<String>> {
        Exclusions::parse(&expressions.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_empty_list_is_flux_default() {
        let exclusions = list(&[]).unwrap();
        assert!(exclusions.excludes("sha256-00.sig"));
        assert!(!exclusions.excludes("sha256-00.sig2"));
        assert!(!list(&["^latest$"]).unwrap().excludes("sha256-00.sig"));
    }

    #[test]
    fn expressions_are_searched_anywhere_and_mean_ascii() {
        let exclusions = list(&["rc", r"^\d+$", r"^\pL$", "(?i)DEV-"]).unwrap();
        for (tag, expected) in [
            ("1.0-rc.1", true),
            ("20261122", true),
            ("x", true),
            ("dev-1", true),
            ("1.0", false),
            ("v1", false),
        ] {
            assert_eq!(exclusions.excludes(tag), expected, "{tag}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_named_and_too_many_are_refused() {
        let problems = list(&["(", "ok", r"\Qa\E"]).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("\"(\": ") && problems[0].contains("unclosed"));
        assert!(list(&["a"; 26]).unwrap_err()[0].contains("at most 25"));
    }
}
