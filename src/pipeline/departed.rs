//! Pure: which of the Kustomizations that left Git unseen end at once, and which wait.
//!
//! They are judged as the graph would have judged them had it seen them leave: what one parent
//! lost against what that parent had, so that what was held before a restart is held after it,
//! under the same digest. Besides, all of them against all that the inventory knows: a new entry
//! or an emptied repository shows in that number alone.

use super::family::{Family, Standing};
use crate::flux::{Key, Kustomization};
use crate::plan::{Held, Owner, cascade, children_lost, delete_set};
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

/// Kustomizations that left Git while nobody was looking.
#[derive(Debug, Default)]
pub struct Departed {
    pub(super) gone: Vec<Kustomization>,
    /// Everybody who owns something by the inventory.
    pub(super) known: BTreeSet<Owner>,
    pub(super) family: Family,
    pub(super) standing: Standing,
}

/// Ends that wait together.
#[derive(Debug)]
pub struct Together {
    /// Who lost them.
    pub parent: Key,
    /// What is shown, and confirmed, in one piece.
    pub held: Held,
    /// What ends then: these, and what they declared themselves.
    pub ends: Vec<Kustomization>,
}

/// What becomes of them.
#[derive(Debug, Default)]
pub struct Verdict {
    /// They end at once.
    pub free: Vec<Kustomization>,
    /// They wait.
    pub waits: Vec<Together>,
}

impl Departed {
    /// Judges those that are `still` gone. What no parent answers for is the `root`'s.
    pub fn judge(self, root: &Key, still: impl Fn(&Key) -> bool) -> Verdict {
        let Departed { gone, known, family, standing } = self;
        let gone = gone.into_iter().filter(|kustomization| still(&kustomization.key()));
        let mut free: BTreeMap<Owner, Kustomization> =
            gone.map(|kustomization| (Owner::of(&kustomization), kustomization)).collect();
        let all: Vec<Key> = free.keys().map(Owner::key).collect();
        let mut waits = Vec::new();
        for (parent, lost) in family.lost(free.keys(), &standing.declared) {
            // What is in the table under another name of the root is no child of anybody.
            let counts = |child: &&Owner| {
                let there = [&standing.declared, &standing.ending, &known];
                **child != parent
                    && (lost.contains_key(*child) || there.iter().any(|set| set.contains(*child)))
            };
            let of = family.children(&parent).filter(counts).count();
            let keys: Vec<Key> = lost.keys().map(Owner::key).collect();
            if let Some(held) = children_lost(&parent.key(), &keys, of) {
                // Those that wait for another parent's loss already go by that one's digest.
                let ends = lost.values().flatten().filter_map(|owner| free.remove(owner)).collect();
                waits.push(Together { parent: parent.key(), held, ends });
            }
        }
        let reason =
            |gone| format!("{gone} of {} Kustomizations are not in Git any more", known.len());
        if let Some(mut held) = cascade(&all, known.len(), reason)
            && !free.is_empty()
        {
            let left = |id: &ObjectId| {
                free.keys().any(|owner| owner.namespace == id.namespace && owner.name == id.name)
            };
            held.ids.retain(left);
            held.digest = delete_set(&held.ids);
            let ends = std::mem::take(&mut free).into_values().collect();
            waits.push(Together { parent: root.clone(), held, ends });
        }
        Verdict { free: free.into_values().collect(), waits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::former;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "n".into(), name: name.into() }
    }

    fn owners(names: &str) -> BTreeSet<Owner> {
        names.split_whitespace().map(owner).collect()
    }

    /// `rows` are `parent: child child …`; `gone` have left of `known`.
    fn judge(rows: &[&str], declared: &str, known: &str, gone: &str) -> Vec<String> {
        let rows = rows.iter().flat_map(|row| {
            let (parent, children) = row.split_once(": ").expect("a parent");
            let of = |child| (format!("n/{child}"), format!("n/{parent}"));
            children.split(' ').map(of).collect::<Vec<_>>()
        });
        let departed = Departed {
            gone: owners(gone).iter().filter_map(|owner| former(owner, true)).collect(),
            known: owners(known),
            family: Family::new(&rows.collect::<Vec<_>>()),
            standing: Standing { declared: owners(declared), ..Standing::default() },
        };
        let Verdict { free, waits } = departed.judge(&owner("root").key(), |_| true);
        let names = |all: &[Kustomization]| {
            let names = all.iter().map(|kustomization| Owner::of(kustomization).name);
            names.collect::<Vec<_>>().join(" ")
        };
        let mut said: Vec<String> = waits
            .iter()
            .map(|Together { parent, held, ends }| {
                assert_eq!(held.digest, delete_set(&held.ids));
                let ids: Vec<&str> = held.ids.iter().map(|id| id.name.as_str()).collect();
                let (ids, ends) = (ids.join(" "), names(ends));
                format!("{} [{ids}] {}: {ends}", parent.name, held.reason)
            })
            .collect();
        said.extend((!free.is_empty()).then(|| format!("free: {}", names(&free))));
        said
    }

    const ROOT: &str = "root: root alias apps p1 p2 p3 p4 p5 p6";
    const PLAIN: &str = "p1 p2 p3 p4 p5 p6";

    #[test]
    fn all_children_of_one_parent_wait_however_many_others_there_are() {
        let (declared, known) = (format!("root apps {PLAIN}"), format!("root apps a b {PLAIN}"));
        let judge = |gone| judge(&[ROOT, "apps: a b"], &declared, &known, gone);
        let both = "apps [a b] Kustomization/n/apps lost 2 of its 2 children at once: a b";
        assert_eq!(judge("a b"), [both]);
        assert_eq!(judge("a"), ["free: a"], "one alone is intent");
    }

    #[test]
    fn what_the_lost_ones_declared_waits_with_them_and_is_not_counted() {
        let rows = [ROOT, "apps: a b c", "a: deep", "deep: deeper", "b: x y"];
        let (declared, known) =
            (format!("root apps c {PLAIN}"), format!("a b deeper x y c {PLAIN}"));
        // `deep` owns nothing: the inventory does not know it.
        assert_eq!(
            judge(&rows, &declared, &known, "a b deeper x y"),
            ["apps [a b] Kustomization/n/apps lost 2 of its 3 children at once: a deeper b x y"]
        );
        let declared = format!("root apps a c {PLAIN}");
        assert_eq!(judge(&rows, &declared, &known, "b x y"), ["free: b x y"], "b alone left");
    }

    #[test]
    fn one_that_owns_nothing_itself_counts_as_one_that_left() {
        let rows = ["root: one two", "one: a b", "two: c"];
        let known = "a b c k1 k2 k3 k4 k5";
        assert_eq!(
            judge(&rows, "root", known, "a b c"),
            ["root [one two] Kustomization/n/root lost 2 of its 2 children at once: a b c"]
        );
        assert_eq!(judge(&rows, "root two", known, "a b"), ["free: a b"]);
    }

    #[test]
    fn most_of_all_wait_too_and_what_a_parent_lost_keeps_its_own_digest() {
        let rows = ["root: apps p q r", "apps: a b"];
        let all = "Kustomizations are not in Git any more";
        assert_eq!(
            judge(&rows, "root apps q r", "a b p q r", "a b p"),
            [
                "apps [a b] Kustomization/n/apps lost 2 of its 2 children at once: a b".to_owned(),
                format!("root [p] 3 of 5 {all}: p"),
            ]
        );
        assert_eq!(judge(&[], "root", "a b c", "a b"), [format!("root [a b] 2 of 3 {all}: a b")]);
        assert_eq!(judge(&[], "root", "a b c d", "a b"), ["free: a b"]);
    }
}
