//! Pure: hosts that were public because an Ingress had them, and that none has just now.
//!
//! A cluster that is filled anew, or an Ingress that is deleted and made again, is without its hosts
//! for a while. A name that is taken away meanwhile is away for as long as resolvers remember it: so
//! such a host stays public until two runs in a row have missed it, each at a time when everything in
//! Git was rendered as it is there now: what cannot be rendered may have the host yet, while what was
//! rendered and fails for another reason has had its turn. One whose Ingress is still there, and not
//! to be public any more, is somebody's decision: it goes at once. A host that is named in the
//! configuration is none of these.

use std::collections::BTreeSet;

/// Hosts that are public by discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Those that are, and those that are kept.
    pub hosts: BTreeSet<String>,
    /// Of these, those that nothing has just now.
    pub absent: BTreeSet<String>,
}

/// Tells which hosts stay. Of `there`, which are all that something in the cluster has, `found` are
/// to be public. `known` were public at the last run, `missed` are those that it missed; `complete`
/// says that everything in Git is rendered.
pub fn present(
    found: BTreeSet<String>,
    there: &BTreeSet<String>,
    known: &BTreeSet<String>,
    missed: &BTreeSet<String>,
    complete: bool,
) -> Present {
    let stays = |host: &&String| !there.contains(*host) && (!complete || !missed.contains(*host));
    let absent: BTreeSet<String> = known.difference(&found).filter(stays).cloned().collect();
    Present { hosts: found.into_iter().chain(absent.iter().cloned()).collect(), absent }
}

impl Present {
    /// Those that this run has missed at a time when that counts.
    pub fn missed(&self, complete: bool) -> BTreeSet<String> {
        if complete { self.absent.clone() } else { BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hosts: &str) -> BTreeSet<String> {
        hosts.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_host_goes_when_two_runs_in_a_row_have_missed_it_with_everything_rendered() {
        // What each run finds, whether everything is rendered, and what is public then.
        let story = [
            ("a b", true, "a b"),
            ("a", true, "a b"),
            ("a b", true, "a b"),
            ("a", false, "a b"),
            ("", false, "a b"),
            ("", true, "a b"),
            ("a", true, "a"),
            ("", true, "a"),
            ("", false, "a"),
            ("", true, "a"),
            ("", true, ""),
            ("b", true, "b"),
        ];
        let (mut known, mut missed) = (set(""), set(""));
        for (step, (found, complete, public)) in story.into_iter().enumerate() {
            let present = present(set(found), &set(found), &known, &missed, complete);
            assert_eq!(present.hosts, set(public), "step {step}");
            missed = present.missed(complete);
            known = present.hosts;
        }
    }

    #[test]
    fn a_host_whose_ingress_is_there_and_not_marked_any_more_goes_at_once() {
        for complete in [true, false] {
            let present = present(set("a"), &set("a b"), &set("a b c"), &set(""), complete);
            assert_eq!(present, Present { hosts: set("a c"), absent: set("c") });
        }
    }
}
