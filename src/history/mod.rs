//! What was tried, what came of it, and which objects each Kustomization owns.
//!
//! [`History`] is the sole writer of `STATE/history.db`; it locks the file, so a second daemon is
//! refused. In the order of a run: [`History::begin`] stores the run and the union of old and new
//! inventory before the cluster is touched; [`History::change`] adds what was done to an object
//! and [`History::set_digests`] what it was left as; [`History::forget`] drops an object once its
//! deletion is confirmed, [`History::release`] one that is let go of; [`History::finish`] adds the
//! outcome. A run still open at start-up was
//! cut short: [`History::open`] closes it as interrupted, its inventory stands, and the next run
//! finishes the work. There is no other recovery. A run that changes nothing is never begun:
//! an idle box writes nothing.
//!
//! Images: [`History::store_tags`] and [`History::choose`] keep what a registry listed and what a
//! policy made of it, so that neither an outage nor a restart changes a choice;
//! [`History::push_begun`] stores a commit before it leaves the host and [`History::pushed`] that it
//! arrived; [`History::deployed`] notes which image a Kustomization runs, and with which it was
//! healthy. The same again is no write.
//!
//! Calls block on the disk: callers use a thread of their own. A [`History`] is shared by
//! reference between threads, one call at a time.
//!
//! It decides nothing about pruning and sees no secret: changes arrive masked from `plan`.
//!
//! On disk, all of it private to the user gitopsd:
//! * `history.db`: SQLite, WAL, `user_version` = schema number; columns are explained in
//!   `schema.rs`. `synchronous=FULL` for begin and whenever ownership shrinks, `NORMAL` otherwise:
//!   a power cut may lose the end of a run, but then the run counts as interrupted. Times are Unix
//!   milliseconds, ids Flux's `namespace_name_group_Kind`. Old runs expire, inventory rows never.
//! * `history.db.corrupt-N`: a damaged database put aside; the newest two are kept. Damage that is
//!   met while running leaves `history.db.suspect`, and ends the daemon ([`History::damaged`]).
//! * `state.json`: suspends, confirmations and who took the edge down ([`State`]), which survive a
//!   lost database.
//! * `reserve`: 4 MiB that are given up when the disk is full, so that what runs is recorded.
//! * `host.key`: 32 random bytes for keyed digests ([`host_key`]).

mod children;
mod error;
mod image;
mod inventory;
mod key;
mod open;
mod push;
mod reserve;
mod run;
mod schema;
mod state;
mod word;

pub use error::HistoryError;
pub use image::{Choice, Deployed, Tags};
pub use inventory::{Entry, ObjectDigest};
pub use key::host_key;
pub use open::Opened;
pub use push::{Origin, Push, PushId, Replaced};
pub use run::{Applied, Change, Finish, LastApplied, RunId, RunRow, Start};
pub use state::{State, Suspend};
pub use word::{Rank, Trigger, Verb, Verdict};

use crate::config::HistorySettings;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The record of one host; see the module.
#[derive(Debug)]
pub struct History {
    connection: Mutex<Connection>,
    directory: PathBuf,
    keep: HistorySettings,
    /// Whether the reserve is used up.
    spent: AtomicBool,
    /// What was being done when damage was met, and what SQLite said.
    damage: watch::Sender<Option<(&'static str, String)>>,
}

/// Whether a commit has reached the disk when the call returns.
#[derive(Clone, Copy)]
enum Durability {
    /// Flushed, with everything before it.
    Full,
    /// Flushed some time later; what is lost in a power cut is a tail, never a middle.
    Normal,
}

impl History {
    /// Sets how much of the past is kept; 90 days and 10 000 runs otherwise.
    pub fn with_retention(mut self, keep: HistorySettings) -> Self {
        self.keep = keep;
        self
    }

    /// A value that must survive restarts, such as the uid of the cluster.
    pub fn meta(&self, key: &str) -> Result<Option<String>, HistoryError> {
        self.read("read a note", |db| {
            let mut found = db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            found.query_row([key], |row| row.get(0)).optional()
        })
    }

    /// Every such value whose key begins so, ordered by key.
    pub fn metas(&self, start: &str) -> Result<Vec<(String, String)>, HistoryError> {
        self.read("read notes", |db| {
            let mut found = db.prepare_cached(
                "SELECT key, value FROM meta WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
            )?;
            found.query_map([start], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Stores such a value durably; the same value again is no write.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), HistoryError> {
        self.set_metas(&[(key.to_owned(), value.to_owned())])
    }

    /// Stores several such values at once; those that are stored already are no write.
    pub fn set_metas(&self, notes: &[(String, String)]) -> Result<(), HistoryError> {
        let mut news = Vec::new();
        for (key, value) in notes {
            if self.meta(key)?.as_ref() != Some(value) {
                news.push((key, value));
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        self.write("store a note", Durability::Full, |db| {
            let mut row =
                db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
            for (key, value) in &news {
                row.execute([key, value])?;
            }
            Ok(())
        })
    }

    /// Drops such a value; one that is not there is no write.
    pub fn drop_meta(&self, key: &str) -> Result<(), HistoryError> {
        if self.meta(key)?.is_none() {
            return Ok(());
        }
        self.write("drop a note", Durability::Normal, |db| {
            db.execute("DELETE FROM meta WHERE key = ?1", [key]).map(|_| ())
        })
    }

    /// Drops every such value whose key begins so; when there is none it is no write.
    pub fn drop_metas(&self, start: &str) -> Result<(), HistoryError> {
        if self.metas(start)?.is_empty() {
            return Ok(());
        }
        self.write("drop notes", Durability::Normal, |db| {
            db.execute("DELETE FROM meta WHERE substr(key, 1, length(?1)) = ?1", [start])
                .map(|_| ())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread has rolled its transaction back: the connection is sound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        work(&self.lock()).map_err(|error| self.failed(doing, error))
    }

    /// One transaction: all of it or nothing.
    fn write<T>(
        &self,
        doing: &'static str,
        durability: Durability,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        let mut connection = self.lock();
        let mut attempt = || {
            let level = match durability {
                Durability::Full => "FULL",
                Durability::Normal => "NORMAL",
            };
            connection.pragma_update(None, "synchronous", level)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        let failed = |error| self.failed(doing, error);
        match attempt().map_err(failed) {
            Err(HistoryError::DiskFull { .. }) if self.spend() => attempt().map_err(failed),
            done => done,
        }
    }

    /// Gives the reserve up, whatever it is for. True when that made room.
    fn spend(&self) -> bool {
        let made = reserve::spend(&self.directory);
        if made {
            self.spent.store(true, Ordering::Relaxed);
        }
        made
    }

    /// What is wrong with the place of the record though it still works.
    pub fn trouble(&self) -> Option<&'static str> {
        let spent = self.spent.load(Ordering::Relaxed);
        spent.then_some("the disk of the state directory is full, there is no reserve left")
    }

    /// Makes the reserve again when there is room; costs a look when it is there.
    pub fn make_room(&self) {
        self.spent.store(!reserve::keep(&self.directory), Ordering::Relaxed);
    }

    /// Waits until a call meets damage, and answers with it. The database cannot be relied upon
    /// from then on: the process is to end, and the next one puts it aside.
    pub async fn damaged(&self) -> HistoryError {
        let mut damage = self.damage.subscribe();
        loop {
            let met = damage.borrow_and_update().clone();
            if let Some((doing, cause)) = met {
                return HistoryError::Corrupt { doing, cause };
            }
            // The sender is ours: it does not go away.
            let _ = damage.changed().await;
        }
    }

    fn failed(&self, doing: &'static str, error: rusqlite::Error) -> HistoryError {
        let error = HistoryError::from_database(doing, error);
        if let HistoryError::Corrupt { doing, cause } = &error {
            // Tells the next start to look at every page; without it the check is skipped.
            let mark = || std::fs::write(self.directory.join(open::SUSPECT), b"");
            if mark().is_err() && self.spend() {
                let _ = mark();
            }
            self.damage.send_replace(Some((*doing, cause.clone())));
        }
        error
    }
}

#[cfg(test)]
mod tests;
