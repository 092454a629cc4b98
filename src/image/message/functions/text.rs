//! Pure: sprig's functions of text, of paths and of defaults.

use super::{Arguments, go_quote, joined, made, printed, too_long};
use crate::image::message::exec::LONGEST;
use crate::image::message::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

pub(super) const NAMES: &[&str] = &[
    "lower",
    "upper",
    "title",
    "untitle",
    "trim",
    "trimAll",
    "trimall",
    "trimPrefix",
    "trimSuffix",
    "nospace",
    "trunc",
    "abbrev",
    "substr",
    "repeat",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "quote",
    "squote",
    "cat",
    "indent",
    "nindent",
    "replace",
    "plural",
    "toString",
    "b64enc",
    "b64dec",
    "sha256sum",
    "base",
    "dir",
    "ext",
    "clean",
    "isAbs",
    "default",
    "empty",
    "coalesce",
    "ternary",
    "fail",
];

pub(super) fn call(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    match name {
        "default" => {
            args.at_least(1)?;
            let given = args.0.get(1).filter(|given| given.truth());
            Ok(given.unwrap_or(&args.0[0]).clone())
        }
        "empty" => args.exactly(1).map(|()| Value::Bool(!args.0[0].truth())),
        "coalesce" => Ok(args.0.iter().find(|v| v.truth()).cloned().unwrap_or(Value::Nil)),
        "ternary" => {
            args.exactly(3)?;
            match &args.0[2] {
                Value::Bool(first) => Ok(args.0[usize::from(!first)].clone()),
                other => Err(format!("wrong type; expected bool; got {}", other.kind())),
            }
        }
        "quote" | "squote" | "cat" => {
            let texts = args.0.iter().filter(|v| !matches!(v, Value::Nil | Value::Missing));
            let texts = texts.map(|value| {
                printed(value).map(|text| match name {
                    "quote" => go_quote(&text),
                    "squote" => format!("'{text}'"),
                    _ => text,
                })
            });
            made(joined(texts, " ")?)
        }
        "toString" => {
            args.exactly(1)?;
            made(printed(&args.0[0])?)
        }
        "trunc" | "abbrev" | "repeat" | "indent" | "nindent" => {
            args.exactly(2)?;
            made(sized(name, args.int(0)?, args.text(1)?)?)
        }
        "substr" => {
            args.exactly(3)?;
            made(substring(args.int(0)?, args.int(1)?, args.text(2)?)?)
        }
        "replace" => {
            args.exactly(3)?;
            let (old, new, text) = (args.text(0)?, args.text(1)?, args.text(2)?);
            // An empty text stands between all characters.
            let places = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() };
            if text.len() + places.saturating_mul(new.len()) > LONGEST * 2 {
                return Err(too_long());
            }
            made(text.replace(old, new))
        }
        "plural" => {
            args.exactly(3)?;
            let one = args.int(2)? == 1;
            args.text(usize::from(!one)).map(Value::text)
        }
        "contains" | "hasPrefix" | "hasSuffix" | "trimAll" | "trimall" | "trimPrefix"
        | "trimSuffix" => {
            args.exactly(2)?;
            let (part, text) = (args.text(0)?, args.text(1)?);
            Ok(match name {
                "contains" => Value::Bool(text.contains(part)),
                "hasPrefix" => Value::Bool(text.starts_with(part)),
                "hasSuffix" => Value::Bool(text.ends_with(part)),
                "trimPrefix" => Value::text(text.strip_prefix(part).unwrap_or(text)),
                "trimSuffix" => Value::text(text.strip_suffix(part).unwrap_or(text)),
                _ => Value::text(text.trim_matches(|c| part.contains(c))),
            })
        }
        _ => {
            args.exactly(1)?;
            of_one(name, args.text(0)?)
        }
    }
}

fn of_one(name: &str, text: &str) -> Result<Value, String> {
    made(match name {
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "title" => cased(text, |c| !(c.is_alphanumeric() || c == '_'), true),
        "untitle" => cased(text, char::is_whitespace, false),
        "trim" => text.trim().to_owned(),
        "nospace" => text.chars().filter(|c| !c.is_whitespace()).collect(),
        "b64enc" => STANDARD.encode(text),
        "b64dec" => {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        "sha256sum" => Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect(),
        "base" => match text.trim_end_matches('/').rsplit('/').next() {
            Some("") => if text.is_empty() { "." } else { "/" }.to_owned(),
            last => last.unwrap_or_default().to_owned(),
        },
        "dir" => clean(text.rfind('/').map_or("", |slash| &text[..=slash])),
        "ext" => {
            let last = text.rsplit('/').next().unwrap_or_default();
            last.rfind('.').map_or("", |dot| &last[dot..]).to_owned()
        }
        "clean" => clean(text),
        "isAbs" => return Ok(Value::Bool(text.starts_with('/'))),
        _ => return Err(text.to_owned()),
    })
}

fn sized(name: &str, size: i64, text: &str) -> Result<String, String> {
    let magnitude = usize::try_from(size.unsigned_abs()).unwrap_or(usize::MAX);
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let bytes = text.as_bytes();
    match name {
        "trunc" if size < 0 && magnitude < bytes.len() => {
            Ok(lossy(&bytes[bytes.len() - magnitude..]))
        }
        "trunc" if size >= 0 && magnitude < bytes.len() => Ok(lossy(&bytes[..magnitude])),
        "trunc" => Ok(text.to_owned()),
        "abbrev" if size < 4 || bytes.len() <= magnitude => Ok(text.to_owned()),
        "abbrev" => Ok(lossy(&bytes[..magnitude - 3]) + "..."),
        _ if size < 0 => Err("negative count".to_owned()),
        "repeat" => {
            if magnitude.saturating_mul(bytes.len()) > LONGEST {
                return Err(too_long());
            }
            Ok(text.repeat(magnitude))
        }
        _ => {
            let lines = text.matches('\n').count() + 1;
            if magnitude.saturating_mul(lines) > LONGEST {
                return Err(too_long());
            }
            let pad = " ".repeat(magnitude);
            let first = if name == "nindent" { "\n" } else { "" };
            Ok(format!("{first}{pad}{}", text.replace('\n', &format!("\n{pad}"))))
        }
    }
}

fn substring(start: i64, end: i64, text: &str) -> Result<String, String> {
    let place = |n: i64| usize::try_from(n).unwrap_or(0);
    let (from, to) = match (start < 0, end < 0 || place(end) > text.len()) {
        (true, _) => (0, place(end)),
        (false, true) => (place(start), text.len()),
        (false, false) => (place(start), place(end)),
    };
    let cut = text.as_bytes().get(from..to);
    cut.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .ok_or_else(|| format!("slice bounds out of range [{from}:{to}]"))
}

/// Changes the case of the first letter of each word.
fn cased(text: &str, separates: impl Fn(char) -> bool, upper: bool) -> String {
    let mut first = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (first, upper) {
            (true, true) => out.extend(c.to_uppercase()),
            (true, false) => out.extend(c.to_lowercase()),
            _ => out.push(c),
        }
        first = separates(c);
    }
    out
}

/// Go's `path.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
