//! Pure: which deletions are held until somebody confirms them.
//!
//! Only deletions are held, the rest of the plan runs. A confirmation names the digest of the
//! delete set, so that it covers what was shown and nothing else.

use super::inventory::Entry;
use crate::flux::Key;
use crate::render::ObjectId;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds whose deletion takes data with it.
const PRECIOUS: &[&str] = &["PersistentVolumeClaim", "PersistentVolume"];

/// Objects named of those that go with a namespace or a definition.
const NAMED: usize = 10;

/// Kinds whose deletion takes along what is in them: to be asked about before a guard judges.
pub fn may_hold(id: &ObjectId) -> bool {
    id.kind == "CustomResourceDefinition" || (id.kind == "Namespace" && id.group.is_empty())
}

/// How many objects were there before a render that replaces most of them.
///
/// The inventory has old and new from before the first write, also after a kill, a failed run and
/// a hold. The `newcomers`, inventory ids that were noted then, do not make up for what left; what
/// the render names no longer of them has left like anything else.
pub fn there_before(
    inventory: &[Entry],
    rendered: &BTreeSet<ObjectId>,
    newcomers: &BTreeSet<String>,
) -> usize {
    let new =
        |entry: &&Entry| rendered.contains(&entry.id) && newcomers.contains(&entry.id.inventory());
    inventory.len() - inventory.iter().filter(new).count()
}

/// Whether so many deletions are most of what was there. Two are a change like any other.
pub fn most(gone: usize, before: usize) -> bool {
    gone > 2 && gone * 2 > before
}

/// What the guard is told of one Kustomization's prune.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Objects that were there before, see [`there_before`].
    pub before: usize,
    /// Objects to apply that the latest render names.
    pub rendered: usize,
    /// Flux objects in it that are acted upon: with them a render is not empty.
    pub orders: usize,
    /// True when the Kustomization itself left Git: that is intent, not an accident of a render.
    pub removed: bool,
    /// Digests of delete sets that were confirmed.
    pub confirmed: Vec<String>,
    /// Definitions with objects, and namespaces with other people's objects in them, each with what
    /// goes with it.
    pub occupied: BTreeMap<ObjectId, Vec<String>>,
}

/// Deletions that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Digest of the set, for `gitopsd confirm`.
    pub digest: String,
    /// The objects.
    pub ids: Vec<ObjectId>,
    /// Why, in one sentence.
    pub reason: String,
}

/// What the guard says of one prune.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// May be deleted now.
    pub free: Vec<ObjectId>,
    /// Waits for a confirmation.
    pub held: Option<Held>,
    /// The confirmation that let a part of `free` go; it is used up by that.
    pub used: Option<String>,
}

/// Digest of a set of deletions: 12 hex digits, independent of order.
pub fn delete_set(ids: &[ObjectId]) -> String {
    let mut names: Vec<String> = ids.iter().map(ObjectId::inventory).collect();
    names.sort();
    let digest = Sha256::digest(names.join("\n"));
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The end of several Kustomizations at once, held: an entry that became empty, or lost most of
/// the `of` that it had, looks like an accident. One that leaves by itself, or a few of many, is
/// intent: `None`. The reason is told from their number.
pub fn cascade(gone: &[Key], of: usize, reason: impl Fn(usize) -> String) -> Option<Held> {
    if gone.len() < 2 || gone.len() * 2 <= of {
        return None;
    }
    let id = |key: &Key| ObjectId {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        group: "kustomize.toolkit.fluxcd.io".to_owned(),
        kind: key.kind.as_str().to_owned(),
    };
    let ids: Vec<ObjectId> = gone.iter().map(id).collect();
    Some(Held { digest: delete_set(&ids), reason: reason(ids.len()), ids })
}

/// The same for the children that one parent has lost, `of` so many that it had.
pub fn children_lost(parent: &Key, gone: &[Key], of: usize) -> Option<Held> {
    cascade(gone, of, |gone| format!("{parent} lost {gone} of its {of} children at once"))
}

impl Guard {
    /// Splits stale objects into those that may be deleted now and those that are held.
    pub fn judge(&self, stale: Vec<ObjectId>) -> Judged {
        let whole = delete_set(&stale);
        if self.confirmed.contains(&whole) {
            return Judged { free: stale, held: None, used: Some(whole) };
        }
        let lost_most =
            !self.removed && !stale.is_empty() && (self.is_empty() || self.is_most(stale.len()));
        let (held, free): (Vec<ObjectId>, Vec<ObjectId>) = if lost_most {
            (stale, Vec::new())
        } else {
            stale.into_iter().partition(|id| {
                PRECIOUS.contains(&id.kind.as_str()) || self.occupied.contains_key(id)
            })
        };
        if held.is_empty() {
            return Judged { free, ..Judged::default() };
        }
        let digest = delete_set(&held);
        if self.confirmed.contains(&digest) {
            let free = free.into_iter().chain(held).collect();
            return Judged { free, held: None, used: Some(digest) };
        }
        let reason = if lost_most && self.is_empty() {
            "the render became empty while the Kustomization is still in Git".to_owned()
        } else if lost_most {
            format!("the render lost {} of {} objects at once", held.len(), self.before)
        } else {
            self.taken(&held)
        };
        Judged { free, held: Some(Held { digest, ids: held, reason }), used: None }
    }
}

impl Guard {
    fn is_empty(&self) -> bool {
        self.rendered + self.orders == 0
    }

    fn is_most(&self, gone: usize) -> bool {
        most(gone, if self.rendered == 0 { 0 } else { self.before })
    }

    /// What goes with the held objects, by name: nobody should confirm more than was shown.
    fn taken(&self, held: &[ObjectId]) -> String {
        let told: Vec<String> = held
            .iter()
            .filter_map(|id| {
                let inside = self.occupied.get(id)?;
                let first: Vec<&str> = inside.iter().take(NAMED).map(String::as_str).collect();
                let more = inside.len() - first.len();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                Some(format!("with {id} goes {}{more}", first.join(", ")))
            })
            .collect();
        match told.is_empty() {
            true => "deleting it takes data with it".to_owned(),
            false => told.join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kind: &str, count: usize) -> Vec<ObjectId> {
        (0..count)
            .map(|n| ObjectId {
                namespace: "n".into(),
                name: format!("o{n}"),
                group: String::new(),
                kind: kind.into(),
            })
            .collect()
    }

    fn guard(before: usize, rendered: usize) -> Guard {
        Guard { before, rendered, ..Guard::default() }
    }

    #[test]
    fn a_few_plain_objects_go_at_once() {
        let judged = guard(10, 8).judge(ids("ConfigMap", 2));
        assert_eq!((judged.free.len(), judged.held, judged.used), (2, None, None));
    }

    #[test]
    fn an_empty_render_or_one_that_lost_most_is_held_as_a_whole() {
        for (before, rendered, stale) in [(1, 0, 1), (10, 4, 6)] {
            let Judged { free, held, .. } = guard(before, rendered).judge(ids("ConfigMap", stale));
            assert_eq!((free.len(), held.map(|h| h.ids.len())), (0, Some(stale)));
        }
    }

    #[test]
    fn what_comes_in_place_of_others_is_not_counted_as_having_been_there() {
        let entry = |id: ObjectId| Entry { id, version: "v1".into() };
        let (old, new) = (ids("ConfigMap", 10), ids("Secret", 10));
        let all: Vec<Entry> = old.iter().chain(&new).cloned().map(entry).collect();
        let newcomers = new.iter().map(ObjectId::inventory).collect();
        let set = |ids: &[ObjectId]| ids.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(there_before(&all[..10], &set(&new), &newcomers), 10, "before they are there");
        assert_eq!(there_before(&all, &set(&new), &newcomers), 10);
        assert_eq!(there_before(&all, &set(&old), &newcomers), 20, "they have left themselves");
        assert_eq!(there_before(&all, &set(&new), &BTreeSet::new()), 20);
    }

    #[test]
    fn flux_objects_keep_a_render_from_being_empty_but_no_mass_from_being_held() {
        let judge = |before, stale| {
            let guard = Guard { orders: 6, ..guard(before, 0) };
            guard.judge(ids("ConfigMap", stale)).held.is_some()
        };
        assert_eq!(
            [judge(1, 1), judge(2, 2), judge(3, 3), judge(10, 5)],
            [false, false, true, true]
        );
    }

    #[test]
    fn a_namespace_is_held_only_with_others_in_it() {
        let spaces = ids("Namespace", 2);
        let inside = vec!["StatefulSet/o0/db of flux-system/web".to_owned()];
        let occupied = [(spaces[0].clone(), inside)].into();
        let Judged { free, held, .. } = Guard { occupied, ..guard(9, 5) }.judge(spaces.clone());
        assert_eq!(free, [spaces[1].clone()]);
        let held = held.unwrap();
        assert_eq!(held.ids, [spaces[0].clone()]);
        let named = format!("with {} goes StatefulSet/o0/db of flux-system/web", spaces[0]);
        assert_eq!(held.reason, named, "what is confirmed is what was shown");
    }

    #[test]
    fn removing_the_kustomization_itself_is_intent() {
        let removed = Guard { removed: true, ..guard(3, 0) };
        assert_eq!(removed.judge(ids("ConfigMap", 3)).held, None);
    }

    #[test]
    fn data_is_held_even_then_and_a_confirmation_covers_exactly_what_was_shown() {
        let mut stale = ids("PersistentVolumeClaim", 1);
        stale.extend(ids("ConfigMap", 1));
        let removed = Guard { removed: true, ..guard(5, 0) };
        let Judged { free, held, .. } = removed.judge(stale.clone());
        let held = held.unwrap();
        assert_eq!((free.len(), held.ids.len()), (1, 1));
        let confirmed = Guard { confirmed: vec![held.digest.clone()], ..removed };
        let judged = confirmed.judge(stale);
        assert_eq!((judged.free.len(), judged.held, judged.used), (2, None, Some(held.digest)));
        assert!(confirmed.judge(ids("PersistentVolumeClaim", 2)).held.is_some());
    }
}
