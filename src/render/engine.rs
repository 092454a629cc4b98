//! The programs that build a kustomization, behind one enum and one match.
//!
//! `Child` is the reference kustomize: k3s's own kubectl first, else kubectl or kustomize on the
//! `PATH`. A native engine will be a second variant. The engine is looked for lazily and again
//! whenever it has vanished, so an upgrade of k3s needs no restart; its path, size and time of
//! change stand for its version, because asking for the version would cost a child.

use super::RenderError;
use super::child::{self, Limits};
use super::workspace::Workspace;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use zeroize::Zeroizing;

/// What builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A program in a sandbox.
    Child(Program),
}

/// One program that understands kustomizations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The file itself, links resolved.
    pub path: PathBuf,
    /// The name it is called by: k3s is one program that acts by its name.
    pub name: String,
    /// Size and time of change, for the digest.
    pub identity: String,
}

impl Engine {
    /// Finds the engine: the one named, else k3s's, else what `search` (a `PATH`) holds.
    ///
    /// # Errors
    /// [`RenderError::NoEngine`] with every place that was looked at.
    pub fn find(
        explicit: Option<&Path>,
        data_dir: &Path,
        search: Option<&std::ffi::OsStr>,
    ) -> Result<Engine, RenderError> {
        let mut looked = Vec::new();
        let mut consider = |path: PathBuf, wrapper_too: bool| {
            let found = Program::read(&path).filter(|program| {
                // The `k3s kubectl` wrapper reads root's configuration and unpacks into $HOME.
                wrapper_too || program.path.file_name().is_none_or(|name| name != "k3s")
            });
            looked.push(path);
            found
        };
        let found = match explicit {
            Some(path) => consider(path.to_owned(), true),
            None => {
                let own = consider(data_dir.join("data/current/bin/kubectl"), true);
                own.or_else(|| {
                    let dirs: Vec<PathBuf> = std::env::split_paths(search?).collect();
                    ["kubectl", "kustomize"].iter().find_map(|name| {
                        dirs.iter().find_map(|dir| consider(dir.join(name), false))
                    })
                })
            }
        };
        found.map(Engine::Child).ok_or(RenderError::NoEngine { looked })
    }

    /// True while the engine is the file that was found.
    pub fn is_current(&self) -> bool {
        let Engine::Child(program) = self;
        Program::identify(&program.path).is_some_and(|identity| identity == program.identity)
    }

    /// What the digest says of the engine.
    pub fn identity(&self) -> String {
        match self {
            Engine::Child(program) => {
                format!("child {} {}", program.path.display(), program.identity)
            }
        }
    }

    /// The engine's kind, for status.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Child(_) => "child",
        }
    }

    /// Builds the kustomization in `dir` of the workspace; the result is multi-document YAML.
    ///
    /// # Errors
    /// The engine's own refusal as [`child::Failure::Refused`], else what stopped it.
    pub async fn build(
        &self,
        workspace: &Workspace,
        dir: &str,
        limits: &Limits,
    ) -> Result<Zeroizing<Vec<u8>>, child::Failure> {
        match self {
            Engine::Child(program) => child::build(program, workspace, dir, limits).await,
        }
    }
}

impl Program {
    fn read(path: &Path) -> Option<Program> {
        let name = path.file_name()?.to_str()?.to_owned();
        let path = path.canonicalize().ok()?;
        let identity = Program::identify(&path)?;
        Some(Program { path, name, identity })
    }

    fn identify(path: &Path) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let file = std::fs::metadata(path).ok()?;
        if !file.is_file() || file.permissions().mode() & 0o111 == 0 {
            return None;
        }
        let changed = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(format!("{} {}", file.len(), changed.as_nanos()))
    }

    /// Arguments that build `dir`.
    pub fn arguments(&self, dir: &Path) -> Vec<std::ffi::OsString> {
        let verb = if self.name.starts_with("kustomize") { "build" } else { "kustomize" };
        vec![
            verb.into(),
            "--load-restrictor".into(),
            "LoadRestrictionsNone".into(),
            dir.as_os_str().to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn executable(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn k3s_comes_first_and_its_wrapper_never() {
        let dir = tempfile::tempdir().unwrap();
        let (data, bin) = (dir.path().join("k3s"), dir.path().join("bin"));
        executable(&bin.join("k3s"));
        symlink(bin.join("k3s"), bin.join("kubectl")).unwrap();
        let find = || Engine::find(None, &data, Some(bin.as_os_str()));
        let RenderError::NoEngine { looked } = find().unwrap_err() else { panic!() };
        let expected =
            [data.join("data/current/bin/kubectl"), bin.join("kubectl"), bin.join("kustomize")];
        assert_eq!(looked, expected);

        executable(&bin.join("kustomize"));
        let Engine::Child(program) = find().unwrap();
        assert_eq!(program.arguments(Path::new("/w"))[0], "build");

        executable(&data.join("data/abc/bin/k3s"));
        symlink("k3s", data.join("data/abc/bin/kubectl")).unwrap();
        symlink("abc", data.join("data/current")).unwrap();
        let engine = find().unwrap();
        let Engine::Child(program) = &engine;
        assert_eq!(program.name, "kubectl");
        assert_eq!(program.path, data.join("data/abc/bin/k3s").canonicalize().unwrap());
        assert!(engine.is_current());
        std::fs::remove_file(&program.path).unwrap();
        assert!(!engine.is_current());
    }
}
