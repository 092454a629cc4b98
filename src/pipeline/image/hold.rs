//! Pure: a choice that goes back and forth is committed once in an interval.
//!
//! A value that this automation replaced within its interval, and that is now to come back, waits
//! until the interval is over. Whatever else is new does not wait.

use crate::history::{Push, Replaced};
use std::collections::BTreeMap;

/// Policies, `namespace/name`, whose choice waits: until when, Unix milliseconds, and in words.
pub(super) type Held = BTreeMap<String, (i64, String)>;

/// What of `wanted` was replaced by the latest commits of this automation within its interval.
pub(super) fn held(latest: &[Push], wanted: &[Replaced], interval_ms: i64, now_ms: i64) -> Held {
    let mut held = Held::new();
    let recent = latest.iter().filter(|push| push.made_ms > now_ms.saturating_sub(interval_ms));
    for push in recent.filter(|push| push.made_ms <= now_ms) {
        for change in wanted {
            let back = |past: &Replaced| {
                past.policy == change.policy
                    && past.file == change.file
                    && past.old == change.new
                    && past.new != past.old
            };
            let Some(past) = push.changes.iter().find(|past| back(past)) else { continue };
            let until = push.made_ms.saturating_add(interval_ms);
            let Replaced { policy, file, old, new, .. } = past;
            let told = format!(
                "ImagePolicy {policy} goes back and forth: {old} was replaced by {new} in {file} \
                 less than an interval ago; it comes back when the interval is over"
            );
            let later = held.get(policy).is_none_or(|(known, _)| *known < until);
            if later {
                held.insert(policy.clone(), (until, told));
            }
        }
    }
    held
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
}
