//! Pure: INI as gopkg.in/ini.v1 reads and writes it, which is what SOPS uses.
//!
//! Sections in file order, `DEFAULT` always first; keys end at `=` or `:`; `#` and `;` open
//! comments, also behind a value; values may stand in quotes, back-quotes or triple quotes, the
//! latter two over several lines; a backslash at the end of a line joins the next one.

use super::{Format, Node, Scalar};
use crate::secrets::SecretsError;
use std::str::Lines;
use zeroize::Zeroizing;

type Entries = Vec<(String, Node)>;

/// Reads sections of keys.
pub(super) fn read(bytes: &[u8]) -> Result<Node, SecretsError> {
    let malformed = |line: usize, problem: &str| SecretsError::Malformed {
        format: Format::Ini,
        line,
        problem: problem.to_owned(),
    };
    let text = std::str::from_utf8(bytes).map_err(|_| malformed(0, "not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let total = text.lines().count();
    let mut lines = text.lines();
    let mut sections: Vec<(String, Entries)> = vec![("DEFAULT".to_owned(), Vec::new())];
    while let Some(line) = lines.next() {
        let at = total - lines.clone().count();
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let end = rest.rfind(']').ok_or_else(|| malformed(at, "unclosed section"))?;
            sections.push((rest[..end].to_owned(), Vec::new()));
            continue;
        }
        let (key, rest) = key(line).ok_or_else(|| malformed(at, "no key in front of a value"))?;
        let value = value(rest, &mut lines).ok_or_else(|| malformed(at, "unclosed quote"))?;
        let leaf = Node::Leaf(Scalar::Text(value));
        // `sections` starts with one entry and only grows.
        let section = &mut sections.last_mut().expect("there is a section").1;
        match section.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = leaf,
            None => section.push((key.to_owned(), leaf)),
        }
    }
    Ok(Node::Map(sections.into_iter().map(|(name, keys)| (name, Node::Map(keys))).collect()))
}

/// The key of a line and what follows its delimiter.
fn key(line: &str) -> Option<(&str, &str)> {
    for quote in ["\"\"\"", "\"", "`"] {
        if let Some(rest) = line.strip_prefix(quote) {
            let (key, rest) = rest.split_once(quote)?;
            let at = rest.find(['=', ':'])?;
            return Some((key.trim(), &rest[at + 1..]));
        }
    }
    let at = line.find(['=', ':']).filter(|at| *at > 0)?;
    Some((line[..at].trim(), &line[at + 1..]))
}

/// The value of a line, with further lines where it goes on; `None` where a quote stays open.
fn value(line: &str, lines: &mut Lines<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let done = |text: &str| Some(Zeroizing::new(text.as_bytes().to_vec()));
    let line = line.trim_start();
    for quote in ["\"\"\"", "`"] {
        let Some(rest) = line.strip_prefix(quote) else { continue };
        if let Some(end) = rest.rfind(quote) {
            return done(&rest[..end]);
        }
        let mut whole = Zeroizing::new(format!("{rest}\n"));
        for next in lines.by_ref() {
            if let Some(end) = next.rfind(quote) {
                whole.push_str(&next[..end]);
                return done(&whole);
            }
            whole.push_str(next);
            whole.push('\n');
        }
        return None;
    }
    let mut line = line.trim_end();
    if let Some(start) = line.strip_suffix('\\') {
        let mut whole = Zeroizing::new(start.to_owned());
        for next in lines.by_ref() {
            let next = next.trim();
            whole.push_str(next.strip_suffix('\\').unwrap_or(next));
            if !next.ends_with('\\') {
                break;
            }
        }
        return done(&whole);
    }
    if let Some(at) = line.find(['#', ';']) {
        line = line[..at].trim_end();
    }
    for quote in ['\'', '"'] {
        let inner = line.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(quote)) {
            return done(inner);
        }
    }
    done(line)
}

/// Writes sections with their keys aligned and a blank line between sections.
pub(super) fn write(document: &Node, out: &mut Zeroizing<Vec<u8>>) -> Result<(), SecretsError> {
    let unwritable = |path: &str, problem| SecretsError::Unwritable {
        format: Format::Ini,
        path: path.to_owned(),
        problem,
    };
    let Node::Map(sections) = document else { return Ok(()) };
    for (index, (name, section)) in sections.iter().enumerate() {
        let Node::Map(keys) = section else { return Err(unwritable(name, "is not a section")) };
        let first = index == 0 && name.eq_ignore_ascii_case("DEFAULT");
        if first && keys.is_empty() {
            continue;
        }
        if !first {
            out.extend_from_slice(format!("[{name}]\n").as_bytes());
        }
        let written: Vec<String> = keys.iter().map(|(key, _)| written_key(key)).collect();
        let width = written.iter().map(String::len).max().unwrap_or(0);
        for (written, (key, node)) in written.iter().zip(keys) {
            let Node::Leaf(leaf) = node else {
                return Err(unwritable(&format!("{name}.{key}"), "is not a single value"));
            };
            out.extend_from_slice(format!("{written:width$} = ").as_bytes());
            write_value(&leaf.to_flat(), out);
            out.push(b'\n');
        }
        if index + 1 < sections.len() {
            out.push(b'\n');
        }
    }
    Ok(())
}

fn written_key(key: &str) -> String {
    if key.contains(['"', '=', ':']) {
        format!("`{key}`")
    } else if key.contains('`') {
        format!("\"\"\"{key}\"\"\"")
    } else {
        key.to_owned()
    }
}

fn write_value(value: &[u8], out: &mut Vec<u8>) {
    let has = |set: &[u8]| value.iter().any(|byte| set.contains(byte));
    let quote: &[u8] = if has(b"\n`") {
        b"\"\"\""
    } else if has(b"#;") {
        b"`"
    } else if value.trim_ascii().len() != value.len() {
        b"\""
    } else {
        b""
    };
    out.extend_from_slice(quote);
    out.extend_from_slice(value);
    out.extend_from_slice(quote);
}
