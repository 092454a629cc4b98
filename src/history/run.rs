//! Runs: why, from which commit, what was done to which object, and how it ended.

use super::error::HistoryError;
use super::inventory::Entry;
use super::word::{Trigger, Verb, Verdict};
use super::{Durability, History};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of one diff; a longer one is cut and says so.
const MAX_DIFF: usize = 16 << 10;

/// Bytes of all diffs of one run: 256 full ones. Later diffs of that run are left out.
const MAX_RUN_DIFFS: i64 = 4 << 20;

/// Bytes of a message, author or subject.
const MAX_TEXT: usize = 4 << 10;

/// Old runs are looked for once in so many finished ones.
const RETENTION_EVERY: i64 = 64;

/// Runs dropped in one go: a slow card takes well under a second for them, and with
/// [`RETENTION_EVERY`] far more can leave than come.
const RETENTION_BATCH: i64 = 500;

/// Bytes that the database may use before the oldest runs leave early: 64 full runs of 4 MiB.
const MAX_DATABASE: i64 = 256 << 20;

/// Runs listed at most in one call.
const MAX_LISTED: usize = 1000;

/// Number of a run, from 1, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known when a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The Kustomization, `namespace/name`.
    pub owner: String,
    /// Why.
    pub trigger: Trigger,
    /// Flux's revision string, `main@sha1:…`.
    pub revision: String,
    /// Author of the commit.
    pub author: String,
    /// First line of the commit message.
    pub subject: String,
    /// When.
    pub started_ms: i64,
}

/// One object's change within a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The object for people, `Deployment/apps/web`.
    pub object: String,
    /// Flux's inventory id.
    pub id: String,
    /// What was done.
    pub verb: Verb,
    /// The difference, already masked; cut at 16 KiB.
    pub diff: String,
    /// The file in Git.
    pub origin: Option<String>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// How it ended.
    pub verdict: Verdict,
    /// One sentence, already masked.
    pub message: String,
    /// Each step and how long it took, in microseconds.
    pub steps: Vec<(String, u64)>,
    /// When.
    pub finished_ms: i64,
}

/// What a run brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Flux's revision string.
    pub revision: String,
    /// Digest of the run's inputs.
    pub digest: String,
}

/// What was brought in last, also by a run whose row has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastApplied {
    /// Flux's revision string.
    pub revision: String,
    /// Digest of the run's inputs.
    pub digest: String,
    /// When that run ended.
    pub finished_ms: i64,
    /// How it ended.
    pub verdict: Verdict,
}

/// A run as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its number.
    pub id: RunId,
    /// The Kustomization, `namespace/name`.
    pub owner: String,
    /// Why it began.
    pub trigger: Trigger,
    /// Flux's revision string.
    pub revision: String,
    /// Author of the commit.
    pub author: String,
    /// First line of the commit message.
    pub subject: String,
    /// When it began.
    pub started_ms: i64,
    /// When it ended; `None` while it is open and when it was interrupted.
    pub finished_ms: Option<i64>,
    /// How it ended; `None` while it is open.
    pub verdict: Option<Verdict>,
    /// The sentence about its end.
    pub message: String,
    /// Each step and how long it took, in microseconds.
    pub steps: Vec<(String, u64)>,
    /// Number of objects changed.
    pub changes: u32,
}

impl History {
    /// Stores a run and the union of old and new inventory, flushed before this returns.
    ///
    /// Rows are added or given a new version, never removed, and keep their digests. Called only
    /// when there is something to do. An owner has one run at a time: one that is still open could
    /// not be closed, and is closed now.
    pub fn begin(&self, start: &Start, union: &[Entry]) -> Result<RunId, HistoryError> {
        self.write("begin a run", Durability::Full, |db| {
            // A run whose end could not be recorded while the disk was full.
            close_open(db, Some(&start.owner), "the end of this run could not be recorded")?;
            let by = match &start.trigger {
                Trigger::Request { by } => Some(cut(by, MAX_TEXT)),
                _ => None,
            };
            db.prepare_cached(
                "INSERT INTO run (owner, trigger, requested_by, revision, author, subject, \
                 started_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                start.owner,
                start.trigger.word(),
                by,
                start.revision,
                cut(&start.author, MAX_TEXT),
                cut(&start.subject, MAX_TEXT),
                start.started_ms
            ])?;
            let id = RunId(db.last_insert_rowid());
            let mut row = db.prepare_cached(
                "INSERT INTO inventory (owner, id, version) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (owner, id) DO UPDATE SET version = excluded.version \
                 WHERE version <> excluded.version",
            )?;
            let mut taken =
                db.prepare_cached("DELETE FROM released WHERE owner = ?1 AND id = ?2")?;
            for entry in union {
                row.execute([&start.owner, &entry.id, &entry.version])?;
                taken.execute([&start.owner, &entry.id])?;
            }
            Ok(id)
        })
    }

    /// Adds what was done to an object; diffs beyond the run's share are left out with a note.
    pub fn change(&self, run: RunId, change: &Change) -> Result<(), HistoryError> {
        let diff = cut(&change.diff, MAX_DIFF);
        let found = self.write("record a change", Durability::Normal, |db| {
            let used: Option<i64> = db
                .prepare_cached(
                    "UPDATE run SET diff_bytes = diff_bytes + ?2 \
                     WHERE id = ?1 AND verdict IS NULL RETURNING diff_bytes",
                )?
                .query_row(params![run.0, diff.len() as i64], |row| row.get(0))
                .optional()?;
            let many = used.is_some_and(|used| used > MAX_RUN_DIFFS) && !diff.is_empty();
            let left_out = "(left out: the diffs of this run exceed 4 MiB)";
            let diff = if many { left_out } else { diff.as_str() };
            if used.is_some() {
                db.prepare_cached(
                    "INSERT INTO change (run, seq, object, object_id, verb, diff, origin) VALUES \
                     (?1, (SELECT coalesce(max(seq), 0) + 1 FROM change WHERE run = ?1), \
                     ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    run.0,
                    change.object,
                    change.id,
                    change.verb.as_str(),
                    diff,
                    change.origin
                ])?;
            }
            Ok(used)
        })?;
        found.map(|_| ()).ok_or(HistoryError::NotOpen(run))
    }

    /// Closes a run, notes what it brought in, and now and then drops what has expired.
    ///
    /// # Errors
    /// [`HistoryError::NotOpen`] for a run that is closed already.
    pub fn finish(
        &self,
        run: RunId,
        finish: &Finish,
        applied: Option<&Applied>,
    ) -> Result<(), HistoryError> {
        let steps = serde_json::to_string(&finish.steps).unwrap_or_else(|_| "[]".to_owned());
        let verdict = finish.verdict.as_str();
        let owner: Option<String> = self.write("finish a run", Durability::Normal, |db| {
            let owner: Option<String> = db
                .prepare_cached(
                    "UPDATE run SET verdict = ?2, message = ?3, steps = ?4, finished_ms = ?5 \
                     WHERE id = ?1 AND verdict IS NULL RETURNING owner",
                )?
                .query_row(
                    params![
                        run.0,
                        verdict,
                        cut(&finish.message, MAX_TEXT),
                        steps,
                        finish.finished_ms
                    ],
                    |row| row.get(0),
                )
                .optional()?;
            if let (Some(owner), Some(applied)) = (&owner, applied) {
                db.prepare_cached(
                    "INSERT OR REPLACE INTO applied (owner, revision, digest, finished_ms, \
                     verdict) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    owner,
                    applied.revision,
                    applied.digest,
                    finish.finished_ms,
                    verdict
                ])?;
            }
            Ok(owner)
        })?;
        owner.ok_or(HistoryError::NotOpen(run))?;
        if run.0 % RETENTION_EVERY == 0 {
            self.expire(finish.finished_ms)?;
        }
        Ok(())
    }

    /// Drops closed runs that are too old, too many or too large, oldest first; the newest run of
    /// each owner stays, and so does every inventory row. Returns how many were dropped.
    pub(super) fn expire(&self, now_ms: i64) -> Result<usize, HistoryError> {
        let oldest = now_ms.saturating_sub(i64::from(self.keep.days) * 86_400_000);
        self.write("drop old runs", Durability::Normal, |db| {
            let total: i64 = db.query_row("SELECT count(*) FROM run", [], |row| row.get(0))?;
            let many = total - i64::from(self.keep.runs);
            let large = if used_bytes(db)? > MAX_DATABASE { total / 10 } else { 0 };
            let surplus = many.max(large).clamp(0, RETENTION_BATCH);
            super::push::expire(db, oldest)?;
            db.execute(
                "DELETE FROM run WHERE id IN (SELECT id FROM \
                 (SELECT id, started_ms, row_number() OVER (ORDER BY id) AS place FROM run \
                  WHERE verdict IS NOT NULL \
                  AND id NOT IN (SELECT max(id) FROM run GROUP BY owner)) \
                 WHERE place <= ?1 OR started_ms < ?2 ORDER BY id LIMIT ?3)",
                params![surplus, oldest, RETENTION_BATCH],
            )
        })
    }

    /// What an owner brought in last; survives restarts and retention.
    pub fn last(&self, owner: &str) -> Result<Option<LastApplied>, HistoryError> {
        self.read("read the last revision", |db| {
            db.prepare_cached(
                "SELECT revision, digest, finished_ms, verdict FROM applied WHERE owner = ?1",
            )?
            .query_row([owner], |row| {
                let verdict: String = row.get(3)?;
                Ok(LastApplied {
                    revision: row.get(0)?,
                    digest: row.get(1)?,
                    finished_ms: row.get(2)?,
                    verdict: Verdict::from_word(&verdict),
                })
            })
            .optional()
        })
    }

    /// What was done last to an object, by whichever run. It reads all changes, which nobody asks
    /// for but of an object that will not go.
    pub fn last_verb(&self, object_id: &str) -> Result<Option<Verb>, HistoryError> {
        self.read("read the last change of an object", |db| {
            let mut found = db.prepare_cached(
                "SELECT verb FROM change WHERE object_id = ?1 AND verb NOT IN ('skipped', 'held') \
                 ORDER BY run DESC, seq DESC LIMIT 1",
            )?;
            let verb: Option<String> = found.query_row([object_id], |row| row.get(0)).optional()?;
            Ok(verb.as_deref().map(Verb::from_word))
        })
    }

    /// Runs, newest first, of one owner or of all; at most 1000.
    pub fn runs(&self, owner: Option<&str>, limit: usize) -> Result<Vec<RunRow>, HistoryError> {
        self.read("list runs", |db| {
            let mut rows = db.prepare_cached(&format!(
                "{SELECT_RUN} WHERE ?1 IS NULL OR owner = ?1 ORDER BY id DESC LIMIT ?2"
            ))?;
            rows.query_map(params![owner, limit.min(MAX_LISTED) as i64], run_row)?.collect()
        })
    }

    /// One run with its changes in the order they were made.
    pub fn run(&self, id: RunId) -> Result<Option<(RunRow, Vec<Change>)>, HistoryError> {
        self.read("read a run", |db| {
            let run = db
                .prepare_cached(&format!("{SELECT_RUN} WHERE id = ?1"))?
                .query_row([id.0], run_row)
                .optional()?;
            let Some(run) = run else { return Ok(None) };
            let mut rows = db.prepare_cached(
                "SELECT object, object_id, verb, diff, origin FROM change WHERE run = ?1 \
                 ORDER BY seq",
            )?;
            let changes = rows.query_map([id.0], |row| {
                let verb: String = row.get(2)?;
                Ok(Change {
                    object: row.get(0)?,
                    id: row.get(1)?,
                    verb: Verb::from_word(&verb),
                    diff: row.get(3)?,
                    origin: row.get(4)?,
                })
            })?;
            Ok(Some((run, changes.collect::<Result<_, _>>()?)))
        })
    }
}

/// Closes the open runs of an owner, or of all, with a sentence that says why nobody else did.
///
/// The digests of their objects go: nobody knows which of them was written. What ends by itself is
/// known by its uid, and not made again because of this.
pub(super) fn close_open(db: &Connection, owner: Option<&str>, why: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE inventory SET digest = NULL WHERE uid IS NULL AND owner IN \
         (SELECT owner FROM run WHERE verdict IS NULL AND (?1 IS NULL OR owner = ?1))",
    )?
    .execute([owner])?;
    db.prepare_cached(
        "UPDATE run SET verdict = 'interrupted', message = ?2 \
         WHERE verdict IS NULL AND (?1 IS NULL OR owner = ?1)",
    )?
    .execute(params![owner, why])
    .map(|_| ())
}

const SELECT_RUN: &str = "SELECT id, owner, trigger, requested_by, revision, author, subject, \
     started_ms, finished_ms, verdict, message, steps, \
     (SELECT count(*) FROM change WHERE change.run = run.id) FROM run";

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let verdict: Option<String> = row.get(9)?;
    let steps: String = row.get(11)?;
    Ok(RunRow {
        id: RunId(row.get(0)?),
        owner: row.get(1)?,
        trigger: Trigger::from_columns(row.get(2)?, row.get(3)?),
        revision: row.get(4)?,
        author: row.get(5)?,
        subject: row.get(6)?,
        started_ms: row.get(7)?,
        finished_ms: row.get(8)?,
        verdict: verdict.as_deref().map(Verdict::from_word),
        message: row.get(10)?,
        // Timings are a courtesy: a row of another version still lists.
        steps: serde_json::from_str(&steps).unwrap_or_default(),
        changes: row.get(12)?,
    })
}

/// Bytes of pages in use; freed pages are used again before the file grows.
fn used_bytes(db: &Connection) -> rusqlite::Result<i64> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// At most `most` bytes of a text, whole characters, with a note of what was cut.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    // At most three steps back: a character has four bytes. Zero is always a boundary.
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}\n… ({} bytes more)", &text[..end], text.len() - end)
}
