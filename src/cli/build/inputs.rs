//! From arguments to a walk: directories, keys, the renderer and its private place.

use super::Given;
use super::sources::{Sources, normal};
use super::walk::{Walk, Walked};
use crate::config::RenderSettings;
use crate::flux::{GitReference, Root, root};
use crate::render::{Renderer, Settings};
use crate::secrets::{Keyring, read_credential};
use crate::source::{Entry, Tree};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Everything that a walk starts from.
pub struct Inputs {
    root: Root,
    sources: Sources,
    keyring: Keyring,
    settings: Settings,
    /// Workspaces with opened files; goes with this value.
    _private: TempDir,
}

impl Inputs {
    /// The files of a revision, with the host's keys and renderer.
    ///
    /// # Errors
    /// There is no place for a private directory.
    pub fn of(
        tree: &Tree,
        path: &str,
        keyring: &Keyring,
        render: &RenderSettings,
    ) -> anyhow::Result<Inputs> {
        let (private, mut settings) = settings()?;
        settings.engine.clone_from(&render.engine);
        settings.data_dir.clone_from(&render.k3s_data_directory);
        settings.timeout = render.timeout;
        settings.memory = render.memory;
        let root = entry(path);
        let sources = Sources::new(&root, tree.clone(), BTreeMap::new());
        Ok(Inputs { root, sources, keyring: keyring.clone(), settings, _private: private })
    }

    /// Reads what the arguments name.
    ///
    /// # Errors
    /// A directory, a key file or an entry path that is not there.
    pub fn open(tree: &Path, path: &str, given: &Given) -> anyhow::Result<Inputs> {
        let files = open_tree(tree)?;
        match files.entry(path)? {
            Some(Entry::Dir { .. }) => {}
            _ => anyhow::bail!("{path} is not a directory of {}", tree.display()),
        }
        let mut mapped = BTreeMap::new();
        for (name, dir) in &given.sources {
            mapped.insert(name.clone(), open_tree(dir)?);
        }
        let mut keyring = Keyring::empty();
        for file in &given.identities {
            let found = read_credential(None, "identity", Some(file))?;
            let found = found.with_context(|| format!("{}: missing or empty", file.display()))?;
            let keys = Keyring::parse(found.content.expose());
            keyring.merge(keys.with_context(|| file.display().to_string())?);
        }
        let (private, mut settings) = settings()?;
        settings.engine.clone_from(&given.engine);
        let root = entry(path);
        let sources = Sources::new(&root, files, mapped);
        Ok(Inputs { root, sources, keyring, settings, _private: private })
    }

    /// Walks. A signal ends it in good order, so that no opened file is left behind.
    pub fn walk(self) -> anyhow::Result<Walked> {
        crate::net::install_crypto();
        let Inputs { root, sources, keyring, settings, _private: private } = self;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let walked = runtime.block_on(async {
            let walk = Walk::new(Renderer::new(settings)?, keyring, root, sources);
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                walked = walk.go() => Ok(walked),
                _ = terminate.recv() => anyhow::bail!("terminated"),
                _ = interrupt.recv() => anyhow::bail!("interrupted"),
            }
        });
        drop(runtime);
        drop(private);
        walked
    }
}

fn settings() -> anyhow::Result<(TempDir, Settings)> {
    let private = private()?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let mut settings = Settings::new(private.path(), key);
    // Each Kustomization is rendered once: there is nothing to keep.
    settings.cache_bytes = 0;
    settings.remotes = Some(private.path().join("remotes"));
    // Nobody tries again after this.
    settings.remotes_within = Duration::from_secs(600);
    Ok((private, settings))
}

fn entry(path: &str) -> Root {
    root("", GitReference::Branch(String::new()), &normal(path), Duration::from_secs(60))
}

fn open_tree(dir: &Path) -> anyhow::Result<Tree> {
    Tree::from_dir(dir).with_context(|| dir.display().to_string())
}

/// A private directory, on tmpfs where there is one that we may write to.
pub fn private() -> anyhow::Result<TempDir> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = own.into_iter().chain([PathBuf::from("/dev/shm")]);
    let mut builder = tempfile::Builder::new();
    builder.prefix("gitopsd-");
    for place in places {
        if let Ok(dir) = builder.tempdir_in(place) {
            return Ok(dir);
        }
    }
    builder.tempdir().context("cannot make a private directory")
}

/// Reads `NAMESPACE/NAME=DIR`.
pub fn mapping(said: &str) -> Result<(String, PathBuf), String> {
    let wrong = || format!("{said:?} is not of the form NAMESPACE/NAME=DIR");
    let (name, dir) = said.split_once('=').ok_or_else(wrong)?;
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() && !dir.is_empty() => {
            Ok((format!("{namespace}/{name}"), PathBuf::from(dir)))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_mapped_by_namespace_and_name() {
        assert_eq!(mapping("a/b=c=d"), Ok(("a/b".to_owned(), PathBuf::from("c=d"))));
        for wrong in ["", "a", "a=b", "a/b", "a/b=", "/b=c", "a/b/c=d"] {
            assert!(mapping(wrong).is_err(), "{wrong}");
        }
    }
}
