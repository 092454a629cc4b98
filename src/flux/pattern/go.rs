//! Pure: Go's pattern syntax, rewritten for the `regex` crate.
//!
//! One pass from left to right. Whatever both mean alike is copied; literals and classes are
//! written anew, so that no character of them is read as an operator of the other dialect. Named
//! groups become plain ones: Go lets names begin with a digit, and come twice.

/// Reads a pattern; gives the translated one and the names of its groups, the whole match first.
pub(super) fn translate(said: &str) -> Result<(String, Vec<Option<String>>), String> {
    let mut translator = Translator {
        rest: said,
        out: String::with_capacity(said.len() * 2),
        names: vec![None],
        depth: 0,
        last: Last::Nothing,
    };
    while let Some(next) = translator.rest.chars().next() {
        translator.step(next)?;
    }
    if translator.depth > 0 {
        return Err("missing closing )".to_owned());
    }
    Ok((translator.out, translator.names))
}

/// What stands before the place that is read, for operators that repeat it.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    Atom,
    Repeated,
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    names: Vec<Option<String>>,
    depth: usize,
    last: Last,
}

const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0C\r\x20";
const WORD: &str = "0-9A-Za-z_";

impl<'a> Translator<'a> {
    fn step(&mut self, next: char) -> Result<(), String> {
        match next {
            '(' => return self.open(),
            ')' => {
                self.depth = self.depth.checked_sub(1).ok_or("unexpected )")?;
                self.copy(1, Last::Atom);
            }
            '|' => self.copy(1, Last::Nothing),
            '^' | '$' | '.' => self.copy(1, Last::Atom),
            '*' | '+' | '?' => return self.repeat(1),
            '{' => match counts(self.rest) {
                Some((length, min, max)) => {
                    if min > 1000 || max.is_some_and(|max| max > 1000 || max < min) {
                        return Err(format!("invalid repeat count {}", &self.rest[..length]));
                    }
                    return self.repeat(length);
                }
                None => self.literal_next('{'),
            },
            '[' => return self.class(),
            '\\' => return self.backslash(),
            other => self.literal_next(other),
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn copy(&mut self, bytes: usize, last: Last) {
        let taken = self.advance(bytes);
        self.out.push_str(taken);
        self.last = last;
    }

    fn emit(&mut self, translated: &str) {
        self.out.push_str(translated);
        self.last = Last::Atom;
    }

    fn literal(&mut self, literal: char) {
        let mut buffer = [0; 4];
        let escaped = regex::escape(literal.encode_utf8(&mut buffer));
        self.emit(&escaped);
    }

    fn literal_next(&mut self, literal: char) {
        self.advance(literal.len_utf8());
        self.literal(literal);
    }

    fn repeat(&mut self, length: usize) -> Result<(), String> {
        match self.last {
            Last::Nothing => Err("missing argument to repetition operator".to_owned()),
            Last::Repeated => Err("invalid nested repetition operator".to_owned()),
            Last::Atom => {
                let lazy = usize::from(self.rest[length..].starts_with('?'));
                self.copy(length + lazy, Last::Repeated);
                Ok(())
            }
        }
    }

    /// `(`, `(?P<name>`, `(?<name>`, `(?flags)`, `(?flags:`.
    fn open(&mut self) -> Result<(), String> {
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.names.push(None);
            self.depth += 1;
            self.copy(1, Last::Nothing);
            return Ok(());
        };
        if let Some(named) = after.strip_prefix("P<").or_else(|| after.strip_prefix('<')) {
            let (name, rest) = named.split_once('>').ok_or("invalid named capture")?;
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                return Err(format!("invalid named capture {name:?}"));
            }
            self.names.push(Some(name.to_owned()));
            self.depth += 1;
            self.out.push('(');
            self.last = Last::Nothing;
            self.rest = rest;
            return Ok(());
        }
        let end = after.find([':', ')']).ok_or("missing closing )")?;
        let flags = &after[..end];
        let (on, off) = flags.split_once('-').unwrap_or((flags, "i"));
        let known = |flags: &str| flags.chars().all(|c| "imsU".contains(c));
        if !known(on) || !known(off) || off.is_empty() {
            return Err(format!("(?{flags} is not supported"));
        }
        let group = after[end..].starts_with(':');
        self.advance("(?".len() + end + 1);
        self.depth += usize::from(group);
        if group || !flags.is_empty() {
            let close = if group { ':' } else { ')' };
            self.out.push_str(&format!("(?{flags}{close}"));
        }
        self.last = if group { Last::Nothing } else { self.last };
        Ok(())
    }

    fn backslash(&mut self) -> Result<(), String> {
        let next = self.rest[1..].chars().next().ok_or("trailing backslash at end")?;
        if let Some(class) = perl_class(next) {
            self.advance(2);
            self.emit(&format!("[{class}]"));
            return Ok(());
        }
        match next {
            'A' | 'z' => self.copy(2, Last::Atom),
            'b' | 'B' => {
                self.advance(2);
                self.emit(&format!("(?-u:\\{next})"));
            }
            'p' | 'P' => {
                let class = self.unicode_class()?;
                self.emit(&class);
            }
            'Q' => {
                let quoted = &self.rest[2..];
                let (literal, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                literal.chars().for_each(|c| self.literal(c));
                self.rest = rest;
            }
            _ => {
                let escaped = self.escape()?;
                self.literal(escaped);
            }
        }
        Ok(())
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}` and the same with `P`.
    fn unicode_class(&mut self) -> Result<String, String> {
        let mut negated = self.rest.starts_with("\\P");
        let after = &self.rest[2..];
        let (name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("invalid character class range")?,
            None => after.split_at(after.chars().next().map_or(0, char::len_utf8)),
        };
        let name = match name.strip_prefix('^') {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("invalid character class range {name:?}"));
        }
        self.rest = rest;
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Result<char, String> {
        let mut after = self.rest[1..].chars();
        let next = after.next().ok_or("trailing backslash at end")?;
        let wrong = || format!("invalid escape sequence \\{next}");
        let octal = |c: char| c.is_digit(8);
        let (code, length) = match next {
            'a' => (7, 1),
            'f' => (12, 1),
            'n' => (10, 1),
            'r' => (13, 1),
            't' => (9, 1),
            'v' => (11, 1),
            'x' => hexadecimal(after.as_str()).ok_or_else(wrong)?,
            // One digit but 0 would be a reference to a group, which RE2 has not.
            '1'..='7' if !after.as_str().starts_with(octal) => return Err(wrong()),
            '0'..='7' => {
                let more = after.as_str().chars().take(2).take_while(|c| octal(*c)).count();
                let digits = &self.rest[1..][..1 + more];
                (u32::from_str_radix(digits, 8).map_err(|_| wrong())?, digits.len())
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => (u32::from(c), 1),
            _ => return Err(wrong()),
        };
        self.advance(1 + length);
        char::from_u32(code).ok_or_else(wrong)
    }

    fn class(&mut self) -> Result<(), String> {
        self.advance(1);
        let mut class = String::from("[");
        if self.rest.starts_with('^') {
            self.advance(1);
            class.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            let item = self.class_item()?;
            class.push_str(&item);
        }
        self.advance(1);
        class.push(']');
        self.emit(&class);
        Ok(())
    }

    fn class_item(&mut self) -> Result<String, String> {
        if let Some(posix) = self.rest.strip_prefix("[:")
            && let Some((name, rest)) = posix.split_once(":]")
        {
            let known = name.strip_prefix('^').unwrap_or(name);
            if !POSIX.contains(&known) {
                return Err(format!("invalid character class range [:{name}:]"));
            }
            self.rest = rest;
            return Ok(format!("[:{name}:]"));
        }
        if let Some(after) = self.rest.strip_prefix('\\') {
            if after.starts_with(['p', 'P']) {
                return self.unicode_class();
            }
            if let Some(class) = after.chars().next().and_then(perl_class) {
                self.advance(2);
                // A negated set is a class of its own inside of this one.
                let nested = class.starts_with('^');
                return Ok(if nested { format!("[{class}]") } else { class });
            }
        }
        let low = self.class_character()?;
        let mut high = low;
        if let Some(after) = self.rest.strip_prefix('-')
            && !after.is_empty()
            && !after.starts_with(']')
        {
            self.advance(1);
            high = self.class_character()?;
            if high < low {
                return Err(format!("invalid character class range {low}-{high}"));
            }
        }
        Ok(format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)))
    }

    fn class_character(&mut self) -> Result<char, String> {
        let next = self.rest.chars().next().ok_or("missing closing ]")?;
        if next == '\\' {
            return self.escape();
        }
        self.advance(next.len_utf8());
        Ok(next)
    }
}

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// What stands between the brackets for `\d`, `\S` and their like: ASCII only, as in Go.
fn perl_class(letter: char) -> Option<String> {
    let class = match letter.to_ascii_lowercase() {
        'd' => DIGIT,
        's' => SPACE,
        'w' => WORD,
        _ => return None,
    };
    let negated = if letter.is_ascii_uppercase() { "^" } else { "" };
    Some(format!("{negated}{class}"))
}

/// `xFF` and `x{10FFFF}` after their backslash: the code, and the length with the `x`.
fn hexadecimal(after: &str) -> Option<(u32, usize)> {
    let (digits, length) = match after.strip_prefix('{') {
        Some(braced) => braced.split_once('}').map(|(d, _)| (d, d.len() + 3))?,
        None => (after.get(..2)?, 3),
    };
    let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = digits.trim_start_matches('0');
    let code = if digits.is_empty() { Ok(0) } else { u32::from_str_radix(digits, 16) };
    valid.then_some((code.ok()?, length))
}

/// `{n}`, `{n,}` or `{n,m}` at the start: its length and counts. Anything else is literal text.
fn counts(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let inside = &text[1..text.find('}')?];
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let needless = digits.len() > 1 && digits.starts_with('0');
        // What does not fit is more than the limit in any case.
        (plain && !needless).then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((inside.len() + 2, min, max))
}
