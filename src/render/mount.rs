//! What was fetched from outside the source, beside the source's own files.
//!
//! Each entry of `resources` that names a URL has its copy below [`DIR`], a directory that no
//! listing shows. To the walk and to the child these are files like all others; a person is told
//! their URL instead, see [`Mounts::public`].

use super::reach::Node;
use super::remote::{DIR, place};
use crate::source::{Entry, SourceError, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The copy of one entry.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The entry, as it stands in a kustomization file.
    pub entry: String,
    /// The commit, or the digest of the file.
    pub state: String,
    /// Its files.
    pub content: Content,
}

/// What an entry stands for.
#[derive(Debug)]
pub(crate) enum Content {
    /// A directory of a repository, which may name its neighbours.
    Git {
        /// The whole repository.
        tree: Tree,
        /// The directory.
        path: String,
        /// The repository's URL.
        url: String,
    },
    /// One file.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// The name that a file's copy has.
const FILE: &str = "manifests.yaml";

impl Mount {
    fn home(&self) -> String {
        format!("{DIR}/{}", place(&self.entry))
    }

    /// What stands for the entry in the workspace.
    fn target(&self) -> String {
        match &self.content {
            Content::Git { path, .. } if path.is_empty() => self.home(),
            Content::Git { path, .. } => format!("{}/{path}", self.home()),
            Content::File { .. } => format!("{}/{FILE}", self.home()),
        }
    }

    /// Its home as a person knows it: `https://host/o/r@0123abc/`, or the file's URL.
    fn label(&self) -> String {
        match &self.content {
            Content::Git { url, .. } => {
                format!("{url}@{}", self.state.get(..7).unwrap_or(&self.state))
            }
            Content::File { .. } => self.entry.clone(),
        }
    }

    fn entry(&self, path: &str) -> Result<Option<Node>, SourceError> {
        match &self.content {
            Content::Git { .. } if path.is_empty() => Ok(Some(Node::Dir)),
            Content::Git { tree, .. } => Ok(tree.entry(path)?.map(node)),
            Content::File { bytes } => Ok((path == FILE)
                .then(|| Node::File { id: self.state.clone(), size: bytes.len() as u64 })),
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        match &self.content {
            Content::Git { tree, .. } => tree.read(path),
            Content::File { bytes } if path == FILE => Ok(bytes.clone()),
            Content::File { .. } => {
                Err(SourceError::PathNotFound { path: path.to_owned(), kind: "file" })
            }
        }
    }
}

/// The copies that one Kustomization needs, by their place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts(BTreeMap<String, Arc<Mount>>);

impl Mounts {
    /// Adds a copy.
    pub fn add(&mut self, mount: Arc<Mount>) {
        self.0.insert(place(&mount.entry), mount);
    }

    /// Adds several.
    pub fn extend(&mut self, more: Mounts) {
        self.0.extend(more.0);
    }

    /// Where an entry's copy lies, seen from the workspace's root.
    pub fn target(&self, entry: &str) -> Option<String> {
        self.0.get(&place(entry)).map(|mount| mount.target())
    }

    /// Every entry with its state: with the tree's id, all that a walk depends on.
    pub fn states(&self) -> Vec<(&str, &str)> {
        self.0.values().map(|mount| (mount.entry.as_str(), mount.state.as_str())).collect()
    }

    /// A text about files of the workspace in terms of what the user wrote.
    pub fn public(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if text.contains(DIR) {
            for mount in self.0.values() {
                let file = format!("{}/{FILE}", mount.home());
                text = text.replace(&file, &mount.label()).replace(&mount.home(), &mount.label());
            }
            while let Some(at) = text.find("../http") {
                text.replace_range(at..at + 3, "");
            }
        }
        text
    }
}

/// The source's files and the copies, as one.
pub(crate) struct Files<'a> {
    /// The source's own.
    pub tree: &'a Tree,
    /// The copies.
    pub mounts: &'a Mounts,
}

impl Files<'_> {
    /// What a path is.
    pub fn entry(&self, path: &str) -> Result<Option<Node>, SourceError> {
        match self.mount(path) {
            Some((mount, inside)) => mount.entry(inside),
            None => Ok(self.tree.entry(path)?.map(node)),
        }
    }

    /// Names in a directory.
    pub fn list(&self, path: &str) -> Result<Vec<(String, Node)>, SourceError> {
        let listed = match self.mount(path) {
            Some((Mount { content: Content::Git { tree, .. }, .. }, inside)) => {
                tree.list(inside)?
            }
            Some(_) => Vec::new(),
            None => self.tree.list(path)?,
        };
        Ok(listed.into_iter().map(|(name, entry)| (name, node(entry))).collect())
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        match self.mount(path) {
            Some((mount, inside)) => mount.read(inside),
            None => self.tree.read(path),
        }
    }

    fn mount<'p>(&self, path: &'p str) -> Option<(&Mount, &'p str)> {
        let below = path.strip_prefix(DIR)?.strip_prefix('/')?;
        let (name, inside) = below.split_once('/').unwrap_or((below, ""));
        self.mounts.0.get(name).map(|mount| (mount.as_ref(), inside))
    }
}

fn node(entry: Entry) -> Node {
    match entry {
        Entry::File { id, size, .. } => Node::File { id, size },
        Entry::Dir { .. } => Node::Dir,
    }
}
