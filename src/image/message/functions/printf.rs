//! Pure: Go's `printf`: `%v %s %q %d %t %x %X %f %c %%`, with width, precision, `-`, `0` and `+`.

use super::{LONGEST, NOT_HERE, go_quote, printed, too_long};
use crate::image::message::value::Value;

/// One verb and how its text is laid out.
#[derive(Default)]
struct Verb {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Bytes that may still be made by one call: each part of a list may be as wide as the verb says,
/// and lists may share their parts.
struct Room(usize);

impl Room {
    /// Takes a text's bytes, and one for the text itself.
    fn take(&mut self, text: &str) -> Result<(), String> {
        self.0 = self.0.checked_sub(text.len() + 1).ok_or_else(too_long)?;
        Ok(())
    }
}

/// Formats as Go does, with Go's remarks on arguments that are missing, wrong or too many.
pub(super) fn format(said: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    // The parts of a list count once more as part of it.
    let mut room = Room(2 * LONGEST);
    let mut rest = said;
    let mut next = 0;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (verb, after) = flags(after)?;
        let Some(letter) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            rest = "";
            break;
        };
        rest = &after[letter.len_utf8()..];
        if letter == '%' {
            out.push('%');
        } else if let Some(value) = args.get(next) {
            out.push_str(&one(&verb, letter, value, &mut room)?);
            next += 1;
        } else {
            out.push_str(&format!("%!{letter}(MISSING)"));
        }
        if out.len() > LONGEST {
            return Err(too_long());
        }
    }
    out.push_str(rest);
    if next < args.len() {
        let mut extra = Vec::new();
        for value in &args[next..] {
            let text = match value {
                Value::Missing | Value::Nil => "<nil>".to_owned(),
                other => format!("{}={}", other.kind(), printed(other)?),
            };
            room.take(&text)?;
            extra.push(text);
        }
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

fn flags(text: &str) -> Result<(Verb, &str), String> {
    let mut verb = Verb::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => verb.left = true,
            '0' => verb.zero = true,
            '+' => verb.plus = true,
            ' ' | '#' | '*' | '[' => {
                return Err(format!("the flag {flag:?} {NOT_HERE}"));
            }
            _ => break,
        }
        rest = &rest[1..];
    }
    let number = |rest: &mut &str| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (said, after) = rest.split_at(digits);
        *rest = after;
        // Wider than a message is no use to anyone.
        said.parse::<usize>().map_or(0, |n| n.min(LONGEST))
    };
    verb.width = number(&mut rest);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        verb.precision = Some(number(&mut rest));
    }
    Ok((verb, rest))
}

fn one(verb: &Verb, letter: char, value: &Value, room: &mut Room) -> Result<String, String> {
    // Go prints the parts of a list by the verb.
    let text = match (value, letter) {
        (Value::List(values), 's' | 'q' | 'd' | 'x' | 'X') => {
            let mut parts = Vec::new();
            for value in values.iter() {
                parts.push(one(verb, letter, value, room)?);
            }
            format!("[{}]", parts.join(" "))
        }
        _ => plain(verb, letter, value)?,
    };
    room.take(&text)?;
    Ok(text)
}

/// A value that is no list, or is printed as a whole.
fn plain(verb: &Verb, letter: char, value: &Value) -> Result<String, String> {
    let itself = match value {
        Value::Record(record) => record.text.clone().map(Value::text),
        _ => None,
    };
    let value = itself.as_ref().unwrap_or(value);
    let cut = |text: String| match verb.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text,
    };
    let body = match (letter, value) {
        ('v' | 'd', Value::Int(int)) => whole(verb, &int.to_string()),
        ('v', Value::Float(_)) if verb.precision.is_none() => signed(verb, &printed(value)?),
        ('v' | 's', Value::Text(text)) => cut(text.to_string()),
        ('v', Value::Record(_) | Value::Map(_) | Value::List(_)) if verb.plus => {
            return Err(format!("%+v {NOT_HERE}"));
        }
        ('v', _) => printed(value)?,
        ('s', Value::Record(_) | Value::Map(_)) => printed(value)?,
        ('q', Value::Text(text)) => go_quote(&cut(text.to_string())),
        ('t', Value::Bool(value)) => value.to_string(),
        ('x', Value::Int(int)) => whole(verb, &radix(*int, false)),
        ('X', Value::Int(int)) => whole(verb, &radix(*int, true)),
        ('x', Value::Text(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
        ('f' | 'F', Value::Float(float)) => {
            signed(verb, &format!("{float:.*}", verb.precision.unwrap_or(6)))
        }
        ('c', Value::Int(int)) => {
            let code = u32::try_from(*int).ok().and_then(char::from_u32);
            code.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        (letter, _) if !"vsqdtxXfFc".contains(letter) => {
            return Err(format!("%{letter} {NOT_HERE}"));
        }
        (letter, Value::Missing | Value::Nil) => format!("%!{letter}(<nil>)"),
        (letter, other) => {
            let printed = plain(&Verb::default(), 'v', other)?;
            return Ok(format!("%!{letter}({}={printed})", other.kind()));
        }
    };
    let number = matches!(value, Value::Int(_) | Value::Float(_)) && letter != 'c';
    Ok(laid_out(verb, body, number))
}

/// A whole number with at least as many digits as the precision says.
fn whole(verb: &Verb, number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let missing = verb.precision.unwrap_or(0).saturating_sub(digits.len());
    signed(verb, &format!("{sign}{}{digits}", "0".repeat(missing)))
}

fn signed(verb: &Verb, number: &str) -> String {
    let plus = verb.plus && !number.starts_with(['-', '+']);
    format!("{}{number}", if plus { "+" } else { "" })
}

fn radix(int: i64, upper: bool) -> String {
    let sign = if int < 0 { "-" } else { "" };
    let magnitude = int.unsigned_abs();
    if upper { format!("{sign}{magnitude:X}") } else { format!("{sign}{magnitude:x}") }
}

fn laid_out(verb: &Verb, body: String, number: bool) -> String {
    let missing = verb.width.saturating_sub(body.chars().count());
    if missing == 0 {
        return body;
    }
    if verb.left {
        return body + &" ".repeat(missing);
    }
    if !verb.zero {
        return " ".repeat(missing) + &body;
    }
    let zeros = "0".repeat(missing);
    match body.strip_prefix(['-', '+']) {
        Some(digits) if number => format!("{}{zeros}{digits}", &body[..1]),
        _ => zeros + &body,
    }
}
