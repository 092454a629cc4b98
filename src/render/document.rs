//! Pure: YAML text to JSON values with Kubernetes' meaning, and the lines that they stand on.
//!
//! Documents are split at `---` lines before they are parsed, as Kubernetes' own reader does, so
//! that every document knows its first line and one broken document does not hide the others.
//! Numbers such as `0644` are octal, duplicate keys are refused, merge keys are applied. Of what
//! kustomize reads and writes as objects, `yes`, `on` and `y` are text; in its own file, and where
//! Flux reads what it has substituted in, they are booleans, by the rules of two YAML readers.
//!
//! Messages name lines and never quote the text: what is read here may have been sealed.

use serde_json::Value;

/// One document of a file; empty documents are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Line of its first key, from 1.
    pub line: u32,
    /// Its content.
    pub value: Value,
}

/// Why a text is not YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line from 1, when known.
    pub line: Option<u32>,
    /// What is wrong, without content.
    pub message: String,
}

/// Reads every document of a file.
///
/// # Errors
/// The first document that is not YAML.
pub fn read(text: &str) -> Result<Vec<Document>, Malformed> {
    documents(text, true)
}

fn documents(text: &str, words: bool) -> Result<Vec<Document>, Malformed> {
    let mut documents = Vec::new();
    for (start, chunk) in split(text) {
        let Some(line) = first_line(&chunk) else { continue };
        let value = parse(&chunk, words).map_err(|error| Malformed {
            line: Some(start + error.line.unwrap_or(line + 1) - 1),
            message: error.message,
        })?;
        if !value.is_null() {
            documents.push(Document { line: start + line, value });
        }
    }
    Ok(documents)
}

/// Reads a kustomization file, or another text of one document, `Null` when it is empty.
///
/// # Errors
/// Broken YAML, or more than one document.
pub fn read_one(text: &str) -> Result<Value, Malformed> {
    let mut documents = documents(text, false)?;
    match documents.len() {
        0 => Ok(Value::Null),
        1 => Ok(documents.remove(0).value),
        _ => Err(Malformed {
            line: Some(documents[1].line),
            message: "more than one document".to_owned(),
        }),
    }
}

/// The chunks between `---` lines, each with the number of its first line, from 1.
pub(crate) fn split(text: &str) -> Vec<(u32, String)> {
    let mut chunks = Vec::new();
    let mut current = String::new();
    let mut start = 1;
    let mut number = 0;
    for line in text.trim_start_matches('\u{feff}').lines() {
        number += 1;
        let marker = line.strip_prefix("---").filter(|rest| {
            rest.is_empty() || rest.starts_with(|next: char| next.is_ascii_whitespace())
        });
        if let Some(rest) = marker {
            chunks.push((start, std::mem::take(&mut current)));
            start = number;
            // A document may begin on the marker's own line; indentation keeps its column.
            if !rest.trim().is_empty() && !rest.trim_start().starts_with('#') {
                current.push_str("   ");
                current.push_str(rest);
            }
        } else if !line.starts_with('%') {
            current.push_str(line);
        }
        current.push('\n');
    }
    chunks.push((start, current));
    chunks
}

/// Offset of the first line that is neither blank nor a comment.
fn first_line(chunk: &str) -> Option<u32> {
    let at = chunk.lines().position(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "..."
    })?;
    u32::try_from(at).ok()
}

fn parse(chunk: &str, words: bool) -> Result<Value, Malformed> {
    serde_saphyr::from_str_with_options(chunk, options(words)).map_err(|error| {
        let line = error.location().and_then(|at| u32::try_from(at.line()).ok());
        let said = error.to_string();
        let message = said.lines().next().unwrap_or_default();
        // What follows a colon or the place is the parser's advice, or the text itself.
        let message = message.split(" at line ").next().unwrap_or_default();
        let message = message.split(": ").next().unwrap_or_default().trim();
        Malformed { line: line.filter(|line| *line > 0), message: without_quotes(message) }
    })
}

/// The reader's limits: a file is at most 5 MiB, an engine's output at most 64 MiB, and a
/// generated CRD of 1 MiB has about 40,000 nodes, hence two million nodes and the events of them.
/// With `words`, only `true` and `false` are booleans.
pub(super) fn options(words: bool) -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: words,
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 6_000_000,
            max_nodes: 2_000_000,
            max_depth: 256,
            enforce_alias_anchor_ratio: false,
        },
    }
}

/// Replaces what stands in quotes or backticks: a parser may cite the text.
fn without_quotes(message: &str) -> String {
    let mut kept = String::new();
    let mut inside = None;
    for letter in message.chars() {
        match inside {
            Some(quote) if quote == letter => {
                inside = None;
                kept.push('…');
                kept.push(letter);
            }
            Some(_) => {}
            None => {
                if matches!(letter, '`' | '"') {
                    inside = Some(letter);
                }
                kept.push(letter);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_know_their_lines_and_numbers_mean_what_kubernetes_means() {
        let text = "# head\n---\n# c\n\nmode: 0644\nbig: 12345678901234567890\n---\n\n---\n\
                    a: &x {b: \"yes\"}\nc: *x\n";
        let expected = vec![
            Document { line: 5, value: json!({"mode": 420, "big": 12345678901234567890u64}) },
            Document { line: 10, value: json!({"a": {"b": "yes"}, "c": {"b": "yes"}}) },
        ];
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read("---\n# nothing\n"), Ok(vec![]));
    }

    #[test]
    fn a_broken_document_is_named_by_its_line_and_never_quoted() {
        for (text, line) in [
            ("a: 1\n---\nb: 2\n c: hunter2\n", 4),
            ("a: 1\nhunter2: x\nhunter2: y\n", 3),
            ("k: [hunter2\n", 1),
            ("k: 'hunter2\n", 1),
            ("a: 1\nb: *hunter2\n", 2),
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.message.contains("hunter2"), "{error:?}");
            assert_eq!(error.line, Some(line), "{text:?} {error:?}");
        }
    }

    #[test]
    fn words_that_one_yaml_reader_takes_for_booleans_are_text_in_objects_alone() {
        let text = "metadata: {name: y}\ndata: {a: yes, b: Off, c: true}\n";
        let objects = read(text).expect("YAML");
        let (data, name) = (json!({"a": "yes", "b": "Off", "c": true}), json!({"name": "y"}));
        assert_eq!(objects[0].value, json!({"metadata": name, "data": data}));
        let own = read_one("generatorOptions: {disableNameSuffixHash: yes}\n");
        assert_eq!(own, Ok(json!({"generatorOptions": {"disableNameSuffixHash": true}})));
    }

    #[test]
    fn a_marker_inside_a_block_of_text_is_text() {
        let text = "k: |\n  a\n  ---\n  b\n";
        assert_eq!(read_one(text), Ok(json!({"k": "a\n---\nb\n"})));
        assert!(read_one("a: 1\n---\nb: 2\n").is_err());
    }
}
