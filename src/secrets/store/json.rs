//! Pure: JSON in document order, numbers typed as SOPS types them.
//!
//! An integer that fits 64 bits signed is an int, any other number a float. A key that appears
//! twice in one object is refused: readers disagree on which one counts.

use super::{Format, Node, Scalar, quote};
use crate::secrets::SecretsError;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use zeroize::Zeroizing;

/// Reads one object.
pub(super) fn read(bytes: &[u8], format: Format) -> Result<Node, SecretsError> {
    let malformed = |line, problem: String| SecretsError::Malformed { format, line, problem };
    // serde_json's own words may quote the text: the line and the class of error must do.
    let node: Node = serde_json::from_slice(bytes).map_err(|error| {
        malformed(error.line(), format!("{:?} error", error.classify()).to_lowercase())
    })?;
    match node {
        Node::Map(_) => Ok(node),
        _ => Err(malformed(1, "the document is not an object".to_owned())),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Scalar::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(Scalar::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(Scalar::Int(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(match i64::try_from(value) {
            Ok(value) => Scalar::Int(value.into()),
            Err(_) => Scalar::Float(value as f64),
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(Scalar::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(Scalar::text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, value)) = access.next_entry::<String, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom("duplicate key"));
            }
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

pub(super) fn from_value(value: &Value) -> Node {
    match value {
        Value::Null => Node::Leaf(Scalar::Null),
        Value::Bool(truth) => Node::Leaf(Scalar::Bool(*truth)),
        Value::Number(number) => Node::Leaf(match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Scalar::Int(int.into()),
            (None, float) => Scalar::Float(float.unwrap_or_default()),
        }),
        Value::String(text) => Node::Leaf(Scalar::text(text)),
        Value::Array(items) => Node::List(items.iter().map(from_value).collect()),
        Value::Object(entries) => {
            Node::Map(entries.iter().map(|(key, value)| (key.clone(), from_value(value))).collect())
        }
    }
}

pub(super) fn to_value(node: &Node) -> Value {
    match node {
        Node::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.clone(), to_value(value))).collect(),
        ),
        Node::List(items) => Value::Array(items.iter().map(to_value).collect()),
        Node::Leaf(leaf) => match leaf {
            Scalar::Null => Value::Null,
            Scalar::Bool(truth) => Value::Bool(*truth),
            Scalar::Text(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
            Scalar::Time(time) => Value::String(time.as_str().to_owned()),
            number => number
                .to_number()
                .and_then(|text| text.parse().ok())
                .map_or(Value::Null, Value::Number),
        },
    }
}

/// Writes one document, indented by tabs as SOPS does.
pub(super) fn write(node: &Node, out: &mut Zeroizing<Vec<u8>>) -> Result<(), SecretsError> {
    let mut path = Vec::new();
    write_node(node, out, &mut path)?;
    out.push(b'\n');
    Ok(())
}

fn write_node<'a>(
    node: &'a Node,
    out: &mut Vec<u8>,
    path: &mut Vec<&'a str>,
) -> Result<(), SecretsError> {
    let depth = path.len() + 1;
    match node {
        Node::Map(entries) if entries.is_empty() => out.extend_from_slice(b"{}"),
        Node::List(items) if items.is_empty() => out.extend_from_slice(b"[]"),
        Node::Map(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push(if index == 0 { b'{' } else { b',' });
                line(depth, out);
                quote(key, out);
                out.extend_from_slice(b": ");
                path.push(key);
                write_node(value, out, path)?;
                path.pop();
            }
            line(depth - 1, out);
            out.push(b'}');
        }
        Node::List(items) => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                line(depth, out);
                path.push("[]");
                write_node(item, out, path)?;
                path.pop();
            }
            line(depth - 1, out);
            out.push(b']');
        }
        Node::Leaf(leaf) => write_leaf(leaf, out).map_err(|problem| SecretsError::Unwritable {
            format: Format::Json,
            path: path.join("."),
            problem,
        })?,
    }
    Ok(())
}

fn write_leaf(leaf: &Scalar, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match leaf {
        Scalar::Null => out.extend_from_slice(b"null"),
        Scalar::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Scalar::Text(text) => quote(std::str::from_utf8(text).map_err(|_| "is not UTF-8")?, out),
        Scalar::Time(time) => quote(time, out),
        number => {
            out.extend_from_slice(number.to_number().ok_or("is not a finite number")?.as_bytes())
        }
    }
    Ok(())
}

fn line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + depth, b'\t');
}
