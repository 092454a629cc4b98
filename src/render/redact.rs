//! Pure: masks secret values in any text that leaves a run.
//!
//! A [`Redactor`] collects every opened or substituted value with the forms in which it may show:
//! as it is, line by line, escaped for JSON (once, and once more inside a JSON text), as Go and
//! Rust quote it and for YAML, in base64 of its own and inside a longer base64 text.
//! [`Redactor::mask`] then replaces whatever it finds by `***`. A form that was cut short is found
//! where `…` says so. Values below six characters are not searched for, since they would mask
//! ordinary words; whoever prints an object masks them by their path.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Shortest text searched for, in characters; also the length in bytes of the index's keys.
const SHORTEST: usize = 6;
/// A longer value is searched for in pieces, so that one large file costs no large copies.
const PIECE: usize = 1024;
/// Passes over one text. A second one is needed only where `***` completes a value that has
/// stars itself; a text that still matches after eight is given up as a whole.
const PASSES: usize = 8;
/// What stands in place of the rest of a text that was cut short.
const CUT: &str = "…";
/// What stands in place of a value.
const MASK: &str = "***";

/// Secret values to be masked. `Debug` prints their number only; they are wiped on drop.
#[derive(Clone, Default)]
pub struct Redactor {
    values: usize,
    forms: Vec<Zeroizing<String>>,
    index: OnceLock<Index>,
}

/// Forms by their first bytes, longest first.
type Index = HashMap<[u8; SHORTEST], Vec<usize>>;

impl Redactor {
    /// Registers a value and its forms.
    pub fn add(&mut self, value: &[u8]) {
        // White space around it, such as the line break at the end of a file, is no part of the
        // secret.
        let value = std::str::from_utf8(value).map_or(value, |text| text.trim().as_bytes());
        let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
        if text.chars().count() < SHORTEST {
            return;
        }
        self.values += 1;
        self.index.take();
        let mut forms = BTreeSet::new();
        if value.len() <= 4 * PIECE {
            written(&text, &mut forms);
            encoded(value, &mut forms);
        } else {
            for piece in pieces(&text) {
                written(piece, &mut forms);
            }
            for piece in value.chunks(PIECE) {
                encoded(piece, &mut forms);
            }
        }
        if text.contains('\n') {
            for line in text.lines() {
                pieces(line.trim()).for_each(|piece| written(piece, &mut forms));
            }
            // Substitution deletes line breaks from values.
            pieces(&text.replace('\n', "")).for_each(|piece| written(piece, &mut forms));
        }
        forms.retain(|form| form.chars().count() >= SHORTEST);
        self.forms.extend(forms.into_iter().map(Zeroizing::new));
    }

    /// Takes over the values of another redactor.
    pub fn merge(&mut self, other: &Redactor) {
        self.values += other.values;
        self.forms.extend(other.forms.iter().cloned());
        self.index.take();
    }

    /// The text with every form of every value replaced by `***`; forms that overlap or touch are
    /// replaced as one.
    pub fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        if self.forms.is_empty() {
            return masked;
        }
        for _ in 0..PASSES {
            match self.pass(&masked) {
                Some(changed) => masked = changed,
                None => return masked,
            }
        }
        MASK.to_owned()
    }

    /// One pass: the work is the length of the text, times the forms that share six bytes.
    fn pass(&self, text: &str) -> Option<String> {
        let index = self.index.get_or_init(|| index(&self.forms));
        let mut masked = String::new();
        let (mut kept, mut covered) = (0, 0);
        let mut cuts = text.match_indices(CUT).map(|(at, _)| at).peekable();
        for (at, window) in text.as_bytes().windows(SHORTEST).enumerate() {
            while cuts.next_if(|cut| *cut < at).is_some() {}
            let candidates =
                <[u8; SHORTEST]>::try_from(window).ok().and_then(|key| index.get(&key));
            let rest = &text.as_bytes()[at..];
            let left = cuts.peek().map_or(0, |cut| cut - at);
            let found = candidates.into_iter().flatten().filter_map(|form| {
                let form = self.forms[*form].as_bytes();
                let whole = rest.starts_with(form).then_some(form.len());
                let cut = left >= SHORTEST && form.starts_with(&rest[..left]);
                whole.or(cut.then_some(left))
            });
            let found = found.max();
            let Some(length) = found else { continue };
            if at > covered || covered == 0 {
                masked.push_str(&text[kept..at]);
                masked.push_str(MASK);
            }
            covered = covered.max(at + length);
            kept = covered;
        }
        (covered > 0).then(|| masked + &text[kept..])
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values)
    }
}

fn index(forms: &[Zeroizing<String>]) -> Index {
    let mut index = Index::new();
    for (at, form) in forms.iter().enumerate() {
        if let Some(key) = form.as_bytes().first_chunk::<SHORTEST>() {
            index.entry(*key).or_default().push(at);
        }
    }
    for same in index.values_mut() {
        same.sort_by(|one, other| {
            (forms[*other].len(), &*forms[*other]).cmp(&(forms[*one].len(), &*forms[*one]))
        });
        same.dedup_by(|one, other| forms[*one] == forms[*other]);
    }
    index
}

/// The text in pieces of at most [`PIECE`] bytes or so, cut between characters. The last two are
/// one when the last would be too short to be searched for.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = if rest.len() < PIECE + 4 * SHORTEST { rest.len() } else { PIECE };
        let at = (at..=rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(at);
        rest = after;
        Some(piece)
    })
}

/// The text as it is, in JSON, in YAML's single quotes, and as Go and Rust quote it. YAML's double
/// quotes are those of JSON.
fn written(text: &str, forms: &mut BTreeSet<String>) {
    for json in json(text) {
        // A text that is JSON itself, such as kubectl's copy of an object in an annotation.
        forms.insert(inside(&json));
        forms.insert(json);
    }
    forms.insert(text.replace('\'', "''"));
    forms.insert(quoted(text));
    forms.insert(
        text.chars()
            .flat_map(|char| match char {
                // Only a character is debugged with it escaped.
                '\'' => '\''.to_string().chars().collect::<Vec<_>>(),
                char => char.escape_debug().collect(),
            })
            .collect(),
    );
    forms.insert(text.to_owned());
}

/// Between the quotes of a JSON string.
fn inside(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

/// The same as serde_json writes it, and as Go does, before its version 1.22 and since.
fn json(text: &str) -> [String; 3] {
    let plain = inside(text);
    let mut go = String::with_capacity(plain.len());
    for char in plain.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                go.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            char => go.push(char),
        }
    }
    // A backslash that is one itself is written twice and stands before no letter of its own.
    let old = go.replace("\\\\", "\0").replace("\\b", "\\u0008").replace("\\f", "\\u000c");
    [plain, old.replace('\0', "\\\\"), go]
}

/// Between the quotes of Go's `%q`, which the API server puts around a value that it refuses.
fn quoted(text: &str) -> String {
    let mut go = String::with_capacity(text.len());
    for char in text.chars() {
        match (char, u32::from(char)) {
            ('"' | '\\', _) => go.extend(['\\', char]),
            ('\n', _) => go.push_str("\\n"),
            ('\r', _) => go.push_str("\\r"),
            ('\t', _) => go.push_str("\\t"),
            (_, 7) => go.push_str("\\a"),
            (_, 8) => go.push_str("\\b"),
            (_, 11) => go.push_str("\\v"),
            (_, 12) => go.push_str("\\f"),
            (_, code) if code < 0x20 || code == 0x7f => go.push_str(&format!("\\x{code:02x}")),
            (_, code @ 0x80..) if blank(char) && code < 0x1_0000 => {
                go.push_str(&format!("\\u{code:04x}"));
            }
            (_, code @ 0x80..) if blank(char) => go.push_str(&format!("\\U{code:08x}")),
            _ => go.push(char),
        }
    }
    go
}

/// What is no graphic character, as far as a text shows it.
fn blank(char: char) -> bool {
    char.is_control() || char.is_whitespace() || char.escape_debug().count() > 1
}

/// Base64 of the bytes alone, with and without padding, and what they are inside of a longer
/// base64 text, where they may begin at any of three alignments.
fn encoded(bytes: &[u8], forms: &mut BTreeSet<String>) {
    for engine in [STANDARD, URL_SAFE] {
        let whole = engine.encode(bytes);
        forms.insert(whole.trim_end_matches('=').to_owned());
        forms.insert(whole);
        // So many characters at the start hold bits of the bytes before.
        for (before, foreign) in [(0, 0), (1, 2), (2, 3)] {
            let shifted = Zeroizing::new([&[0; 2][..before], bytes].concat());
            let text = engine.encode(&*shifted);
            let text = text.trim_end_matches('=');
            // And the last one holds bits of those after, unless the bytes fill it.
            let end = text.len() - usize::from(shifted.len() % 3 != 0);
            forms.insert(text[foreign.min(end)..end].to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
