//! ConfigMaps in which a Kustomization hands a secret on, for another to substitute from.
//!
//! What is read from a Secret is masked wherever it shows; what is read from a ConfigMap is not, or
//! every word of a repository's settings would be. So each render notes the keys of ConfigMaps that
//! hold one of its secrets, and their values are masked for whoever reads them. The notes are stored:
//! after a start whoever reads them may run first.

use super::kustomization::Run;
use super::{Failure, lock};
use crate::history::{History, HistoryError};
use crate::plan::Owner;
use crate::render::{Manifest, ObjectId, Redactor};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// ConfigMaps and keys, by the Kustomization that makes them.
#[derive(Debug, Default)]
pub(super) struct Handed(HashMap<Owner, Keys>);

/// ConfigMaps, each with a key of its data.
type Keys = BTreeSet<(ObjectId, String)>;

/// Start of the keys in the database; each ends with an owner. The value has an inventory id and a
/// key of its data on each line.
const NOTES: &str = "handed:";

/// ConfigMaps and keys of one render that hold a secret.
fn found(manifests: &[Manifest], secrets: &Redactor) -> Keys {
    let mut keys = BTreeSet::new();
    for map in manifests.iter().filter(|m| m.id.kind == "ConfigMap" && m.id.group.is_empty()) {
        let data = map.body().get("data").and_then(Value::as_object);
        for (key, value) in data.into_iter().flatten() {
            if value.as_str().is_some_and(|text| secrets.mask(text) != text) {
                keys.insert((map.id.clone(), key.clone()));
            }
        }
    }
    keys
}

impl Handed {
    /// What was noted in an earlier process.
    pub(super) fn restore(history: &History) -> Result<Self, HistoryError> {
        let mut handed = Handed::default();
        for (note, text) in history.metas(NOTES)? {
            let Some(owner) = note.strip_prefix(NOTES).and_then(Owner::parse) else { continue };
            let read = |line: &str| {
                let (id, key) = line.split_once(' ')?;
                Some((ObjectId::parse_inventory(id)?, key.to_owned()))
            };
            handed.0.insert(owner, text.lines().filter_map(read).collect());
        }
        Ok(handed)
    }

    /// What one Kustomization hands on.
    fn of(&self, owner: &Owner) -> Keys {
        self.0.get(owner).cloned().unwrap_or_default()
    }

    fn replace(&mut self, owner: &Owner, keys: Keys) {
        match keys.is_empty() {
            true => drop(self.0.remove(owner)),
            false => drop(self.0.insert(owner.clone(), keys)),
        }
    }

    /// Whether somebody hands a secret on under this key.
    pub(super) fn has(&self, map: &ObjectId, key: &str) -> bool {
        let at = (map.clone(), key.to_owned());
        self.0.values().any(|keys| keys.contains(&at))
    }
}

impl Run<'_> {
    /// Notes in which ConfigMaps a render hands a secret on; what others may still read in the
    /// cluster is forgotten once it is `applied`.
    pub(super) async fn note_handed(
        &self,
        manifests: &[Manifest],
        applied: bool,
    ) -> Result<(), Failure> {
        let before = lock(&self.pipeline.handed).of(&self.owner);
        let mut keys = found(manifests, &self.redactor);
        if !applied {
            keys.extend(before.iter().cloned());
        }
        if keys == before {
            return Ok(());
        }
        let note = format!("{NOTES}{}", self.owner);
        let lines = keys.iter().map(|(id, key)| format!("{} {key}", id.inventory()));
        let lines = Vec::from_iter(lines).join("\n");
        let stored = self.database(move |history| match lines.is_empty() {
            true => history.drop_meta(&note),
            false => history.set_meta(&note, &lines),
        });
        stored.await?;
        lock(&self.pipeline.handed).replace(&self.owner, keys);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_keys_that_hold_a_secret_are_known_until_the_next_render_has_none() {
        let map = |kind: &str, value: &str| {
            let body = json!({"apiVersion": "v1", "kind": kind,
                "metadata": {"name": "settings", "namespace": "n"},
                "data": {"address": format!("user:{value}@db"), "plain": "x"}});
            Manifest::new(body, None, false)
        };
        let owner = Owner { namespace: "n".into(), name: "a".into() };
        let (mut handed, mut secrets) = (Handed::default(), Redactor::default());
        secrets.add(b"swordfish");
        let id = map("ConfigMap", "").id;
        let keys = found(&[map("ConfigMap", "swordfish"), map("Secret", "swordfish")], &secrets);
        handed.replace(&owner, keys.clone());
        assert_eq!(handed.of(&owner), keys);
        assert!(handed.has(&id, "address") && !handed.has(&id, "plain"));
        assert!(!handed.has(&map("Secret", "").id, "address"), "masked anyway");
        handed.replace(&owner, found(&[map("ConfigMap", "nothing")], &secrets));
        assert!(!handed.has(&id, "address") && handed.0.is_empty());
    }
}
