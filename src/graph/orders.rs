//! Pure: work orders of one render → items added, changed, dropped.

use super::{Effect, Graph, Item, Notices, Time};
use crate::flux::{Key, Kind, Object};
use crate::history::Trigger;
use crate::pipeline::{Order, Problem, WorkOrders, deletes, keeps};
use crate::plan::children_lost;

impl Graph {
    /// Registers what a Kustomization's render declares. Answers what must be ended.
    pub(super) fn register(&mut self, parent: &Key, orders: WorkOrders, now: Time) -> Vec<Effect> {
        let WorkOrders { revision, work, problems, unsupported, set_aside } = orders;
        let mut notices = Notices { problems, unsupported, set_aside };
        self.contested.retain(|_, (claimant, _)| claimant != parent);
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
                    self.wake_waiting(now, "ArtifactFailed");
                }
                continue;
            }
            self.aliases.remove(&key);
            kept.push(key.clone());
            if let Some(problem) = self.put(parent, key, order, now) {
                notices.problems.push(problem);
            }
        }
        for item in self.items.values().filter(|item| item.parent.as_ref() == Some(parent)) {
            notices.unsupported.extend(item.object.unsupported().iter().cloned());
        }
        self.notices.insert(parent.clone(), notices);
        self.cascades.remove(parent);
        let of_parent = |item: &Item| item.parent.as_ref() == Some(parent);
        let dropped = self.items.iter().filter(|(key, i)| of_parent(i) && !kept.contains(key));
        let gone: Vec<Key> = dropped.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.leave(key, now);
        }
        self.hold_cascade(parent);
        self.name_cycles(now);
        self.release_prunes(now)
    }

    /// Takes an item out of force, unless another parent already declares it: a move to another
    /// parent must not end anything, in whatever order the two render.
    fn leave(&mut self, key: Key, now: Time) {
        let Some(item) = self.items.remove(&key) else { return };
        self.leaving.insert(key.clone(), item);
        if let Some((parent, order)) = self.contested.remove(&key) {
            self.put(&parent, key, order, now);
        }
    }

    /// Holds the end of several Kustomizations at once.
    fn hold_cascade(&mut self, parent: &Key) {
        // A repository beside each of them must not make them look like a few of many.
        let child = |(key, item): &(&Key, &Item)| {
            item.parent.as_ref() == Some(parent) && key.kind == Kind::Kustomization
        };
        let gone: Vec<Key> =
            self.leaving.iter().filter(child).map(|(key, _)| key.clone()).collect();
        let had = self.items.iter().filter(child).count() + gone.len();
        if let Some(held) = children_lost(parent, &gone, had) {
            self.cascades.insert(parent.clone(), held);
        }
    }

    /// Lets a held cascade go ahead.
    pub(super) fn agree(&mut self, digest: &str) {
        self.cascades.retain(|_, held| held.digest != digest);
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
        let other = item.parent.clone().filter(|other| other != parent);
        if let Some(other) = other.filter(|other| self.items.contains_key(other)) {
            let order = Order { object, manifest, origin: origin.clone() };
            self.contested.insert(key.clone(), (parent.clone(), order));
            let message = format!("is declared by {other} already: keep one of the two");
            return Some(Problem { object: key.to_string(), origin, message });
        }
        if let Some(item) = self.items.get_mut(&key) {
            item.origin = origin;
            item.manifest = manifest;
            item.parent = Some(parent.clone());
            if item.object != object {
                item.object = object;
                item.failures = 0;
                item.request(now, Trigger::Revision);
            }
        }
        None
    }

    /// Ends an item that left Git, and everything that it declared itself. With `orphan`, all
    /// of it is let go of: a parent that would not have pruned the child ends none of its objects.
    fn end(&mut self, key: &Key, item: Item, orphan: bool, now: Time) -> Vec<Effect> {
        self.notices.remove(key);
        self.cascades.remove(key);
        let orphan = orphan || item.suspended.is_some() || keeps(&item.object, &item.manifest);
        // Of a parent that lets go of everything, the children are a part.
        let children_stay =
            orphan || matches!(&item.object, Object::Kustomization(k) if !deletes(k));
        let declared = |child: &Item| child.parent.as_ref() == Some(key);
        let children: Vec<Key> =
            self.items.iter().filter(|(_, c)| declared(c)).map(|(key, _)| key.clone()).collect();
        let mut effects = Vec::new();
        for child in children {
            self.leave(child.clone(), now);
            if let Some(item) = self.leaving.remove(&child) {
                effects.extend(self.end(&child, item, children_stay, now));
            }
        }
        effects.push(match item.object {
            Object::GitRepository(source) => Effect::Forget(source.key()),
            Object::Kustomization(kustomization) => {
                let revision = self.without(item.parent.as_ref());
                Effect::Finalize { kustomization, orphan, revision }
            }
            other => Effect::Forget(other.key()),
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
        // Only when every Kustomization, of every source, has rendered: another may just be about
        // to take what this one had, under a new name or from another repository.
        if !self.contested.is_empty() || !self.rendered() {
            return Vec::new();
        }
        let held =
            |item: &Item| item.parent.as_ref().is_some_and(|p| self.cascades.contains_key(p));
        let over: Vec<Key> =
            self.leaving.iter().filter(|(_, i)| !held(i)).map(|(key, _)| key.clone()).collect();
        let mut effects = Vec::new();
        for key in over {
            if let Some(item) = self.leaving.remove(&key) {
                let parent = item.parent.as_ref().and_then(|parent| self.items.get(parent));
                let orphan = parent.is_some_and(lets_go);
                effects.extend(self.end(&key, item, orphan, now));
            }
        }
        effects
    }
}

/// Whether a living parent leaves alone what it no longer declares.
fn lets_go(parent: &Item) -> bool {
    matches!(&parent.object, Object::Kustomization(k) if !k.prune)
}

/// Whether a problem is about this item; a manifest without a namespace stands in `default`.
fn names(problem: &Problem, key: &Key) -> bool {
    problem.object == key.to_string()
        || (key.namespace == "default"
            && problem.object == format!("{}/{}", key.kind.as_str(), key.name))
}
