//! Pure: versions and ranges as Masterminds/semver v3 means them, which is what Flux uses.
//!
//! No crate means the same by `1.2 - 2`, `~1`, `>=1, <2 || 3.x` or by which range admits a
//! prerelease, so the rules stand here. A range is a list of alternatives (`||`), each a list of
//! comparisons that must all hold (space or comma). An alternative that names no prerelease
//! admits none; one that names a prerelease anywhere admits them everywhere in it.

use std::cmp::Ordering;

/// One version: one to three numbers, an optional prerelease, optional build metadata.
///
/// Ordered by precedence: build metadata counts for nothing, also not for equality.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u64; 3],
    prerelease: Vec<Identifier>,
    original: String,
}

/// Part of a prerelease; numbers sort before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    /// Reads `1`, `v1.2`, `1.2.3-rc.1+build`: a leading `v` and missing numbers are tolerated,
    /// and leading zeros of the three numbers too.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = [0; 3];
        for (index, number) in numbers.iter_mut().enumerate() {
            if index > 0 {
                match rest.strip_prefix('.') {
                    Some(after) => rest = after,
                    None => break,
                }
            }
            let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
            *number = digits.parse().ok()?;
            rest = after;
        }
        let (prerelease, rest) = identifiers(rest, '-')?;
        let (_, rest) = identifiers(rest, '+')?;
        if !rest.is_empty() {
            return None;
        }
        Some(Version { numbers, prerelease: words(prerelease)?, original: text.to_owned() })
    }

    /// Reads a version as Flux's tag rule wants it: at least three parts between dots
    /// (Flux: ImagePolicy), otherwise as [`Version::parse`].
    pub fn parse_strict(text: &str) -> Option<Self> {
        if text.split('.').count() < 3 { None } else { Self::parse(text) }
    }

    /// The text that was read, with its `v` and its build metadata.
    pub fn original(&self) -> &str {
        &self.original
    }

    /// Whether the version is a prerelease.
    pub fn is_prerelease(&self) -> bool {
        !self.prerelease.is_empty()
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.is_prerelease(), other.is_prerelease()) {
                (true, true) => self.prerelease.cmp(&other.prerelease),
                (one, another) => another.cmp(&one),
            }
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// A range of versions, such as `>=1.2 <2 || 3.x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    alternatives: Vec<Vec<Comparison>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// Which number of a comparison is the first left open (missing or `x`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Major,
    Minor,
    Patch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    version: Version,
    open: Open,
}

impl Range {
    /// Reads a range; an empty text means any release.
    ///
    /// # Errors
    ///
    /// A sentence that names the part that is no comparison.
    pub fn parse(text: &str) -> Result<Self, String> {
        let alternatives = text.split("||").map(comparisons).collect::<Result<_, _>>()?;
        Ok(Range { alternatives })
    }

    /// Whether the version lies in the range.
    pub fn matches(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|all| {
            let names_prerelease = all.iter().any(|c| c.version.is_prerelease());
            (names_prerelease || !version.is_prerelease()) && all.iter().all(|c| c.admits(version))
        })
    }
}

impl Comparison {
    fn admits(&self, version: &Version) -> bool {
        let wanted = &self.version;
        let [major, minor, _] = version.numbers;
        let [wanted_major, wanted_minor, _] = wanted.numbers;
        match self.operator {
            Operator::Equal if self.open == Open::Nothing => version == wanted,
            Operator::Equal | Operator::Tilde => self.tilde(version),
            Operator::NotEqual => self.differs(version),
            Operator::Less => version < wanted,
            Operator::GreaterOrEqual => version >= wanted,
            // `>11` wants 12 or later, `>11.1` wants 11.2 or later.
            Operator::Greater => match self.open {
                Open::Minor => major > wanted_major,
                Open::Patch => (major, minor) > (wanted_major, wanted_minor),
                Open::Nothing | Open::Major => version > wanted,
            },
            // `<=11` takes in all of 11, `<=11.1` all of 11.1.
            Operator::LessOrEqual => match self.open {
                Open::Nothing => version <= wanted,
                Open::Minor => major <= wanted_major,
                Open::Major | Open::Patch => (major, minor) <= (wanted_major, wanted_minor),
            },
            Operator::Caret => self.caret(version),
        }
    }

    /// `~1.2.3` and `1.2.x`: not below, and the same up to the last number given but one.
    fn tilde(&self, version: &Version) -> bool {
        let wanted = &self.version;
        if version < wanted {
            return false;
        }
        // `~0.0.0` and `*` are one to Masterminds: anything.
        if wanted.numbers == [0; 3] && matches!(self.open, Open::Nothing | Open::Major) {
            return true;
        }
        version.numbers[0] == wanted.numbers[0]
            && (self.open == Open::Minor || version.numbers[1] == wanted.numbers[1])
    }

    /// `^1.2.3`: not below, and the same up to the first number that is not zero.
    fn caret(&self, version: &Version) -> bool {
        let ([major, minor, patch], wanted) = (version.numbers, self.version.numbers);
        if *version < self.version {
            return false;
        }
        match (self.open, wanted) {
            (Open::Major, _) => true,
            (Open::Minor, _) => major == wanted[0],
            (_, [first, ..]) if first > 0 => major == first,
            (Open::Patch, _) => major == 0 && minor == wanted[1],
            (_, [_, second, _]) if second > 0 => major == 0 && minor == second,
            (Open::Nothing, _) => major == 0 && minor == 0 && patch == wanted[2],
        }
    }

    fn differs(&self, version: &Version) -> bool {
        let ([major, minor, _], wanted) = (version.numbers, self.version.numbers);
        match self.open {
            Open::Minor => major != wanted[0],
            Open::Patch => {
                (major, minor) != (wanted[0], wanted[1])
                    || version.prerelease != self.version.prerelease
            }
            Open::Nothing | Open::Major => *version != self.version,
        }
    }
}

/// The comparisons of one alternative.
fn comparisons(text: &str) -> Result<Vec<Comparison>, String> {
    let improper = || format!("{:?} is not a version range", text.trim());
    let mut rest = text.trim();
    if rest.is_empty() {
        let version = Version::parse("0.0.0").ok_or_else(improper)?;
        return Ok(vec![Comparison { operator: Operator::Equal, version, open: Open::Major }]);
    }
    let mut found = Vec::new();
    loop {
        let (said, after) = operator(rest);
        let (version, open, after) = partial(after.trim_start()).ok_or_else(improper)?;
        rest = after;
        if let (None, Some(upper)) = (said, hyphen(rest)) {
            let (last, last_open, after) = partial(upper).ok_or_else(improper)?;
            found.push(Comparison { operator: Operator::GreaterOrEqual, version, open });
            let operator = Operator::LessOrEqual;
            found.push(Comparison { operator, version: last, open: last_open });
            rest = after;
        } else {
            let operator = said.unwrap_or(Operator::Equal);
            found.push(Comparison { operator, version, open });
        }
        let next = rest.trim_start();
        if next.is_empty() {
            return Ok(found);
        }
        match next.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if next.len() < rest.len() => rest = next,
            None => return Err(improper()),
        }
    }
}

/// What follows the ` - ` of a hyphen range, if the text goes on with one.
fn hyphen(text: &str) -> Option<&str> {
    let spaced = text.starts_with(char::is_whitespace);
    let after = text.trim_start().strip_prefix('-').filter(|_| spaced)?;
    after.starts_with(char::is_whitespace).then(|| after.trim_start())
}

fn operator(text: &str) -> (Option<Operator>, &str) {
    const OPERATORS: [(&str, Operator); 11] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterOrEqual),
        ("=>", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        ("=<", Operator::LessOrEqual),
        ("~>", Operator::Tilde),
        (">", Operator::Greater),
        ("<", Operator::Less),
        ("=", Operator::Equal),
        ("~", Operator::Tilde),
        ("^", Operator::Caret),
    ];
    for (sign, operator) in OPERATORS {
        if let Some(rest) = text.strip_prefix(sign) {
            return (Some(operator), rest);
        }
    }
    (None, text)
}

/// A version whose numbers may be missing or `x`, and the text after it.
fn partial(text: &str) -> Option<(Version, Open, &str)> {
    let mut rest = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = [0; 3];
    let mut open = Open::Nothing;
    for (index, level) in [Open::Major, Open::Minor, Open::Patch].into_iter().enumerate() {
        let after = if index == 0 { Some(rest) } else { rest.strip_prefix('.') };
        let segment = after.map(|a| split_while(a, |c| c.is_ascii_digit() || "xX*".contains(c)));
        let said = match segment {
            Some(("", _)) => return None,
            Some((said, after)) => {
                rest = after;
                Some(said).filter(|said| !matches!(*said, "x" | "X" | "*"))
            }
            None => None,
        };
        match said {
            // What follows an open number counts for nothing, as in `1.x.3`.
            Some(_) if open != Open::Nothing => {}
            Some(said) => numbers[index] = said.parse().ok()?,
            None if open == Open::Nothing => open = level,
            None => {}
        }
    }
    let (prerelease, rest) = identifiers(rest, '-')?;
    let (_, rest) = identifiers(rest, '+')?;
    let original = text[..text.len() - rest.len()].to_owned();
    Some((Version { numbers, prerelease: words(prerelease)?, original }, open, rest))
}

/// `-a.b` or `+a.b` at the start of the text, without its sign; empty when there is none.
fn identifiers(text: &str, sign: char) -> Option<(&str, &str)> {
    let Some(after) = text.strip_prefix(sign) else { return Some(("", text)) };
    let (said, rest) = split_while(after, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    (!said.split('.').any(str::is_empty)).then_some((said, rest))
}

/// The parts of a prerelease; a number with a leading zero is refused.
fn words(prerelease: &str) -> Option<Vec<Identifier>> {
    let parts = prerelease.split('.').filter(|part| !part.is_empty());
    parts
        .map(|part| match part.bytes().all(|b| b.is_ascii_digit()) {
            true if part.len() > 1 && part.starts_with('0') => None,
            true => Some(
                part.parse().map_or_else(|_| Identifier::Word(part.into()), Identifier::Number),
            ),
            false => Some(Identifier::Word(part.to_owned())),
        })
        .collect()
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
