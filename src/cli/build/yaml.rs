//! Pure: objects as YAML that every reader takes for the same.
//!
//! Text stands plain only where neither YAML 1.1 (kubectl's reader, for which `yes`, `on` and
//! `0644` are no text) nor 1.2 could take it for something else: it begins with a letter, `_` or
//! `/` and is no word of either. Text of several lines is a literal block, anything else is
//! double-quoted. serde_yaml quotes by 1.2 alone and leaves `yes` bare.

use serde_json::Value;

/// Words that some reader takes for a boolean, a null or a number, in lower case.
const WORDS: &[&str] =
    &["y", "yes", "n", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];

/// Objects as documents of one file, in order.
pub fn yaml(objects: &[Value]) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---");
        node(&mut text, object, 0);
        text.push('\n');
    }
    text
}

/// Writes a value at the end of a line: a scalar after a space, a collection below.
fn node(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            mapping(text, map, indent, false);
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push('\n');
                text.extend(std::iter::repeat_n(' ', indent));
                text.push('-');
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        text.push(' ');
                        mapping(text, map, indent + 2, true);
                    }
                    Value::Array(inner) if !inner.is_empty() => node(text, item, indent + 2),
                    _ => node(text, item, indent + 2),
                }
            }
        }
        Value::String(string) => {
            text.push(' ');
            scalar(text, string, Some(indent));
        }
        other => {
            text.push(' ');
            text.push_str(&other.to_string());
        }
    }
}

/// Writes the pairs of a map; `begun` when the first one continues a line.
fn mapping(text: &mut String, map: &serde_json::Map<String, Value>, indent: usize, begun: bool) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        if at > 0 || !begun {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        scalar(text, key, None);
        text.push(':');
        // As kubectl has it: the dashes of a list stand below its key.
        let below = if value.is_array() { indent } else { indent + 2 };
        node(text, value, below);
    }
}

/// Writes text; only values, which have an indent, may be literal blocks.
fn scalar(text: &mut String, string: &str, indent: Option<usize>) {
    match indent {
        Some(indent) if is_literal(string) => literal(text, string, indent),
        _ if is_plain(string) => text.push_str(string),
        _ => quoted(text, string),
    }
}

fn is_plain(string: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '/';
    let good = |c: char| c.is_ascii_alphanumeric() || "_/.-+@:,= ()".contains(c);
    string.starts_with(first)
        && string.chars().all(good)
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

/// Whether text can stand line by line: its indent must be seen from its first line.
fn is_literal(string: &str) -> bool {
    let lines = string.trim_end_matches('\n');
    lines.contains('\n')
        && !lines.starts_with([' ', '\n', '\t'])
        && string.chars().all(|c| c == '\n' || c == '\t' || printable(c))
}

fn literal(text: &mut String, string: &str, indent: usize) {
    text.push('|');
    match string.strip_suffix('\n') {
        None => text.push('-'),
        Some(rest) if rest.ends_with('\n') => text.push('+'),
        Some(_) => {}
    }
    for line in string.strip_suffix('\n').unwrap_or(string).split('\n') {
        text.push('\n');
        if !line.is_empty() {
            // Blocks of the top level have to be indented as well.
            text.extend(std::iter::repeat_n(' ', indent.max(2)));
            text.push_str(line);
        }
    }
}

fn quoted(text: &mut String, string: &str) {
    text.push('"');
    for letter in string.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            letter if printable(letter) => text.push(letter),
            letter => text.push_str(&format!("\\U{:08X}", u32::from(letter))),
        }
    }
    text.push('"');
}

/// What YAML takes as it is, but for breaks and marks that editors do not show.
fn printable(letter: char) -> bool {
    matches!(letter, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_object_reads_as_kubectl_writes_it_and_doubtful_words_are_quoted() {
        let object = json!({"kind": "X", "metadata": {"name": "a", "labels": {}},
            "spec": {"args": ["-v", {"a": 1, "b": [true]}, [["x"]], []],
                "mode": "0644", "on": "yes", "script": "one\n  two\n", "image": "r.io/x:1"}});
        let expected = "---
kind: X
metadata:
  name: a
  labels: {}
spec:
  args:
  - \"-v\"
  - a: 1
    b:
    - true
  -
    -
      - x
  - []
  mode: \"0644\"
  \"on\": \"yes\"
  script: |
    one
      two
  image: r.io/x:1
";
        assert_eq!(yaml(&[object]), expected);
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z :#\\-\\n'\"\\t]{0,8}",
            "(yes|No|on|~|null|0x1F|1e3|0o7|12:30|<<|=|\\.inf|2026-01-01)",
            "\\PC{0,4}",
            any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_it_was(value in value()) {
            let object = json!({"k": value});
            let text = yaml(std::slice::from_ref(&object));
            let read: Result<Value, _> = serde_yaml::from_str(&text);
            prop_assert_eq!(read.ok(), Some(object), "{}", text);
        }
    }
}
