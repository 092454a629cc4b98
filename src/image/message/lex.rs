//! Pure: a template as text and actions, and an action as tokens.

use super::TemplateError;

/// Text, or what stands between `{{` and `}}`, with the line that it begins in.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Action(&'a str, usize),
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a template at its actions. Comments are gone, and so are spaces that `{{-` and `-}}` trim.
pub(super) fn pieces(template: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut line = 1;
    let mut trim_start = false;
    loop {
        let (text, action) = match rest.split_once("{{") {
            Some((text, action)) => (text, Some(action)),
            None => (rest, None),
        };
        let trim_end = action.is_some_and(|a| a.starts_with('-') && a[1..].starts_with(SPACES));
        let mut shown = if trim_start { text.trim_start_matches(SPACES) } else { text };
        if trim_end {
            shown = shown.trim_end_matches(SPACES);
        }
        if !shown.is_empty() {
            pieces.push(Piece::Text(shown));
        }
        line += text.matches('\n').count();
        let Some(action) = action else { return Ok(pieces) };
        let action = if trim_end { &action[1..] } else { action };
        let (inner, after, trims) = end_of_action(action, line)?;
        if !inner.trim_start_matches(SPACES).starts_with("/*") {
            pieces.push(Piece::Action(inner, line));
        }
        line += action[..action.len() - after.len()].matches('\n').count();
        (rest, trim_start) = (after, trims);
    }
}

/// What stands in the action, what follows it, and whether `-}}` ends it.
fn end_of_action(action: &str, line: usize) -> Result<(&str, &str, bool), TemplateError> {
    let fail = |told: &str| Err(TemplateError::new(line, told));
    let open = action.trim_start_matches(SPACES);
    let mut at = action.len() - open.len();
    if open.starts_with("/*") {
        let Some(close) = open.find("*/") else { return fail("unclosed comment") };
        at += close + 2;
        let rest = &action[at..];
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((&action[..at], after, false));
        }
        let trimmed = rest.trim_start_matches(SPACES).strip_prefix("-}}");
        return match trimmed {
            Some(after) if rest.starts_with(SPACES) => Ok((&action[..at], after, true)),
            _ => fail("comment ends before closing delimiter"),
        };
    }
    while let Some(next) = action[at..].chars().next() {
        let rest = &action[at..];
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((&action[..at], after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}")
            && action[..at].ends_with(SPACES)
        {
            return Ok((&action[..at], after, true));
        }
        at += match next {
            '"' | '\'' | '`' => match end_of_quote(rest, next) {
                Some(length) => length,
                None => return fail("unterminated quoted string"),
            },
            other => other.len_utf8(),
        };
    }
    fail("unclosed action")
}

/// Length of a quoted text, its quotes included.
fn end_of_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            '\n' if quote != '`' => return None,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// One token of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.Name`
    Field(String),
    /// `.` alone
    Dot,
    /// `$name`, or `$` alone
    Variable(String),
    /// A keyword or a function.
    Word(String),
    Int(i64),
    Float(f64),
    Text(String),
    Open,
    Close,
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// The tokens of an action; with each, whether it follows the one before without a space.
pub(super) fn tokens(action: &str, line: usize) -> Result<Vec<(Token, bool)>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = action;
    let mut glued = false;
    while let Some(next) = rest.chars().next() {
        if SPACES.contains(&next) {
            (rest, glued) = (&rest[1..], false);
            continue;
        }
        let (token, length) = token(rest, next)
            .map_err(|told| TemplateError::new(line, told))?
            .ok_or_else(|| TemplateError::new(line, format!("unexpected {next:?} in action")))?;
        tokens.push((token, glued));
        (rest, glued) = (&rest[length..], true);
    }
    Ok(tokens)
}

fn token(rest: &str, next: char) -> Result<Option<(Token, usize)>, String> {
    let word = |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let taken = |text: &str| text[..word(text).unwrap_or(text.len())].to_owned();
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let single = match next {
        '(' => Some(Token::Open),
        ')' => Some(Token::Close),
        '|' => Some(Token::Pipe),
        ',' => Some(Token::Comma),
        '=' => Some(Token::Assign),
        _ => None,
    };
    if let Some(token) = single {
        return Ok(Some((token, 1)));
    }
    Ok(match next {
        ':' if rest.starts_with(":=") => Some((Token::Declare, 2)),
        '.' if digit(&rest[1..]) => Some(number(rest)?),
        '.' => {
            let name = taken(&rest[1..]);
            let length = 1 + name.len();
            Some((if name.is_empty() { Token::Dot } else { Token::Field(name) }, length))
        }
        '$' => {
            let name = taken(&rest[1..]);
            let length = 1 + name.len();
            Some((Token::Variable(format!("${name}")), length))
        }
        '"' | '`' | '\'' => {
            let length = end_of_quote(rest, next).ok_or("unterminated quoted string")?;
            Some((quoted(&rest[..length], next)?, length))
        }
        '+' | '-' if digit(&rest[1..]) || rest[1..].starts_with('.') => Some(number(rest)?),
        c if c.is_ascii_digit() => Some(number(rest)?),
        c if c.is_alphabetic() || c == '_' => {
            let name = taken(rest);
            let length = name.len();
            Some((Token::Word(name), length))
        }
        _ => None,
    })
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let mut before = ' ';
    let belongs = |c: char, before: char| {
        c.is_alphanumeric()
            || c == '.'
            || c == '_'
            || (matches!(c, '+' | '-') && matches!(before, ' ' | 'e' | 'E'))
    };
    let mut length = rest.len();
    for (at, c) in rest.char_indices() {
        if !belongs(c, before) {
            length = at;
            break;
        }
        before = c;
    }
    let said = &rest[..length];
    let wrong = || format!("bad number syntax: {said:?}");
    let plain = said.replace('_', "");
    let (sign, unsigned) = match plain.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') && !lower.contains(['.', 'e']) => {
            (8, &lower[1..])
        }
        _ => (10, lower.as_str()),
    };
    if let Ok(int) = i64::from_str_radix(&format!("{sign}{digits}"), radix) {
        return Ok((Token::Int(int), length));
    }
    let starts = lower.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match plain.parse::<f64>() {
        // As in Go, a constant such as 1.0 or 1e3 that is whole may stand for an integer too;
        // it prints as the float that it is.
        Ok(float) if radix == 10 && starts && float.is_finite() => {
            Ok((Token::Float(float), length))
        }
        _ => Err(wrong()),
    }
}

/// The text of a quoted constant; of `'x'` the character's number.
fn quoted(said: &str, quote: char) -> Result<Token, String> {
    let inner = &said[1..said.len() - 1];
    if quote == '`' {
        // Go drops carriage returns of raw strings.
        return Ok(Token::Text(inner.replace('\r', "")));
    }
    let text = unescape(inner, quote).ok_or_else(|| format!("bad string syntax: {said}"))?;
    if quote == '"' {
        return Ok(Token::Text(text));
    }
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(Token::Int(i64::from(u32::from(c)))),
        _ => Err(format!("malformed character constant: {said}")),
    }
}

fn unescape(text: &str, quote: char) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        let mut push = |c: char| bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        if next != '\\' {
            push(next);
            continue;
        }
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        let digits = |rest: &str, count: usize, radix: u32| {
            u32::from_str_radix(rest.get(..count)?, radix).ok()
        };
        match escape {
            'a' => push('\x07'),
            'b' => push('\x08'),
            'f' => push('\x0c'),
            'n' => push('\n'),
            'r' => push('\r'),
            't' => push('\t'),
            'v' => push('\x0b'),
            '\\' => push('\\'),
            c if c == quote => push(c),
            'x' => {
                bytes.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
                rest = &rest[2..];
            }
            'u' | 'U' => {
                let count = if escape == 'u' { 4 } else { 8 };
                push(char::from_u32(digits(rest, count, 16)?)?);
                rest = &rest[count..];
            }
            '0'..='7' => {
                let code = digits(rest, 2, 8)? + escape.to_digit(8)? * 64;
                bytes.push(u8::try_from(code).ok()?);
                rest = &rest[2..];
            }
            _ => return None,
        }
    }
    // Bytes that are no UTF-8 cannot stand in a commit message.
    String::from_utf8(bytes).ok()
}
