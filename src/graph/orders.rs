//! Pure: work orders of one render → items added, changed, dropped.

use super::{Effect, Graph, Item, Notices, Phase, Time};
use crate::flux::{Key, Kind, Object};
use crate::history::Trigger;
use crate::pipeline::{Order, Problem, WorkOrders, confirmed, deletes, keeps, requested};
use crate::plan::{Held, cascade, children_lost};
use crate::render::ObjectId;
use serde_json::Value;
use std::collections::BTreeSet;

impl Graph {
    /// Registers what a Kustomization's render declares. Answers what must be ended.
    pub(super) fn register(&mut self, parent: &Key, orders: WorkOrders, now: Time) -> Vec<Effect> {
        if !self.items.contains_key(parent) {
            // It left Git while this run of it was under way: what it declares has left too. Should
            // another parent still take it up, it says so again.
            if let Some(item) = self.leaving.get_mut(parent) {
                item.request(now, Trigger::Revision);
            }
            return Vec::new();
        }
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
        let is_root = *parent == self.root();
        // Stated under the host's name, it is taken up before this; another name says nothing then.
        let named = kustomizations.iter().any(|order| order.object.key() == *parent);
        let mut stated = false;
        let mut effects = Vec::new();
        if is_root {
            self.stated = None;
        }
        for order in sources.into_iter().chain(kustomizations) {
            let key = order.object.key();
            if let Some(root) = self.root_name(&order.object) {
                if let Object::GitRepository(source) = &order.object {
                    notices.unsupported.extend(source.unheeded());
                }
                if is_root && root == *parent && (key == root || !named) && !stated {
                    // The first of several, as one of them must not undo the other for ever.
                    stated = true;
                    if key != root {
                        self.state(&order.object);
                    }
                    self.restate(&root, order.manifest, None, now);
                }
                if key != root {
                    self.aliases.insert(key, root);
                    self.wake_waiting(now, "ArtifactFailed");
                }
                continue;
            }
            self.aliases.remove(&key);
            kept.push(key.clone());
            if self.is_overtaken(&key, &order.object) {
                effects.push(Effect::Cancel(key.clone()));
            }
            if let Some(problem) = self.put(parent, key, order, now) {
                notices.problems.push(problem);
            }
        }
        let root = self.items.get(parent).filter(|_| is_root);
        let children = self.items.values().filter(|item| item.parent.as_ref() == Some(parent));
        for item in children.chain(root) {
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
        effects.extend(self.release_prunes(now));
        self.wake_automations(now);
        effects
    }

    /// True where a run is under way by another spec than the one that is declared now: it may
    /// have begun with the same commit, and wait for a health that only the new spec brings.
    fn is_overtaken(&self, key: &Key, object: &Object) -> bool {
        let running = |item: &&Item| matches!(item.phase, Phase::Running { .. });
        self.items.get(key).filter(running).is_some_and(|item| item.object != *object)
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
            let agreed = self.agreed.contains(&object(key));
            item.parent.as_ref() == Some(parent) && key.kind == Kind::Kustomization && !agreed
        };
        let gone: Vec<Key> =
            self.leaving.iter().filter(child).map(|(key, _)| key.clone()).collect();
        let had = self.items.iter().filter(child).count() + gone.len();
        if let Some(held) = children_lost(parent, &gone, had) {
            self.cascades.insert(parent.clone(), held);
            self.agree_in_git(parent);
        }
    }

    /// Holds the end of most of what there is, taken together: one line less in the entry may take
    /// a parent along with everything that hangs from it, level by level.
    fn hold_together(&mut self) {
        self.together = None;
        let free = |(key, item): &(&Key, &Item)| {
            let cascades = |parent: &Key| self.cascades.contains_key(parent);
            !self.agreed.contains(&object(key)) && !item.parent.as_ref().is_some_and(cascades)
        };
        let mut gone: BTreeSet<Key> =
            self.leaving.iter().filter(free).map(|(key, _)| key.clone()).collect();
        loop {
            let hangs = |item: &Item| item.parent.as_ref().is_some_and(|p| gone.contains(p));
            let below = self.items.iter().filter(|(key, item)| hangs(item) && !gone.contains(*key));
            let below: Vec<Key> = below.map(|(key, _)| key.clone()).collect();
            if below.is_empty() {
                break;
            }
            gone.extend(below);
        }
        let kustomization = |key: &&Key| key.kind == Kind::Kustomization;
        let of = self.items.keys().chain(self.leaving.keys()).filter(kustomization).count();
        let gone: Vec<Key> = gone.into_iter().filter(|key| kustomization(&key)).collect();
        let reason = |gone| format!("{gone} of {of} Kustomizations left Git at once");
        if let Some(held) = cascade(&gone, of, reason) {
            let root = self.root();
            self.together = Some((root.clone(), held));
            self.agree_in_git(&root);
        }
    }

    /// Lets held ends go ahead.
    pub(super) fn agree(&mut self, digest: &str) {
        let named = |held: &Held| held.digest == digest;
        let together = self.together.take_if(|(_, held)| named(held));
        let cascades = self.cascades.values().filter(|held| named(held)).cloned();
        let agreed: Vec<Held> = cascades.chain(together.map(|(_, held)| held)).collect();
        self.cascades.retain(|_, held| !named(held));
        self.agreed.extend(agreed.into_iter().flat_map(|held| held.ids));
    }

    /// Lets those go ahead that a Kustomization shows and its own manifest confirms.
    fn agree_in_git(&mut self, shown: &Key) {
        let Some(item) = self.items.get(shown) else { return };
        for digest in confirmed(&item.manifest) {
            self.agree(&digest);
        }
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

    /// Takes in how the repository states the entry under another name than the host's. In another
    /// namespace it would read other Secrets: there it is a mere name.
    fn state(&mut self, object: &Object) {
        let own = &self.root.kustomization;
        let Object::Kustomization(entry) = object else { return };
        if entry.namespace != own.namespace {
            return;
        }
        let mut stated = entry.clone();
        (stated.name, stated.source) = (own.name.clone(), own.source.clone());
        // Only how it is written; a difference here would never end.
        stated.path.clone_from(&own.path);
        self.stated = (*stated != *own).then_some(stated);
    }

    /// Adds or changes one item. A second declaration of the same object is a problem.
    fn put(&mut self, parent: &Key, key: Key, order: Order, now: Time) -> Option<Problem> {
        let Order { object, manifest, origin } = order;
        if let Some(mut moved) = self.leaving.remove(&key) {
            moved.parent = Some(parent.clone());
            // Meanwhile it was told of nothing: of no new revision, and of nobody it waits for.
            moved.request(now, Trigger::Revision);
            self.items.insert(key.clone(), moved);
        }
        let Some(item) = self.items.get_mut(&key) else {
            let mut item = Item::new(object, manifest, now);
            item.parent = Some(parent.clone());
            item.origin = origin;
            item.suspended = self.preset.get(&key.to_string()).cloned();
            if key.kind == Kind::ImagePolicy {
                item.choice = self.recalled.remove(&format!("{}/{}", key.namespace, key.name));
                let tag = item.choice.as_ref().map(|choice| super::revision(&choice.tag));
                item.revision = tag;
            }
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
        self.restate(&key, manifest, origin, now);
        if let Some(item) = self.items.get_mut(&key) {
            item.parent = Some(parent.clone());
            if item.object != object {
                item.object = object;
                item.failures = 0;
                item.request(now, Trigger::Revision);
            }
        }
        None
    }

    /// Takes in the manifest of an item, and what is asked of it there beside its spec.
    fn restate(&mut self, key: &Key, manifest: Value, origin: Option<String>, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        let before = std::mem::replace(&mut item.manifest, manifest);
        item.origin = origin;
        let said = confirmed(&item.manifest);
        if said.iter().any(|digest| !confirmed(&before).contains(digest)) {
            item.request(now, Trigger::Retry);
        }
        // Of the host's own root nothing was known: that is no news.
        let token = requested(&item.manifest);
        if token.is_some() && token != requested(&before) && !before.is_null() {
            item.request(now, Trigger::Request { by: "annotation".to_owned() });
        }
        self.agree_in_git(key);
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
        self.hold_together();
        if self.together.is_some() {
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
        if self.leaving.is_empty() {
            self.agreed.clear();
        }
        effects
    }
}

/// The object that a key names, as held ends list it.
fn object(key: &Key) -> ObjectId {
    ObjectId {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        group: "kustomize.toolkit.fluxcd.io".to_owned(),
        kind: key.kind.as_str().to_owned(),
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
