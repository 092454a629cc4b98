//! Pure: what a call costs of a run's steps, before it is made and after.
//!
//! A step is a piece of work of some tenths of a microsecond. What a function looks at is counted
//! before it looks, so that none is called with more than the run has left: sixty-four bytes of a
//! text or [`CHEAP`] entries are a step, and what compares each with each, or copies all of many
//! lists, counts all of it. What takes its arguments as they are counts nothing.

use crate::image::message::value::Value;

/// Entries that are looked at in one step.
pub(in crate::image::message) const CHEAP: usize = 32;

/// Bytes of a text that are looked at in one step.
const BYTES: usize = 64;

/// Functions that look at no more than one entry, or at whether there is one.
const FREE: &[&str] = &[
    "len", "index", "first", "last", "default", "empty", "coalesce", "ternary", "not", "list",
    "tuple",
];

/// Functions whose result holds texts that are made by it.
const MAKES_TEXTS: &[&str] =
    &["dict", "toStrings", "sortAlpha", "split", "splitList", "splitn", "keys"];

/// Entries of a value.
pub(in crate::image::message) fn size(value: &Value) -> usize {
    match value {
        Value::List(values) => values.len(),
        Value::Map(entries) => entries.len(),
        _ => 0,
    }
}

fn text(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len() / BYTES,
        _ => 0,
    }
}

/// What is counted before a call.
pub(in crate::image::message) fn cost_before(name: &str, args: &[Value]) -> usize {
    if name == "index" {
        // Maps are searched from their beginning.
        let map = |value: &&Value| matches!(value, Value::Map(_));
        return args.first().filter(map).map_or(0, |map| size(map) / CHEAP);
    }
    if FREE.contains(&name) {
        return 0;
    }
    let looked = args.iter().map(|arg| text(arg) + size(arg) / CHEAP).sum::<usize>();
    let of = |at: usize| args.get(at).map_or(0, size);
    let each_with_each = match name {
        "uniq" => of(0) * of(0) / CHEAP,
        "without" => of(0) * args.len() / CHEAP,
        "dict" => args.len() * args.len() / CHEAP,
        "concat" => args.iter().map(size).sum(),
        // Each character is looked for among the others.
        "trimAll" | "trimall" => {
            let of = |at: usize| args.get(at).map_or(0, text) + 1;
            of(0).saturating_mul(of(1)).saturating_mul(8)
        }
        _ => 0,
    };
    looked.saturating_add(each_with_each)
}

/// What is counted after it.
pub(in crate::image::message) fn cost_after(name: &str, value: &Value) -> usize {
    let texts = match value {
        _ if !MAKES_TEXTS.contains(&name) => 0,
        Value::List(values) => values.iter().map(text).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| text(key) + text(value)).sum(),
        _ => 0,
    };
    texts + size(value) + text(value)
}
