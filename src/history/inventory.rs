//! Which objects each Kustomization owns, and what each was left as.
//!
//! Rows are added by [`History::begin`] and [`History::enter`], change hands by
//! [`History::hand_over`], and leave by [`History::forget`] or [`History::release`] only, all flushed to the disk before they return.

use super::error::HistoryError;
use super::{Durability, History};
use rusqlite::{Connection, params};

/// One object of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Flux's inventory id, `namespace_name_group_Kind`.
    pub id: String,
    /// The API version without the group, as Flux's `v`.
    pub version: String,
}

/// What an object was left as by its last apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDigest {
    /// Flux's inventory id.
    pub id: String,
    /// Keyed digest of the manifest; `None` when it is not known for certain what is live.
    pub digest: Option<String>,
    /// The live object's uid.
    pub uid: Option<String>,
}

impl History {
    /// The objects of an owner (`namespace/name`), ordered by id.
    pub fn inventory(&self, owner: &str) -> Result<Vec<Entry>, HistoryError> {
        self.read("read the inventory", |db| {
            let mut rows = db
                .prepare_cached("SELECT id, version FROM inventory WHERE owner = ?1 ORDER BY id")?;
            rows.query_map([owner], |row| Ok(Entry { id: row.get(0)?, version: row.get(1)? }))?
                .collect()
        })
    }

    /// Every owner that has at least one object, ordered by name.
    pub fn owners(&self) -> Result<Vec<String>, HistoryError> {
        self.read("list the owners", |db| {
            let mut rows =
                db.prepare_cached("SELECT DISTINCT owner FROM inventory ORDER BY owner")?;
            rows.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Drops objects whose deletion the API server confirmed, or that are another's: a live one
    /// does not carry this owner's labels. Any other is to be [`History::release`]d.
    pub fn forget(&self, owner: &str, ids: &[String]) -> Result<(), HistoryError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = || ids.iter().map(String::as_str);
        self.write("forget objects", Durability::Full, |db| drop_rows(db, owner, ids()))
    }

    /// Drops objects that are let go of, on purpose or for a mark on them, and remembers that:
    /// they keep the owner's labels and must not be taken back, also when the mark is gone.
    pub fn release(&self, owner: &str, ids: &[String]) -> Result<(), HistoryError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write("let objects go", Durability::Full, |db| {
            let mut note =
                db.prepare_cached("INSERT OR IGNORE INTO released (owner, id) VALUES (?1, ?2)")?;
            for id in ids {
                note.execute([owner, id])?;
            }
            drop_rows(db, owner, ids.iter().map(String::as_str))
        })
    }

    /// Objects that were let go of on purpose, as owner and id.
    pub fn released(&self) -> Result<Vec<(String, String)>, HistoryError> {
        self.read("read what was let go", |db| {
            let mut rows = db.prepare_cached("SELECT owner, id FROM released")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Forgets that objects, as owner and id, were let go of: they are gone, or another's.
    pub fn unrelease(&self, rows: &[(String, String)]) -> Result<(), HistoryError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write("forget what was let go", Durability::Normal, |db| {
            let mut gone =
                db.prepare_cached("DELETE FROM released WHERE owner = ?1 AND id = ?2")?;
            for (owner, id) in rows {
                gone.execute([owner, id])?;
            }
            Ok(())
        })
    }

    /// Adds objects that were found in the cluster; one that is there already stays as it is. Notes
    /// go with them in the same transaction.
    pub fn enter(
        &self,
        owner: &str,
        found: &[Entry],
        notes: &[(String, String)],
    ) -> Result<(), HistoryError> {
        if found.is_empty() {
            return Ok(());
        }
        self.write("enter objects that were found", Durability::Full, |db| {
            for (key, value) in notes {
                db.execute(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
                    [key, value],
                )?;
            }
            let mut row = db.prepare_cached(
                "INSERT OR IGNORE INTO inventory (owner, id, version) VALUES (?1, ?2, ?3)",
            )?;
            for entry in found {
                row.execute([owner, &entry.id, &entry.version])?;
            }
            Ok(())
        })
    }

    /// Moves objects of an owner, each to an heir: at no instant are they in no inventory. An
    /// heir that has the object already keeps its own row.
    pub fn hand_over(&self, owner: &str, heirs: &[(String, String)]) -> Result<(), HistoryError> {
        if heirs.is_empty() {
            return Ok(());
        }
        self.write("hand objects over", Durability::Full, |db| {
            let mut heir = db.prepare_cached(
                "INSERT OR IGNORE INTO inventory (owner, id, version) \
                 SELECT ?3, id, version FROM inventory WHERE owner = ?1 AND id = ?2",
            )?;
            for (id, to) in heirs {
                heir.execute([owner, id, to])?;
            }
            drop_rows(db, owner, heirs.iter().map(|(id, _)| id.as_str()))
        })
    }

    /// What the objects of an owner were left as, ordered by id.
    pub fn object_digests(&self, owner: &str) -> Result<Vec<ObjectDigest>, HistoryError> {
        self.read("read the digests", |db| {
            let mut rows = db.prepare_cached(
                "SELECT id, digest, uid FROM inventory WHERE owner = ?1 ORDER BY id",
            )?;
            rows.query_map([owner], |row| {
                Ok(ObjectDigest { id: row.get(0)?, digest: row.get(1)?, uid: row.get(2)? })
            })?
            .collect()
        })
    }

    /// Stores what objects were left as; an id outside the inventory is ignored.
    ///
    /// Call it inside a run. After a write whose answer never came, store `digest: None`: nobody
    /// knows what is live.
    pub fn set_digests(&self, owner: &str, digests: &[ObjectDigest]) -> Result<(), HistoryError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.write("store digests", Durability::Normal, |db| {
            let mut row = db.prepare_cached(
                "UPDATE inventory SET digest = ?3, \
                 uid = CASE WHEN ?4 IS NULL AND digest = ?3 THEN uid ELSE ?4 END \
                 WHERE owner = ?1 AND id = ?2",
            )?;
            for found in digests {
                row.execute(params![owner, found.id, found.digest, found.uid])?;
            }
            Ok(())
        })
    }
}

fn drop_rows<'a>(
    db: &Connection,
    owner: &str,
    ids: impl Iterator<Item = &'a str>,
) -> rusqlite::Result<()> {
    let mut row = db.prepare_cached("DELETE FROM inventory WHERE owner = ?1 AND id = ?2")?;
    for id in ids {
        row.execute([owner, id])?;
    }
    Ok(())
}
