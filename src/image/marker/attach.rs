//! Pure: which scalar a marker marks, by the rules that kyaml has for comments.
//!
//! **On the line.** A comment behind a scalar marks it; in `[]` and `{}` a comma may stand
//! between. Of a block scalar it is the comment behind the `|` or `>`. A comment behind `key:`
//! belongs to the key, one behind a closing bracket to nothing here.
//!
//! **Above.** A comment of one line above `- VALUE`, behind a `-` whose value is in the next line,
//! or between `key:` and a value in a line of its own. There must be no other comment with it. In a
//! list, a comment that a blank line parts from the next entry belongs to the entry before it.
//! A comment above `key: VALUE` belongs to the key.
//!
//! The comment on the line goes first: where there is one, the one above counts for nothing.
//!
//! What looks like a marker in the text of a value, say of a patch that is written inline, is no
//! comment and marks nothing ([`inside`]).

use super::scan::{Scanned, Value};
use super::{Finding, TOKEN};
use std::collections::{BTreeMap, BTreeSet};

/// How a marker begins, behind its `#`.
const OPENING: &str = "{\"$imagepolicy\":";

/// A marked scalar.
pub(super) struct Mark {
    /// The value, by index.
    pub value: usize,
    /// What the marker says.
    pub setter: String,
    /// Line of the marker.
    pub line: usize,
}

/// All markers of a file.
pub(super) struct Attached {
    pub marks: Vec<Mark>,
    pub findings: Vec<Finding>,
}

/// Finds every marker and the scalar that it marks.
pub(super) fn attach(text: &str, scanned: &Scanned) -> Attached {
    let mut marks = Vec::new();
    let mut claimed = BTreeSet::new();
    for (index, value) in scanned.values.iter().enumerate() {
        let comment = on_the_line(text, scanned, value).or_else(|| above(text, scanned, value));
        let Some(comment) = comment else { continue };
        let (range, line) = &scanned.comments[comment];
        if let Some(setter) = setter(&text[range.clone()]) {
            claimed.insert(comment);
            marks.push(Mark { value: index, setter, line: *line });
        }
    }
    let unclaimed = scanned.comments.iter().enumerate().filter(|(n, _)| !claimed.contains(n));
    let findings = unclaimed.filter_map(|(_, (range, line))| {
        let comment = &text[range.clone()];
        let (told, blocks) = if setter(comment).is_some() {
            (homeless(text, scanned, range.start), true)
        } else if comment.trim_start_matches(['#', ' ', '\t']).starts_with('{')
            && comment.contains(TOKEN)
        {
            let told = "the comment is no marker: it must be JSON, and nothing but JSON";
            (told.to_owned(), false)
        } else {
            return None;
        };
        Some(Finding { line: *line, told, blocks })
    });
    Attached { findings: findings.collect(), marks }
}

/// Markers that stand in the text of a value. They change nothing, as with Flux: whoever wrote them
/// should know.
pub(super) fn inside(text: &str, scanned: &Scanned) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Where lines were last counted to: values stand in order of the file.
    let (mut counted, mut number) = (0, 1);
    for value in &scanned.values {
        let found = value.text.match_indices(OPENING).count();
        let raw = text.get(value.range.clone()).unwrap_or_default();
        // Where quotes hide it behind backslashes, the value's own line must do.
        let at = raw.match_indices(OPENING).map(|(at, _)| value.range.start + at);
        let lines = at.map(|at| {
            number += text.get(counted..at).map_or(0, |passed| passed.matches('\n').count());
            counted = counted.max(at);
            number
        });
        let lines = lines.chain(std::iter::repeat(value.line)).take(found);
        findings.extend(lines.map(|line| {
            let told = format!(
                "the marker is text inside the value of {}, where nothing is edited; move that \
                 text into a file of its own",
                value.path
            );
            Finding { line, told, blocks: false }
        }));
    }
    findings
}

/// What a marker says; `None` for any other comment.
fn setter(comment: &str) -> Option<String> {
    let json = comment.trim_start_matches('#');
    let mut said: BTreeMap<String, Option<String>> = serde_json::from_str(json).ok()?;
    said.remove("$imagepolicy").flatten().filter(|setter| !setter.is_empty())
}

/// Why a marker marks nothing.
fn homeless(text: &str, scanned: &Scanned, at: usize) -> String {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let alias = scanned.aliases.iter().any(|end| (line..at).contains(end));
    let what = if alias {
        "an alias; mark the scalar that the alias stands for"
    } else {
        "no scalar; it must stand behind the value that it marks, on the same line"
    };
    format!("the marker marks {what}")
}

/// The comment behind a value.
fn on_the_line(text: &str, scanned: &Scanned, value: &Value) -> Option<usize> {
    if value.block() {
        return header_comment(text, scanned, value);
    }
    let next = scanned.comments.partition_point(|(range, _)| range.start < value.range.end);
    let (range, _) = scanned.comments.get(next)?;
    let between = text[value.range.end..range.start].trim_end_matches([' ', '\t']);
    let comma = value.flow && between.strip_suffix(',').is_some_and(|b| b.trim().is_empty());
    (between.is_empty() || comma).then_some(next)
}

/// The comment behind the `|` or `>` of a block scalar.
fn header_comment(text: &str, scanned: &Scanned, value: &Value) -> Option<usize> {
    let before = scanned.comments.partition_point(|(range, _)| range.start < value.range.start);
    let last = before.checked_sub(1)?;
    let (range, _) = &scanned.comments[last];
    let line = text[..range.start].rfind('\n').map_or(0, |newline| newline + 1);
    // No own line may lie between: the block begins in the line after its header.
    let own_line = text[line..range.start].trim().is_empty();
    let lines_between = text[range.end..value.range.start].trim_start_matches('\r');
    let blank = lines_between.trim().is_empty();
    let header = text[line..range.start].trim_end();
    let opened = header.ends_with(|c: char| "|>+-".contains(c) || c.is_ascii_digit());
    (range.start >= value.gap && !own_line && blank && opened && header.contains(['|', '>']))
        .then_some(last)
}

/// The comment above a value: the only one of those between it and what precedes it.
fn above(text: &str, scanned: &Scanned, value: &Value) -> Option<usize> {
    let first = scanned.comments.partition_point(|(range, _)| range.start < value.gap);
    let mut gap = Gap { comments: Vec::new(), leads: false, beside: true, dashes: 0, blank: false };
    let mut at = value.gap;
    let mut next = first;
    while at < value.range.start {
        if let Some((range, _)) = scanned.comments.get(next)
            && range.start == at
        {
            gap.comment(next);
            at = range.end;
            next += 1;
            continue;
        }
        let rest = &text[at..value.range.start];
        let (token, length) = token(rest);
        gap.token(token);
        at += length;
    }
    match gap.comments.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

enum Token {
    Newline,
    Space,
    Dash,
    /// `:`, `?`, an opening bracket, the start of a document: what follows is the first of its kind.
    Opens,
    Comma,
    Property,
    Header,
}

fn token(rest: &str) -> (Token, usize) {
    let word = rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len()).max(1);
    let one = rest.chars().next().map_or(1, char::len_utf8);
    match rest.as_bytes().first() {
        Some(b'\n') => (Token::Newline, 1),
        Some(b'-') if rest.starts_with("---") => (Token::Opens, 3),
        Some(b'-') => (Token::Dash, 1),
        Some(b':' | b'?' | b'[' | b'{' | b'.') => (Token::Opens, 1),
        Some(b',') => (Token::Comma, 1),
        Some(b'&' | b'!') => (Token::Property, word),
        Some(b'|' | b'>') => (Token::Header, word),
        _ => (Token::Space, one),
    }
}

/// What has been seen since the last scalar.
struct Gap {
    /// Comments that could belong to the value.
    comments: Vec<usize>,
    /// Whether the value is the first after a `:`, a `-` or a bracket.
    leads: bool,
    /// Whether a comment here would belong to what stands on the line already.
    beside: bool,
    /// Dashes since the first comment.
    dashes: usize,
    /// Whether the line is blank so far.
    blank: bool,
}

impl Gap {
    fn comment(&mut self, comment: usize) {
        if !self.beside {
            self.comments.push(comment);
        }
        self.blank = false;
    }

    fn token(&mut self, token: Token) {
        let blank = self.blank;
        self.blank = matches!(token, Token::Newline) || (blank && matches!(token, Token::Space));
        match token {
            Token::Space | Token::Header => {}
            Token::Newline => {
                self.beside = false;
                if blank && !self.leads {
                    self.comments.clear();
                }
            }
            Token::Dash if self.comments.is_empty() => (self.leads, self.beside) = (true, false),
            Token::Dash => {
                self.dashes += 1;
                if self.dashes > 1 {
                    self.comments.clear();
                }
            }
            Token::Opens => self.restart(true),
            Token::Comma => self.restart(false),
            Token::Property => (self.leads, self.beside) = (true, false),
        }
    }

    fn restart(&mut self, leads: bool) {
        self.comments.clear();
        (self.leads, self.beside, self.dashes) = (leads, true, 0);
    }
}
