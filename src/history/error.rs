//! What can fail in keeping the record, and what to do about it.

use super::run::RunId;
use rusqlite::ErrorCode;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why something was not recorded. Nothing was written to the cluster on account of it: callers
/// record first.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No room on the disk of the state directory.
    #[error("could not {doing}: the disk of the state directory is full")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
    },
    /// The state directory or a file in it cannot be written.
    #[error("could not {doing}: the state directory cannot be written ({cause})")]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        cause: String,
    },
    /// The database is damaged: the daemon ends, and its next start puts the file aside.
    #[error("could not {doing}: the database is damaged ({cause})")]
    Corrupt {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        cause: String,
    },
    /// Another process holds the database.
    #[error("could not {doing}: another gitopsd uses this state directory")]
    Locked {
        /// What was being done.
        doing: &'static str,
    },
    /// A newer gitopsd wrote the database.
    #[error("the database has schema {found}, this gitopsd knows {known}")]
    NewerSchema {
        /// Schema number in the file.
        found: i64,
        /// The newest one we know.
        known: i64,
    },
    /// No open run of that number.
    #[error("run {0} is not open")]
    NotOpen(RunId),
    /// `state.json` cannot be understood.
    #[error("{path}: {cause}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// `host.key` is not what we once wrote.
    #[error("{path}: {cause}")]
    HostKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The system refused something else.
    #[error("could not {doing}: {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused something else.
    #[error("could not {doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl HistoryError {
    /// Whether the same call may succeed later, after another start perhaps, without anybody
    /// editing a file.
    pub fn retry(&self) -> bool {
        match self {
            Self::DiskFull { .. }
            | Self::ReadOnly { .. }
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Database { .. } => true,
            Self::NewerSchema { .. }
            | Self::NotOpen(_)
            | Self::State { .. }
            | Self::HostKey { .. } => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::DiskFull { .. } => "make room: du -xh /var | sort -h | tail",
            Self::ReadOnly { .. } => {
                "the user gitopsd must own the state directory and its disk must be mounted \
                 read-write: journalctl -k -p warning tells why a disk turned read-only"
            }
            Self::Corrupt { .. } => {
                "the next start of gitopsd puts the file aside and rebuilds the inventory from \
                 the cluster; look at the disk: journalctl -k -p warning"
            }
            Self::Locked { .. } => "stop the other one: systemctl status gitopsd",
            Self::NewerSchema { .. } => {
                "install the newer gitopsd again, or move history.db away: the inventory is \
                 then rebuilt from the cluster and old runs are no longer listed"
            }
            Self::State { .. } => {
                "correct the file, or remove it: suspends and confirmations are then forgotten"
            }
            Self::HostKey { .. } => {
                "remove the file: a new key is made and every object is verified once"
            }
            Self::Database { source, .. }
                if source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) =>
            {
                "look at the disk: journalctl -k -p warning"
            }
            Self::Io { .. } => "look at the disk: journalctl -k -p warning",
            Self::NotOpen(_) | Self::Database { .. } => return None,
        };
        Some(hint.to_owned())
    }

    pub(super) fn from_database(doing: &'static str, error: rusqlite::Error) -> Self {
        let cause = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { doing },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { doing, cause }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { doing, cause }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { doing },
            _ => Self::Database { doing, source: error },
        }
    }

    pub(super) fn from_io(doing: &'static str, path: &Path, error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { doing },
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                Self::ReadOnly { doing, cause: format!("{}: {error}", path.display()) }
            }
            _ => Self::Io { doing, path: path.to_owned(), source: error },
        }
    }
}
