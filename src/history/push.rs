//! Commits that automations made: stored before they leave the host, linked to runs by their id.

use super::error::HistoryError;
use super::{Durability, History};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Commits that are kept at most; the oldest leave with the runs that they led to.
const MOST: i64 = 10_000;

/// Changes stored of one commit: far more markers than one repository has images.
const MAX_CHANGES: usize = 1000;

/// Number of a push, from 1, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushId(i64);

/// One commit of an automation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The automation, `namespace/name`.
    pub automation: String,
    /// Id of the commit.
    pub sha: String,
    /// URL of the remote, without credentials.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// When it was made, Unix milliseconds.
    pub made_ms: i64,
    /// When the remote had taken it; `None` when that is not known.
    pub pushed_ms: Option<i64>,
    /// What it replaced.
    pub changes: Vec<Replaced>,
}

/// One value that a commit replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The policy whose marker stands there, `namespace/name`.
    pub policy: String,
    /// The object, `Kind/namespace/name`, as far as the file tells.
    pub object: String,
    /// File in the repository.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// What stood there.
    pub old: String,
    /// What stands there now.
    pub new: String,
}

impl History {
    /// Stores a commit that is about to be pushed; on disk when this returns.
    pub fn push_begun(&self, push: &Push) -> Result<PushId, HistoryError> {
        self.write("store a commit", Durability::Full, |db| {
            db.prepare_cached(
                "INSERT INTO push (automation, sha, url, branch, made_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                push.automation,
                push.sha,
                push.url,
                push.branch,
                push.made_ms
            ])?;
            let id = db.last_insert_rowid();
            let mut row = db.prepare_cached(
                "INSERT INTO push_change (push, seq, policy, object, file, line, old, new) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for (seq, change) in (1_i64..).zip(push.changes.iter().take(MAX_CHANGES)) {
                row.execute(params![
                    id,
                    seq,
                    change.policy,
                    change.object,
                    change.file,
                    change.line,
                    change.old,
                    change.new
                ])?;
            }
            db.execute("DELETE FROM push WHERE id <= ?1", [id - MOST])?;
            Ok(PushId(id))
        })
    }

    /// The remote has taken a commit.
    pub fn pushed(&self, id: PushId, now_ms: i64) -> Result<(), HistoryError> {
        self.write("note a push", Durability::Normal, |db| {
            db.execute("UPDATE push SET pushed_ms = ?2 WHERE id = ?1", params![id.0, now_ms])
                .map(|_| ())
        })
    }

    /// The latest commit of an automation, if it has this id and is not known to have arrived, was
    /// found at the remote. Nothing to note is no write.
    pub fn found_pushed(
        &self,
        automation: &str,
        sha: &str,
        now_ms: i64,
    ) -> Result<(), HistoryError> {
        let found: Option<i64> = self.read("read a commit", |db| {
            db.prepare_cached(
                "SELECT id FROM push WHERE automation = ?1 AND sha = ?2 AND pushed_ms IS NULL",
            )?
            .query_row([automation, sha], |row| row.get(0))
            .optional()
        })?;
        found.map_or(Ok(()), |id| self.pushed(PushId(id), now_ms))
    }

    /// The remote has refused a commit: it never was.
    pub fn push_failed(&self, id: PushId) -> Result<(), HistoryError> {
        self.write("drop a commit", Durability::Normal, |db| {
            db.execute("DELETE FROM push WHERE id = ?1", [id.0]).map(|_| ())
        })
    }

    /// The commits with these ids, whether or not it is known that they arrived.
    pub fn pushes_of(&self, shas: &[&str]) -> Result<Vec<Push>, HistoryError> {
        self.read("read a commit", |db| {
            let mut rows = db.prepare_cached(&format!("{SELECT} WHERE sha = ?1 ORDER BY id"))?;
            let mut found = Vec::new();
            for sha in shas {
                let pushes = rows.query_map([sha], head)?.collect::<Result<Vec<_>, _>>()?;
                found.extend(pushes);
            }
            whole(db, found)
        })
    }

    /// The latest commits of one automation or of all, newest first.
    pub fn pushes(
        &self,
        automation: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Push>, HistoryError> {
        self.read("list commits", |db| {
            let mut rows = db.prepare_cached(&format!(
                "{SELECT} WHERE ?1 IS NULL OR automation = ?1 ORDER BY id DESC LIMIT ?2"
            ))?;
            let found = rows.query_map(params![automation, limit.min(1000) as i64], head)?;
            whole(db, found.collect::<Result<_, _>>()?)
        })
    }
}

const SELECT: &str = "SELECT id, automation, sha, url, branch, made_ms, pushed_ms FROM push";

fn head(row: &Row<'_>) -> rusqlite::Result<(i64, Push)> {
    let push = Push {
        automation: row.get(1)?,
        sha: row.get(2)?,
        url: row.get(3)?,
        branch: row.get(4)?,
        made_ms: row.get(5)?,
        pushed_ms: row.get(6)?,
        changes: Vec::new(),
    };
    Ok((row.get(0)?, push))
}

/// Adds the changes of each.
fn whole(db: &Connection, found: Vec<(i64, Push)>) -> rusqlite::Result<Vec<Push>> {
    let mut rows = db.prepare_cached(
        "SELECT policy, object, file, line, old, new FROM push_change WHERE push = ?1 ORDER BY seq",
    )?;
    let filled = found.into_iter().map(|(id, mut push)| {
        let changes = rows.query_map([id], |row| {
            Ok(Replaced {
                policy: row.get(0)?,
                object: row.get(1)?,
                file: row.get(2)?,
                line: row.get(3)?,
                old: row.get(4)?,
                new: row.get(5)?,
            })
        })?;
        push.changes = changes.collect::<Result<_, _>>()?;
        Ok(push)
    });
    filled.collect()
}

/// Drops commits that are too old; the newest of each automation stays.
pub(super) fn expire(db: &Connection, oldest_ms: i64) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM push WHERE made_ms < ?1 \
         AND id NOT IN (SELECT max(id) FROM push GROUP BY automation)",
        [oldest_ms],
    )
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_push(sha: &str, made_ms: i64) -> Push {
        let change = Replaced {
            policy: "n/app".into(),
            object: "Deployment/n/app".into(),
            file: "app.yaml".into(),
            line: 7,
            old: "r/app:1".into(),
            new: "r/app:2".into(),
        };
        Push {
            automation: "n/apps".into(),
            sha: sha.into(),
            url: "https://git.example/app".into(),
            branch: "main".into(),
            made_ms,
            pushed_ms: None,
            changes: vec![change],
        }
    }

    #[test]
    fn a_commit_is_known_before_it_is_pushed_and_gone_when_it_was_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (history, _) = History::open(dir.path()).expect("opened");
        let first = history.push_begun(&mk_push("a1", 1)).expect("stored");
        drop(history);
        let (history, _) = History::open(dir.path()).expect("opened again");
        assert_eq!(history.pushes_of(&["a1", "b2"]).expect("read"), [mk_push("a1", 1)]);
        history.pushed(first, 5).expect("noted");
        let second = history.push_begun(&mk_push("b2", 6)).expect("stored");
        history.push_failed(second).expect("dropped");
        let arrived = Push { pushed_ms: Some(5), ..mk_push("a1", 1) };
        assert_eq!(history.pushes(Some("n/apps"), 9).expect("read"), [arrived]);
        assert_eq!(history.pushes(Some("n/other"), 9).expect("read"), []);
    }

    #[test]
    fn old_commits_expire_but_for_the_newest_of_each_automation() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (history, _) = History::open(dir.path()).expect("opened");
        for (sha, made_ms) in [("a", 1), ("b", 2), ("c", 3)] {
            history.push_begun(&mk_push(sha, made_ms)).expect("stored");
        }
        history.expire(100 * 86_400_000).expect("dropped");
        let left: Vec<String> =
            history.pushes(None, 9).expect("read").into_iter().map(|push| push.sha).collect();
        assert_eq!(left, ["c"]);
        let changes = history.read("count", |db| {
            db.query_row("SELECT count(*) FROM push_change", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(changes.expect("read"), 1, "changes leave with their commit");
    }
}
