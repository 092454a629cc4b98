//! One bare repository on disk: made, opened, checked, brought to the disk, set aside.
//!
//! Whoever reads from it holds an `Arc`; a mirror that is no longer the one in force is removed
//! when the last of them lets go. It fetches nothing and knows no remote.

use super::error::SourceError;
use super::record::{storage, sync};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Packs that an open mirror can take up. gix fixes the number when it opens and fails beyond it.
/// A mirror is made anew above 50, so 78 attempts at that may fail before reading does.
const MAX_SLOTS: u16 = 128;

/// One bare repository. Removed with its last user once it is retired.
pub(super) struct Mirror {
    path: PathBuf,
    repository: gix::ThreadSafeRepository,
    broken: AtomicBool,
    retired: AtomicBool,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mirror({})", self.path.display())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            // What stays is removed at the next open.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How our repositories are opened: no configuration but their own and ours.
pub(super) fn options() -> gix::open::Options {
    let slots = gix::odb::store::init::Slots::Given(MAX_SLOTS);
    let options = gix::open::Options::isolated().object_store_slots(slots);
    options.with(gix::sec::Trust::Full).open_path_as_is(true)
}

impl Mirror {
    /// Opens a mirror and removes what a killed process left in it.
    pub(super) fn open(path: &Path) -> Result<Mirror, SourceError> {
        let repository = options().open(path).map_err(|error| damaged(path, &error))?;
        sweep(path);
        let flags = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Mirror { path: path.to_owned(), repository, broken: flags.0, retired: flags.1 })
    }

    /// Removes what a failed fetch left: locks and unfinished packs. Only while nothing fetches.
    pub(super) fn sweep(&self) {
        sweep(&self.path);
    }

    /// Makes `git-NUMBER`, over the remains of one that never came into force.
    pub(super) fn create(dir: &Path, number: u64) -> Result<Mirror, SourceError> {
        let path = dir.join(format!("git-{number}"));
        if path.exists() {
            let removed = fs::remove_dir_all(&path);
            removed.map_err(|error| storage("cannot remove an unfinished mirror", &error))?;
        }
        let (kind, how) = (gix::create::Kind::Bare, gix::create::Options::default());
        let made = gix::ThreadSafeRepository::init_opts(&path, kind, how, options());
        made.map_err(|error| SourceError::Storage {
            what: format!("cannot make {}", path.display()),
            cause: error.to_string(),
        })?;
        // Sample hooks are of no use here.
        let _ = fs::remove_dir_all(path.join("hooks"));
        Mirror::open(&path)
    }

    /// Its directory's name, as the record has it.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The N of `git-N`.
    pub(super) fn number(&self) -> u64 {
        self.name().strip_prefix("git-").and_then(|number| number.parse().ok()).unwrap_or(1)
    }

    /// A handle for the calling thread.
    pub(super) fn repository(&self) -> gix::Repository {
        self.repository.to_thread_local()
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something that must be here could not be read.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Has the directory removed once nobody reads from it any more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Notes that something that must be here cannot be read: the next poll starts afresh.
    pub(super) fn broken(&self, what: &str, error: &gix::Error) -> SourceError {
        self.broken.store(true, Ordering::Relaxed);
        SourceError::BrokenMirror { cause: format!("{what}: {error}") }
    }

    /// Looks up every object of a commit's tree.
    pub(super) fn complete(&self, commit: &str) -> Result<(), SourceError> {
        let failed = |error: gix::Error| self.broken(commit, &error);
        let id = gix::ObjectId::from_hex(commit.as_bytes()).map_err(failed)?;
        let repo = self.repository();
        let root = repo.find_commit(id).and_then(|commit| Ok(commit.tree_id()?.detach()));
        let mut todo = vec![root.map_err(failed)?];
        let mut seen = std::collections::HashSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let tree = repo.find_tree(id).map_err(failed)?;
            for entry in &tree.decode().map_err(failed)?.entries {
                if entry.mode.is_tree() {
                    todo.push(entry.oid.to_owned());
                } else if !entry.mode.is_commit() {
                    repo.find_header(entry.oid.to_owned()).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn pack_dir(&self) -> PathBuf {
        self.path.join("objects").join("pack")
    }

    /// How many packs there are.
    pub(super) fn packs(&self) -> Result<usize, SourceError> {
        let listed = fs::read_dir(self.pack_dir());
        let listed = listed.map_err(|error| storage("cannot list the packs", &error))?;
        let is_pack = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|e| e == "pack");
        Ok(listed.flatten().filter(is_pack).count())
    }

    /// Bytes that packs take, unfinished ones included.
    pub(super) fn pack_bytes(&self) -> u64 {
        let listed = fs::read_dir(self.pack_dir()).into_iter().flatten().flatten();
        listed.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Brings packs, indices and the list of shallow commits to the disk.
    pub(super) fn sync(&self) -> Result<(), SourceError> {
        let all = || -> std::io::Result<()> {
            for entry in fs::read_dir(self.pack_dir())? {
                let path = entry?.path();
                // gix marks new packs against a garbage collector; there is none here.
                if path.extension().is_some_and(|extension| extension == "keep") {
                    fs::remove_file(&path)?;
                } else {
                    sync(&path)?;
                }
            }
            let shallow = self.path.join("shallow");
            if shallow.exists() {
                sync(&shallow)?;
            }
            sync(&self.pack_dir())?;
            sync(&self.path)
        };
        all().map_err(|error| storage("cannot bring the packs to the disk", &error))
    }
}

/// Removes locks, unfinished packs and unfinished refs of a killed process: nobody else works here.
fn sweep(mirror: &Path) {
    let pack = mirror.join("objects").join("pack");
    let refs = mirror.join("refs").join("gitopsd");
    for dir in [mirror, pack.as_path(), refs.as_path()] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let extension = path.extension().unwrap_or_default();
            let finished = ["pack", "idx"].iter().any(|kind| extension == *kind);
            let unfinished =
                extension == "lock" || is_temporary(&path) || (dir == pack && !finished);
            if unfinished {
                // A lock that stays shows in the next poll's error.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Whether this is a file of ours that was not renamed yet.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp"))
}

/// Moves a damaged mirror out of the way, for a look; the one before goes.
pub(super) fn set_aside(dir: &Path, mirror: &str, error: &SourceError) -> Result<(), SourceError> {
    tracing::warn!(dir = %dir.display(), %error, "the mirror is set aside and made anew");
    let aside = dir.join("broken");
    let moved = (|| {
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        if dir.join(mirror).exists() {
            fs::rename(dir.join(mirror), &aside)?;
        }
        Ok(())
    })();
    moved.map_err(|error: std::io::Error| storage("cannot set the damaged mirror aside", &error))
}

/// Removes mirrors that never came into force or are not any more, and records half written.
pub(super) fn remove_others(dir: &Path, keep: Option<&str>) -> Result<(), SourceError> {
    let failed = |error: std::io::Error| storage("cannot remove an old mirror", &error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("git-") && Some(name.as_str()) != keep {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        } else if is_temporary(&entry.path()) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn damaged(path: &Path, error: &gix::Error) -> SourceError {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    SourceError::BrokenMirror { cause: format!("{name}: {error}") }
}
