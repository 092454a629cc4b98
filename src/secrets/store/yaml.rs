//! Pure: YAML documents in order, scalars typed as go-yaml v3 types them for SOPS.
//!
//! go-yaml's rules are not Kubernetes': `yes` is text, `0644` is 420 and `2024-01-01` is a time.
//! They decide what the MAC covers, and what Flux hands on after opening, so they hold here too.
//! Aliases are expanded within a budget; merge keys stay keys, as in SOPS. A key that appears twice
//! in one mapping is refused.

use super::{Format, MAX_DEPTH, Node, Scalar, quote};
use crate::secrets::SecretsError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag, options};
use std::collections::{HashMap, HashSet};
use zeroize::Zeroizing;

/// Most nodes of one file, aliases expanded. A full 5 MiB file of Secrets has some 200,000; an
/// alias bomb has millions.
const MAX_NODES: usize = 500_000;

/// Reads every document of a file; each must be a mapping, or empty.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Node>, SecretsError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        malformed(line, "not UTF-8")
    })?;
    let options = options! { emit_comments: false };
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        budget: MAX_NODES,
    };
    let mut documents = Vec::new();
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(..) => {
                reader.anchors.clear();
                let (event, span) = reader.next()?;
                let line = span.start.line();
                documents.push(match reader.node(event, &span, 0)? {
                    Node::Leaf(Scalar::Null) => Node::Map(Vec::new()),
                    node @ Node::Map(_) => node,
                    _ => return Err(malformed(line, "a document is not a mapping")),
                });
            }
            _ if span.is_empty() || !event.is_node() => {}
            _ => return Err(malformed(span.start.line(), "content outside a document")),
        }
    }
}

fn malformed(line: usize, problem: &str) -> SecretsError {
    SecretsError::Malformed { format: Format::Yaml, line, problem: problem.to_owned() }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Finished nodes by anchor id, of the current document.
    anchors: HashMap<usize, Node>,
    /// Nodes that may still be made.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), SecretsError> {
        match self.parser.next_event() {
            Some(Ok(found)) => Ok(found),
            // The parser's words may quote the text, so its position must do.
            Some(Err(error)) => Err(malformed(error.marker().line(), "syntax error")),
            None => Err(malformed(0, "the text ends too early")),
        }
    }

    fn spend(&mut self, nodes: usize, line: usize) -> Result<(), SecretsError> {
        let left = self.budget.checked_sub(nodes);
        self.budget = left.ok_or_else(|| malformed(line, "too many nodes"))?;
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, SecretsError> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(malformed(line, "nested too deeply"));
        }
        self.spend(1, line)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let leaf = scalar(&text, plain, tag.as_deref())
                    .ok_or_else(|| malformed(line, "a value does not fit its tag"))?;
                (Node::Leaf(leaf), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, &span, depth + 1)?),
                    }
                }
                (Node::List(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => (Node::Map(self.entries(depth)?), anchor),
            Event::Alias(id) => {
                let Some(known) = self.anchors.get(&id) else {
                    return Err(malformed(line, "an alias to a node that contains it"));
                };
                let known = known.clone();
                self.spend(count(&known), line)?;
                return Ok(known);
            }
            _ => return Err(malformed(line, "syntax error")),
        };
        if anchor != 0 {
            self.spend(count(&node), line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, Node)>, SecretsError> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, _, anchor, _) => {
                    if anchor != 0 {
                        self.anchors.insert(anchor, Node::Leaf(Scalar::text(&text)));
                    }
                    text.into_owned()
                }
                _ => return Err(malformed(line, "a key is not a plain value")),
            };
            if !seen.insert(key.clone()) {
                return Err(malformed(line, "a key appears twice"));
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, &span, depth + 1)?));
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match node {
        Node::Map(entries) => entries.iter().map(|(_, node)| count(node)).sum(),
        Node::List(items) => items.iter().map(count).sum(),
        Node::Leaf(_) => 0usize,
    }
}

/// Types one scalar; `None` where an explicit tag does not fit.
fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Option<Scalar> {
    let Some(tag) = tag else {
        return Some(if plain { resolve(text) } else { Scalar::text(text) });
    };
    let kind = tag.suffix_in_namespace("tag:yaml.org,2002:");
    match (kind.as_deref(), resolve(text)) {
        (Some("binary"), _) => {
            let packed: String = text.split_ascii_whitespace().collect();
            Some(Scalar::Text(Zeroizing::new(STANDARD.decode(packed).ok()?)))
        }
        (Some("float"), Scalar::Int(number)) => Some(Scalar::Float(number as f64)),
        (Some("float"), leaf @ Scalar::Float(_))
        | (Some("int"), leaf @ Scalar::Int(_))
        | (Some("bool"), leaf @ Scalar::Bool(_))
        | (Some("null"), leaf @ Scalar::Null)
        | (Some("timestamp"), leaf @ Scalar::Time(_)) => Some(leaf),
        (Some("float" | "int" | "bool" | "null" | "timestamp"), _) => None,
        _ => Some(Scalar::text(text)),
    }
}

/// go-yaml's `resolve` for a plain scalar without a tag.
fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            if let Some(time) = timestamp(text) {
                return Scalar::Time(Zeroizing::new(time));
            }
            let packed = text.replace('_', "");
            integer(&packed).map(Scalar::Int).or_else(|| float(&packed))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::text(text))
}

/// Go's `ParseInt(s, 0, 64)`, unsigned values included: `0x`, `0o`, `0b` and a leading 0 count.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match prefix.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let number = if negative { -number } else { number };
    // ParseUint, the second attempt, takes no sign.
    let unsigned = !negative && !text.starts_with('+');
    (i64::try_from(number).is_ok() || unsigned).then_some(number)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    let exponent_fits =
        exponent.is_none_or(|text| digits(text.strip_prefix(['-', '+']).unwrap_or(text)));
    // Go reports a number out of range as an error, and the scalar stays text.
    let number: f64 = (mantissa_fits && exponent_fits).then(|| text.parse().ok()).flatten()?;
    number.is_finite().then_some(Scalar::Float(number))
}

/// The time formats of go-yaml, as RFC 3339 with what SOPS hashes; `None` for anything else.
fn timestamp(text: &str) -> Option<String> {
    let mut rest = text;
    let mut take = |lengths: &[usize], end: &str| -> Option<(u32, char)> {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !lengths.contains(&length) {
            return None;
        }
        let number = rest[..length].parse().ok()?;
        let mark = rest[length..].chars().next().unwrap_or('\0');
        if !end.contains(mark) {
            return None;
        }
        rest = &rest[(length + mark.len_utf8()).min(rest.len())..];
        Some((number, mark))
    };
    let (year, _) = take(&[4], "-")?;
    let (month, _) = take(&[1, 2], "-")?;
    let (day, mark) = take(&[1, 2], "Tt \0")?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if mark == '\0' {
        return Some(format!("{date}T00:00:00Z"));
    }
    let (hour, _) = take(&[1, 2], ":")?;
    let (minute, _) = take(&[1, 2], ":")?;
    let (second, next) = take(&[1, 2], ".Z+-\0")?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let behind = text.len() - rest.len() - usize::from(next != '\0');
    let mut tail = &text[behind..];
    let mut fraction = String::new();
    if let Some(digits) = tail.strip_prefix('.') {
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        let kept = digits[..length.min(9)].trim_end_matches('0');
        if !kept.is_empty() {
            fraction = format!(".{kept}");
        }
        tail = &digits[length..];
    }
    let zone = match (mark, tail) {
        (' ', "") | ('T' | 't', "Z") => "Z".to_owned(),
        ('T' | 't', zone) if is_offset(zone) => match &zone[1..] {
            "00:00" => "Z".to_owned(),
            _ => zone.to_owned(),
        },
        _ => return None,
    };
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"))
}

/// `+01:00`
fn is_offset(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 6
        && matches!(bytes[0], b'+' | b'-')
        && bytes[3] == b':'
        && [1, 2, 4, 5].iter().all(|at| bytes[*at].is_ascii_digit())
}

/// Writes documents in block style, every string quoted.
pub(super) fn write(documents: &[Node], out: &mut Zeroizing<Vec<u8>>) {
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"---\n");
        }
        match document {
            Node::Map(entries) if entries.is_empty() => out.extend_from_slice(b"{}\n"),
            _ => write_block(document, 0, out),
        }
    }
}

fn write_block(node: &Node, indent: usize, out: &mut Vec<u8>) {
    match node {
        Node::Map(entries) => {
            for (key, value) in entries {
                out.resize(out.len() + indent, b' ');
                match value {
                    // SOPS writes merge keys back as such, and kustomize merges them.
                    Node::Map(_) | Node::List(_) if key == "<<" => out.extend_from_slice(b"<<"),
                    _ => write_key(key, out),
                }
                out.push(b':');
                write_value(value, indent, out);
            }
        }
        Node::List(items) => {
            for item in items {
                out.resize(out.len() + indent, b' ');
                out.push(b'-');
                write_value(item, indent, out);
            }
        }
        Node::Leaf(_) => {}
    }
}

/// What follows `key:` or `-`, up to the end of the line or of the block.
fn write_value(value: &Node, indent: usize, out: &mut Vec<u8>) {
    match value {
        Node::Map(entries) if entries.is_empty() => out.extend_from_slice(b" {}\n"),
        Node::List(items) if items.is_empty() => out.extend_from_slice(b" []\n"),
        Node::Leaf(leaf) => {
            out.push(b' ');
            write_leaf(leaf, out);
            out.push(b'\n');
        }
        block => {
            out.push(b'\n');
            write_block(block, indent + 2, out);
        }
    }
}

fn write_key(key: &str, out: &mut Vec<u8>) {
    let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    // `n: 1` is a boolean key to readers of YAML 1.1, and so are yes, no, on and off.
    if first && key.len() > 3 && key.bytes().all(rest) && matches!(resolve(key), Scalar::Text(_)) {
        out.extend_from_slice(key.as_bytes());
    } else {
        quote(key, out);
    }
}

fn write_leaf(leaf: &Scalar, out: &mut Vec<u8>) {
    match leaf {
        Scalar::Null => out.extend_from_slice(b"null"),
        Scalar::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Scalar::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => quote(text, out),
            Err(_) => {
                let packed = Zeroizing::new(STANDARD.encode(text.as_slice()));
                out.extend_from_slice(format!("!!binary \"{}\"", packed.as_str()).as_bytes());
            }
        },
        Scalar::Time(time) => quote(time, out),
        Scalar::Float(number) if number.is_nan() => out.extend_from_slice(b".nan"),
        number => match number.to_number() {
            Some(number) => out.extend_from_slice(number.as_bytes()),
            None if matches!(number, Scalar::Float(f) if *f < 0.0) => {
                out.extend_from_slice(b"-.inf");
            }
            None => out.extend_from_slice(b".inf"),
        },
    }
}
