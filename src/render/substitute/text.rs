//! Pure: one object as the YAML text that Flux substitutes in.
//!
//! Substitution works on text, so the style of each scalar decides what a value can turn into:
//! `port: ${PORT}` may become a number, `"${PORT}"` cannot. Flux reads the object before it
//! writes it, so the quotes of the file in Git are gone, and its writer's rules count: text with
//! line breaks is a literal block unless a space or a control character forbids it, other text is
//! plain where plain text can hold it, and single-quoted where it cannot.
//!
//! A scalar without a dollar sign cannot change; it is double-quoted whatever it looks like, so
//! that the words `yes`, `123` and `0644` come back as the text they are.

use serde_json::Value;

/// The text, and where each scalar with a dollar sign begins (byte offset, path of its field).
#[derive(Default)]
pub(super) struct Text {
    pub(super) yaml: String,
    pub(super) places: Vec<(usize, String)>,
    path: Vec<String>,
}

/// Whether any key or text of the value has a dollar sign.
pub(super) fn has_dollar(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('$'),
        Value::Array(items) => items.iter().any(has_dollar),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('$') || has_dollar(value)),
        _ => false,
    }
}

impl Text {
    /// Writes an object.
    pub(super) fn of(value: &Value) -> Self {
        let mut text = Text::default();
        text.node(value, 0);
        text.yaml.push('\n');
        text
    }

    /// The path of the scalar that the offset lies in.
    pub(super) fn path_at(&self, offset: usize) -> Option<&str> {
        let after = self.places.partition_point(|(start, _)| *start <= offset);
        after.checked_sub(1).map(|index| self.places[index].1.as_str())
    }

    /// Writes a value at the end of a line: a scalar after a space, a collection below.
    fn node(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    self.line(indent);
                    self.path.push(key.clone());
                    self.scalar(key, None);
                    self.yaml.push(':');
                    self.node(value, indent + 2);
                    self.path.pop();
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.line(indent);
                    self.path.push(index.to_string());
                    self.yaml.push('-');
                    self.node(item, indent + 2);
                    self.path.pop();
                }
            }
            Value::String(text) => {
                self.yaml.push(' ');
                self.scalar(text, Some(indent));
            }
            other => {
                self.yaml.push(' ');
                self.yaml.push_str(&other.to_string());
            }
        }
    }

    fn line(&mut self, indent: usize) {
        if !self.yaml.is_empty() {
            self.yaml.push('\n');
        }
        self.yaml.extend(std::iter::repeat_n(' ', indent));
    }

    /// Writes text; only values, which have an indent, may be literal blocks.
    fn scalar(&mut self, text: &str, indent: Option<usize>) {
        if text.contains('$') {
            self.places.push((self.yaml.len(), self.path.join(".")));
        }
        let special = text.contains(|c: char| c != '\n' && !printable(c));
        match indent {
            _ if special || !text.contains('$') => self.quoted(text),
            Some(indent) if text.contains('\n') => {
                // A space before a line break or at the end has no place in Flux's literal.
                if text.contains(" \n") || text.ends_with(' ') {
                    self.quoted(text);
                } else {
                    self.literal(text, indent);
                }
            }
            _ if text.contains('\n') => self.quoted(text),
            _ if is_plain(text) => self.yaml.push_str(text),
            _ => {
                self.yaml.push('\'');
                self.yaml.push_str(&text.replace('\'', "''"));
                self.yaml.push('\'');
            }
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.yaml.push('|');
        if text.starts_with([' ', '\n']) {
            self.yaml.push('2');
        }
        if !text.ends_with('\n') {
            self.yaml.push('-');
        } else if text.ends_with("\n\n") || text == "\n" {
            self.yaml.push('+');
        }
        // The indent of a nested value is at least that of its key plus two, which is what the
        // indicator counts from.
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.yaml.push('\n');
            if !line.is_empty() {
                self.yaml.extend(std::iter::repeat_n(' ', indent));
                self.yaml.push_str(line);
            }
        }
    }

    fn quoted(&mut self, text: &str) {
        self.yaml.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.yaml.push_str("\\\""),
                '\\' => self.yaml.push_str("\\\\"),
                '\n' => self.yaml.push_str("\\n"),
                '\t' => self.yaml.push_str("\\t"),
                letter if printable(letter) => self.yaml.push(letter),
                letter => self.yaml.push_str(&format!("\\U{:08X}", u32::from(letter))),
            }
        }
        self.yaml.push('"');
    }
}

/// What Flux's writer puts into anything but double quotes; the tab is not among it.
fn printable(letter: char) -> bool {
    matches!(letter, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

/// Whether text on one line can stand without quotes in block style.
fn is_plain(text: &str) -> bool {
    let mut letters = text.chars();
    let (first, second) = (letters.next(), letters.next());
    let begins = match first {
        None | Some(' ') => false,
        Some('-' | '?' | ':') => second.is_some_and(|c| c != ' '),
        Some(first) => !",[]{}#&*!|>'\"%@`".contains(first),
    };
    begins
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
}
