//! Pure: the expression language of `${…}`, as Flux's envsubst (fluxcd/pkg) accepts it.
//!
//! It is not a shell: `:+` and `:?` behave like `:-`, patterns of `/` are literal text, lengths
//! and offsets count bytes, and whatever it does not know is an error of the whole text. Only the
//! strict mode is here: a variable that is not set fails unless its operator brings a default.
//! Values are never cited in errors.

use super::{SubstituteError, Variables, glob};

/// Expressions inside expressions: real files nest two deep.
const MAX_DEPTH: usize = 32;
/// Size of one expanded object: the API server takes 3 MiB of JSON at most, hence 8 MiB of YAML.
const MAX_OUTPUT: usize = 8 << 20;

/// Replaces every expression of the text.
///
/// # Errors
///
/// The first malformed expression, or every variable that is not set, with the byte offset of the
/// expression in the text.
pub(super) fn expand(
    text: &str,
    variables: &Variables,
) -> Result<String, (usize, SubstituteError)> {
    let mut parser = Parser { text, at: 0, opened: 0 };
    let nodes = parser.all().map_err(|what| (parser.opened, SubstituteError::Syntax { what }))?;
    let mut evaluation = Evaluation { variables, unset: Vec::new(), at: 0 };
    let mut expanded = String::new();
    for node in &nodes {
        if let Err(error) = evaluation.write(node, &mut expanded) {
            return Err((evaluation.at, error));
        }
    }
    if evaluation.unset.is_empty() {
        return Ok(expanded);
    }
    let (at, _) = evaluation.unset[0];
    let mut names: Vec<String> = Vec::new();
    for (_, name) in evaluation.unset {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Err((at, SubstituteError::Unset { names }))
}

enum Node {
    Text(String),
    /// `${name operator arguments}`.
    Call {
        name: String,
        operator: String,
        arguments: Vec<Node>,
        at: usize,
    },
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Where the outermost expression begins that is being read.
    opened: usize,
}

/// Which characters a backslash or dollar takes out of their meaning, where.
#[derive(Clone, Copy, PartialEq)]
enum Escapes {
    /// None: names, operators, defaults.
    No,
    /// `$$`: text outside of expressions.
    Dollar,
    /// `$$`, `\/` and `\\`: arguments of `/`.
    All,
}

type Parsed<T> = Result<T, &'static str>;

const CLOSING: &str = "missing closing brace";
const ARGUMENT: &str = "argument of an operator is missing or malformed";

impl Parser<'_> {
    fn all(&mut self) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        while self.at < self.text.len() {
            if self.opens() {
                self.opened = self.at;
                nodes.push(self.expression(0)?);
            } else if let Some(text) = self.take(Escapes::Dollar, true, |_, _| true) {
                nodes.push(Node::Text(text));
            }
        }
        Ok(nodes)
    }

    /// From `${` to its brace.
    fn expression(&mut self, depth: usize) -> Parsed<Node> {
        if depth > MAX_DEPTH {
            return Err("expressions are nested too deeply");
        }
        let at = self.at;
        self.at += "${".len();
        let mut node = self.body(depth)?;
        if let Node::Call { at: place, .. } = &mut node {
            *place = at;
        }
        Ok(node)
    }

    fn body(&mut self, depth: usize) -> Parsed<Node> {
        let call = |name, operator, arguments| Node::Call { name, operator, arguments, at: 0 };
        if self.peek() == Some('#') {
            self.at += 1;
            let name = self.name().ok_or("unable to parse variable name after #")?;
            self.close("length takes nothing but a variable name")?;
            return Ok(call(name, "#".to_owned(), Vec::new()));
        }
        let name = self.name().ok_or("unable to parse variable name")?;
        let mut arguments = Vec::new();
        let operator = match self.peek() {
            Some(':') if self.text[self.at + 1..].starts_with(['=', '-', '?', '+']) => {
                self.defaults(2, depth, &mut arguments)?
            }
            Some('=') => self.defaults(1, depth, &mut arguments)?,
            Some(':') => self.substring(depth, &mut arguments)?,
            Some(',' | '^') => {
                let operator = self.operator(|c| matches!(c, ',' | '^'));
                self.close("malformed change of case")?;
                operator
            }
            Some('/') => self.replacement(depth, &mut arguments)?,
            Some(sign @ ('#' | '%')) => {
                let operator = self.operator(|c| c == sign);
                arguments.push(self.argument(depth, Escapes::No, |c| c != '}')?);
                self.close("malformed removal of a prefix or suffix")?;
                operator
            }
            _ => {
                self.close(CLOSING)?;
                String::new()
            }
        };
        Ok(call(name, operator, arguments))
    }

    /// `:=default` and its kin: text and expressions up to the brace.
    fn defaults(&mut self, sign: usize, depth: usize, into: &mut Vec<Node>) -> Parsed<String> {
        let operator = self.text[self.at..self.at + sign].to_owned();
        self.at += sign;
        while self.peek() != Some('}') {
            into.push(self.argument(depth, Escapes::No, |c| c != '}')?);
        }
        self.close(CLOSING)?;
        Ok(operator)
    }

    /// `:offset` and `:offset:length`.
    fn substring(&mut self, depth: usize, into: &mut Vec<Node>) -> Parsed<String> {
        self.at += ":".len();
        into.push(self.argument(depth, Escapes::No, |c| c != ':' && c != '}')?);
        if self.take(Escapes::No, false, |c, _| c == ':').is_some() {
            into.push(self.argument(depth, Escapes::No, |c| c != '}')?);
        }
        self.close("malformed offset or length")?;
        Ok(":".to_owned())
    }

    /// `/a/b`, `//a/b`, `/#a/b` and `/%a/b`; the second argument is left out when it is empty.
    fn replacement(&mut self, depth: usize, into: &mut Vec<Node>) -> Parsed<String> {
        let operator = self.take(Escapes::No, false, |c, length| match length {
            1 => c == '/',
            2 => matches!(c, '/' | '#' | '%'),
            _ => false,
        });
        into.push(match self.peek() {
            Some('/') => Node::Text(String::new()),
            _ => self.argument(depth, Escapes::All, |c| c != '/')?,
        });
        if self.take(Escapes::No, false, |c, _| c == '/').is_none() {
            return Err("replacement wants /pattern/text");
        }
        if self.peek() != Some('}') {
            into.push(self.argument(depth, Escapes::All, |c| c != '}')?);
        }
        self.close("malformed replacement")?;
        operator.ok_or(ARGUMENT)
    }

    /// One argument: an expression, or text as long as it is accepted.
    fn argument(
        &mut self,
        depth: usize,
        escapes: Escapes,
        accept: impl Fn(char) -> bool,
    ) -> Parsed<Node> {
        if self.opens() {
            return self.expression(depth + 1);
        }
        self.take(escapes, true, |c, _| accept(c)).map(Node::Text).ok_or(ARGUMENT)
    }

    fn name(&mut self) -> Option<String> {
        self.take(Escapes::No, false, |c, _| c.is_alphanumeric() || c == '_')
    }

    /// At most two signs.
    fn operator(&mut self, accept: impl Fn(char) -> bool) -> String {
        self.take(Escapes::No, false, |c, length| length < 3 && accept(c)).unwrap_or_default()
    }

    fn close(&mut self, or: &'static str) -> Parsed<()> {
        if self.peek() != Some('}') {
            return Err(or);
        }
        self.at += "}".len();
        Ok(())
    }

    /// The characters from here that are accepted (given the token's length with them), or `None`
    /// if there are none. Stops before `${` where `stops` says so.
    fn take(
        &mut self,
        escapes: Escapes,
        stops: bool,
        accept: impl Fn(char, usize) -> bool,
    ) -> Option<String> {
        let mut token = String::new();
        while let Some(next) = self.peek() {
            if stops && self.opens() {
                break;
            }
            let after = self.text[self.at + next.len_utf8()..].chars().next();
            let escaped = match (next, after) {
                ('$', Some('$')) => escapes != Escapes::No,
                ('\\', Some('/' | '\\')) => escapes == Escapes::All,
                _ => false,
            };
            let kept = match after {
                Some(after) if escaped => {
                    self.at += next.len_utf8();
                    after
                }
                _ if accept(next, token.len() + next.len_utf8()) => next,
                _ => break,
            };
            token.push(kept);
            self.at += kept.len_utf8();
        }
        (!token.is_empty()).then_some(token)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn opens(&self) -> bool {
        self.text[self.at..].starts_with("${")
    }
}

struct Evaluation<'a> {
    variables: &'a Variables,
    unset: Vec<(usize, String)>,
    at: usize,
}

impl Evaluation<'_> {
    fn write(&mut self, node: &Node, into: &mut String) -> Result<(), SubstituteError> {
        match node {
            Node::Text(text) => push(into, text),
            Node::Call { name, operator, arguments, at } => {
                self.at = *at;
                // Flux evaluates arguments first: an unset variable in a default that is not
                // needed fails all the same.
                let mut evaluated = Vec::new();
                for argument in arguments {
                    let mut text = String::new();
                    self.write(argument, &mut text)?;
                    evaluated.push(text);
                }
                let value = self.variables.get(name);
                let brings_default = matches!(operator.as_str(), "=" | ":=" | ":-" | ":+" | ":?");
                if value.is_none() && !brings_default {
                    self.unset.push((*at, name.clone()));
                }
                push(into, &apply(value.unwrap_or_default(), operator, &evaluated)?)
            }
        }
    }
}

fn push(into: &mut String, text: &str) -> Result<(), SubstituteError> {
    if into.len() + text.len() > MAX_OUTPUT {
        return Err(SubstituteError::TooLarge { limit: MAX_OUTPUT });
    }
    into.push_str(text);
    Ok(())
}

/// What an operator makes of a value.
fn apply(value: &str, operator: &str, arguments: &[String]) -> Result<String, SubstituteError> {
    let first = arguments.first().map_or("", String::as_str);
    let second = arguments.get(1).map_or("", String::as_str);
    Ok(match operator {
        "#" if arguments.is_empty() => value.len().to_string(),
        "#" => value[glob::prefix(first, value).map_or(0, |(short, _)| short)..].to_owned(),
        "##" => value[glob::prefix(first, value).map_or(0, |(_, long)| long)..].to_owned(),
        "%" => trim_suffix(value, first, |(short, _)| short),
        "%%" => trim_suffix(value, first, |(_, long)| long),
        "^" => change_first(value, upper),
        "^^" => value.chars().map(upper).collect(),
        "," => change_first(value, lower),
        ",," => value.chars().map(lower).collect(),
        ":" => substring(value, first, arguments.get(1).map(String::as_str))?.to_owned(),
        "/" => replace(value, first, second, 1)?,
        "//" => replace(value, first, second, usize::MAX)?,
        // Flux leaves the value alone when the text to put in is empty.
        "/#" | "/%" if arguments.len() != 2 => value.to_owned(),
        "/#" if value.starts_with(first) => replace(value, first, second, 1)?,
        "/%" => match value.strip_suffix(first) {
            Some(kept) => [kept, second].concat(),
            None => value.to_owned(),
        },
        _ if value.is_empty() => arguments.concat(),
        _ => value.to_owned(),
    })
}

/// Matches from the end: both sides are turned round, as Flux does it.
fn trim_suffix(value: &str, pattern: &str, choose: impl Fn((usize, usize)) -> usize) -> String {
    let turned: String = value.chars().rev().collect();
    let pattern: String = pattern.chars().rev().collect();
    let cut = glob::prefix(&pattern, &turned).map_or(0, choose);
    value[..value.len() - cut].to_owned()
}

fn change_first(value: &str, change: impl Fn(char) -> char) -> String {
    let mut letters = value.chars();
    letters.next().map(change).into_iter().chain(letters).collect()
}

/// One letter for one letter, as in Go: `ß` stays.
fn upper(letter: char) -> char {
    let mut changed = letter.to_uppercase();
    if changed.len() == 1 { changed.next().unwrap_or(letter) } else { letter }
}

fn lower(letter: char) -> char {
    let mut changed = letter.to_lowercase();
    if changed.len() == 1 { changed.next().unwrap_or(letter) } else { letter }
}

/// Offsets and lengths that are no numbers yield the whole value; negative ones count from the end.
fn substring<'a>(
    value: &'a str,
    offset: &str,
    length: Option<&str>,
) -> Result<&'a str, SubstituteError> {
    let size = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let Ok(offset) = offset.parse::<i64>() else { return Ok(value) };
    let start = if offset < 0 { (size + offset).max(0) } else { offset };
    let end = match length.map(str::parse::<i64>) {
        None => size,
        Some(Err(_)) => return Ok(value),
        Some(Ok(length)) if length < 0 => size.saturating_add(length),
        Some(Ok(length)) => start.saturating_add(length).min(size),
    };
    if start >= end {
        return Ok("");
    }
    let bound = |at: i64| usize::try_from(at).unwrap_or(usize::MAX);
    value.get(bound(start)..bound(end)).ok_or(SubstituteError::SplitCharacter)
}

fn replace(
    value: &str,
    pattern: &str,
    with: &str,
    times: usize,
) -> Result<String, SubstituteError> {
    let found = value.matches(pattern).take(times).count();
    if value.len().saturating_add(found.saturating_mul(with.len())) > MAX_OUTPUT {
        return Err(SubstituteError::TooLarge { limit: MAX_OUTPUT });
    }
    Ok(value.replacen(pattern, with, times))
}
