//! Pure: the five file formats of SOPS, read into one ordered tree and written again.
//!
//! YAML, JSON, dotenv and INI are read with SOPS's own rules for scalars, since the MAC covers what
//! SOPS saw and not what Kubernetes will see; binary is JSON with one `data` key. Order is kept, as
//! the MAC depends on it. Comments are lost: SOPS leaves them out of the MAC, and nobody reads the
//! opened text but the renderer.
//!
//! Text that is written is always quoted, so that an opened `"yes"` or `"0644"` stays a string for
//! every reader. Strings of the tree and the written text are wiped when dropped.

mod dotenv;
mod flat;
mod ini;
mod json;
mod yaml;

use super::{Plaintext, SecretsError};
use std::fmt;
use zeroize::Zeroizing;

/// Largest file that is looked at, in bytes: Flux's own limit, 5 MiB.
pub const MAX_SEALED: usize = 5 * 1024 * 1024;

/// Deepest nesting of a document. Kubernetes objects stay below 30 and serde_json stops at 128.
const MAX_DEPTH: usize = 100;

/// The format of a sealed file, and of the text that it opens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `.yaml`, `.yml`; several documents to a file.
    Yaml,
    /// `.json`, and names that end in `dockerconfigjson`.
    Json,
    /// `.env`.
    Dotenv,
    /// `.ini`.
    Ini,
    /// Everything else: a JSON envelope around bytes.
    Binary,
}

impl Format {
    /// The format that a file name (or the key of a Secret) stands for, as in Flux.
    pub fn by_name(file_name: &str) -> Format {
        let extension = file_name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "yaml" | "yml" => Format::Yaml,
            "json" => Format::Json,
            "env" => Format::Dotenv,
            "ini" => Format::Ini,
            _ if file_name.ends_with("dockerconfigjson") => Format::Json,
            _ => Format::Binary,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Yaml => "YAML",
            Format::Json => "JSON",
            Format::Dotenv => "dotenv",
            Format::Ini => "INI",
            Format::Binary => "binary",
        })
    }
}

/// True where the bytes carry the marker of a sealed file of this format, as Flux looks for it.
///
/// A search for a few bytes and no more: what it finds may still turn out not to be sealed.
/// Beyond Flux, JSON without blanks after the colon is found too.
pub fn is_sealed(bytes: &[u8], format: Format) -> bool {
    let markers: &[&[u8]] = match format {
        Format::Yaml => &[b"mac: ENC["],
        Format::Json | Format::Binary => &[b"\"mac\": \"ENC[", b"\"mac\":\"ENC["],
        Format::Dotenv => &[b"sops_mac=ENC["],
        Format::Ini => &[b"[sops]"],
    };
    markers.iter().any(|marker| bytes.windows(marker.len()).any(|window| window == *marker))
}

/// The format whose marker the bytes carry; for `Secret.data`, where a key's name tells only what
/// the opened text is to be, as in Flux. Binary is told as JSON: they read the same.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    // INI last: its marker is short enough to stand in another format's text.
    [Format::Json, Format::Dotenv, Format::Yaml, Format::Ini]
        .into_iter()
        .find(|format| is_sealed(bytes, *format))
}

/// One node of a document, in document order.
#[derive(Clone)]
pub(super) enum Node {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Leaf(Scalar),
}

/// A leaf with the type that SOPS gives it.
#[derive(Clone)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// Usually UTF-8; a binary file is one such leaf.
    Text(Zeroizing<Vec<u8>>),
    /// RFC 3339; kept apart only because its seal says so.
    Time(Zeroizing<String>),
}

impl Scalar {
    pub(super) fn text(text: &str) -> Scalar {
        Scalar::Text(Zeroizing::new(text.as_bytes().to_vec()))
    }

    /// The bytes that SOPS hashes and seals for this leaf; nothing for null.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Scalar::Null => Vec::new(),
            Scalar::Bool(true) => b"True".to_vec(),
            Scalar::Bool(false) => b"False".to_vec(),
            Scalar::Int(number) => number.to_string().into_bytes(),
            Scalar::Float(number) => go_float(*number).into_bytes(),
            Scalar::Text(text) => return text.clone(),
            Scalar::Time(time) => time.as_bytes().to_vec(),
        })
    }

    /// As it stands in a format that knows text only (dotenv, INI).
    fn to_flat(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Scalar::Null => Zeroizing::new(b"null".to_vec()),
            Scalar::Bool(truth) => Zeroizing::new(truth.to_string().into_bytes()),
            Scalar::Float(number) => Zeroizing::new(format!("{number:?}").into_bytes()),
            other => other.to_bytes(),
        }
    }

    /// A number as YAML and JSON both read it; floats of whole value as integers, like Go.
    fn to_number(&self) -> Option<String> {
        match self {
            Scalar::Int(number) => Some(number.to_string()),
            Scalar::Float(number) if !number.is_finite() => None,
            Scalar::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Some(format!("{number:.0}"))
            }
            Scalar::Float(number) => Some(format!("{number:?}")),
            _ => None,
        }
    }
}

/// Go's `FormatFloat(f, 'f', -1, 64)`: the shortest decimal without an exponent.
fn go_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => format!("{number}"),
    }
}

/// A sealed file as read: its documents without `sops`, and the metadata.
pub(super) struct Sealed {
    pub(super) documents: Vec<Node>,
    pub(super) metadata: serde_json::Value,
}

/// Reads sealed text and takes the metadata out of it.
pub(super) fn read(bytes: &[u8], format: Format) -> Result<Sealed, SecretsError> {
    let mut documents = match format {
        Format::Yaml => yaml::read(bytes)?,
        Format::Json | Format::Binary => vec![json::read(bytes, format)?],
        Format::Dotenv => vec![dotenv::read(bytes)?],
        Format::Ini => vec![ini::read(bytes)?],
    };
    let metadata = take_metadata(&mut documents, format)?;
    Ok(Sealed { documents, metadata })
}

/// Every document carries `sops`; the first one's counts, as in SOPS.
fn take_metadata(
    documents: &mut [Node],
    format: Format,
) -> Result<serde_json::Value, SecretsError> {
    let missing = SecretsError::NoMetadata { format };
    if format == Format::Dotenv {
        let Some(Node::Map(entries)) = documents.first_mut() else { return Err(missing) };
        let mut taken = Vec::new();
        entries.retain_mut(|(key, node)| match key.strip_prefix("sops_") {
            Some(rest) => {
                taken.push((rest.to_owned(), std::mem::replace(node, Node::Leaf(Scalar::Null))));
                false
            }
            None => true,
        });
        return if taken.is_empty() { Err(missing) } else { flat::unflatten(&taken) };
    }
    let mut found = None;
    for (index, document) in documents.iter_mut().enumerate() {
        let Node::Map(entries) = document else { continue };
        if let Some(at) = entries.iter().position(|(key, _)| key == "sops") {
            let (_, node) = entries.remove(at);
            if index == 0 {
                found = Some(node);
            }
        }
    }
    match found.ok_or(missing)? {
        Node::Map(entries) if format == Format::Ini => flat::unflatten(&entries),
        node @ Node::Map(_) => Ok(json::to_value(&node)),
        _ => Err(flat::bad("sops", "is not a mapping")),
    }
}

/// The tree of an object that is JSON already, and the way back.
pub(super) fn from_value(value: &serde_json::Value) -> Node {
    json::from_value(value)
}

/// A tree as JSON. Bytes that are not UTF-8 lose what is not.
pub(super) fn to_value(node: &Node) -> serde_json::Value {
    json::to_value(node)
}

/// Writes opened documents; `capacity` is the length of the sealed text, which bounds the opened
/// one in nearly every case, so that the buffer does not move and leave copies behind.
pub(super) fn write(
    documents: &[Node],
    format: Format,
    capacity: usize,
) -> Result<Plaintext, SecretsError> {
    let mut out = Zeroizing::new(Vec::with_capacity(capacity + 1024));
    if format == Format::Yaml {
        yaml::write(documents, &mut out);
        return Ok(out.into());
    }
    let unwritable =
        |path: &str, problem| SecretsError::Unwritable { format, path: path.to_owned(), problem };
    let [document] = documents else {
        return Err(unwritable("the file", "has several documents"));
    };
    match format {
        Format::Json => json::write(document, &mut out)?,
        Format::Dotenv => dotenv::write(document, &mut out)?,
        Format::Ini => ini::write(document, &mut out)?,
        _ => match document {
            Node::Map(entries) => match entries.iter().find(|(key, _)| key == "data") {
                Some((_, Node::Leaf(Scalar::Text(text)))) => out.extend_from_slice(text),
                _ => return Err(unwritable("data", "is not there as text")),
            },
            _ => return Err(unwritable("data", "is not there as text")),
        },
    }
    Ok(out.into())
}

/// Writes a double-quoted string that both YAML and JSON read back: all that YAML counts as
/// unprintable is escaped, not only what JSON asks for.
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
