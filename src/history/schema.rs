//! The tables and how an older file becomes a current one.
//!
//! `user_version` counts the entries of [`MIGRATIONS`] that a file has seen. An entry is never
//! edited once released: a change is a new entry at the end.
//!
//! * `run`: one row per run that had something to do. `id` is never given twice. `owner` is the
//!   Kustomization as `namespace/name`. `trigger` is one word, `requested_by` who asked when that
//!   word is `request`. `verdict` is null while the run is open; `finished_ms` is also null when it
//!   was interrupted, as nobody knows when. `steps` is JSON, `[["render", 1200], …]` in
//!   microseconds. `diff_bytes` is the sum over the run's changes, kept for its limit.
//! * `change`: what was done to one object, `seq` in the order it was done. `object` is for people,
//!   `object_id` is Flux's inventory id, `origin` the file in Git. `diff` is masked and cut.
//! * `inventory`: which owner has which object. `digest` is the keyed digest of the manifest as
//!   last applied and `uid` the live object's; null when not known for certain.
//! * `released`: objects that an owner let go of and that still carry its labels: they are not
//!   taken back when they are found. A row leaves with its object, or when it is wanted again.
//! * `child`: which Kustomization each parent declared last; it stands until the child has ended.
//! * `applied`: the last revision that an owner brought in, with the digest of its inputs, when,
//!   and the verdict of that run. It outlives the run's own row.
//! * `meta`: single values, such as the uid of the cluster.
//! * `tags`: the tags of an image repository as the registry listed them last, one on a line in
//!   descending order of their bytes. `repository` is the ImageRepository as `namespace/name`,
//!   `asked` what was listed (name and exclusions), `scanned_ms` the scan that found this list
//!   first: a scan that finds the same is no write.
//! * `choice`: what an ImagePolicy (`namespace/name`) has chosen, in parts and since when;
//!   `previous` is the whole reference that was in force before.
//! * `push`: one row per commit of an ImageUpdateAutomation, stored before it leaves the host.
//!   `pushed_ms` is null until the remote has it; a kill in between leaves it so, and where the
//!   commit did arrive its id still tells which run deployed it.
//! * `push_change`: the values that such a commit replaced, `seq` in order of file and line.
//! * `brought`: the commits of automations that a run brought in beside its own, because the branch
//!   had moved on before it was polled. A run's own commit is found by its id.
//! * `deployed`: which image of a policy a Kustomization (`owner`) runs, and the last one with
//!   which it was healthy; null when there was none.

use rusqlite::{Connection, TransactionBehavior};

const MIGRATIONS: [&str; 5] = [
    "
CREATE TABLE run (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    owner        TEXT NOT NULL,
    trigger      TEXT NOT NULL,
    requested_by TEXT,
    revision     TEXT NOT NULL,
    author       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    started_ms   INTEGER NOT NULL,
    finished_ms  INTEGER,
    verdict      TEXT,
    message      TEXT NOT NULL DEFAULT '',
    steps        TEXT NOT NULL DEFAULT '[]',
    diff_bytes   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX run_by_owner ON run (owner, id);
CREATE INDEX run_open ON run (id) WHERE verdict IS NULL;
CREATE TABLE change (
    run       INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    seq       INTEGER NOT NULL,
    object    TEXT NOT NULL,
    object_id TEXT NOT NULL,
    verb      TEXT NOT NULL,
    diff      TEXT NOT NULL,
    origin    TEXT,
    PRIMARY KEY (run, seq)
);
CREATE TABLE inventory (
    owner   TEXT NOT NULL,
    id      TEXT NOT NULL,
    version TEXT NOT NULL,
    digest  TEXT,
    uid     TEXT,
    PRIMARY KEY (owner, id)
) WITHOUT ROWID;
CREATE TABLE applied (
    owner       TEXT PRIMARY KEY,
    revision    TEXT NOT NULL,
    digest      TEXT NOT NULL,
    finished_ms INTEGER NOT NULL,
    verdict     TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
",
    "CREATE TABLE released (
    owner TEXT NOT NULL,
    id    TEXT NOT NULL,
    PRIMARY KEY (owner, id)
) WITHOUT ROWID;
",
    "CREATE TABLE child (
    owner  TEXT NOT NULL,
    parent TEXT NOT NULL,
    PRIMARY KEY (owner, parent)
) WITHOUT ROWID;
",
    "CREATE TABLE tags (
    repository TEXT PRIMARY KEY,
    asked      TEXT NOT NULL,
    tags       TEXT NOT NULL,
    scanned_ms INTEGER NOT NULL
);
CREATE TABLE choice (
    policy   TEXT PRIMARY KEY,
    name     TEXT NOT NULL,
    tag      TEXT NOT NULL,
    digest   TEXT,
    previous TEXT,
    since_ms INTEGER NOT NULL
);
CREATE TABLE push (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    automation TEXT NOT NULL,
    sha        TEXT NOT NULL,
    url        TEXT NOT NULL,
    branch     TEXT NOT NULL,
    made_ms    INTEGER NOT NULL,
    pushed_ms  INTEGER
);
CREATE INDEX push_by_sha ON push (sha);
CREATE INDEX push_by_automation ON push (automation, id);
CREATE TABLE push_change (
    push   INTEGER NOT NULL REFERENCES push (id) ON DELETE CASCADE,
    seq    INTEGER NOT NULL,
    policy TEXT NOT NULL,
    object TEXT NOT NULL,
    file   TEXT NOT NULL,
    line   INTEGER NOT NULL,
    old    TEXT NOT NULL,
    new    TEXT NOT NULL,
    PRIMARY KEY (push, seq)
);
CREATE TABLE deployed (
    policy     TEXT NOT NULL,
    owner      TEXT NOT NULL,
    image      TEXT NOT NULL,
    healthy    TEXT,
    healthy_ms INTEGER,
    PRIMARY KEY (policy, owner)
) WITHOUT ROWID;
",
    "CREATE TABLE brought (
    run  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    push INTEGER NOT NULL REFERENCES push (id) ON DELETE CASCADE,
    PRIMARY KEY (run, push)
) WITHOUT ROWID;
CREATE INDEX brought_by_push ON brought (push);
",
];

/// Key of the note in a new file: nobody has looked yet whether the cluster has more of ours.
pub(super) const UNSURVEYED: &str = "unsurveyed";

/// The schema number that this program writes.
pub(super) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// The schema number of a file; 0 is a new one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a file from schema `found` to [`CURRENT`], one transaction each step.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    for (step, sql) in (1_i64..).zip(MIGRATIONS).filter(|(step, _)| *step > found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        if step == 1 {
            transaction.execute("INSERT INTO meta (key, value) VALUES (?1, '')", [UNSURVEYED])?;
        }
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}
