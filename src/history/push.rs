//! Commits that automations made: stored before they leave the host, linked to runs by their id.

use super::error::HistoryError;
use super::run::RunId;
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

/// Where a run's commit comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// URL of the source, without credentials.
    pub url: &'a str,
    /// The directory that the run renders, without a slash at either end; empty for all of it.
    pub path: &'a str,
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

    /// Notes which commits of automations a run brings in beside its own: those that the branch has
    /// got since the revision that this owner had before, and that concern it. Its directory holds
    /// a changed value, or it runs an image of that policy. Nothing to note is no write.
    pub fn brings(&self, run: RunId, from: &Origin<'_>) -> Result<(), HistoryError> {
        let found: Vec<i64> = self.read("look for commits", |db| {
            let mut rows = db.prepare_cached(
                "SELECT p.id FROM run r JOIN push p ON p.url = ?2 AND p.pushed_ms <= r.started_ms \
                 AND substr(r.revision, 1, length(p.branch) + 6) = p.branch || '@sha1:' \
                 AND r.revision <> p.branch || '@sha1:' || p.sha \
                 AND p.pushed_ms > (SELECT min(started_ms) FROM run WHERE owner = r.owner AND \
                     revision = (SELECT revision FROM run WHERE owner = r.owner AND id < r.id \
                                 AND revision <> r.revision ORDER BY id DESC LIMIT 1)) \
                 WHERE r.id = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM run o WHERE o.owner = r.owner AND o.id < r.id \
                     AND o.revision = p.branch || '@sha1:' || p.sha) \
                 AND NOT EXISTS (SELECT 1 FROM brought b JOIN run o ON o.id = b.run \
                     WHERE b.push = p.id AND o.owner = r.owner) \
                 AND EXISTS (SELECT 1 FROM push_change c WHERE c.push = p.id AND (?3 = '' \
                     OR substr(c.file, 1, length(?3) + 1) = ?3 || '/' \
                     OR EXISTS (SELECT 1 FROM deployed d WHERE d.owner = r.owner \
                         AND d.policy = c.policy))) ORDER BY p.id",
            )?;
            rows.query_map(params![run.0, from.url, from.path], |row| row.get(0))?.collect()
        })?;
        if found.is_empty() {
            return Ok(());
        }
        self.write("link commits to a run", Durability::Normal, |db| {
            let mut row =
                db.prepare_cached("INSERT OR IGNORE INTO brought (run, push) VALUES (?1, ?2)")?;
            for push in &found {
                row.execute([run.0, *push])?;
            }
            Ok(())
        })
    }

    /// The commits that each of these runs brought in beside its own.
    pub fn brought(&self, runs: &[RunId]) -> Result<Vec<(RunId, Push)>, HistoryError> {
        self.read("read a commit", |db| {
            let mut rows = db.prepare_cached(&format!(
                "{SELECT} WHERE id IN (SELECT push FROM brought WHERE run = ?1) ORDER BY id"
            ))?;
            let mut all = Vec::new();
            for run in runs {
                let found = rows.query_map([run.0], head)?.collect::<Result<Vec<_>, _>>()?;
                all.extend(whole(db, found)?.into_iter().map(|push| (*run, push)));
            }
            Ok(all)
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
    use crate::history::{Start, Trigger};

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

    fn mk_run(history: &History, owner: &str, sha: &str, started_ms: i64) -> RunId {
        let start = Start {
            owner: owner.into(),
            trigger: Trigger::Revision,
            revision: format!("main@sha1:{sha}"),
            author: String::new(),
            subject: String::new(),
            started_ms,
        };
        let run = history.begin(&start, &[]).expect("begun");
        let path = if owner == "n/far" { "far" } else { "" };
        history.brings(run, &Origin { url: "https://git.example/app", path }).expect("noted");
        run
    }

    #[test]
    fn a_run_brings_in_the_commits_that_were_overtaken_before_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (history, _) = History::open(dir.path()).expect("opened");
        let push = |sha: &str, url: &str, at: i64| {
            let row = Push { url: url.into(), ..mk_push(sha, at) };
            let id = history.push_begun(&row).expect("stored");
            history.pushed(id, at + 1).expect("noted");
        };
        let here = "https://git.example/app";
        push("old", here, 1);
        let mut runs = vec![mk_run(&history, "n/app", "a", 10), mk_run(&history, "n/far", "a", 11)];
        push("over1", here, 20);
        push("over2", here, 22);
        push("elsewhere", "https://git.example/other", 24);
        history.push_begun(&mk_push("lost", 26)).expect("stored");
        // One that heals meanwhile, the one that brings, a second look, and one by its own id.
        runs.push(mk_run(&history, "n/app", "a", 28));
        runs.push(mk_run(&history, "n/app", "b", 30));
        runs.push(mk_run(&history, "n/app", "b", 40));
        push("own", here, 50);
        runs.push(mk_run(&history, "n/app", "own", 60));
        runs.push(mk_run(&history, "n/app", "c", 70));
        runs.push(mk_run(&history, "n/far", "c", 71));
        let brought = history.brought(&runs).expect("read");
        let brought: Vec<(i64, &str)> =
            brought.iter().map(|(run, push)| (run.0, push.sha.as_str())).collect();
        assert_eq!(brought, [(4, "over1"), (4, "over2")]);
    }
}
