//! Pure: what one Kustomization's last run learned, so that the next costs only the change.

use super::WorkOrders;
use crate::plan::{Gate, Held};
use crate::render::ObjectId;
use std::collections::BTreeMap;

/// Heals of one object that look like accidents, the time they are counted over, and the pause
/// once there are more; milliseconds.
const HEALS_IN_PEACE: usize = 3;
const FIGHT_WINDOW: u64 = 10 * 60 * 1000;
const FIGHT_PAUSE: u64 = 60 * 1000;

/// What is known of one applied object.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Keyed digest of the manifest as applied.
    pub digest: String,
    /// Drift gate of the answer to our apply.
    pub gate: Gate,
    /// API version it was applied with.
    pub api_version: String,
    /// resourceVersion that the gate was taken at; 0 when not known.
    pub version: u64,
}

/// What is known of one Kustomization.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Digest of the inputs of the last render that was applied whole.
    pub input: String,
    /// Work orders of that render.
    pub orders: WorkOrders,
    /// Objects as applied.
    pub objects: BTreeMap<ObjectId, Known>,
    /// Objects whose gate moved since, with the resourceVersion that showed it.
    pub nominated: BTreeMap<ObjectId, u64>,
    /// When objects were healed lately, milliseconds of any steady clock.
    pub healed: BTreeMap<ObjectId, Vec<u64>>,
    /// Every object is to be compared by the next run.
    pub verify: bool,
    /// True when the last run ended ready: applied, pruned and healthy.
    pub ready: bool,
    /// Notices of the last run.
    pub warnings: Vec<String>,
    /// Deletions that the last run left waiting.
    pub held: Vec<Held>,
    /// The failure that the history has, so that a retry with the same end writes nothing.
    pub last_failure: Option<String>,
}

impl Memory {
    /// True when a run on the same inputs would find nothing to do.
    pub fn quiet(&self, input: &str) -> bool {
        self.ready && !self.verify && self.input == input && self.nominated.is_empty()
    }

    /// True when an object needs no look: same manifest, gate unmoved.
    pub fn unchanged(&self, id: &ObjectId, digest: &str) -> bool {
        !self.nominated.contains_key(id)
            && self.objects.get(id).is_some_and(|known| known.digest == digest)
    }

    /// Takes in what a watch saw; `None` for a deletion, version 0 when it cannot be told. True
    /// when the object is to be judged by a dry-run. What is older than our own look is no news.
    pub fn see(&mut self, id: &ObjectId, gate: Option<Gate>, version: u64) -> bool {
        match self.objects.get(id) {
            Some(known) if version != 0 && version <= known.version => false,
            Some(known) if gate != Some(known.gate) => {
                self.nominated.insert(id.clone(), version).is_none()
            }
            _ => false,
        }
    }

    /// Nothing that was seen counts any more: resourceVersions may even have fallen.
    pub fn doubt(&mut self) {
        self.verify = true;
        self.nominated.clear();
        self.objects.values_mut().for_each(|known| known.version = 0);
    }

    /// Takes in what we applied or read ourselves; an edit that a watch saw later stays.
    pub fn know(&mut self, id: &ObjectId, known: Known) {
        if self.nominated.get(id).is_some_and(|seen| *seen <= known.version) {
            self.nominated.remove(id);
        }
        self.objects.insert(id.clone(), known);
    }

    /// Notes a heal at `now`, milliseconds of a steady clock.
    pub fn heal(&mut self, id: &ObjectId, now: u64) {
        let heals = self.healed.entry(id.clone()).or_default();
        heals.retain(|at| now.saturating_sub(*at) < FIGHT_WINDOW);
        heals.push(now);
    }

    /// How many milliseconds the next heal of an object has to wait: after three in ten minutes
    /// somebody else keeps writing, and a fight would only load the API server.
    pub fn patience(&self, id: &ObjectId, now: u64) -> u64 {
        let heals = self.healed.get(id).map_or(&[][..], Vec::as_slice);
        let recent = heals.iter().filter(|at| now.saturating_sub(**at) < FIGHT_WINDOW).count();
        match heals.last() {
            Some(last) if recent >= HEALS_IN_PEACE => (last + FIGHT_PAUSE).saturating_sub(now),
            _ => 0,
        }
    }

    /// Work orders of the last render, for a revision that did not change them.
    pub fn orders_at(&self, revision: &str) -> WorkOrders {
        WorkOrders { revision: revision.to_owned(), ..self.orders.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id() -> ObjectId {
        ObjectId {
            namespace: "n".into(),
            name: "x".into(),
            group: String::new(),
            kind: "ConfigMap".into(),
        }
    }

    fn gate(n: u64) -> Gate {
        Gate::of(&json!({"metadata": {"uid": "u", "generation": n}}))
    }

    fn known(n: u64, version: u64) -> Known {
        Known { digest: "d".into(), gate: gate(n), api_version: "v1".into(), version }
    }

    fn memory() -> Memory {
        let objects = [(id(), known(1, 5))].into();
        Memory { input: "i".into(), objects, ready: true, ..Memory::default() }
    }

    #[test]
    fn a_moved_gate_nominates_once_and_ends_the_quiet() {
        let mut memory = memory();
        assert!(memory.quiet("i") && memory.unchanged(&id(), "d"));
        assert!(!memory.see(&id(), Some(gate(1)), 6), "an unmoved gate is no news");
        assert!(!memory.see(&id(), Some(gate(0)), 4), "nor is what we have seen since");
        assert!(memory.see(&id(), None, 0), "a deletion is");
        assert!(!memory.see(&id(), Some(gate(2)), 7), "told once");
        assert!(!memory.quiet("i") && !memory.unchanged(&id(), "d"));
    }

    #[test]
    fn an_edit_seen_after_our_own_look_is_not_lost() {
        let mut memory = memory();
        assert!(memory.see(&id(), Some(gate(2)), 9));
        memory.know(&id(), known(1, 8));
        assert!(!memory.quiet("i"), "the edit at 9 is newer than our look at 8");
        memory.know(&id(), known(2, 9));
        assert!(memory.quiet("i"));
    }

    #[test]
    fn the_fourth_heal_in_ten_minutes_waits() {
        let mut memory = memory();
        for at in [0, 1000, 2000] {
            assert_eq!(memory.patience(&id(), at), 0);
            memory.heal(&id(), at);
        }
        assert_eq!(memory.patience(&id(), 3000), 59_000);
        assert_eq!(memory.patience(&id(), 2000 + FIGHT_WINDOW), 0);
    }
}
