//! `STATE/reserve`: room that is kept for the record, for the day when the disk is full.
//!
//! A file of zeros that means nothing. When the database or `state.json` finds no room, it is
//! removed and the write is tried once more, so that a run under way is recorded to its end: what
//! it wrote to the cluster is known, and what cannot be recorded is not begun. It is made again as
//! soon as there is room for it and some more.
//!
//! It is for records only: a fetch that finds no room fails, and the last revision stays in force.

use crate::logging::Message;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE: &str = "reserve";

/// Bytes kept: the WAL is brought into the database at 4 MiB, and a run of 1000 objects with
/// ordinary diffs takes less.
const SIZE: u64 = 4 << 20;

/// Bytes that must be free beside the reserve before it is made: a disk that is about to be full
/// would otherwise lose and get it with every run.
const MARGIN: u64 = 16 << 20;

/// Whether the reserve is there, whole.
pub(super) fn is_there(dir: &Path) -> bool {
    fs::metadata(dir.join(FILE)).is_ok_and(|file| file.len() >= SIZE)
}

/// Makes the reserve if it is not there and the disk has room. Answers whether it is there: not to
/// have one is no reason not to run.
pub(super) fn keep(dir: &Path) -> bool {
    if is_there(dir) {
        return true;
    }
    let free = statvfs(dir).map_or(0, |disk| {
        // The types differ between architectures.
        #[allow(clippy::useless_conversion, reason = "u32 on 32-bit systems")]
        u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()))
    });
    if free < SIZE + MARGIN {
        return false;
    }
    let path = dir.join(FILE);
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).write(true).truncate(false).mode(0o600).open(&path);
    // Blocks are taken, not only a length set: 4 MiB fit into every off_t.
    let made = file.is_ok_and(|file| posix_fallocate(file, 0, SIZE as i64).is_ok());
    if !made {
        let _ = fs::remove_file(&path);
    }
    made
}

/// Gives the reserve up. True when that made room.
pub(super) fn spend(dir: &Path) -> bool {
    let spent = is_there(dir) && fs::remove_file(dir.join(FILE)).is_ok();
    if spent {
        tracing::error!(
            message_id = Message::DiskFull.id(),
            "the disk of the state directory is full: its reserve of 4 MiB is used up now; \
             make room: du -xh /var | sort -h | tail"
        );
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_reserve_takes_real_blocks_and_is_given_up_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert!(!is_there(dir.path()) && !spend(dir.path()));
        assert!(keep(dir.path()) && keep(dir.path()));
        let file = fs::metadata(dir.path().join(FILE)).expect("there");
        assert!(file.blocks() * 512 >= SIZE, "{file:?}");
        assert!(spend(dir.path()) && !spend(dir.path()));
        assert!(!is_there(dir.path()));
    }
}
