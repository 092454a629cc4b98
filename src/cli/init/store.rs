//! Several files come into place together, or none of them does.
//!
//! What is there before is kept in `.init/` beside the configuration, with a list of what is about
//! to be changed: [`Written::keep`] throws it away, [`Written::put_back`] restores it, and
//! [`recover`] does so after a process that was killed in between. Each file appears whole: it is
//! written beside its place, brought to the disk, and renamed.
//!
//! `.init/undo` is the list; it is there from the first change to the last decision. `.init/N` is
//! what the Nth file was, by a second name where the file system allows that.

use crate::secrets::Plaintext;
use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Begins the names of files that are not in place yet.
const UNFINISHED: &str = ".gitopsd-init-";

/// What one file is to be.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its place.
    pub path: PathBuf,
    /// Its content; nothing takes the file away.
    pub content: Option<Plaintext>,
    /// Its mode.
    pub mode: u32,
}

impl Change {
    /// Whether the file is as it is to be. What cannot be read is not.
    fn is_so(&self) -> bool {
        let Some(content) = &self.content else { return !self.path.exists() };
        let mode = fs::metadata(&self.path).map(|metadata| metadata.permissions().mode() & 0o7777);
        let found = fs::read(&self.path).map(Plaintext::new);
        mode.is_ok_and(|mode| mode == self.mode)
            && found.is_ok_and(|found| found.expose() == content.expose())
    }
}

/// Those of the changes that would change something.
pub fn pending(changes: Vec<Change>) -> Vec<Change> {
    changes.into_iter().filter(|change| !change.is_so()).collect()
}

/// Keeps another `init` out for as long as it lives.
pub type Lock = Flock<File>;

/// Locks the directory; nothing where there is none yet.
///
/// # Errors
/// Somebody else has it.
pub fn lock(directory: &Path) -> Result<Option<Lock>, Errno> {
    let Ok(opened) = File::open(directory) else { return Ok(None) };
    let locked = Flock::lock(opened, FlockArg::LockExclusiveNonblock);
    locked.map(Some).map_err(|(_, error)| error)
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    /// Each file, and whether it was there.
    files: Vec<(PathBuf, bool)>,
    /// Directories that were not there, innermost last.
    directories: Vec<PathBuf>,
}

/// Changes that are in force and can still be put back.
#[must_use = "they are either kept or put back"]
#[derive(Debug)]
pub struct Written {
    place: PathBuf,
}

fn place(directory: &Path) -> PathBuf {
    directory.join(".init")
}

/// Puts every change in force; on an error, everything is as it was.
pub fn write(directory: &Path, changes: &[Change]) -> anyhow::Result<Written> {
    let mut directories = Vec::new();
    for wanted in changes.iter().filter_map(|change| change.path.parent()).chain([directory]) {
        let missing = wanted.ancestors().take_while(|path| !path.exists());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        missing.reverse();
        directories.extend(missing.into_iter().filter(|path| !path.as_os_str().is_empty()));
    }
    directories.sort();
    directories.dedup();
    let place = place(directory);
    let prepared = prepare(&place, changes, directories);
    let undo = match prepared {
        Ok(undo) => undo,
        Err(error) => {
            // Nothing is changed yet; what was prepared goes again as far as it does.
            let _ = fs::remove_dir_all(&place);
            return Err(error);
        }
    };
    let written = Written { place };
    match carry_out(changes, &undo) {
        Ok(()) => Ok(written),
        Err(error) => {
            written.put_back().context("and what was there could not be put back")?;
            Err(error)
        }
    }
}

fn prepare(place: &Path, changes: &[Change], directories: Vec<PathBuf>) -> anyhow::Result<Undo> {
    let mut undo = Undo { files: Vec::new(), directories };
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let made = fs::DirBuilder::new().mode(0o700).create(place);
    made.with_context(|| place.display().to_string())?;
    for (number, change) in changes.iter().enumerate() {
        let (from, to) = (&change.path, place.join(number.to_string()));
        let there = from.exists();
        if there {
            let kept = fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(|_| ()));
            kept.with_context(|| format!("cannot keep {}", from.display()))?;
            File::open(&to)?.sync_all()?;
        }
        undo.files.push((from.clone(), there));
    }
    put(&place.join("undo"), &serde_json::to_vec(&undo)?, 0o600)?;
    Ok(undo)
}

fn carry_out(changes: &[Change], undo: &Undo) -> anyhow::Result<()> {
    for directory in undo.directories.iter().filter(|directory| !directory.exists()) {
        // Only whoever may read the keys may see that they are there.
        let mode = if directory.ends_with("credentials") { 0o700 } else { 0o755 };
        let made = fs::DirBuilder::new().mode(mode).create(directory);
        // Whatever root's umask: the service has to read what is not secret.
        let made =
            made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(mode)));
        made.with_context(|| directory.display().to_string())?;
    }
    for change in changes {
        let done = match &change.content {
            Some(content) => put(&change.path, content.expose(), change.mode),
            None => fs::remove_file(&change.path).map_err(Into::into),
        };
        done.with_context(|| change.path.display().to_string())?;
    }
    Ok(())
}

/// Writes a file beside its place, brings it to the disk and gives it its name.
fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}

impl Written {
    /// Decides for the changes.
    pub fn keep(self) -> anyhow::Result<()> {
        fs::remove_file(self.place.join("undo"))?;
        // Without its list the rest means nothing: the next init removes what stays.
        let _ = fs::remove_dir_all(&self.place);
        Ok(())
    }

    /// Decides against them.
    pub fn put_back(self) -> anyhow::Result<()> {
        restore(&self.place)
    }
}

/// True where a process was killed between its first change and its decision.
pub fn cut_short(directory: &Path) -> bool {
    place(directory).join("undo").exists()
}

/// Puts back what such a process had changed, and removes what one left behind.
pub fn recover(directory: &Path) -> anyhow::Result<()> {
    let place = place(directory);
    if cut_short(directory) {
        return restore(&place).with_context(|| place.display().to_string());
    }
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    }
    Ok(())
}

/// May be cut short itself, and be done again.
fn restore(place: &Path) -> anyhow::Result<()> {
    let undo: Undo = serde_json::from_slice(&fs::read(place.join("undo"))?)?;
    for (number, (path, there)) in undo.files.iter().enumerate() {
        let kept = place.join(number.to_string());
        let done = match (there, kept.exists()) {
            (true, true) if same(&kept, path) => fs::remove_file(&kept),
            (true, true) => fs::rename(&kept, path),
            // Put back by a restore that was cut short.
            (true, false) => Ok(()),
            (false, _) => match fs::remove_file(path) {
                Err(error) if !gone(&error) => Err(error),
                _ => Ok(()),
            },
        };
        done.with_context(|| path.display().to_string())?;
        sweep(path.parent().unwrap_or(Path::new("/")));
    }
    fs::remove_file(place.join("undo"))?;
    fs::remove_dir_all(place)?;
    for directory in undo.directories.iter().rev() {
        // Somebody else may have put something there.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// There is no such file, or no directory that it could lie in.
fn gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A rename onto another name of the same file does nothing, and would leave the second name.
fn same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Removes files that never came into place.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // A leftover that stays is hidden and harmless.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: PathBuf, content: Option<&str>, mode: u32) -> Change {
        Change { path, content: content.map(|text| Plaintext::new(text.into())), mode }
    }

    /// Every file below a directory: path, mode and content.
    fn all(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, mode) = (entry.path(), entry.metadata().expect("ours").permissions().mode());
            if path.is_dir() {
                found.push(format!("{} {:o}", path.display(), mode & 0o777));
                found.extend(all(&path));
            } else {
                let text = fs::read_to_string(&path).expect("text");
                found.push(format!("{} {:o} {text}", path.display(), mode & 0o777));
            }
        }
        found.sort();
        found
    }

    fn standing() -> (tempfile::TempDir, Vec<Change>) {
        let dir = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("config.d")).expect("ours");
        fs::write(at("config.d/50-init.yaml"), "old").expect("ours");
        fs::write(at("config.d/gone.yaml"), "going").expect("ours");
        let changes = vec![
            change(at("credentials/age-key"), Some("secret"), 0o400),
            change(at("config.d/50-init.yaml"), Some("new"), 0o644),
            change(at("config.d/gone.yaml"), None, 0),
        ];
        (dir, changes)
    }

    #[test]
    fn changes_are_kept_or_put_back_as_a_whole() {
        let (dir, changes) = standing();
        let before = all(dir.path());
        write(dir.path(), &changes).expect("written").put_back().expect("put back");
        assert_eq!(all(dir.path()), before);
        write(dir.path(), &changes).expect("written").keep().expect("kept");
        let named = |line: &str| line.replace(&format!("{}/", dir.path().display()), "");
        let after: Vec<String> = all(dir.path()).iter().map(|line| named(line)).collect();
        assert_eq!(
            after,
            [
                "config.d 755",
                "config.d/50-init.yaml 644 new",
                "credentials 700",
                "credentials/age-key 400 secret",
            ]
        );
        assert_eq!(pending(changes).len(), 0, "the same again is nothing to do");
    }

    #[test]
    fn a_failure_in_the_middle_leaves_everything_as_it_was() {
        let (dir, mut changes) = standing();
        fs::write(dir.path().join("file"), "no directory").expect("ours");
        let before = all(dir.path());
        changes.push(change(dir.path().join("file/below"), Some("x"), 0o600));
        let error = write(dir.path(), &changes).expect_err("a file is no directory");
        assert!(format!("{error:#}").contains("file"), "{error:#}");
        assert_eq!(all(dir.path()), before);
    }

    #[test]
    fn only_one_at_a_time_has_a_directory() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = lock(dir.path()).expect("nobody has it").expect("it is there");
        assert_eq!(lock(dir.path()).err(), Some(Errno::EWOULDBLOCK));
        drop(first);
        assert!(lock(dir.path()).expect("free again").is_some());
        assert!(lock(&dir.path().join("none")).expect("nothing to lock").is_none());
    }

    #[test]
    fn what_a_killed_process_changed_is_put_back_by_the_next_one() {
        let (dir, changes) = standing();
        let before = all(dir.path());
        let written = write(dir.path(), &changes).expect("written");
        fs::write(dir.path().join("config.d").join(format!("{UNFINISHED}x")), "half")
            .expect("ours");
        drop(written);
        assert!(cut_short(dir.path()));
        recover(dir.path()).expect("put back");
        assert_eq!(all(dir.path()), before);
        assert!(!cut_short(dir.path()));
        recover(dir.path()).expect("nothing to do");
    }
}
