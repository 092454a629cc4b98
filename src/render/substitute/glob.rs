//! Pure: the patterns of `${v#p}` and `${v%p}`: Go's `path.Match`, except that `*` crosses `/`.
//!
//! The pattern's positions are followed all at once, so the work is the length of the text times
//! that of the pattern, whatever they are.

enum Piece {
    /// `*`.
    Any,
    /// `?`: one character, but no `/`.
    One,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Literal(char),
}

/// Byte lengths of the shortest and the longest prefix of the text that the pattern matches.
///
/// An empty prefix does not count. `None` if there is no other, or if the pattern is malformed.
pub(super) fn prefix(pattern: &str, text: &str) -> Option<(usize, usize)> {
    let pieces = compile(pattern)?;
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    skip_stars(&pieces, &mut reached);
    let mut shortest = None;
    let mut longest = None;
    for (at, letter) in text.char_indices() {
        let mut next = vec![false; pieces.len() + 1];
        for (index, piece) in pieces.iter().enumerate().filter(|(index, _)| reached[*index]) {
            match piece {
                Piece::Any => next[index] = true,
                piece => next[index + 1] |= admits(piece, letter),
            }
        }
        skip_stars(&pieces, &mut next);
        reached = next;
        if reached[pieces.len()] {
            let length = at + letter.len_utf8();
            shortest = shortest.or(Some(length));
            longest = Some(length);
        }
        if !reached.contains(&true) {
            break;
        }
    }
    Some((shortest?, longest?))
}

/// Whoever stands before a `*` also stands behind it.
fn skip_stars(pieces: &[Piece], reached: &mut [bool]) {
    for (index, piece) in pieces.iter().enumerate() {
        if reached[index] && matches!(piece, Piece::Any) {
            reached[index + 1] = true;
        }
    }
}

fn admits(piece: &Piece, letter: char) -> bool {
    match piece {
        Piece::Any => true,
        Piece::One => letter != '/',
        Piece::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *negated
        }
        Piece::Literal(wanted) => *wanted == letter,
    }
}

fn compile(pattern: &str) -> Option<Vec<Piece>> {
    let mut letters = pattern.chars().peekable();
    let mut pieces = Vec::new();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => Piece::Literal(letters.next()?),
            '[' => class(&mut letters)?,
            letter => Piece::Literal(letter),
        });
    }
    Some(pieces)
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Piece> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match letters.next()? {
            ']' if !ranges.is_empty() => return Some(Piece::Class { negated, ranges }),
            '-' | ']' => return None,
            '\\' => letters.next()?,
            letter => letter,
        };
        let high = match letters.next_if_eq(&'-') {
            None => low,
            Some(_) => match letters.next()? {
                '-' | ']' => return None,
                '\\' => letters.next()?,
                letter => letter,
            },
        };
        ranges.push((low, high));
    }
}
