//! The files of one revision, read from the mirror or from a plain directory.
//!
//! Regular files and directories only: symbolic links and submodules are left out, as Flux drops
//! them from an artifact, and what the ignore rules exclude is not there either. Nothing is
//! checked out: a file is read when somebody asks for it, up to [`MAX_FILE`].
//!
//! Ids are git's own. A directory's id is that of the whole git tree, excluded files and all: with
//! [`Tree::rules_digest`] beside it, it names exactly the files that are seen.

use super::directory::{Index, Node};
use super::error::SourceError;
use super::ignore::{IGNORE_FILE, Rules};
use super::mirror::Mirror;
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read: 5 MiB. Manifests are below 1.5 MiB or the API server refuses them;
/// the rest is room for bundles of many.
pub const MAX_FILE: u64 = 5 << 20;

/// Directories below one another that are followed. Deeper trees are no one's manifests.
const MAX_DEPTH: usize = 64;

/// One thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Git's blob id, 40 hex digits.
        id: String,
        /// Length in bytes.
        size: u64,
        /// Whether git has it as executable.
        executable: bool,
    },
    /// A directory.
    Dir {
        /// Git's tree id, 40 hex digits.
        id: String,
    },
}

/// The files of one revision. Cheap to clone.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    rules: Rules,
    id: String,
    files: Files,
}

enum Files {
    Git { mirror: Arc<Mirror>, root: ObjectId },
    Plain(Arc<Index>),
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({})", self.0.id)
    }
}

impl Tree {
    /// A plain directory as git would see it if everything in it were committed; `.git` is skipped.
    /// Ids are computed once, here. Symbolic links are never followed.
    pub fn from_dir(dir: &Path) -> Result<Tree, SourceError> {
        let index = Index::read(dir)?;
        Tree::new(index.root_id(), Files::Plain(Arc::new(index)), None)
    }

    pub(super) fn from_git(
        mirror: Arc<Mirror>,
        root: ObjectId,
        ignore: Option<&str>,
    ) -> Result<Tree, SourceError> {
        Tree::new(root.to_string(), Files::Git { mirror, root }, ignore)
    }

    /// The same revision with every file, whatever ignore rules say: automation may edit what
    /// deploys leave out.
    pub fn unfiltered(&self) -> Tree {
        let files = match &self.0.files {
            Files::Git { mirror, root } => Files::Git { mirror: mirror.clone(), root: *root },
            Files::Plain(index) => Files::Plain(index.clone()),
        };
        Tree(Arc::new(Inner { rules: Rules::none(), id: self.id(), files }))
    }

    /// All files of a git tree, whatever ignore rules say.
    pub(super) fn whole(mirror: Arc<Mirror>, root: ObjectId) -> Tree {
        let files = Files::Git { mirror, root };
        Tree(Arc::new(Inner { rules: Rules::none(), id: root.to_string(), files }))
    }

    fn new(id: String, files: Files, ignore: Option<&str>) -> Result<Tree, SourceError> {
        let bare = Tree(Arc::new(Inner { rules: Rules::new(&[], None), id, files }));
        let mut found = Vec::new();
        bare.ignore_files("", 0, &mut found)?;
        let rules = Rules::new(&found, ignore);
        // Nobody else holds the tree yet.
        let inner = Arc::into_inner(bare.0).expect("built above and never cloned");
        Ok(Tree(Arc::new(Inner { rules, ..inner })))
    }

    /// Git's id of the root tree, 40 hex digits.
    pub fn id(&self) -> String {
        self.0.id.clone()
    }

    /// Digest of the ignore rules, hex: belongs beside every id that is used as a cache key.
    pub fn rules_digest(&self) -> &str {
        self.0.rules.digest()
    }

    /// What is at `path`, or nothing. The root (`""`, `.` or `./`) is a directory.
    pub fn entry(&self, path: &str) -> Result<Option<Entry>, SourceError> {
        let path = normalise(path)?;
        if path.is_empty() {
            return Ok(Some(Entry::Dir { id: self.id() }));
        }
        match self.raw_entry(&path)? {
            Some(entry) if self.visible(&path, &entry, 0)? => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// What is in a directory, sorted by name.
    pub fn list(&self, dir: &str) -> Result<Vec<(String, Entry)>, SourceError> {
        let dir = normalise(dir)?;
        let missing = || SourceError::PathNotFound { path: dir.clone(), kind: "directory" };
        let all = self.raw_list(&dir)?.ok_or_else(missing)?;
        let mut seen = Vec::with_capacity(all.len());
        for (name, entry) in all {
            if self.visible(&join(&dir, &name), &entry, 0)? {
                seen.push((name, entry));
            }
        }
        Ok(seen)
    }

    /// Whether a directory is a repository of its own inside a plain directory, such as a submodule
    /// that is checked out: Git keeps its files elsewhere.
    pub fn is_nested(&self, dir: &str) -> bool {
        match &self.0.files {
            Files::Git { .. } => false,
            Files::Plain(index) => index.is_nested(dir),
        }
    }

    /// The content of a file of at most [`MAX_FILE`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        let path = normalise(path)?;
        let entry = if path.is_empty() { None } else { self.raw_entry(&path)? };
        match entry {
            Some(entry @ Entry::File { .. }) if self.visible(&path, &entry, 0)? => {
                self.raw_read(&path, &entry)
            }
            _ => Err(SourceError::PathNotFound { path, kind: "file" }),
        }
    }

    /// The same whatever the ignore rules say: for what is told about a repository, never for what
    /// is applied.
    pub fn read_ignored(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        let path = normalise(path)?;
        let entry = if path.is_empty() { None } else { self.raw_entry(&path)? };
        match entry {
            Some(entry @ Entry::File { .. }) => self.raw_read(&path, &entry),
            _ => Err(SourceError::PathNotFound { path, kind: "file" }),
        }
    }

    /// Whether the ignore rules leave an entry in. An excluded directory stays if a file in it was
    /// brought back.
    fn visible(&self, path: &str, entry: &Entry, depth: usize) -> Result<bool, SourceError> {
        let is_dir = matches!(entry, Entry::Dir { .. });
        if !self.0.rules.excludes(path, is_dir) {
            return Ok(true);
        }
        if !is_dir || !self.0.rules.reincludes() || depth >= MAX_DEPTH {
            return Ok(false);
        }
        for (name, below) in self.raw_list(path)?.unwrap_or_default() {
            if self.visible(&join(path, &name), &below, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Collects the ignore files, root first, then depth first in order of names.
    fn ignore_files(
        &self,
        dir: &str,
        depth: usize,
        found: &mut Vec<(String, String)>,
    ) -> Result<(), SourceError> {
        let all = self.raw_list(dir)?.unwrap_or_default();
        let file = all.iter().find(|(name, _)| name == IGNORE_FILE);
        if let Some((name, entry @ Entry::File { .. })) = file {
            let text = self.raw_read(&join(dir, name), entry)?;
            found.push((dir.to_owned(), String::from_utf8_lossy(&text).into_owned()));
        }
        if depth < MAX_DEPTH {
            for (name, entry) in &all {
                if matches!(entry, Entry::Dir { .. }) {
                    self.ignore_files(&join(dir, name), depth + 1, found)?;
                }
            }
        }
        Ok(())
    }

    fn raw_entry(&self, path: &str) -> Result<Option<Entry>, SourceError> {
        match &self.0.files {
            Files::Plain(index) => Ok(index.get(path).map(plain)),
            Files::Git { mirror, root } => {
                let repo = mirror.repository();
                let found =
                    repo.find_tree(*root).and_then(|tree| tree.lookup_entry(path.split('/')));
                match found.map_err(|error| mirror.broken(path, &error))? {
                    Some(entry) => git_entry(mirror, &repo, entry.mode().kind(), entry.object_id()),
                    None => Ok(None),
                }
            }
        }
    }

    fn raw_list(&self, dir: &str) -> Result<Option<Vec<(String, Entry)>>, SourceError> {
        let mut all = Vec::new();
        match &self.0.files {
            Files::Plain(index) => {
                let Some(nodes) = index.list(dir) else { return Ok(None) };
                all.extend(nodes.map(|(name, node)| (name.to_owned(), plain(node))));
            }
            Files::Git { mirror, root } => {
                let id = match self.raw_dir(dir, *root)? {
                    Some(id) => id,
                    None => return Ok(None),
                };
                let repo = mirror.repository();
                let tree = repo.find_tree(id).map_err(|error| mirror.broken(dir, &error))?;
                let decoded = tree.decode().map_err(|error| mirror.broken(dir, &error))?;
                for entry in &decoded.entries {
                    // A name that is not UTF-8 cannot be named in a kustomization either.
                    let Ok(name) = std::str::from_utf8(entry.filename) else { continue };
                    let id = entry.oid.to_owned();
                    if let Some(found) = git_entry(mirror, &repo, entry.mode.kind(), id)? {
                        all.push((name.to_owned(), found));
                    }
                }
            }
        }
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(Some(all))
    }

    fn raw_dir(&self, dir: &str, root: ObjectId) -> Result<Option<ObjectId>, SourceError> {
        if dir.is_empty() {
            return Ok(Some(root));
        }
        match self.raw_entry(dir)? {
            Some(Entry::Dir { id }) => Ok(ObjectId::from_hex(id.as_bytes()).ok()),
            _ => Ok(None),
        }
    }

    fn raw_read(&self, path: &str, entry: &Entry) -> Result<Vec<u8>, SourceError> {
        let Entry::File { id, size, .. } = entry else {
            return Err(SourceError::PathNotFound { path: path.to_owned(), kind: "file" });
        };
        if *size > MAX_FILE {
            return Err(SourceError::TooLarge { what: path.to_owned(), limit: MAX_FILE });
        }
        match &self.0.files {
            Files::Plain(index) => index.content(path),
            Files::Git { mirror, .. } => {
                let id = ObjectId::from_hex(id.as_bytes());
                let id = id.expect("ids of git entries come from git");
                let repo = mirror.repository();
                let mut blob = repo.find_blob(id).map_err(|error| mirror.broken(path, &error))?;
                Ok(blob.take_data())
            }
        }
    }
}

/// Turns git's entry into ours; links and submodules are nothing.
fn git_entry(
    mirror: &Mirror,
    repo: &gix::Repository,
    kind: EntryKind,
    id: ObjectId,
) -> Result<Option<Entry>, SourceError> {
    match kind {
        EntryKind::Tree => Ok(Some(Entry::Dir { id: id.to_string() })),
        EntryKind::Blob | EntryKind::BlobExecutable => {
            let header =
                repo.find_header(id).map_err(|error| mirror.broken(&id.to_string(), &error))?;
            let executable = kind == EntryKind::BlobExecutable;
            Ok(Some(Entry::File { id: id.to_string(), size: header.size(), executable }))
        }
        EntryKind::Link | EntryKind::Commit => Ok(None),
    }
}

fn plain(node: &Node) -> Entry {
    match node {
        Node::File { id, size, executable } => {
            Entry::File { id: id.to_string(), size: *size, executable: *executable }
        }
        Node::Dir { id } => Entry::Dir { id: id.to_string() },
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// `./a//b/../c` as `a/c`; the root is empty. A leading slash means the root of the tree, as in
/// Flux's `spec.path`; leaving the root is an error.
fn normalise(path: &str) -> Result<String, SourceError> {
    let escapes = || SourceError::PathEscapes { path: path.to_owned() };
    if path.contains('\0') {
        return Err(escapes());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(escapes)?;
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
