//! Pure: what one Kustomization's last run learned, so that the next costs only the change.

use super::{Problem, WorkOrders};
use crate::plan::Gate;
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one applied object.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Keyed digest of the manifest as applied.
    pub digest: String,
    /// Drift gate of the answer to our apply.
    pub gate: Gate,
    /// API version it was applied with.
    pub api_version: String,
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
    /// Objects whose gate moved since.
    pub nominated: BTreeSet<ObjectId>,
    /// True when the last run ended ready: applied, pruned and healthy.
    pub ready: bool,
    /// Notices of the last run.
    pub warnings: Vec<String>,
}

impl Memory {
    /// True when a run on the same inputs would find nothing to do.
    pub fn quiet(&self, input: &str) -> bool {
        self.ready && self.input == input && self.nominated.is_empty()
    }

    /// True when an object needs no look: same manifest, gate unmoved.
    pub fn unchanged(&self, id: &ObjectId, digest: &str) -> bool {
        !self.nominated.contains(id)
            && self.objects.get(id).is_some_and(|known| known.digest == digest)
    }

    /// Takes in what a watch saw. True when the object is to be judged by a dry-run.
    pub fn see(&mut self, id: &ObjectId, gate: Option<Gate>) -> bool {
        match self.objects.get(id) {
            Some(known) if gate != Some(known.gate) => self.nominated.insert(id.clone()),
            _ => false,
        }
    }

    /// Work orders of the last render, for a revision that did not change them.
    pub fn orders_at(&self, revision: &str) -> WorkOrders {
        WorkOrders { revision: revision.to_owned(), ..self.orders.clone() }
    }

    /// Problems among the work orders.
    pub fn problems(&self) -> &[Problem] {
        &self.orders.problems
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

    #[test]
    fn a_moved_gate_nominates_once_and_ends_the_quiet() {
        let gate = |n: u64| Gate::of(&json!({"metadata": {"uid": "u", "generation": n}}));
        let known = Known { digest: "d".into(), gate: gate(1), api_version: "v1".into() };
        let mut memory = Memory {
            input: "i".into(),
            objects: [(id(), known)].into(),
            ready: true,
            ..Memory::default()
        };
        assert!(memory.quiet("i") && memory.unchanged(&id(), "d"));
        assert!(!memory.see(&id(), Some(gate(1))), "an unmoved gate is no news");
        assert!(memory.see(&id(), None), "a deletion is");
        assert!(!memory.see(&id(), Some(gate(2))), "told once");
        assert!(!memory.quiet("i") && !memory.unchanged(&id(), "d"));
    }
}
