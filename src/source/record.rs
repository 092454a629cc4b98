//! The record of the revision in force: one small file, replaced whole.
//!
//! It is JSON: `version` (1), `mirror` (directory that holds the objects), `url` without userinfo,
//! `name` and `commit` of the revision, `ignore` (the spec's, since it shapes the tree).

use super::error::SourceError;
use super::select::Revision;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

const FILE: &str = "record.json";

/// `spec.ignore` is the only part without a fixed size; etcd bounds an object to 1.5 MiB.
const MAX_RECORD: u64 = 4 << 20;

/// What was last good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub mirror: String,
    pub url: String,
    name: Option<String>,
    commit: String,
    pub ignore: Option<String>,
}

impl Record {
    pub(super) fn new(
        mirror: &str,
        url: &str,
        revision: &Revision,
        ignore: Option<&str>,
    ) -> Record {
        Record {
            version: 1,
            mirror: mirror.to_owned(),
            url: url.to_owned(),
            name: revision.name.clone(),
            commit: revision.commit.clone(),
            ignore: ignore.map(str::to_owned),
        }
    }

    /// The same revision in another mirror.
    pub(super) fn moved_to(&self, mirror: &str) -> Record {
        Record { mirror: mirror.to_owned(), ..self.clone() }
    }

    pub(super) fn revision(&self) -> Revision {
        Revision { name: self.name.clone(), commit: self.commit.clone() }
    }

    /// The record of a source directory. One that is missing or makes no sense counts as none:
    /// the next poll writes it anew.
    pub(super) fn load(dir: &Path) -> Result<Option<Record>, SourceError> {
        let file = match fs::File::open(dir.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage("cannot read the record of a source", &error)),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_RECORD).read_to_end(&mut text);
        read.map_err(|error| storage("cannot read the record of a source", &error))?;
        let record = serde_json::from_slice::<Record>(&text).ok();
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '.']);
        let hex = |id: &str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(record.filter(|r| r.version == 1 && plain(&r.mirror) && hex(&r.commit)))
    }

    /// Replaces the record; on return it is on the disk.
    pub(super) fn store(&self, dir: &Path) -> Result<(), SourceError> {
        let text = serde_json::to_vec(self).expect("a record is plain text fields");
        replace(&dir.join(FILE), &text)
    }
}

/// Writes a file that appears whole or not at all and survives a power cut once this returns.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), SourceError> {
    let write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        // The prefix is what `mirror` sweeps.
        let mut file = tempfile::Builder::new().prefix(".tmp").tempfile_in(dir)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync(dir)
    };
    write().map_err(|error| storage(&format!("cannot write {}", path.display()), &error))
}

/// Brings a file or directory to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// A failure of the state directory; a full disk has its own name.
pub(super) fn storage(what: &str, error: &io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SourceError::DiskFull { cause: what.to_owned() }
        }
        _ => SourceError::Storage { what: what.to_owned(), cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_stored_and_nonsense_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()), Ok(None));
        let revision = Revision { name: Some("main".into()), commit: "a".repeat(40) };
        let record = Record::new("git-1", "https://h/r", &revision, Some("*.md"));
        record.store(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()), Ok(Some(record.clone())));
        assert_eq!(record.revision(), revision);
        for nonsense in ["", "{", "{\"version\":2}"] {
            fs::write(dir.path().join(FILE), nonsense).unwrap();
            assert_eq!(Record::load(dir.path()), Ok(None));
        }
        let outside = Record::new("../git-1", "https://h/r", &revision, None);
        outside.store(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()), Ok(None));
    }
}
