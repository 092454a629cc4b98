//! `STATE/host.key`: the secret under which digests of possibly secret content are made.
//!
//! Without it a digest of a short password could be guessed from a copy of the database. The key
//! never leaves the host; a lost one costs a verification of every object and nothing else.

use super::error::HistoryError;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

const FILE: &str = "host.key";
const LENGTH: usize = 32;
const DOING: &str = "read or make the host key";

/// Reads the host key, or makes it on the first call; 32 bytes, wiped when dropped.
///
/// # Errors
/// [`HistoryError::HostKey`] for a file of another length; it is not replaced by itself.
pub fn host_key(dir: &Path) -> Result<Zeroizing<[u8; LENGTH]>, HistoryError> {
    let path = dir.join(FILE);
    match read(dir) {
        Err(HistoryError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut key[..]).map_err(|error| HistoryError::HostKey {
        path: path.clone(),
        cause: format!("the system gives no random numbers: {error}"),
    })?;
    let io = |error| HistoryError::from_io(DOING, &path, error);
    fs::create_dir_all(dir).map_err(io)?;
    // The temporary file has mode 0600 from its first moment.
    let mut file = tempfile::Builder::new().prefix(".host.key.").tempfile_in(dir).map_err(io)?;
    file.write_all(&key[..]).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    match file.persist_noclobber(&path) {
        Ok(_) => File::open(dir).and_then(|dir| dir.sync_all()).map_err(io).map(|()| key),
        // Somebody else was first: theirs is the key.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => read(dir),
        Err(error) => Err(io(error.error)),
    }
}

fn read(dir: &Path) -> Result<Zeroizing<[u8; LENGTH]>, HistoryError> {
    let path = dir.join(FILE);
    let io = |error| HistoryError::from_io(DOING, &path, error);
    let wrong = |cause: &str| HistoryError::HostKey { path: path.clone(), cause: cause.to_owned() };
    let found = fs::metadata(&path).map_err(io)?;
    if !found.is_file() || found.len() != LENGTH as u64 {
        return Err(wrong("not a file of 32 bytes"));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io)?;
    }
    let mut key = Zeroizing::new([0; LENGTH]);
    File::open(&path).and_then(|mut file| file.read_exact(&mut key[..])).map_err(io)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = host_key(dir.path()).expect("made");
        assert_ne!(*first, [0; LENGTH]);
        let path = dir.path().join(FILE);
        let mode = || fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("loosened");
        assert_eq!(host_key(dir.path()).expect("read"), first);
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(FILE), "short").expect("written");
        let error = host_key(dir.path()).expect_err("too short");
        assert!(error.to_string().ends_with("host.key: not a file of 32 bytes"), "{error}");
        assert!(!error.retry() && error.hint().is_some());
        assert_eq!(fs::read(dir.path().join(FILE)).expect("read"), b"short");
    }
}
