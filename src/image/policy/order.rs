//! Pure: the three orders of a policy, and the keys that each of them refuses.

use super::number::number;
use super::trap::{self, DateCounter};
use super::{Candidate, Choice, ChooseError, Keyed, Verdict};
use crate::flux::{Direction, Range, TagOrder, Version};
use std::cmp::Ordering;

/// Ranks the keys and chooses the best one's tag.
pub(super) fn rank(
    order: &TagOrder,
    tags: &[String],
    keyed: &mut Keyed,
) -> Result<Choice, ChooseError> {
    match order {
        TagOrder::Semver { range, said } => semver(range, said, keyed),
        TagOrder::Alphabetical(direction) => {
            if let Some(dated) = dated(keyed) {
                return Ok(trapped(dated, order, *direction, tags, keyed));
            }
            let texts = keyed.keys.keys().map(|key| (key.clone(), key.clone())).collect();
            chosen(ranked_by(keyed, texts, Ord::cmp, *direction), None)
        }
        TagOrder::Numerical(direction) => {
            if let Some(dated) = dated(keyed) {
                return Ok(trapped(dated, order, *direction, tags, keyed));
            }
            let numbers = numbers(keyed)?;
            chosen(ranked_by(keyed, numbers, by_value, *direction), None)
        }
    }
}

fn chosen(best: Option<String>, notice: Option<trap::Notice>) -> Result<Choice, ChooseError> {
    best.map(|tag| Choice { tag, notice }).ok_or(ChooseError::NoTags)
}

fn semver(range: &Range, said: &str, keyed: &mut Keyed) -> Result<Choice, ChooseError> {
    let mut inside = Vec::new();
    // From the greatest text down: of equal versions the first stays.
    for (key, tag) in keyed.keys.iter().rev() {
        let verdict = match Version::parse_strict(key) {
            None => Verdict::NotAVersion,
            Some(version) if range.matches(&version) => {
                inside.push((version, key.clone()));
                continue;
            }
            Some(_) => Verdict::OutOfRange,
        };
        let (tag, key) = (tag.clone(), Some(key.clone()));
        keyed.rejected.push(Candidate { tag, key, verdict });
    }
    let tags = keyed.keys.len();
    let best = ranked_by(keyed, inside, Ord::cmp, Direction::Asc);
    best.map(|tag| Choice { tag, notice: None })
        .ok_or_else(|| ChooseError::NoneInRange { tags, range: said.to_owned() })
}

/// All keys as numbers, from the smallest text up; one that is none fails them all.
fn numbers(keyed: &mut Keyed) -> Result<Vec<(f64, String)>, ChooseError> {
    let read: Vec<_> = keyed.keys.keys().map(|key| (number(key), key.clone())).collect();
    let Some((_, key)) = read.iter().find(|(value, _)| value.is_none()) else {
        return Ok(read.into_iter().filter_map(|(n, key)| Some((n?, key))).collect());
    };
    let error = ChooseError::NotANumber { tag: keyed.keys[key].clone(), key: key.clone() };
    for (value, key) in read {
        let tag = keyed.keys[&key].clone();
        let failing = value.is_none();
        let verdict = if failing { Verdict::NotANumber } else { Verdict::NotCompared };
        let candidate = Candidate { tag, key: Some(key), verdict };
        // What fails the policy stands first.
        let list = if failing { &mut keyed.ranked } else { &mut keyed.rejected };
        list.push(candidate);
    }
    Err(error)
}

/// All keys as date and counter, or nothing if a single one is of another form.
fn dated(keyed: &Keyed) -> Option<Vec<(DateCounter, String)>> {
    let keys = keyed.keys.keys();
    keys.map(|key| Some((DateCounter::parse(key)?, key.clone()))).collect()
}

fn trapped(
    dated: Vec<(DateCounter, String)>,
    order: &TagOrder,
    direction: Direction,
    tags: &[String],
    keyed: &mut Keyed,
) -> Choice {
    let flux = match order {
        TagOrder::Numerical(_) => {
            let read = |(_, key): &(DateCounter, String)| Some((number(key)?, key.clone()));
            let floats: Vec<_> = dated.iter().filter_map(read).collect();
            best(&floats, by_value, direction)
        }
        _ => {
            let texts: Vec<_> = dated.iter().map(|(_, k)| (k.clone(), k.clone())).collect();
            best(&texts, Ord::cmp, direction)
        }
    };
    let flux = flux.map(|key| keyed.keys[&key].clone()).unwrap_or_default();
    let tag = ranked_by(keyed, dated, Ord::cmp, direction).unwrap_or_default();
    let differs = flux != tag;
    let notice = differs.then(|| trap::notice(&tag, flux, (order, direction), (tags, &keyed.keys)));
    Choice { tag, notice }
}

/// The order of numbers; none of them is `nan`.
fn by_value(one: &f64, another: &f64) -> Ordering {
    one.partial_cmp(another).unwrap_or(Ordering::Equal)
}

fn directed<T>(
    compare: impl Fn(&T, &T) -> Ordering,
    direction: Direction,
) -> impl Fn(&T, &T) -> Ordering {
    move |a, b| match direction {
        Direction::Asc => compare(b, a),
        Direction::Desc => compare(a, b),
    }
}

/// The key that comes first; of equal ones the first that is given.
fn best<T>(
    keys: &[(T, String)],
    compare: impl Fn(&T, &T) -> Ordering,
    direction: Direction,
) -> Option<String> {
    let before = directed(compare, direction);
    keys.iter().min_by(|(a, _), (b, _)| before(a, b)).map(|(_, key)| key.clone())
}

/// Notes the keys best first, with their verdicts; gives the best one's tag.
fn ranked_by<T>(
    keyed: &mut Keyed,
    mut keys: Vec<(T, String)>,
    compare: impl Fn(&T, &T) -> Ordering,
    direction: Direction,
) -> Option<String> {
    let before = directed(compare, direction);
    // Stable: what is equal stays as the tie rule has it.
    keys.sort_by(|(a, _), (b, _)| before(a, b));
    let (best, first) = keys.first()?;
    for (value, key) in &keys {
        let verdict = match before(value, best) {
            _ if key == first => Verdict::Chosen,
            Ordering::Equal => Verdict::Tied,
            _ => Verdict::Lower,
        };
        let tag = keyed.keys[key].clone();
        keyed.ranked.push(Candidate { tag, key: Some(key.clone()), verdict });
    }
    keyed.keys.get(first).cloned()
}
