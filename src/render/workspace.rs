//! The private directory on tmpfs that a child builds in.
//!
//! It holds the files that the Kustomization can read and nothing else, sealed ones already
//! opened, and goes when it is dropped. What a killed daemon left behind is removed by
//! [`sweep`] before the first workspace is made.

use super::RenderError;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One build's directory.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: tempfile::TempDir,
}

/// Where workspaces lie below the runtime directory.
fn home(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("render")
}

/// Makes the directory of workspaces, readable by us only, and empties it.
///
/// # Errors
/// It cannot be removed or made.
pub(crate) fn sweep(runtime_dir: &Path) -> Result<(), RenderError> {
    let home = home(runtime_dir);
    match std::fs::remove_dir_all(&home) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&home, &error)),
        _ => {}
    }
    make(&home)
}

fn make(dir: &Path) -> Result<(), RenderError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, &error))
}

impl Workspace {
    /// An empty workspace, mode 0700.
    ///
    /// # Errors
    /// The runtime directory is full or not ours.
    pub fn create(runtime_dir: &Path) -> Result<Workspace, RenderError> {
        let home = home(runtime_dir);
        // Somebody may have tidied the runtime directory.
        make(&home)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("w-").permissions(Permissions::from_mode(0o700));
        let dir = builder.tempdir_in(&home).map_err(|error| failed(&home, &error))?;
        Ok(Workspace { dir })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes one file; `path` is normalised and relative, as the walk leaves it.
    ///
    /// # Errors
    /// No room, or a path that is a file and a directory at once.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<(), RenderError> {
        let full = self.path().join(path);
        let write = || {
            if let Some(parent) = full.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&full)?;
            file.write_all(content)
        };
        write().map_err(|error| failed(&full, &error))
    }

    /// Makes a directory that may hold no file at all.
    ///
    /// # Errors
    /// No room.
    pub fn directory(&self, path: &str) -> Result<(), RenderError> {
        make(&self.path().join(path))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> RenderError {
    RenderError::Workspace { path: path.to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_is_private_and_gone_when_dropped() {
        let runtime = tempfile::tempdir().unwrap();
        sweep(runtime.path()).unwrap();
        let workspace = Workspace::create(runtime.path()).unwrap();
        workspace.write("a/b/c.yaml", b"k: v").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(workspace.path()), 0o700);
        assert_eq!(mode(&workspace.path().join("a/b/c.yaml")), 0o600);
        let path = workspace.path().to_owned();
        drop(workspace);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_daemon_left_is_swept() {
        let runtime = tempfile::tempdir().unwrap();
        let left = runtime.path().join("render/w-old/secret.yaml");
        std::fs::create_dir_all(left.parent().unwrap()).unwrap();
        std::fs::write(&left, "k: v").unwrap();
        sweep(runtime.path()).unwrap();
        assert!(!left.exists() && runtime.path().join("render").exists());
    }
}
