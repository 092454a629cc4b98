//! Pure: the line in a file on which a field stands, or the part of an object that lacks it.

use serde_saphyr::granit_parser::{Event, Parser};

/// Path of what has a key that is no word: nothing is looked for there.
const STRANGE: &str = "?";

/// Line of the field that a problem begins with, as in `spec.ref.commit: …`, of the object whose
/// first key stands on the line `object`. That of the nearest level above it where it is not there
/// itself; where the items of a list lack something, that of the first which does. `None` where
/// nothing of it is there.
pub fn of(text: &str, object: u32, problem: &str) -> Option<u32> {
    let (field, what) = problem.split_once(": ")?;
    // As serde has it: missing field `name`.
    let lacking = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let (open, level, item) = (Vec::new(), None, None);
    let mut search = Search { object, field, lacking, here: false, open, level, item };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        search.take(&event, u32::try_from(span.start.line()).ok()?);
    }
    search.item.or(search.level.map(|(_, line)| line))
}

/// What is looked for, and what was found of it so far.
struct Search<'a> {
    object: u32,
    field: &'a str,
    lacking: Option<&'a str>,
    /// This document is the object.
    here: bool,
    open: Vec<Open>,
    /// Length of the longest path towards the field, and its line.
    level: Option<(usize, u32)>,
    item: Option<u32>,
}

/// What is open at its path: a list with the number of the next item; a map with the path of the
/// key whose value comes next, the line of its first key, and whether it lacks what is lacking.
enum Open {
    List { path: String, next: usize },
    Map { path: String, key: Option<String>, first: Option<u32>, lacks: bool },
}

impl Search<'_> {
    fn take(&mut self, event: &Event<'_>, line: u32) {
        match event {
            Event::DocumentStart(..) => self.here = false,
            Event::Scalar(text, ..) if self.key(text, line) => {}
            Event::Scalar(..) | Event::Alias(..) => {
                self.begin(line);
            }
            Event::SequenceStart(..) => {
                let path = self.begin(line);
                self.open.push(Open::List { path, next: 0 });
            }
            Event::MappingStart(..) => {
                let (path, lacks) = (self.begin(line), self.lacking.is_some());
                self.open.push(Open::Map { path, key: None, first: None, lacks });
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => {}
        }
    }

    /// Takes a scalar as the key of the map that is open; false where it is none.
    fn key(&mut self, said: &str, line: u32) -> bool {
        let top = self.open.len() == 1;
        let Some(Open::Map { path, key: key @ None, first, lacks }) = self.open.last_mut() else {
            return false;
        };
        if first.is_none() {
            *first = Some(line);
            if top {
                self.here = line == self.object;
            }
        }
        *lacks &= self.lacking != Some(said);
        let below = if path.is_empty() { said.to_owned() } else { format!("{path}.{said}") };
        *key = Some(below.clone());
        self.see(&below, line);
        true
    }

    /// A node begins that is no key; its path.
    fn begin(&mut self, line: u32) -> String {
        let path = match self.open.last_mut() {
            None => return String::new(),
            Some(Open::Map { key, .. }) => {
                return match key.take() {
                    Some(path) => path,
                    // It is a key after all, and its value comes next.
                    None => key.insert(STRANGE.to_owned()).clone(),
                };
            }
            Some(Open::List { path, next }) => {
                *next += 1;
                format!("{path}[{}]", *next - 1)
            }
        };
        self.see(&path, line);
        path
    }

    fn end(&mut self) {
        let Some(Open::Map { path, first: Some(line), lacks: true, .. }) = self.open.pop() else {
            return;
        };
        let place = path.strip_prefix(self.field).and_then(|rest| rest.strip_prefix('['));
        let place = place.and_then(|rest| rest.strip_suffix(']'));
        if self.here && place.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit())) {
            self.item.get_or_insert(line);
        }
    }

    /// Remembers a place that the field is at, or below.
    fn see(&mut self, path: &str, line: u32) {
        let rest = self.field.strip_prefix(path);
        let towards = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if self.here && towards && self.level.is_none_or(|(longest, _)| path.len() > longest) {
            self.level = Some((path.len(), line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Line 1
kind: A
spec: {interval: 1m}
---
kind: B
? [a, b]
: spec
spec:
  ref: {tag: a}
  ignore: &all |
    spec:
  other: *all
  dependsOn:
  - name: a
  - namespace: b
  substituteFrom: [{name: a},
    {nmae: b}]
";

    #[test]
    fn a_field_is_found_on_its_line_and_a_missing_one_where_it_belongs() {
        for (object, problem, line) in [
            (5, "spec.interval: missing", Some(8)),
            (5, "spec.reff: unknown field", Some(8)),
            (5, "spec: must be a map", Some(8)),
            (5, "spec.ref.commit: \"a: b\" is not 40 hex digits", Some(9)),
            (5, "spec.ref: missing field `name`", Some(9)),
            (5, "spec.other: unknown field", Some(12)),
            (5, "spec.dependsOn: missing field `name`", Some(15)),
            (5, "spec.dependsOn: missing field `readyExpr` of both", Some(14)),
            (5, "spec.dependsOn[1].nmae: unknown field", Some(15)),
            (5, "spec.substituteFrom: missing field `name`", Some(17)),
            (5, "metadata.name: missing", None),
            (2, "spec.interval: \"1\" is not a duration", Some(3)),
            (3, "spec.interval: missing", None),
            (5, "no field", None),
        ] {
            assert_eq!(of(TEXT, object, problem), line, "{object} {problem}");
        }
        assert_eq!(of("kind: [\n", 1, "kind: missing"), None);
    }
}
