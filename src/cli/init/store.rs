//! Several files come into place together, or none of them does.
//!
//! What is there before is kept in `.init/` beside the configuration, with a list of what is about
//! to be changed: [`Written::keep`] throws it away, [`Written::put_back`] restores it. Each file
//! appears whole: it is written beside its place, brought to the disk, and renamed.
//!
//! A process that was killed leaves the list behind, and [`recover`] goes by its name:
//!
//! * `.init/undo`: some files are as they were and some are not. All are put back.
//! * `.init/placed`: all are as they are to be, and the service may run with them already, for as
//!   long as nobody calls `init` again. They stay.
//!
//! `.init/N` is what the Nth file was, by a second name where the file system allows that.

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

/// The list while files are changed or put back.
const UNDO: &str = "undo";

/// The list once everything is in place.
const PLACED: &str = "placed";

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

/// Puts every change in force, in this order; on an error, everything is as it was. `between` is
/// called before the removals that come last: whatever reads a file that is to go can learn there
/// what to read instead.
pub fn write(
    directory: &Path,
    changes: &[Change],
    between: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Written> {
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
    let done = carry_out(changes, &undo, between);
    match done.and_then(|()| rename_list(&written.place, UNDO, PLACED)) {
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
    sync(parent)?;
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
    put(&place.join(UNDO), &serde_json::to_vec(&undo)?, 0o600)?;
    Ok(undo)
}

fn carry_out(
    changes: &[Change],
    undo: &Undo,
    between: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for directory in undo.directories.iter().filter(|directory| !directory.exists()) {
        // Only whoever may read the keys may see that they are there.
        let mode = if directory.ends_with("credentials") { 0o700 } else { 0o755 };
        let made = fs::DirBuilder::new().mode(mode).create(directory);
        // Whatever root's umask: the service has to read what is not secret.
        let made =
            made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(mode)));
        made.with_context(|| directory.display().to_string())?;
        sync(directory.parent().unwrap_or(Path::new("/")))?;
    }
    let written = changes.iter().rposition(|change| change.content.is_some());
    let (first, going) = changes.split_at(written.map_or(0, |at| at + 1));
    first.iter().try_for_each(make_so)?;
    between()?;
    going.iter().try_for_each(make_so)
}

/// Makes one file as it is to be.
fn make_so(change: &Change) -> anyhow::Result<()> {
    let done = match &change.content {
        Some(content) => put(&change.path, content.expose(), change.mode),
        None => fs::remove_file(&change.path)
            .and_then(|()| sync(change.path.parent().unwrap_or(Path::new("/"))))
            .map_err(Into::into),
    };
    done.with_context(|| change.path.display().to_string())
}

/// Writes a file beside its place, brings it to the disk and gives it its name.
fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(sync(directory)?)
}

/// Brings names that came, went or changed in a directory to the disk.
fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Gives the list another name, which says what is to be done with it.
fn rename_list(place: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    fs::rename(place.join(from), place.join(to))?;
    Ok(sync(place)?)
}

impl Written {
    /// Decides for the changes.
    pub fn keep(self) -> anyhow::Result<()> {
        fs::remove_file(self.place.join(PLACED))?;
        sync(&self.place)?;
        // Without its list the rest means nothing: the next init removes what stays.
        let _ = fs::remove_dir_all(&self.place);
        Ok(())
    }

    /// Decides against them.
    pub fn put_back(self) -> anyhow::Result<()> {
        // Should this be cut short, the next init goes on with it.
        if self.place.join(PLACED).exists() {
            rename_list(&self.place, PLACED, UNDO)?;
        }
        restore(&self.place)
    }
}

/// What a process that was killed had left, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing that counts.
    Nothing,
    /// Some of its changes: they are put back.
    PutBack,
    /// All of its changes: they stay.
    Placed,
}

/// Puts back what such a process had changed in part, and removes what one left behind.
pub fn recover(directory: &Path) -> anyhow::Result<Left> {
    let place = place(directory);
    let shown = || place.display().to_string();
    if place.join(UNDO).exists() {
        return restore(&place).with_context(shown).map(|()| Left::PutBack);
    }
    let left = if place.join(PLACED).exists() { Left::Placed } else { Left::Nothing };
    if place.exists() {
        fs::remove_dir_all(&place).with_context(shown)?;
    }
    Ok(left)
}

/// May be cut short itself, and be done again. The last change comes first: what was removed is
/// there again before what took its place goes.
fn restore(place: &Path) -> anyhow::Result<()> {
    let undo: Undo = serde_json::from_slice(&fs::read(place.join(UNDO))?)?;
    for (number, (path, there)) in undo.files.iter().enumerate().rev() {
        let kept = place.join(number.to_string());
        let done = match (there, kept.exists()) {
            (true, true) => bring_back(&kept, path),
            // Put back by a restore that was cut short.
            (true, false) => Ok(()),
            (false, _) => match fs::remove_file(path) {
                Err(error) if !gone(&error) => Err(error.into()),
                _ => Ok(()),
            },
        };
        done.with_context(|| path.display().to_string())?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        sweep(directory);
        if directory.is_dir() {
            sync(directory)?;
        }
    }
    fs::remove_file(place.join(UNDO))?;
    sync(place)?;
    fs::remove_dir_all(place)?;
    for directory in undo.directories.iter().rev() {
        // Somebody else may have put something there.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// Makes a file what it was.
fn bring_back(kept: &Path, path: &Path) -> anyhow::Result<()> {
    if !same(kept, path) {
        match fs::rename(kept, path) {
            // It lies on another file system, and was kept as a copy.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let mode = fs::metadata(kept)?.permissions().mode() & 0o7777;
                put(path, Plaintext::new(fs::read(kept)?).expose(), mode)?;
            }
            done => return Ok(done?),
        }
    }
    Ok(fs::remove_file(kept)?)
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

    fn fine() -> anyhow::Result<()> {
        Ok(())
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
        write(dir.path(), &changes, fine).expect("written").put_back().expect("put back");
        assert_eq!(all(dir.path()), before);
        write(dir.path(), &changes, fine).expect("written").keep().expect("kept");
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
        let error = write(dir.path(), &changes, fine).expect_err("a file is no directory");
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
    fn what_a_killed_process_changed_in_part_is_put_back_by_the_next_one() {
        let (dir, changes) = standing();
        let before = all(dir.path());
        let written = write(dir.path(), &changes, fine).expect("written");
        // As before the last of it, or in the middle of putting it back.
        rename_list(&written.place, PLACED, UNDO).expect("it is there");
        fs::write(dir.path().join("config.d").join(format!("{UNFINISHED}x")), "half")
            .expect("ours");
        drop(written);
        assert_eq!(recover(dir.path()).expect("put back"), Left::PutBack);
        assert_eq!(all(dir.path()), before);
        assert_eq!(recover(dir.path()).expect("nothing to do"), Left::Nothing);
    }

    #[test]
    fn what_a_killed_process_had_put_in_place_stays() {
        let (dir, changes) = standing();
        drop(write(dir.path(), &changes, fine).expect("written"));
        assert_eq!(recover(dir.path()).expect("nothing to put back"), Left::Placed);
        assert!(!place(dir.path()).exists());
        assert_eq!(pending(changes).len(), 0, "a service may run with them");
        assert_eq!(recover(dir.path()).expect("nothing to do"), Left::Nothing);
    }

    #[test]
    fn what_goes_is_there_until_what_comes_was_read() {
        let (dir, changes) = standing();
        let before = all(dir.path());
        let look = || -> anyhow::Result<()> {
            for name in ["credentials/age-key", "config.d/50-init.yaml", "config.d/gone.yaml"] {
                anyhow::ensure!(dir.path().join(name).exists(), "no {name}");
            }
            anyhow::bail!("both are there")
        };
        let error = write(dir.path(), &changes, look).expect_err("it is not read");
        assert_eq!(error.to_string(), "both are there");
        assert_eq!(all(dir.path()), before);
    }

    #[test]
    fn a_file_on_another_file_system_is_put_back_too() {
        let (dir, mut changes) = standing();
        let far = tempfile::tempdir_in("/dev/shm").expect("a tmpfs is there");
        let path = far.path().join("50-sealed.conf");
        fs::write(&path, "old").expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        changes.push(change(path, Some("new"), 0o644));
        let before = [all(dir.path()), all(far.path())];
        write(dir.path(), &changes, fine).expect("written").put_back().expect("put back");
        assert_eq!([all(dir.path()), all(far.path())], before);
    }
}
