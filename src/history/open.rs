//! Opens the database: locks it, checks it, brings it up to date, closes what was cut short.

use super::error::HistoryError;
use super::run::{RunId, close_open};
use super::{Durability, History, reserve, schema};
use crate::config::HistorySettings;
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const FILE: &str = "history.db";

/// There when damage was met while running: the next start looks at every page.
pub(super) const SUSPECT: &str = "history.db.suspect";

/// Damaged databases kept for a look; each is at most what retention allows the database to be.
const KEEP_DAMAGED: u32 = 2;

/// How long another process may hold the file: the old daemon of a restart is gone by then.
const BUSY: Duration = Duration::from_secs(1);

/// What was found on opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Runs that were open and are now closed as interrupted, oldest first.
    pub interrupted: Vec<RunId>,
    /// Where a damaged database was put, when there was one.
    pub rebuilt: Option<PathBuf>,
    /// True when the database is empty and new: ownership must be learnt from the cluster.
    pub fresh: bool,
}

impl History {
    /// Opens or makes `dir/history.db`.
    ///
    /// A damaged database is put aside as `history.db.corrupt-N` and a new one made, wherever in
    /// opening it the damage shows. Runs left open are closed as interrupted, and the digests of
    /// their owners' objects are dropped: an object may have been written without its digest, and
    /// a digest of the time before would let a later revert pass for unchanged.
    ///
    /// # Errors
    /// No room, no right to write, another gitopsd, or a file of a newer gitopsd.
    pub fn open(dir: &Path) -> Result<(History, Opened), HistoryError> {
        let io = |error| HistoryError::from_io("make the state directory", dir, error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        match Self::open_sound(dir) {
            Err(HistoryError::DiskFull { .. }) if reserve::spend(dir) => Self::open_sound(dir),
            opened => opened,
        }
    }

    fn open_sound(dir: &Path) -> Result<(History, Opened), HistoryError> {
        match Self::open_once(dir) {
            Err(HistoryError::Corrupt { .. }) => {
                let aside = put_aside(dir)?;
                let (history, opened) = Self::open_once(dir)?;
                Ok((history, Opened { rebuilt: Some(aside), ..opened }))
            }
            opened => opened,
        }
    }

    fn open_once(dir: &Path) -> Result<(History, Opened), HistoryError> {
        let mut connection = connect(dir)?;
        let found = version(&connection)?;
        schema::migrate(&mut connection, found)
            .map_err(|error| HistoryError::from_database("update the database", error))?;
        let keep = HistorySettings { days: 90, runs: 10_000 };
        let history = History {
            connection: Mutex::new(connection),
            directory: dir.to_owned(),
            keep,
            spent: AtomicBool::new(false),
            damage: watch::channel(None).0,
        };
        let interrupted = history.close_interrupted()?;
        history.spent.store(!reserve::keep(dir), Ordering::Relaxed);
        Ok((history, Opened { interrupted, rebuilt: None, fresh: found == 0 }))
    }

    /// True for a new record until [`History::surveyed`]: what is in the cluster may be older than it.
    pub fn unsurveyed(&self) -> Result<bool, HistoryError> {
        Ok(self.meta(schema::UNSURVEYED)?.is_some())
    }

    /// Nothing in the cluster is ours and unknown to this record.
    pub fn surveyed(&self) -> Result<(), HistoryError> {
        self.drop_meta(schema::UNSURVEYED)
    }

    fn close_interrupted(&self) -> Result<Vec<RunId>, HistoryError> {
        let open = self.read("look for open runs", |db| {
            let mut open = db.prepare("SELECT id FROM run WHERE verdict IS NULL ORDER BY id")?;
            open.query_map([], |row| row.get(0).map(RunId))?.collect::<Result<Vec<_>, _>>()
        })?;
        if !open.is_empty() {
            self.write("close interrupted runs", Durability::Full, |db| {
                close_open(db, None, "gitopsd stopped before this run was over")
            })?;
        }
        Ok(open)
    }
}

/// Connects, takes the lock and makes sure that the file can be relied upon.
fn connect(dir: &Path) -> Result<Connection, HistoryError> {
    const DOING: &str = "open the database";
    let path = dir.join(FILE);
    // Made here for its mode: SQLite gives the WAL the mode of the database.
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| HistoryError::from_io(DOING, &path, error))?;
    let stopped_badly = fs::metadata(dir.join("history.db-wal")).is_ok_and(|wal| wal.len() > 0);
    let mark = dir.join(SUSPECT);
    let suspect = mark.exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = |error| HistoryError::from_database(DOING, error);
    let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
    prepare(&connection).map_err(database)?;
    let found = version(&connection)?;
    if found > schema::CURRENT {
        return Err(HistoryError::NewerSchema { found, known: schema::CURRENT });
    }
    // Every page is read: at most the 256 MiB of retention, and only after a bad stop.
    if stopped_badly || suspect {
        // What was met may be an index that disagrees with its table, which the quick one trusts.
        let check = if suspect { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
        let verdict: String =
            connection.query_row(check, [], |row| row.get(0)).map_err(database)?;
        if verdict != "ok" {
            return Err(HistoryError::Corrupt { doing: DOING, cause: verdict });
        }
        let _ = fs::remove_file(mark);
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // Ours alone, and before WAL: then no shared-memory file is needed.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // A burst may grow the WAL; afterwards it shrinks to 4 MiB, the size of one checkpoint.
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    // 2 MiB of page cache (negative means KiB).
    connection.pragma_update(None, "cache_size", -2048)
}

fn version(connection: &Connection) -> Result<i64, HistoryError> {
    schema::version(connection)
        .map_err(|error| HistoryError::from_database("read the schema number", error))
}

/// Moves the database and its WAL to the next free number and drops the oldest of those kept.
fn put_aside(dir: &Path) -> Result<PathBuf, HistoryError> {
    const DOING: &str = "put the damaged database aside";
    let at = |number: u32| dir.join(format!("{FILE}.corrupt-{number}"));
    let io = |error| HistoryError::from_io(DOING, dir, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("history.db.corrupt-"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    let next = numbers.iter().max().map_or(1, |last| last.saturating_add(1));
    for number in numbers.into_iter().filter(|number| number.saturating_add(KEEP_DAMAGED) <= next) {
        let _ = fs::remove_file(at(number));
        let _ = fs::remove_file(at(number).with_extension(format!("corrupt-{number}-wal")));
    }
    let aside = at(next);
    fs::rename(dir.join(FILE), &aside).map_err(io)?;
    // The WAL belongs to it: beside a new database it would be replayed into the wrong file.
    let mut wal = aside.clone().into_os_string();
    wal.push("-wal");
    for (from, to) in [("history.db-wal", Some(wal)), ("history.db-shm", None), (SUSPECT, None)] {
        let from = dir.join(from);
        let moved = match to {
            Some(to) => fs::rename(&from, to),
            None => fs::remove_file(&from),
        };
        match moved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HistoryError::from_io(DOING, &from, error));
            }
            _ => {}
        }
    }
    Ok(aside)
}
