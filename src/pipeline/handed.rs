//! ConfigMaps in which a Kustomization hands a secret on, for another to substitute from.
//!
//! What is read from a Secret is masked wherever it shows; what is read from a ConfigMap is not, or
//! every word of a repository's settings would be. So each render notes the keys of ConfigMaps that
//! hold one of its secrets, and their values are masked for whoever reads them, until a ConfigMap is
//! written without them or deleted. The notes are stored: after a start whoever reads may run first.

use super::kustomization::Run;
use super::{Failure, lock};
use crate::history::{History, HistoryError};
use crate::render::{Manifest, ObjectId, Redactor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is noted: the keys that hold a secret, by ConfigMap. It does not matter whose it is: what
/// was written last is what can be read.
#[derive(Debug, Default)]
pub(super) struct Handed(HashMap<ObjectId, Keys>);

/// Keys of a ConfigMap's data.
type Keys = BTreeSet<String>;

/// Start of the keys in the database; each ends with an inventory id. The value has a key of the
/// data on each line.
const NOTES: &str = "handed:";

/// The keys of each ConfigMap of a render that hold a secret; none where it has none.
pub(super) type HandedOn = BTreeMap<ObjectId, Keys>;

/// What a render hands on.
fn found(manifests: &[Manifest], secrets: &Redactor) -> HandedOn {
    let maps = manifests.iter().filter(|m| m.id.kind == "ConfigMap" && m.id.group.is_empty());
    let keys = |map: &Manifest| {
        let data = map.body().get("data").and_then(Value::as_object);
        let secret = |value: &Value| value.as_str().is_some_and(|text| secrets.mask(text) != text);
        let data = data.into_iter().flatten().filter(|(_, value)| secret(value));
        data.map(|(key, _)| key.clone()).collect()
    };
    maps.map(|map| (map.id.clone(), keys(map))).collect()
}

impl Handed {
    /// What was noted in an earlier process.
    pub(super) fn restore(history: &History) -> Result<Self, HistoryError> {
        let mut handed = Handed::default();
        for (note, text) in history.metas(NOTES)? {
            let id = note.strip_prefix(NOTES).and_then(ObjectId::parse_inventory);
            if let Some(id) = id {
                handed.0.insert(id, text.lines().map(str::to_owned).collect());
            }
        }
        Ok(handed)
    }

    fn of(&self, map: &ObjectId) -> Keys {
        self.0.get(map).cloned().unwrap_or_default()
    }

    fn replace(&mut self, map: ObjectId, keys: Keys) {
        match keys.is_empty() {
            true => drop(self.0.remove(&map)),
            false => drop(self.0.insert(map, keys)),
        }
    }

    /// Whether somebody hands a secret on under this key.
    pub(super) fn has(&self, map: &ObjectId, key: &str) -> bool {
        self.0.get(map).is_some_and(|keys| keys.contains(key))
    }
}

impl Run<'_> {
    /// Finds and notes in which ConfigMaps a render hands a secret on, before it is written. What
    /// was noted before can still be read.
    pub(super) async fn hand_on(&self, manifests: &[Manifest]) -> Result<HandedOn, Failure> {
        let found = found(manifests, &self.redactor);
        let mut maps = found.clone();
        for (id, keys) in &mut maps {
            keys.extend(lock(&self.pipeline.handed).of(id));
        }
        self.note_handed(maps).await?;
        Ok(found)
    }

    /// The ConfigMaps hold what a render says, but for those that it leaves alone.
    pub(super) async fn handed_on(&self, found: &HandedOn) -> Result<(), Failure> {
        let mut maps = found.clone();
        {
            let memory = lock(&self.pipeline.memory);
            let known = |id: &ObjectId| memory.get(&self.owner)?.objects.get(id);
            maps.retain(|id, _| known(id).is_some_and(|known| !known.skipped));
        }
        self.note_handed(maps).await
    }

    /// An object is not there any more. One that is only let go of can be read on.
    pub(super) async fn hands_no_more(&self, id: &ObjectId) -> Result<(), Failure> {
        self.note_handed(HandedOn::from([(id.clone(), Keys::new())])).await
    }

    /// Notes the keys of some ConfigMaps in place of what was noted of them.
    async fn note_handed(&self, mut maps: HandedOn) -> Result<(), Failure> {
        {
            let handed = lock(&self.pipeline.handed);
            maps.retain(|id, keys| handed.of(id) != *keys);
        }
        if maps.is_empty() {
            return Ok(());
        }
        let stored = maps.clone();
        let stored = self.database(move |history| {
            for (id, keys) in stored {
                let note = format!("{NOTES}{}", id.inventory());
                match Vec::from_iter(keys).join("\n") {
                    none if none.is_empty() => history.drop_meta(&note)?,
                    lines => history.set_meta(&note, &lines)?,
                }
            }
            Ok(())
        });
        stored.await?;
        let mut handed = lock(&self.pipeline.handed);
        maps.into_iter().for_each(|(id, keys)| handed.replace(id, keys));
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
        let (mut handed, mut secrets) = (Handed::default(), Redactor::default());
        secrets.add(b"swordfish");
        let id = map("ConfigMap", "").id;
        let maps = found(&[map("ConfigMap", "swordfish"), map("Secret", "swordfish")], &secrets);
        assert_eq!(maps.keys().collect::<Vec<_>>(), [&id], "what is read from Secrets is masked");
        maps.into_iter().for_each(|(id, keys)| handed.replace(id, keys));
        assert!(handed.has(&id, "address") && !handed.has(&id, "plain"));
        let maps = found(&[map("ConfigMap", "nothing")], &secrets);
        maps.into_iter().for_each(|(id, keys)| handed.replace(id, keys));
        assert!(!handed.has(&id, "address") && handed.0.is_empty());
    }
}
