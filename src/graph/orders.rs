//! Pure: work orders of one render → items added, changed, dropped.

use super::{Effect, Graph, Item, Notices, Time};
use crate::flux::{Key, Object};
use crate::history::Trigger;
use crate::pipeline::{Order, Problem, WorkOrders};

impl Graph {
    /// Registers what a Kustomization's render declares. Answers what must be ended.
    pub(super) fn register(&mut self, parent: &Key, orders: WorkOrders, now: Time) -> Vec<Effect> {
        let WorkOrders { revision, work, problems, unsupported, set_aside } = orders;
        let mut notices = Notices { problems, unsupported, set_aside };
        if let Some(item) = self.items.get_mut(parent) {
            item.attempted = Some(revision);
        }
        // Sources first: whether a Kustomization points back at the entry depends on them.
        let (sources, kustomizations): (Vec<Order>, Vec<Order>) =
            work.into_iter().partition(|order| matches!(order.object, Object::GitRepository(_)));
        let mut kept: Vec<Key> = self
            .items
            .keys()
            // What cannot be read any more is still declared: it keeps running as it was.
            .filter(|key| notices.problems.iter().any(|problem| names(problem, key)))
            .cloned()
            .collect();
        for order in sources.into_iter().chain(kustomizations) {
            let key = order.object.key();
            if let Some(root) = self.root_name(&order.object) {
                if key != root {
                    self.aliases.insert(key, root);
                }
                continue;
            }
            kept.push(key.clone());
            if let Some(problem) = self.put(parent, key, order, now) {
                notices.problems.push(problem);
            }
        }
        for item in self.items.values().filter(|item| item.parent.as_ref() == Some(parent)) {
            notices.unsupported.extend(item.object.unsupported().iter().cloned());
        }
        self.notices.insert(parent.clone(), notices);
        let gone: Vec<Key> = self
            .items
            .iter()
            .filter(|(key, item)| item.parent.as_ref() == Some(parent) && !kept.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            // A move to another parent must not end anything: wait for the other renders.
            if let Some(item) = self.items.remove(&key) {
                self.leaving.insert(key, item);
            }
        }
        self.name_cycles(now);
        self.release_prunes(now)
    }

    /// The root item that an object stands for, if it is the root pair under its own name.
    fn root_name(&self, object: &Object) -> Option<Key> {
        match object {
            Object::GitRepository(source) if self.is_root_source(source) => {
                Some(self.root.source.key())
            }
            Object::Kustomization(kustomization) if self.is_entry(kustomization) => {
                Some(self.root.kustomization.key())
            }
            _ => None,
        }
    }

    /// Adds or changes one item. A second declaration of the same object is a problem.
    fn put(&mut self, parent: &Key, key: Key, order: Order, now: Time) -> Option<Problem> {
        let Order { object, manifest, origin } = order;
        if let Some(mut moved) = self.leaving.remove(&key) {
            moved.parent = Some(parent.clone());
            self.items.insert(key.clone(), moved);
        }
        let Some(item) = self.items.get_mut(&key) else {
            let mut item = Item::new(object, manifest, now);
            item.parent = Some(parent.clone());
            item.origin = origin;
            item.suspended = self.preset.get(&key.to_string()).cloned();
            self.items.insert(key, item);
            return None;
        };
        if let Some(other) = item.parent.clone().filter(|other| other != parent) {
            let message = format!("is declared by {other} already: keep one of the two");
            return Some(Problem { object: key.to_string(), origin, message });
        }
        item.origin = origin;
        item.manifest = manifest;
        item.parent = Some(parent.clone());
        if item.object != object {
            item.object = object;
            item.failures = 0;
            item.request(now, Trigger::Revision);
        }
        None
    }

    /// Ends an item that left Git, and everything that it declared itself.
    fn end(&mut self, key: &Key, item: Item) -> Vec<Effect> {
        self.notices.remove(key);
        let declared = |child: &Item| child.parent.as_ref() == Some(key);
        let children: Vec<Key> =
            self.items.iter().filter(|(_, c)| declared(c)).map(|(key, _)| key.clone()).collect();
        let mut effects = Vec::new();
        for child in children {
            if let Some(item) = self.items.remove(&child) {
                effects.extend(self.end(&child, item));
            }
        }
        effects.push(match item.object {
            Object::GitRepository(source) => Effect::Forget(source.key()),
            // A suspended Kustomization that leaves Git lets go of everything (`§4.12`).
            Object::Kustomization(kustomization) => {
                let orphan = kustomization.suspend || item.suspended.is_some();
                Effect::Finalize { kustomization, orphan }
            }
        });
        effects
    }

    /// Once every render of a revision is there: wakes the Kustomizations whose deletions waited
    /// for it, and ends the items that nobody declares any more.
    pub(super) fn release_prunes(&mut self, now: Time) -> Vec<Effect> {
        let settled = |graph: &Graph, key: &Key| {
            graph.items.get(key).is_none_or(|item| {
                item.attempted.as_deref().is_some_and(|r| graph.may_prune(key, r))
            })
        };
        let ready: Vec<Key> = self
            .items
            .iter()
            .filter(|(key, item)| item.prune_pending && settled(self, key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ready {
            if let Some(item) = self.items.get_mut(&key) {
                item.prune_pending = false;
                item.request(now, Trigger::Prune);
            }
        }
        let over: Vec<Key> = self
            .leaving
            .iter()
            .filter(|(_, item)| item.parent.as_ref().is_none_or(|parent| settled(self, parent)))
            .map(|(key, _)| key.clone())
            .collect();
        let mut effects = Vec::new();
        for key in over {
            if let Some(item) = self.leaving.remove(&key) {
                effects.extend(self.end(&key, item));
            }
        }
        effects
    }
}

/// Whether a problem is about this item; a manifest without a namespace stands in `default`.
fn names(problem: &Problem, key: &Key) -> bool {
    problem.object == key.to_string()
        || (key.namespace == "default"
            && problem.object == format!("{}/{}", key.kind.as_str(), key.name))
}
