//! Pure: sprig's functions of lists and dictionaries, and whole numbers.

use super::{Arguments, NOT_HERE, joined, made, printed};
use crate::image::message::exec::sorted_map;
use crate::image::message::value::Value;

pub(super) const NAMES: &[&str] = &[
    "list",
    "tuple",
    "first",
    "last",
    "rest",
    "initial",
    "append",
    "push",
    "prepend",
    "concat",
    "reverse",
    "uniq",
    "without",
    "has",
    "compact",
    "join",
    "sortAlpha",
    "split",
    "splitList",
    "splitn",
    "toStrings",
    "until",
    "dict",
    "get",
    "hasKey",
    "keys",
    "values",
    "add",
    "add1",
    "sub",
    "mul",
    "div",
    "mod",
    "max",
    "min",
    "int",
    "int64",
    "atoi",
];

pub(super) fn call(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    match name {
        "list" | "tuple" => Ok(Value::list(args.0.to_vec())),
        "append" | "push" | "prepend" => {
            args.exactly(2)?;
            let (list, value) = (args.list(0)?.to_vec(), args.0[1].clone());
            let one = vec![value];
            Ok(Value::list(match name {
                "prepend" => [one, list].concat(),
                _ => [list, one].concat(),
            }))
        }
        "concat" => {
            let lists = (0..args.len()).map(|at| args.list(at));
            Ok(Value::list(lists.collect::<Result<Vec<_>, _>>()?.concat()))
        }
        "without" => {
            args.at_least(1)?;
            let mut kept = Vec::new();
            for value in args.list(0)? {
                if !holds(&args.0[1..], value)? {
                    kept.push(value.clone());
                }
            }
            Ok(Value::list(kept))
        }
        "has" => {
            args.exactly(2)?;
            match &args.0[1] {
                Value::Missing | Value::Nil => Ok(Value::Bool(false)),
                _ => Ok(Value::Bool(holds(args.list(1)?, &args.0[0])?)),
            }
        }
        "join" => {
            args.exactly(2)?;
            made(joined(texts(&args.0[1])?.into_iter().map(Ok), args.text(0)?)?)
        }
        "split" | "splitList" | "splitn" => split(name, args),
        "until" => {
            args.exactly(1)?;
            // A loop of more turns than a run has steps makes no sense.
            let count = args.int(0)?.clamp(0, 100_000);
            Ok(Value::list((0..count).map(Value::Int).collect()))
        }
        "dict" => {
            let mut entries: Vec<(Value, Value)> = Vec::new();
            for pair in args.0.chunks(2) {
                let key = Value::text(printed(&pair[0])?);
                let value = pair.get(1).cloned().unwrap_or_else(|| Value::text(""));
                entries.retain(|(known, _)| known.equals(&key) != Some(true));
                entries.push((key, value));
            }
            Ok(sorted_map(entries))
        }
        "get" | "hasKey" | "keys" | "values" => of_map(name, args),
        "add" | "add1" | "sub" | "mul" | "div" | "mod" | "max" | "min" | "int" | "int64"
        | "atoi" => arithmetic(name, args),
        _ => {
            args.exactly(1)?;
            of_one(name, &args.0[0])
        }
    }
}

fn of_one(name: &str, value: &Value) -> Result<Value, String> {
    if matches!(name, "toStrings" | "sortAlpha") {
        let mut texts = texts(value)?;
        if name == "sortAlpha" {
            texts.sort();
        }
        return Ok(Value::list(texts.into_iter().map(Value::text).collect()));
    }
    let Value::List(list) = value else {
        return Err(format!("a list is wanted, not a {}", value.kind()));
    };
    Ok(match name {
        "first" => list.first().cloned().unwrap_or(Value::Nil),
        "last" => list.last().cloned().unwrap_or(Value::Nil),
        "rest" => Value::list(list.iter().skip(1).cloned().collect()),
        "initial" => Value::list(list[..list.len().saturating_sub(1)].to_vec()),
        "reverse" => Value::list(list.iter().rev().cloned().collect()),
        "compact" => Value::list(list.iter().filter(|v| v.truth()).cloned().collect()),
        _ => {
            let mut kept: Vec<Value> = Vec::new();
            for value in list.iter() {
                if !holds(&kept, value)? {
                    kept.push(value.clone());
                }
            }
            Value::list(kept)
        }
    })
}

/// Whether a list has a plain value. Two lists are not compared: they could share their parts and
/// be too large to walk through.
fn holds(list: &[Value], wanted: &Value) -> Result<bool, String> {
    for value in list {
        match value.equals(wanted) {
            Some(true) => return Ok(true),
            Some(false) => {}
            None => return Err(format!("looking for what is no plain value {NOT_HERE}")),
        }
    }
    Ok(false)
}

/// The parts of a list as texts; anything else is a list of itself.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Missing | Value::Nil => Ok(Vec::new()),
        Value::List(values) => {
            let there = values.iter().filter(|v| !matches!(v, Value::Nil | Value::Missing));
            let mut texts = Vec::new();
            let mut total = 0;
            for value in there {
                let text = printed(value)?;
                total += text.len();
                if total > super::LONGEST {
                    return Err(super::too_long());
                }
                texts.push(text);
            }
            Ok(texts)
        }
        other => Ok(vec![printed(other)?]),
    }
}

fn split(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    let limited = name == "splitn";
    args.exactly(if limited { 3 } else { 2 })?;
    let (separator, text) = (args.text(0)?, args.text(args.len() - 1)?);
    let most = if limited { args.int(1)? } else { -1 };
    let mut parts: Vec<&str> = match (usize::try_from(most), separator.is_empty()) {
        (Ok(0), _) => Vec::new(),
        (Ok(most), false) => text.splitn(most, separator).collect(),
        (_, false) => text.split(separator).collect(),
        (_, true) => text.split("").filter(|part| !part.is_empty()).collect(),
    };
    if let (Ok(most), true) = (usize::try_from(most), separator.is_empty())
        && most > 0
        && parts.len() > most
    {
        let rest: usize = parts[..most - 1].iter().map(|part| part.len()).sum();
        parts.truncate(most - 1);
        parts.push(&text[rest..]);
    }
    let parts = parts.into_iter().map(Value::text);
    if name == "splitList" {
        return Ok(Value::list(parts.collect()));
    }
    let numbered = parts.enumerate().map(|(n, part)| (Value::text(format!("_{n}")), part));
    Ok(sorted_map(numbered.collect()))
}

fn of_map(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    args.exactly(if matches!(name, "keys" | "values") { 1 } else { 2 })?;
    let Value::Map(entries) = &args.0[0] else {
        return Err(format!("a map is wanted, not a {}", args.0[0].kind()));
    };
    let found = |key: &Value| entries.iter().find(|(k, _)| k.equals(key) == Some(true));
    Ok(match name {
        "get" => found(&args.0[1]).map_or_else(|| Value::text(""), |(_, value)| value.clone()),
        "hasKey" => Value::Bool(found(&args.0[1]).is_some()),
        "keys" => Value::list(entries.iter().map(|(key, _)| key.clone()).collect()),
        _ => Value::list(entries.iter().map(|(_, value)| value.clone()).collect()),
    })
}

/// A value as a whole number, as sprig reads one: what is none is 0.
fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(int) => *int,
        Value::Float(float) => *float as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => text.parse().unwrap_or(0),
        _ => 0,
    }
}

fn arithmetic(name: &str, args: &Arguments<'_>) -> Result<Value, String> {
    match name {
        "add" => {}
        "int" | "int64" | "atoi" | "add1" => args.exactly(1)?,
        "max" | "min" | "mul" => args.at_least(1)?,
        _ => args.exactly(2)?,
    }
    if name == "atoi" {
        args.text(0)?;
    }
    let numbers: Vec<i64> = args.0.iter().map(whole).collect();
    let all = numbers.iter().copied();
    let by_zero = || "division by zero".to_owned();
    Ok(Value::Int(match name {
        "add" => all.fold(0, i64::wrapping_add),
        "add1" => numbers[0].wrapping_add(1),
        "sub" => numbers[0].wrapping_sub(numbers[1]),
        "mul" => all.fold(1, i64::wrapping_mul),
        "div" => numbers[0].checked_div(numbers[1]).ok_or_else(by_zero)?,
        "mod" => numbers[0].checked_rem(numbers[1]).ok_or_else(by_zero)?,
        "max" => all.max().unwrap_or(0),
        "min" => all.min().unwrap_or(0),
        _ => numbers[0],
    }))
}
