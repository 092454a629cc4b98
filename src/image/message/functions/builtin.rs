//! Pure: Go's own functions: comparison, logic, `len`, `index`, `slice` and printing.

use super::{Arguments, LONGEST, joined, made, printed, printf, too_long};
use crate::image::message::value::Value;
use std::cmp::Ordering;

/// `and` and `or` are here by name only: they look at one argument after the other.
pub(super) const NAMES: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print",
    "println", "printf",
];

pub(super) fn call(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    match name {
        "not" => args.exactly(1).map(|()| Value::Bool(!args.0[0].truth())),
        "eq" => {
            args.at_least(1)?;
            if args.len() == 1 {
                return Err("missing argument for comparison".to_owned());
            }
            for other in &args.0[1..] {
                if equal(&args.0[0], other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "ne" => {
            args.exactly(2)?;
            Ok(Value::Bool(!equal(&args.0[0], &args.0[1])?))
        }
        "lt" | "le" | "gt" | "ge" => {
            args.exactly(2)?;
            let order = order(&args.0[0], &args.0[1])?;
            let holds = match name {
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => !matches!(order, Some(Ordering::Less | Ordering::Equal)),
                _ => order != Some(Ordering::Less),
            };
            Ok(Value::Bool(holds))
        }
        "len" => {
            args.exactly(1)?;
            let length = match &args.0[0] {
                Value::Text(text) => text.len(),
                Value::List(values) => values.len(),
                Value::Map(entries) => entries.len(),
                Value::Missing | Value::Nil => return Err("len of nil pointer".to_owned()),
                other => return Err(format!("len of type {}", other.kind())),
            };
            Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
        }
        "index" => index(args),
        "slice" => slice(args),
        "print" => print(args),
        "println" => made(joined(args.0.iter().map(printed), " ")? + "\n"),
        _ => {
            args.at_least(1)?;
            made(printf::format(args.text(0)?, &args.0[1..])?)
        }
    }
}

fn equal(one: &Value, another: &Value) -> Result<bool, String> {
    let kind = |value: &Value| match value {
        Value::Missing | Value::Nil => None,
        other => Some(other.kind()),
    };
    if let (Some(one), Some(another)) = (kind(one), kind(another))
        && one != another
    {
        return Err(format!("incompatible types for comparison: {one} and {another}"));
    }
    if let (Value::Record(a), Value::Record(b)) = (one, another) {
        // Records hold texts only, so that what prints the same is the same.
        let same = a.fields.len() == b.fields.len() && printed(one)? == printed(another)?;
        return Ok(same);
    }
    one.equals(another).ok_or_else(|| format!("non-comparable type {}", one.kind()))
}

fn order(one: &Value, another: &Value) -> Result<Option<Ordering>, String> {
    match (one, another) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        _ => Err(format!("can't order a {} and a {}", one.kind(), another.kind())),
    }
}

fn index(args: &Arguments<'_>) -> Result<Value, String> {
    args.at_least(1)?;
    let mut value = args.0[0].clone();
    for key in &args.0[1..] {
        let place = |length: usize| match key {
            Value::Int(n) => usize::try_from(*n)
                .ok()
                .filter(|n| *n < length)
                .ok_or_else(|| format!("index out of range: {n}")),
            other => Err(format!("cannot index with a {}", other.kind())),
        };
        value = match &value {
            Value::List(values) => values[place(values.len())?].clone(),
            Value::Text(text) => Value::Int(i64::from(text.as_bytes()[place(text.len())?])),
            Value::Map(entries) => {
                let found = entries.iter().find(|(k, _)| equal(k, key).unwrap_or(false));
                match (found, entries.first()) {
                    (Some((_, value)), _) => value.clone(),
                    // A map of texts has the empty text for what it lacks.
                    (None, Some((_, Value::Text(_)))) => Value::text(""),
                    (None, _) => Value::Missing,
                }
            }
            Value::Missing | Value::Nil => return Err("index of untyped nil".to_owned()),
            other => return Err(format!("can't index a {}", other.kind())),
        };
    }
    Ok(value)
}

/// Of lists only: sprig's `slice` stands before Go's.
fn slice(args: &Arguments<'_>) -> Result<Value, String> {
    args.at_least(1)?;
    let list = args.list(0)?;
    let place = |at: usize, otherwise: usize| match args.len() > at {
        true => usize::try_from(args.int(at)?).map_err(|_| "slice bounds out of range".to_owned()),
        false => Ok(otherwise),
    };
    let (from, to) = (place(1, 0)?, place(2, list.len())?);
    let cut = list.get(from..to);
    cut.map(|values| Value::list(values.to_vec()))
        .ok_or_else(|| format!("slice bounds out of range [{from}:{to}]"))
}

/// Go's `Sprint`: a space between two operands when neither is a text.
fn print(args: &Arguments<'_>) -> Result<Value, String> {
    let mut text = String::new();
    let mut spaced = false;
    for value in args.0 {
        let is_text = matches!(value, Value::Text(_));
        if spaced && !is_text {
            text.push(' ');
        }
        text.push_str(&printed(value)?);
        if text.len() > LONGEST {
            return Err(too_long());
        }
        spaced = !is_text;
    }
    made(text)
}
