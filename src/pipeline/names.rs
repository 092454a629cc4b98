//! How an object is called that has a secret value in its name.
//!
//! A name is what an object is known by: in the cluster, in the inventory and in the digest of a
//! deletion that waits it stands as it is. Whatever is shown of it, in status, journal and
//! history, has `***` in place of the value. As long as the object is rendered, its run knows the
//! value. Once it has left Git, or its Kustomization has, nobody may have the value any more:
//! therefore each owner's names of this kind are remembered until its inventory has them no
//! longer. They live in memory only: after a restart such a name is a name like any other.

use super::kustomization::Run;
use super::lock;
use crate::plan::Entry;
use crate::render::{Manifest, ObjectId, Redactor};
use std::collections::BTreeMap;

/// Names and namespaces with a secret value in them, and how they are shown.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    fn note(&mut self, id: &ObjectId, redactor: &Redactor) {
        for name in [&id.namespace, &id.name] {
            let shown = redactor.mask(name);
            if shown != *name {
                self.0.insert(name.clone(), shown);
            }
        }
    }

    fn keep(&mut self, inventory: &[Entry]) {
        self.0.retain(|name, _| {
            inventory.iter().any(|Entry { id, .. }| id.name == *name || id.namespace == *name)
        });
    }

    fn mask(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (name, shown)| text.replace(name.as_str(), shown))
    }
}

impl Run<'_> {
    /// Remembers which names of a render hold a secret value.
    pub(super) fn note_names(&self, manifests: &[Manifest]) {
        let mut names = Names::default();
        manifests.iter().for_each(|manifest| names.note(&manifest.id, &self.redactor));
        if !names.0.is_empty() {
            let mut all = lock(&self.pipeline.names);
            all.entry(self.owner.clone()).or_default().0.append(&mut names.0);
        }
    }

    /// Forgets the names that the inventory does not have.
    pub(super) fn keep_names(&self, inventory: &[Entry]) {
        let mut all = lock(&self.pipeline.names);
        if let Some(names) = all.get_mut(&self.owner) {
            names.keep(inventory);
            if names.0.is_empty() {
                all.remove(&self.owner);
            }
        }
    }

    /// A text about objects as it may be shown.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = self.redactor.mask(text);
        match lock(&self.pipeline.names).get(&self.owner) {
            Some(names) => names.mask(text),
            None => text,
        }
    }

    /// An object by the name that may be shown.
    pub(super) fn shown_id(&self, id: &ObjectId) -> ObjectId {
        ObjectId { namespace: self.shown(&id.namespace), name: self.shown(&id.name), ..id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_name_is_masked_after_it_has_changed_and_until_the_object_is_gone() {
        let id = |name: &str| ObjectId {
            namespace: "apps".into(),
            name: name.into(),
            group: String::new(),
            kind: "ConfigMap".into(),
        };
        let mut names = Names::default();
        for (value, name) in [("swordfish", "used-swordfish"), ("opensesame", "used-opensesame")] {
            let mut redactor = Redactor::default();
            redactor.add(value.as_bytes());
            names.note(&id(name), &redactor);
            names.note(&id("plain"), &redactor);
        }
        let text = || format!("{}, {}", id("used-swordfish"), id("used-opensesame").inventory());
        assert_eq!(names.mask(text()), "ConfigMap/apps/used-***, apps_used-***__ConfigMap");
        names.keep(&[Entry { id: id("used-opensesame"), version: "v1".into() }]);
        assert!(names.mask(text()).starts_with("ConfigMap/apps/used-swordfish, apps_used-***"));
    }
}
