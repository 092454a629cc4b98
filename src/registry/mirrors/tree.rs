//! Pure: a YAML file as a tree in which every value knows its line and scalars stay as written.
//!
//! Aliases and merge keys are followed, since k3s follows them; a file that they blow up is
//! refused by the count of its values.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Deeper than any key of the file.
const MAX_DEPTH: usize = 16;

/// Far more values than a file for one host has.
const MAX_NODES: usize = 20_000;

/// One value and the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub line: usize,
    pub value: Value,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Line, what is wrong, what to do.
type Refusal = (usize, String, &'static str);

/// Reads one document. An empty file is `Null`.
pub(super) fn read(text: &str) -> Result<Node, Refusal> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span.start.line())?,
            // The parser's words could quote the file; it holds passwords.
            Err(error) => {
                let fix = "correct the line or the one above it";
                return Err((error.marker().line(), "not YAML".to_owned(), fix));
            }
        }
    }
    Ok(builder.done.unwrap_or(Node { line: 1, value: Value::Null }))
}

/// Builds the tree from events; the stack holds what is open.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    done: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    line: usize,
    anchor: usize,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Map(Vec<(String, Node)>, Option<String>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Refusal> {
        match event {
            Event::Alias(anchor) => {
                // The parser refuses an alias without its anchor; inside its own value there is
                // none yet.
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err((line, "an alias to itself".to_owned(), "write the value out"));
                };
                let node = Node { line, ..node.clone() };
                self.put(node, 0)
            }
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                if let Some(Open { holds: Holds::Map(_, key @ None), .. }) = self.open.last_mut() {
                    *key = Some(text.into_owned());
                    return Ok(());
                }
                let value = if null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.put(Node { line, value }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(line, anchor, Holds::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.begin(line, anchor, Holds::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                None => Ok(()),
                Some(Open { line, anchor, holds }) => {
                    let value = match holds {
                        Holds::List(items) => Value::List(items),
                        Holds::Map(entries, _) => Value::Map(entries),
                    };
                    self.put(Node { line, value }, anchor)
                }
            },
            Event::DocumentStart(..) if self.done.is_some() => {
                Err((line, "a second document".to_owned(), "remove the line --- and merge the two"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, holds: Holds) -> Result<(), Refusal> {
        if self.open.len() == MAX_DEPTH {
            return Err((line, "nested too deeply".to_owned(), "remove the inner levels"));
        }
        if let Some(Open { holds: Holds::Map(_, None), .. }) = self.open.last() {
            let fix = "write a word before the colon";
            return Err((line, "a key that is no word".to_owned(), fix));
        }
        self.open.push(Open { line, anchor, holds });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Refusal> {
        self.nodes += size(&node);
        if self.nodes > MAX_NODES {
            return Err((node.line, "too many values".to_owned(), "write fewer"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.done = Some(node),
            Some(Open { holds: Holds::List(items), .. }) => items.push(node),
            Some(Open { holds: Holds::Map(entries, key), .. }) => {
                let line = node.line;
                match key.take() {
                    Some(name) if name == "<<" => merge(entries, node),
                    Some(name) if entries.iter().any(|(known, _)| *known == name) => {
                        let fix = "remove one of the two";
                        return Err((line, format!("{name:?}: said twice"), fix));
                    }
                    Some(name) => entries.push((name, node)),
                    None => {
                        let fix = "write a word before the colon";
                        return Err((line, "a key that is no word".to_owned(), fix));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Adds the entries of a merge key that are not there. Those written after it are refused as said
/// twice, which is harsher than YAML and never wrong.
fn merge(entries: &mut Vec<(String, Node)>, node: Node) {
    let added = match node.value {
        Value::Map(added) => added,
        Value::List(items) => {
            items.into_iter().for_each(|item| merge(entries, item));
            return;
        }
        _ => return,
    };
    for (key, node) in added {
        if entries.iter().all(|(known, _)| *known != key) {
            entries.push((key, node));
        }
    }
}

/// How many values a node is.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
    }
}
