//! Pure: how the tips of two branches stand to each other, told by the commits that are known.
//!
//! A shallow mirror lacks most of the history, so not every question has an answer. What is
//! answered is certain: where a commit that is missing could change it, there is no answer.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Commits that one walk looks at: years of a busy branch, some milliseconds.
const MOST: usize = 5_000;

/// How the tip of a branch stands to that of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The other has it: it was merged, or never went further.
    Merged,
    /// It has the other, and lacks nothing of it.
    Ahead,
    /// Neither has the other.
    Apart {
        /// Commits of the other that it lacks.
        lacking: usize,
    },
    /// It cannot be told.
    Untold {
        /// Why.
        cause: String,
    },
}

/// The commits that were come by.
struct Walk<T> {
    seen: HashSet<T>,
    /// None of them was missing.
    whole: bool,
}

/// Goes from a commit to those before it. Commits of `end` are come by and not gone beyond, nor are
/// those whose parents nobody knows.
fn walk<T: Copy + Eq + Hash>(
    from: T,
    end: &HashSet<T>,
    parents: &dyn Fn(T) -> Option<Vec<T>>,
) -> Walk<T> {
    let mut walk = Walk { seen: HashSet::from([from]), whole: true };
    let mut todo = VecDeque::from([from]);
    while let Some(commit) = todo.pop_front() {
        if end.contains(&commit) {
            continue;
        }
        let known = if walk.seen.len() < MOST { parents(commit) } else { None };
        match known {
            Some(parents) => {
                for parent in parents {
                    if walk.seen.insert(parent) {
                        todo.push_back(parent);
                    }
                }
            }
            None => walk.whole = false,
        }
    }
    walk
}

/// How `own` stands to `other`, as far as that is certain. `parents` are those of a commit, or none
/// where it is not known.
pub fn standing<T: Copy + Eq + Hash>(
    own: T,
    other: T,
    parents: &dyn Fn(T) -> Option<Vec<T>>,
) -> Option<Standing> {
    let nothing = HashSet::new();
    let theirs = walk(other, &nothing, parents).seen;
    if theirs.contains(&own) {
        return Some(Standing::Merged);
    }
    let mine = walk(own, &nothing, parents).seen;
    if mine.contains(&other) {
        return Some(Standing::Ahead);
    }
    // No commit before `own` has `own` before it: a walk may end there and misses nothing.
    let beyond = walk(other, &mine, parents);
    let whole = beyond.whole && walk(own, &theirs, parents).whole;
    let lacking = beyond.seen.difference(&mine).count();
    whole.then_some(Standing::Apart { lacking })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each known commit with its parents.
    type Known<'a> = &'a [(u32, &'a [u32])];

    /// How 20 stands to 10.
    fn told(commits: Known<'_>) -> Option<Standing> {
        let parents = |commit: u32| {
            let found = commits.iter().find(|(known, _)| *known == commit);
            found.map(|(_, parents)| parents.to_vec())
        };
        standing(20, 10, &parents)
    }

    #[test]
    fn a_branch_was_merged_is_ahead_or_lacks_commits() {
        let apart = |lacking| Some(Standing::Apart { lacking });
        let cases: [(Known<'_>, Option<Standing>); 6] = [
            (&[(10, &[20]), (20, &[1])], Some(Standing::Merged)),
            // A merge commit, and two commits since.
            (&[(10, &[9]), (9, &[8]), (8, &[1, 20]), (20, &[1]), (1, &[])], Some(Standing::Merged)),
            (&[(20, &[19]), (19, &[10]), (10, &[1])], Some(Standing::Ahead)),
            (&[(20, &[1]), (10, &[9]), (9, &[1]), (1, &[])], apart(2)),
            // What lies before the commit in common need not be known.
            (&[(20, &[1]), (10, &[1])], apart(1)),
            // Histories that have nothing in common.
            (&[(20, &[2]), (2, &[]), (10, &[1]), (1, &[])], apart(2)),
        ];
        for (commits, expected) in cases {
            assert_eq!(told(commits), expected, "{commits:?}");
        }
        assert_eq!(standing(7, 7, &|_: u32| None), Some(Standing::Merged));
    }

    #[test]
    fn where_a_missing_commit_could_change_it_nothing_is_told() {
        let cases: [Known<'_>; 4] = [
            &[(10, &[9]), (20, &[1])],
            &[(10, &[9]), (9, &[1, 8]), (20, &[1]), (1, &[])],
            &[(10, &[1]), (1, &[]), (20, &[19])],
            &[],
        ];
        for commits in cases {
            assert_eq!(told(commits), None, "{commits:?}");
        }
        let endless = |commit: u32| Some(vec![commit + 2]);
        assert_eq!(standing(1, 2, &endless), None, "a walk ends");
    }
}
