//! Pure: the functions of a template: Go's own, and those of sprig that work on text, lists and
//! small numbers. What reads a clock, a network or an environment is not here, as in Flux.

mod builtin;
mod cost;
mod lists;
mod printf;
mod text;

pub(super) use cost::{CHEAP, cost_after, cost_before, size};

use super::exec::LONGEST;
use super::value::{Output, Value};

/// Functions by the file that has them.
const KNOWN: [(&[&str], Function); 3] =
    [(builtin::NAMES, builtin::call), (text::NAMES, text::call), (lists::NAMES, lists::call)];

type Function = fn(&str, &Arguments<'_>) -> Result<Value, String>;

/// Whether a function of this name exists.
pub(super) fn known(name: &str) -> bool {
    KNOWN.iter().any(|(names, _)| names.contains(&name))
}

/// Calls a function.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    match KNOWN.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, function)) => function(name, &Arguments(args)),
        None => Err(format!("it {NOT_HERE}")),
    }
}

/// How a refusal ends of what Flux would do.
const NOT_HERE: &str = "is not supported";

/// Whether a function's error is a limit of ours.
pub(super) fn is_ours(told: &str) -> bool {
    told.ends_with(NOT_HERE) || told == too_long()
}

/// The arguments of a call, read as what the function wants.
struct Arguments<'a>(&'a [Value]);

impl<'a> Arguments<'a> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn exactly(&self, count: usize) -> Result<(), String> {
        let found = self.len();
        if found == count { Ok(()) } else { Err(format!("want {count} arguments, got {found}")) }
    }

    fn at_least(&self, count: usize) -> Result<(), String> {
        let found = self.len();
        if found >= count { Ok(()) } else { Err(format!("want {count} arguments, got {found}")) }
    }

    fn text(&self, at: usize) -> Result<&'a str, String> {
        match &self.0[at] {
            Value::Text(text) => Ok(text),
            Value::Missing | Value::Nil => Err("invalid value; expected string".to_owned()),
            other => Err(format!("wrong type for value; expected string; got {}", other.kind())),
        }
    }

    fn int(&self, at: usize) -> Result<i64, String> {
        match &self.0[at] {
            Value::Int(int) => Ok(*int),
            // A whole constant such as 3.0 may stand for a number without a fraction.
            Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e15 => Ok(*float as i64),
            Value::Missing | Value::Nil => Err("invalid value; expected int".to_owned()),
            other => Err(format!("wrong type for value; expected int; got {}", other.kind())),
        }
    }

    fn list(&self, at: usize) -> Result<&'a [Value], String> {
        match &self.0[at] {
            Value::List(values) => Ok(values),
            other => Err(format!("wrong type for value; expected a list; got {}", other.kind())),
        }
    }
}

/// A value as text, the way sprig makes one.
fn printed(value: &Value) -> Result<String, String> {
    let mut out = Output { text: String::new(), limit: LONGEST };
    value.print(&mut out).map_err(|_| too_long())?;
    Ok(out.text)
}

/// Texts with one in between, if that is not too long.
fn joined(
    texts: impl Iterator<Item = Result<String, String>>,
    between: &str,
) -> Result<String, String> {
    let mut all = String::new();
    for (n, text) in texts.enumerate() {
        all.push_str(if n > 0 { between } else { "" });
        all.push_str(&text?);
        if all.len() > LONGEST {
            return Err(too_long());
        }
    }
    Ok(all)
}

/// A text that was made, if it is not too long.
fn made(text: String) -> Result<Value, String> {
    if text.len() > LONGEST { Err(too_long()) } else { Ok(Value::text(text)) }
}

fn too_long() -> String {
    format!("the text is longer than {LONGEST} bytes")
}

/// A text in double quotes with Go's escapes.
fn go_quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
