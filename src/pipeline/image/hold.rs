//! Pure: what goes back and forth is committed once in an interval.
//!
//! A value that this automation replaced within its interval, and that is now to come back, waits
//! until the interval is over: a tag that flaps. So does a replacement that was made within the
//! interval and is now to be made again: somebody else writes the other value, and two writers
//! without a pause would fill the branch with commits. Only a commit that is known to have arrived
//! counts for that: one that was lost is made again at once. Whatever else is new does not wait.

use crate::history::{Push, Replaced};
use std::collections::BTreeMap;

/// Policies, `namespace/name`, whose choice waits: until when, Unix milliseconds, and in words.
pub(super) type Held = BTreeMap<String, (i64, String)>;

/// What of `wanted` was replaced by the latest commits of this automation within its interval, or
/// would be replaced as in one of them.
pub(super) fn held(latest: &[Push], wanted: &[Replaced], interval_ms: i64, now_ms: i64) -> Held {
    let mut held = Held::new();
    let recent = latest.iter().filter(|push| push.made_ms > now_ms.saturating_sub(interval_ms));
    for push in recent.filter(|push| push.made_ms <= now_ms) {
        let until = push.made_ms.saturating_add(interval_ms);
        for (past, change) in push.changes.iter().flat_map(|p| wanted.iter().map(move |c| (p, c))) {
            if past.policy != change.policy || past.file != change.file || past.old == past.new {
                continue;
            }
            let Replaced { policy, file, old, new, .. } = past;
            let told = if past.old == change.new {
                format!(
                    "ImagePolicy {policy} goes back and forth: {old} was replaced by {new} in \
                     {file} less than an interval ago; it comes back when the interval is over"
                )
            } else if push.pushed_ms.is_some() && again(past, change) {
                format!(
                    "somebody else writes what ImagePolicy {policy} chooses: {new} was written in \
                     {file} less than an interval ago, and {old} is there again; {new} comes back \
                     when the interval is over"
                )
            } else {
                continue;
            };
            if held.get(policy).is_none_or(|(known, _)| *known < until) {
                held.insert(policy.clone(), (until, told));
            }
        }
    }
    held
}

/// Whether one replacement is the other once more; lines move, objects stay.
fn again(past: &Replaced, change: &Replaced) -> bool {
    (&past.object, &past.old, &past.new) == (&change.object, &change.old, &change.new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(policy: &str, old: &str, new: &str) -> Replaced {
        Replaced {
            policy: policy.into(),
            object: "Deployment/n/a".into(),
            file: "a.yaml".into(),
            line: 3,
            old: old.into(),
            new: new.into(),
        }
    }

    fn push(made_ms: i64, changes: Vec<Replaced>) -> Push {
        Push {
            automation: "n/all".into(),
            sha: "0".into(),
            url: "u".into(),
            branch: "main".into(),
            made_ms,
            pushed_ms: Some(made_ms),
            changes,
        }
    }

    #[test]
    fn what_was_replaced_within_the_interval_comes_back_when_it_is_over() {
        let latest = [push(1_000, vec![change("n/a", "1", "2")])];
        let back = [change("n/a", "2", "1"), change("n/b", "2", "1")];
        let waits = |now| {
            let held = held(&latest, &back, 500, now);
            held.into_iter().map(|(policy, (until, _))| (policy, until)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1_100), [("n/a".to_owned(), 1_500)]);
        assert_eq!(waits(1_500), []);
        assert_eq!(waits(900), [], "the clock was put back: nothing waits for ever");
        let onward = [change("n/a", "2", "3")];
        assert_eq!(held(&latest, &onward, 500, 1_100), Held::new(), "another tag does not wait");
    }

    #[test]
    fn the_same_replacement_waits_once_the_first_has_arrived() {
        let wanted = [change("n/a", "1", "2")];
        let arrived = push(1_000, wanted.to_vec());
        let lost = Push { pushed_ms: None, ..arrived.clone() };
        let until = |latest: &[Push], wanted: &[Replaced]| {
            let held = held(latest, wanted, 500, 1_100);
            held.into_values().map(|(until, told)| (until, told.contains("somebody else"))).next()
        };
        assert_eq!(until(std::slice::from_ref(&arrived), &wanted), Some((1_500, true)));
        assert_eq!(until(&[lost], &wanted), None, "what did not arrive is made again at once");
        let elsewhere = Replaced { object: "Deployment/n/b".into(), ..wanted[0].clone() };
        assert_eq!(until(&[arrived], &[elsewhere]), None, "another marker is filled at once");
    }
}
