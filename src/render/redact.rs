//! Pure: masks secret values in any text that leaves a run.
//!
//! A [`Redactor`] collects every opened or substituted value with the forms in which it may show:
//! as it is, line by line, escaped for JSON and YAML, in base64 of its own and inside a longer
//! base64 text. [`Redactor::mask`] then replaces whatever it finds by `***`. Values below six
//! characters are not searched for, since they would mask ordinary words; whoever prints an
//! object masks them by their path.

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
        // The line break at the end of a file is no part of the secret.
        let value = if std::str::from_utf8(value).is_ok() { value.trim_ascii() } else { value };
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
        for (at, window) in text.as_bytes().windows(SHORTEST).enumerate() {
            let candidates =
                <[u8; SHORTEST]>::try_from(window).ok().and_then(|key| index.get(&key));
            let found = candidates.into_iter().flatten().find_map(|form| {
                let form = self.forms[*form].as_bytes();
                text.as_bytes()[at..].starts_with(form).then_some(form.len())
            });
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

/// The text as it is, in JSON, in JSON as Go writes it, and in YAML's single quotes. YAML's
/// double quotes are those of JSON.
fn written(text: &str, forms: &mut BTreeSet<String>) {
    let json = serde_json::Value::from(text).to_string();
    let json = &json[1..json.len() - 1];
    forms.insert(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
    forms.insert(json.to_owned());
    forms.insert(text.replace('\'', "''"));
    forms.insert(text.to_owned());
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
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn redactor(values: &[&str]) -> Redactor {
        let mut redactor = Redactor::default();
        values.iter().for_each(|value| redactor.add(value.as_bytes()));
        redactor
    }

    #[test]
    fn every_form_of_a_value_is_masked() {
        let value = "p\"w<1>'\n\u{1}x-y";
        let mut json = serde_json::json!({ "k": value }).to_string();
        assert_eq!(redactor(&[value]).mask(&json), r#"{"k":"***"}"#);
        json = json.replace('<', "\\u003c").replace('>', "\\u003e");
        assert_eq!(redactor(&[value]).mask(&json), r#"{"k":"***"}"#);
        // value, text, masked
        for (value, text, masked) in [
            ("hunter2", "a hunter2 b Hunter2", "a *** b Hunter2"),
            ("hunter2\n", "pw=hunter2;", "pw=***;"),
            ("hunter2", "aHVudGVyMg== aHVudGVyMg", "*** ***"),
            ("hunter2", "cGFzczpodW50ZXIyCg==", "cGFzczp***Cg=="),
            ("??>>??>>", "Pz8-Pj8_Pj4= Pz8+Pj8/Pj4=", "*** ***"),
            ("it's me", "k: 'it''s me'", "k: '***'"),
            ("one line\ntwo lines\nabc\n", "x two lines abc", "x *** abc"),
            ("one line\ntwo lines", "v: one linetwo lines", "v: ***"),
            ("ümläut", "an ümläut here", "an *** here"),
            ("short", "a short text", "a short text"),
            ("      ", "a:      b", "a:      b"),
        ] {
            assert_eq!(redactor(&[value]).mask(text), masked, "{value:?} in {text:?}");
        }
    }

    #[test]
    fn values_that_overlap_touch_or_contain_each_other_are_masked_whole() {
        let many = redactor(&["abcdef", "defghi", "abcdefgh", "**tail--"]);
        assert_eq!(many.mask("abcdefghi abcdef,abcdefdefghi"), "*** ***,***");
        assert_eq!(many.mask("abcdeftail--"), "****", "the mask completes no value");
        assert_eq!(format!("{many:?}"), "Redactor(4 values)");
    }

    #[test]
    fn bytes_that_are_no_text_are_masked_in_base64() {
        let key = [0xff, 0, 1, 2, 0xfe, 0x80, 7, 8, 9];
        let mut redactor = Redactor::default();
        redactor.add(&key);
        assert_eq!(redactor.mask(&format!("data: {}", STANDARD.encode(key))), "data: ***");
    }

    #[test]
    fn a_large_value_is_masked_whole_and_merge_takes_all() {
        let large: String = (0..20_000).map(|i| format!("{i}é")).collect();
        let mut merged = redactor(&["hunter2"]);
        merged.mask("the index exists before more values come");
        merged.merge(&redactor(&[&large]));
        assert_eq!(merged.mask(&format!("<{large}> hunter2")), "<***> ***");
        let encoded = merged.mask(&STANDARD.encode(&large));
        assert!(encoded.len() < 10 * (large.len() / PIECE), "only seams are left: {encoded}");
    }

    #[test]
    fn a_thousand_values_cost_no_more_than_the_text_is_long() {
        let values: Vec<String> =
            (0..1_000).map(|i| format!("postgres://user{i}:pw{i}@db")).collect();
        let redactor = redactor(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let text = values.join(" and some more text between the values ");
        assert!(!redactor.mask(&text.repeat(20)).contains("postgres"));
    }

    proptest! {
        #[test]
        fn no_value_survives_in_any_text(
            values in prop::collection::vec("[a-c*\\n\"'<=é🦀 ]{0,3}[!-~é]{6}[a-c*\\n ]{0,3}", 1..4),
            before in "[a-c*A-Z =]{0,8}",
            after in "[a-c*A-Z =]{0,8}",
            bytes in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let redactor = redactor(&values.iter().map(String::as_str).collect::<Vec<_>>());
            let mut text = before.clone();
            for value in &values {
                let inside = [&bytes, value.as_bytes(), &bytes].concat();
                for form in [
                    value.clone(),
                    STANDARD.encode(value),
                    URL_SAFE_NO_PAD.encode(value),
                    STANDARD_NO_PAD.encode(&inside),
                ] {
                    let alone = [before.as_str(), &form, &after].concat();
                    prop_assert!(redactor.mask(&alone).contains(MASK));
                    text.push_str(&form);
                    text.push_str(&after);
                }
            }
            let masked = redactor.mask(&text);
            for value in &values {
                prop_assert!(!masked.contains(value), "{value:?} in {masked:?}");
                for form in [STANDARD_NO_PAD.encode(value), URL_SAFE_NO_PAD.encode(value)] {
                    prop_assert!(!masked.contains(&form), "{form:?} in {masked:?}");
                }
            }
        }
    }
}
