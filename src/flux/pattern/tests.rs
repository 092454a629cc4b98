//! Patterns mean here what they mean in Go: golden cases made by Go itself.

use super::Pattern;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Input {
    pattern: String,
    text: String,
    extract: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    error: bool,
    matches: bool,
    expanded: String,
}

#[test]
fn a_pattern_is_refused_matches_and_expands_as_in_go() {
    let inputs = include_str!("../../../tests/golden/imagepolicy/expand/input.json");
    let expected = include_str!("../../../tests/golden/imagepolicy/expand/expected.json");
    let inputs: Vec<Input> = serde_json::from_str(inputs).unwrap();
    let expected: Vec<Expected> = serde_json::from_str(expected).unwrap();
    assert!(inputs.len() == expected.len() && inputs.len() > 2000);
    let mut wrong = Vec::new();
    for (input, expected) in inputs.iter().zip(expected) {
        let found = match Pattern::parse(&input.pattern) {
            Err(_) => Expected { error: true, matches: false, expanded: String::new() },
            Ok(pattern) => {
                let expanded = pattern.extract(&input.text, &input.extract);
                let matches = expanded.is_some();
                assert_eq!(pattern.matches(&input.text), matches);
                Expected { error: false, matches, expanded: expanded.unwrap_or_default() }
            }
        };
        if found != expected {
            let Input { pattern, text, extract } = input;
            wrong.push(format!("{pattern} on {text:?} by {extract}: {found:?}, Go {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_error_names_the_pattern_as_it_was_written() {
    for (said, told) in [
        (r"dev-(?P<n>\d+", "missing closing )"),
        (r"(?=a)", "(?=a is not supported"),
        (r"\p{Klingon}", "Unicode property not found"),
        (r"(\w{900}){900}", "Compiled regex exceeds size limit of 4194304 bytes."),
    ] {
        let expected = format!("{said:?} is not a regular expression of Go: {told}");
        assert_eq!(Pattern::parse(said).unwrap_err(), expected);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(said in r"[ab0-9\\(){}\[\]?*+|^$.,:<>PpQEdDwWbBxU&~-]{0,16}", tag in "[ab.0-9-]{0,8}") {
        if let Ok(pattern) = Pattern::parse(&said) {
            let whole = pattern.extract(&tag, "$0");
            prop_assert_eq!(whole.is_some(), pattern.matches(&tag));
            prop_assert!(whole.is_none_or(|whole| tag.contains(&whole)));
        }
    }

    #[test]
    fn a_quoted_text_matches_itself(tag in "[A-Za-z0-9_.-]{1,20}", rest in ".{0,5}") {
        let pattern = Pattern::parse(&format!("^\\Q{tag}\\E")).unwrap();
        let text = format!("{tag}{rest}");
        prop_assert_eq!(pattern.extract(&text, "$0"), Some(tag));
    }
}
