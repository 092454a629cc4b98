//! Pure: the bytes of a scalar with a new value, written as the old one was.

use super::scan::Value;
use granit_parser::ScalarStyle;
use std::ops::Range;

/// New bytes for a range of the file.
pub(super) struct Replacement {
    /// What is replaced.
    pub range: Range<usize>,
    /// What stands there now.
    pub bytes: String,
    /// The value that YAML then reads.
    pub value: String,
}

/// The new bytes: quotes stay, a plain scalar gets quotes if it would not be text without them.
pub(super) fn replace(text: &str, value: &Value, new: &str) -> Result<Replacement, String> {
    let range = value.range.clone();
    let whole = |bytes| Replacement { range: range.clone(), bytes, value: new.to_owned() };
    match value.style {
        ScalarStyle::Plain if plain(new) => Ok(whole(new.to_owned())),
        ScalarStyle::Plain | ScalarStyle::DoubleQuoted => Ok(whole(double_quoted(new))),
        ScalarStyle::SingleQuoted => Ok(whole(format!("'{}'", new.replace('\'', "''")))),
        ScalarStyle::Literal | ScalarStyle::Folded => {
            // The lines' text goes, their last line break and blank lines after it stay.
            let lines = text.get(range.clone()).unwrap_or_default();
            let content = lines.trim_end_matches(['\n', '\r', ' ', '\t']);
            if content.is_empty() || new.is_empty() {
                return Err("the marked block is empty; write the value on the line".to_owned());
            }
            let tail = value.text.trim_end_matches('\n').len();
            let value = format!("{new}{}", &value.text[tail..]);
            let range = range.start..range.start + content.len();
            Ok(Replacement { range, bytes: new.to_owned(), value })
        }
    }
}

/// Whether a text can stand without quotes and is then read as text.
fn plain(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-/@:+".contains(&b);
    let starts =
        text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b"_./".contains(&b));
    starts && text.bytes().all(safe) && !text.ends_with(':') && !non_string(text)
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether YAML 1.1 reads a plain text as something else than text: what Flux puts into quotes.
pub(super) fn non_string(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "yes", "on", "n", "no", "off", "true", "false", "null"];
    let lower = text.to_ascii_lowercase();
    // `yes`, `Yes` and `YES`, but not `yEs`.
    let cased = text == lower
        || text == text.to_ascii_uppercase()
        || (text.len() > 1
            && text[..1] == lower[..1].to_ascii_uppercase()
            && text[1..] == lower[1..]);
    if text == "~" || (cased && WORDS.contains(&lower.as_str())) {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if [".inf", ".Inf", ".INF"].contains(&unsigned) || [".nan", ".NaN", ".NAN"].contains(&text) {
        return true;
    }
    integer(text) || float(text)
}

/// Octal with `0o`, binary and hexadecimal, as Go's `ParseInt` reads them.
fn integer(text: &str) -> bool {
    let plain = without_underscores(text);
    let (sign, unsigned) = match plain.strip_prefix(['+', '-']) {
        Some(unsigned) => (true, unsigned),
        None => (false, plain.as_str()),
    };
    let lower = unsigned.to_ascii_lowercase();
    let radix = match lower.get(..2) {
        Some("0x") => 16,
        Some("0b") => 2,
        Some("0o") => 8,
        _ => return false,
    };
    let magnitude = u64::from_str_radix(lower[2..].trim_start_matches('+'), radix);
    !lower[2..].starts_with('+') && magnitude.is_ok_and(|m| !sign || m <= 1 << 63)
}

/// Decimals with fraction and exponent, as long as a 64-bit float holds them.
fn float(text: &str) -> bool {
    let plain = without_underscores(text);
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let starts = unsigned.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.');
    starts && plain.parse::<f64>().is_ok_and(f64::is_finite)
}

/// YAML 1.1 lets `_` stand anywhere in a number but at its start.
fn without_underscores(text: &str) -> String {
    if text.starts_with('_') { text.to_owned() } else { text.replace('_', "") }
}
