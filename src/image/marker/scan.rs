//! Pure: a YAML file as the scalars that could be marked, with their bytes, and its comments.

use super::ObjectName;
use granit_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::BTreeMap;
use std::ops::Range;

/// A scalar that is a value: of a mapping, of a sequence, or a document of its own.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// The value after YAML's escapes.
    pub text: String,
    /// Its bytes, quotes included; of a block scalar its lines without the header.
    pub range: Range<usize>,
    /// How it is written.
    pub style: ScalarStyle,
    /// Whether it stands in `[]` or `{}`.
    pub flow: bool,
    /// Where the scalar, alias or bracket before it ends.
    pub gap: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its field.
    pub path: String,
    /// Its object, by index.
    pub object: usize,
}

impl Value {
    /// Whether it is written with `|` or `>`.
    pub fn block(&self) -> bool {
        matches!(self.style, ScalarStyle::Literal | ScalarStyle::Folded)
    }

    /// Whether the value is this already; line breaks at the end of a block are none of it.
    pub fn same_as(&self, new: &str) -> bool {
        let text = if self.block() { self.text.trim_end_matches('\n') } else { &self.text };
        text == new
    }
}

/// What [`super::attach`] needs of a file.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Every scalar that is a value, in order.
    pub values: Vec<Value>,
    /// Every comment with its line, in order.
    pub comments: Vec<(Range<usize>, usize)>,
    /// Ends of aliases.
    pub aliases: Vec<usize>,
    /// The objects of the file.
    pub objects: Vec<ObjectName>,
    /// Line of what shows that the file is sealed.
    pub sealed: Option<usize>,
    /// All events but comments: what must not change.
    tree: Vec<String>,
    /// Index into `tree` of each value.
    places: Vec<usize>,
}

/// A collection that is open, and what of it comes next.
enum Open {
    Sequence { flow: bool, next: usize },
    Mapping { flow: bool, key: Option<String> },
}

impl Scanned {
    /// Reads a file; an error is a line and what is wrong there.
    pub fn read(text: &str) -> Result<Self, (usize, String)> {
        let options = granit_parser::options! {
            emit_anchor_events: true,
            // Files may begin with a page of comments; all are in memory anyway.
            max_buffered_comment_events: usize::MAX,
        };
        let mut scan = Scan::default();
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| {
                let line = error.marker().line();
                (line, error.info().to_owned())
            })?;
            scan.event(&event, &span);
        }
        scan.scanned.comments.sort_by_key(|(range, _)| range.start);
        Ok(scan.scanned)
    }

    /// Whether another file is the same tree, but for values that are as expected there.
    pub fn same_but_for(&self, other: &Self, expected: &BTreeMap<usize, &str>) -> bool {
        let changed: BTreeMap<usize, usize> =
            expected.keys().map(|index| (self.places[*index], *index)).collect();
        let same = |(at, (one, another)): (usize, (&String, &String))| {
            changed.contains_key(&at) || one == another
        };
        self.tree.len() == other.tree.len()
            && self.places == other.places
            && self.tree.iter().zip(&other.tree).enumerate().all(same)
            && self.comments.len() == other.comments.len()
            && expected.iter().all(|(index, value)| other.values[*index].text == **value)
    }
}

#[derive(Default)]
struct Scan {
    scanned: Scanned,
    stack: Vec<Open>,
    /// End of the last scalar, alias or closing bracket.
    end: usize,
    /// First object of the current document.
    first: usize,
}

impl Scan {
    fn event(&mut self, event: &Event<'_>, span: &Span) {
        let range = span.byte_range().unwrap_or_default();
        if let Event::Comment(..) = event {
            self.scanned.comments.push((range, span.start.line()));
            return;
        }
        let place = self.scanned.tree.len();
        match event {
            Event::DocumentStart(..) => {
                self.first = self.scanned.objects.len();
                self.scanned.objects.push(ObjectName::default());
                self.end = self.end.max(range.end);
            }
            Event::Scalar(text, style, ..) => self.scalar(text, *style, (range, span), place),
            Event::Alias(_) => {
                self.scanned.aliases.push(range.end);
                self.end = range.end;
                self.done(None);
            }
            Event::SequenceStart(..) => {
                let flow = !range.is_empty();
                self.stack.push(Open::Sequence { flow: flow || self.flow(), next: 0 });
            }
            Event::MappingStart(..) => {
                let flow = !range.is_empty();
                self.stack.push(Open::Mapping { flow: flow || self.flow(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.stack.pop();
                if !range.is_empty() {
                    self.end = range.end;
                }
                self.done(None);
            }
            _ => {}
        }
        self.scanned.tree.push(format!("{event:?}"));
    }

    fn flow(&self) -> bool {
        match self.stack.last() {
            Some(Open::Sequence { flow, .. } | Open::Mapping { flow, .. }) => *flow,
            None => false,
        }
    }

    /// Whether the next node is the key of a mapping.
    fn at_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open::Mapping { key: None, .. }))
    }

    /// A node has been read; as a key it has this text.
    fn done(&mut self, text: Option<&str>) {
        match self.stack.last_mut() {
            Some(Open::Sequence { next, .. }) => *next += 1,
            Some(Open::Mapping { key: Some(_), .. }) => self.reset_key(None),
            Some(Open::Mapping { .. }) => self.reset_key(Some(text.unwrap_or("?").to_owned())),
            None => {}
        }
    }

    fn reset_key(&mut self, new: Option<String>) {
        if let Some(Open::Mapping { key, .. }) = self.stack.last_mut() {
            *key = new;
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        (range, span): (Range<usize>, &Span),
        place: usize,
    ) {
        let line = span.start.line();
        let sealing = self.stack.len() == 1 && self.at_key() && text == "sops";
        if sealing || text.starts_with("ENC[AES256_GCM,") {
            self.scanned.sealed.get_or_insert(line);
        }
        let written = !range.is_empty();
        if !self.at_key() && written {
            let path = self.path();
            let object = self.identify(&path, text);
            let flow = self.flow();
            let (text, gap) = (text.to_owned(), self.end);
            let value = Value { text, range: range.clone(), style, flow, gap, line, path, object };
            self.scanned.values.push(value);
            self.scanned.places.push(place);
        }
        if written {
            self.end = range.end;
        }
        self.done(Some(text));
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.stack {
            match open {
                Open::Sequence { next, .. } => path.push_str(&format!("[{next}]")),
                Open::Mapping { key, .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(dot);
                    path.push_str(key.as_deref().unwrap_or_default());
                }
            }
        }
        path
    }

    /// The object of a field. A `List` has one for each item, named once its parts are read.
    fn identify(&mut self, path: &str, text: &str) -> usize {
        let mut index = self.first;
        let mut field = path;
        if self.scanned.objects[index].kind == "List"
            && let Some((number, rest)) =
                path.strip_prefix("items[").and_then(|p| p.split_once(']'))
            && let Ok(number) = number.parse::<usize>()
        {
            index = self.first + 1 + number;
            field = rest.trim_start_matches('.');
            while self.scanned.objects.len() <= index {
                self.scanned.objects.push(ObjectName::default());
            }
        }
        let object = &mut self.scanned.objects[index];
        match field {
            "apiVersion" => object.api_version = text.to_owned(),
            "kind" => object.kind = text.to_owned(),
            "metadata.name" => object.name = text.to_owned(),
            "metadata.namespace" => object.namespace = text.to_owned(),
            _ => {}
        }
        index
    }
}
