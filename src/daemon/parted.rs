//! Kustomizations that left Git while something of theirs waits for a confirmation.
//!
//! Three things may wait, and each goes ahead by its own digest alone: the end itself, together
//! with that of others; what the end has left, because it takes data along; and strays, objects
//! with the labels of that Kustomization that no inventory knows. A confirmation covers what was
//! shown under its digest and nothing beside it.

use super::Daemon;
use crate::flux::{Key, Kustomization};
use crate::logging::Message;
use crate::pipeline::{Together, edge_kustomization, former};
use crate::plan::{Entry, Held, Owner, delete_set};
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

/// One of them.
pub struct Parted {
    /// As far as it is known.
    kustomization: Kustomization,
    /// Who lost it, together with what else waits under that digest.
    lost_by: Option<Key>,
    waits: Waits,
    /// Its end has failed for the rest of what it owns, and is tried again beside what waits.
    unfinished: bool,
}

/// What waits of one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waits {
    /// Its end as a whole.
    end: Option<Held>,
    /// What its end has left.
    rest: Vec<Held>,
    /// What no inventory knows.
    strays: Option<Strays>,
    /// Digest of strays that are on their way: it has done its part once their end is over.
    under_way: Option<String>,
}

/// Objects that a confirmation brings into the inventory first, so that its end finds them.
#[derive(Debug, PartialEq, Eq)]
struct Strays {
    held: Held,
    entries: Vec<Entry>,
}

/// What a confirmation sets going.
#[derive(Debug, PartialEq, Eq)]
enum Confirmed {
    /// The end goes on.
    End,
    /// These are entered into the inventory, then the end goes on.
    Strays(Vec<Entry>),
}

impl Waits {
    fn held(&self) -> impl Iterator<Item = &Held> {
        self.end.iter().chain(&self.rest).chain(self.strays.iter().map(|strays| &strays.held))
    }

    fn is_empty(&self) -> bool {
        self.held().next().is_none() && self.under_way.is_none()
    }

    /// Takes out what a digest stands for.
    fn confirm(&mut self, digest: &str) -> Option<Confirmed> {
        if let Some(strays) = self.strays.take_if(|strays| strays.held.digest == digest) {
            self.under_way = Some(strays.held.digest);
            return Some(Confirmed::Strays(strays.entries));
        }
        let named = |held: &Held| held.digest == digest;
        if self.end.take_if(|held| named(held)).is_some() {
            return Some(Confirmed::End);
        }
        let before = self.rest.len();
        self.rest.retain(|held| !named(held));
        (self.rest.len() < before).then_some(Confirmed::End)
    }

    /// Takes in the strays that were found now. True when that is news. Before it is settled
    /// whether there is an end at all, strays are no matter: they are found again.
    fn stray(&mut self, held: Held, entries: Vec<Entry>) -> bool {
        if self.end.is_some() {
            self.strays = None;
            return false;
        }
        let known = self.strays.as_ref().is_some_and(|strays| strays.held.digest == held.digest);
        self.strays = Some(Strays { held, entries });
        !known
    }
}

impl Parted {
    /// Everything that waits, each with the Kustomization that it is shown under; `key` is this.
    pub fn held(&self, key: &Key) -> Vec<(Key, Vec<Held>)> {
        let end = |held: &Held| self.waits.end.as_ref() == Some(held);
        let under = |held: &Held| self.lost_by.as_ref().filter(|_| end(held)).unwrap_or(key);
        self.waits.held().map(|held| (under(held).clone(), vec![held.clone()])).collect()
    }

    /// True when its end waits for a word and has nothing else to do: it is not looked for again.
    pub fn ends(&self) -> bool {
        self.waits.end.is_some() || (!self.waits.rest.is_empty() && !self.unfinished)
    }

    /// True when something waits under a digest.
    pub fn waits_for(&self, digest: &str) -> bool {
        self.waits.held().any(|held| held.digest == digest)
    }

    /// True when it is the end as a whole that waits under a digest: no prune is judged by that.
    pub fn waits_to_end(&self, digest: &str) -> bool {
        self.waits.end.as_ref().is_some_and(|held| held.digest == digest)
    }
}

impl Daemon {
    fn parted_of(&mut self, kustomization: &Kustomization) -> &mut Parted {
        let fresh = || Parted {
            kustomization: kustomization.clone(),
            lost_by: None,
            waits: Waits::default(),
            unfinished: false,
        };
        self.parted.entry(kustomization.key()).or_insert_with(fresh)
    }

    /// Holds the end of most of what one parent had, or of what the record knows: a new entry, a
    /// wrong path or an emptied repository looks like that, and was perhaps held already when the
    /// daemon stopped.
    pub(super) fn hold_departed(&mut self, together: Together) {
        let Together { parent, held, ends } = together;
        tell(&held);
        for kustomization in ends {
            let parted = self.parted_of(&kustomization);
            (parted.kustomization, parted.lost_by) = (kustomization, Some(parent.clone()));
            (parted.waits.end, parted.waits.strays) = (Some(held.clone()), None);
        }
    }

    /// Tells once of children that their parent lost while we were running.
    pub(super) fn tell_cascades(&mut self) {
        let known = std::mem::take(&mut self.cascades);
        for (_, held) in self.graph.cascades() {
            if !known.contains(&held.digest) {
                tell(held);
            }
            self.cascades.insert(held.digest.clone());
        }
    }

    /// Takes in what the end of a Kustomization has left for a word, in place of what one before
    /// had; `unfinished` if it has left something else, too.
    pub(super) fn hold_rest(
        &mut self,
        kustomization: Kustomization,
        held: Vec<Held>,
        unfinished: bool,
    ) {
        let parted = self.parted_of(&kustomization);
        (parted.kustomization, parted.waits.rest) = (kustomization, held);
        parted.unfinished = unfinished;
        let over = parted.waits.under_way.take();
        self.parted.retain(|_, parted| !parted.waits.is_empty());
        // Where nothing had to be judged by it, nobody has used it.
        if let Some(digest) = over {
            self.state.used(&digest);
            self.pipeline.confirm(self.state.confirmed());
        }
    }

    /// Takes in the objects with an owner's labels that no inventory knows, in place of those
    /// that were found before.
    pub(super) fn strays(&mut self, found: BTreeMap<Owner, Vec<Entry>>) {
        for (key, parted) in &mut self.parted {
            if !found.contains_key(&Owner::at(key)) {
                parted.waits.strays = None;
            }
        }
        self.parted.retain(|_, parted| !parted.waits.is_empty());
        for (owner, entries) in found {
            let key = owner.key();
            let count = entries.len();
            if owner == Owner::edge() {
                self.workers.enter(edge_kustomization(), entries, false);
                self.edge.found();
                continue;
            }
            if let Some(kustomization) = self.graph.kustomization(&key) {
                tracing::warn!(
                    message_id = Message::InventoryRegained.id(),
                    gitopsd_kustomization = key.to_string(),
                    "{key}: {count} objects of its own that the inventory did not know are back \
                     in it"
                );
                self.workers.enter(kustomization.clone(), entries, false);
                continue;
            }
            let Some(kustomization) = former(&owner, true) else { continue };
            let ids: Vec<ObjectId> = entries.iter().map(|entry| entry.id.clone()).collect();
            let digest = delete_set(&ids);
            let reason = "they carry the labels of a Kustomization that Git does not declare, \
                          and no inventory knows them"
                .to_owned();
            let told = format!(
                "{key}: {count} objects are held: {reason}; to delete: gitopsd confirm {digest}"
            );
            let held = Held { digest: digest.clone(), ids, reason };
            if self.parted_of(&kustomization).waits.stray(held, entries) {
                tracing::warn!(
                    message_id = Message::PruneHeld.id(),
                    gitopsd_kustomization = key.to_string(),
                    gitopsd_digest = digest,
                    "{told}"
                );
            }
        }
    }

    /// Digests of what a Kustomization holds.
    pub(super) fn held_by(&self, key: &Key) -> BTreeSet<String> {
        let held = self.graph.item(key).into_iter().flat_map(|item| &item.held);
        held.map(|held| held.digest.clone()).collect()
    }

    /// Forgets, once a prune was judged, the confirmation of what a Kustomization holds no longer and
    /// has not deleted: it is back in Git, and to delete it another time is asked about again.
    pub(super) fn unconfirm(&mut self, key: &Key, mut before: BTreeSet<String>) {
        before.extend(self.state.confirmed_of(key).cloned());
        let now = self.held_by(key);
        before.retain(|digest| !now.contains(digest));
        let dropped = before.iter().filter(|digest| self.state.used(digest).is_some()).count();
        if dropped > 0 {
            self.pipeline.confirm(self.state.confirmed());
        }
    }

    /// Goes on with what was confirmed of a Kustomization.
    pub(super) fn release(&mut self, key: &Key, digest: &str) {
        let Some(parted) = self.parted.get_mut(key) else { return };
        let kustomization = parted.kustomization.clone();
        let confirmed = parted.waits.confirm(digest);
        self.parted.retain(|_, parted| !parted.waits.is_empty());
        match confirmed {
            Some(Confirmed::End) => self.part(kustomization),
            Some(Confirmed::Strays(entries)) => self.workers.enter(kustomization, entries, true),
            None => {}
        }
    }
}

/// Tells the journal that the end of several Kustomizations waits.
fn tell(Held { reason, digest, .. }: &Held) {
    tracing::warn!(
        message_id = Message::PruneHeld.id(),
        gitopsd_digest = digest,
        "held: {reason}; to delete what they own: gitopsd confirm {digest}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(names: &[&str]) -> (Held, Vec<Entry>) {
        let id = |name: &&str| ObjectId {
            namespace: "n".into(),
            name: (*name).into(),
            group: String::new(),
            kind: "ConfigMap".into(),
        };
        let ids: Vec<ObjectId> = names.iter().map(id).collect();
        let entry = |id: &ObjectId| Entry { id: id.clone(), version: "v1".into() };
        let entries = ids.iter().map(entry).collect();
        (Held { digest: delete_set(&ids), reason: "why".into(), ids }, entries)
    }

    #[test]
    fn a_confirmation_covers_what_was_shown_under_its_digest_and_nothing_beside() {
        let (rest, _) = held(&["claim"]);
        let (strays, entries) = held(&["stray"]);
        let both = || Waits {
            rest: vec![rest.clone()],
            strays: Some(Strays { held: strays.clone(), entries: entries.clone() }),
            ..Waits::default()
        };
        let mut waits = both();
        assert_eq!(waits.confirm(&rest.digest), Some(Confirmed::End));
        assert_eq!(waits.held().collect::<Vec<_>>(), [&strays], "these wait still");
        let mut waits = both();
        assert_eq!(waits.confirm(&strays.digest), Some(Confirmed::Strays(entries.clone())));
        assert_eq!(waits.held().collect::<Vec<_>>(), [&rest]);
        assert_eq!(waits.confirm("0123456789ab"), None);
    }

    #[test]
    fn strays_take_the_place_of_those_before_and_are_told_when_they_change() {
        let mut waits = Waits::default();
        let ((one, first), (two, second)) = (held(&["a"]), held(&["a", "b"]));
        assert!(waits.stray(one.clone(), first.clone()));
        assert!(!waits.stray(one.clone(), first), "the next day");
        assert!(waits.stray(two.clone(), second));
        assert_eq!(waits.held().collect::<Vec<_>>(), [&two]);
    }

    #[test]
    fn strays_of_what_may_not_end_yet_are_not_asked_about() {
        let (end, _) = held(&["kustomizations"]);
        let (strays, entries) = held(&["a"]);
        let mut waits = Waits { end: Some(end.clone()), ..Waits::default() };
        assert!(!waits.stray(strays, entries), "to enter them would end it all");
        assert_eq!(waits.held().collect::<Vec<_>>(), [&end]);
    }
}
