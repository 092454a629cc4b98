//! A plain directory with the ids that git would give its files and directories.
//!
//! Read once, bottom up; afterwards only contents are read again. Symbolic links count in the id
//! of their directory, as in git, and are otherwise nothing; sockets and other specials and empty
//! directories do not exist for git and not here.

use super::error::SourceError;
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files in one directory tree. Above it this is no configuration repository, and at about 200
/// bytes an entry the index would pass 20 MB.
const MAX_FILES: usize = 100_000;

/// Directories below one another.
const MAX_DEPTH: usize = 64;

/// A file or directory with its git id.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A regular file.
    File { id: ObjectId, size: u64, executable: bool },
    /// A directory with at least one file somewhere below.
    Dir { id: ObjectId },
}

/// The index of one directory tree.
#[derive(Debug)]
pub(super) struct Index {
    root: PathBuf,
    root_id: ObjectId,
    /// By relative path, `/`-separated.
    nodes: BTreeMap<String, Node>,
    /// Names in each directory; the root is the empty path.
    children: BTreeMap<String, Vec<String>>,
    /// Directories below the root that are repositories of their own.
    nested: BTreeSet<String>,
}

impl Index {
    /// Reads a directory.
    pub(super) fn read(root: &Path) -> Result<Index, SourceError> {
        let root = root.canonicalize().map_err(|error| storage(root, &error))?;
        let root_id = ObjectId::empty_tree(gix::hash::Kind::Sha1);
        let mut index = Index {
            root,
            root_id,
            nodes: BTreeMap::new(),
            children: BTreeMap::new(),
            nested: BTreeSet::new(),
        };
        if let Some(id) = index.walk("", 0)? {
            index.root_id = id;
        }
        index.children.entry(String::new()).or_default();
        Ok(index)
    }

    /// Git's id of the whole.
    pub(super) fn root_id(&self) -> String {
        self.root_id.to_string()
    }

    /// What is at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Whether a directory below the root is a repository of its own, such as a submodule.
    pub(super) fn is_nested(&self, dir: &str) -> bool {
        self.nested.contains(dir)
    }

    /// What is in a directory.
    pub(super) fn list(&self, dir: &str) -> Option<impl Iterator<Item = (&str, &Node)>> {
        let names = self.children.get(dir)?;
        let child = move |name: &'_ String| {
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            self.nodes.get(&path)
        };
        Some(names.iter().filter_map(move |name| Some((name.as_str(), child(name)?))))
    }

    /// The content of a file; a link that took its place since is refused.
    pub(super) fn content(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        let full = self.root.join(path);
        let mut options = fs::OpenOptions::new();
        let opened = options.read(true).custom_flags(libc::O_NOFOLLOW).open(&full);
        let file = opened.map_err(|error| storage(&full, &error))?;
        let mut content = Vec::new();
        let mut limited = file.take(super::MAX_FILE + 1);
        limited.read_to_end(&mut content).map_err(|error| storage(&full, &error))?;
        if content.len() as u64 > super::MAX_FILE {
            return Err(SourceError::TooLarge { what: path.to_owned(), limit: super::MAX_FILE });
        }
        Ok(content)
    }

    /// Reads one directory and returns git's id of it, none if git would not store it.
    fn walk(&mut self, dir: &str, depth: usize) -> Result<Option<ObjectId>, SourceError> {
        let full = self.root.join(dir);
        if depth > MAX_DEPTH || self.nodes.len() > MAX_FILES {
            let limit = if depth > MAX_DEPTH { MAX_DEPTH } else { MAX_FILES } as u64;
            return Err(SourceError::TooLarge { what: full.display().to_string(), limit });
        }
        let mut entries = Vec::new();
        let mut names = Vec::new();
        for found in fs::read_dir(&full).map_err(|error| storage(&full, &error))? {
            let found = found.map_err(|error| storage(&full, &error))?;
            let name = found.file_name();
            if name == ".git" {
                if !dir.is_empty() {
                    self.nested.insert(dir.to_owned());
                }
                continue;
            }
            let text = name.to_str().map(str::to_owned);
            let path = text
                .as_ref()
                .map(|name| if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") });
            let kind = found.file_type().map_err(|error| storage(&found.path(), &error))?;
            let (mode, id) = if kind.is_symlink() {
                let target = fs::read_link(found.path());
                let target = target.map_err(|error| storage(&found.path(), &error))?;
                (EntryKind::Link, blob_id(target.as_os_str().as_bytes())?)
            } else if kind.is_dir() {
                // A name that is not UTF-8 cannot be asked for; only its own id would be missed.
                let Some(path) = &path else { continue };
                let Some(id) = self.walk(path, depth + 1)? else { continue };
                self.nodes.insert(path.clone(), Node::Dir { id });
                (EntryKind::Tree, id)
            } else if kind.is_file() {
                let (id, size, executable) = hash_file(&found.path())?;
                if let Some(path) = &path {
                    self.nodes.insert(path.clone(), Node::File { id, size, executable });
                }
                (if executable { EntryKind::BlobExecutable } else { EntryKind::Blob }, id)
            } else {
                continue;
            };
            names.extend(text);
            let filename = name.as_bytes().to_vec().into();
            entries.push(gix::objs::tree::Entry { mode: mode.into(), filename, oid: id });
        }
        if entries.is_empty() {
            return Ok(None);
        }
        names.sort_unstable();
        self.children.insert(dir.to_owned(), names);
        entries.sort();
        let mut written = Vec::new();
        let tree = gix::objs::Tree { entries };
        gix::objs::WriteTo::write_to(&tree, &mut written).map_err(|error| hashing(&error))?;
        object_id(gix::objs::Kind::Tree, &written).map(Some)
    }
}

fn hash_file(path: &Path) -> Result<(ObjectId, u64, bool), SourceError> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let mut file = opened.map_err(|error| storage(path, &error))?;
    let meta = file.metadata().map_err(|error| storage(path, &error))?;
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(format!("blob {}\0", meta.len()).as_bytes());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer).map_err(|error| storage(path, &error))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let id = hasher.try_finalize().map_err(|error| hashing(&error))?;
    Ok((id, meta.len(), meta.permissions().mode() & 0o100 != 0))
}

fn blob_id(content: &[u8]) -> Result<ObjectId, SourceError> {
    object_id(gix::objs::Kind::Blob, content)
}

fn object_id(kind: gix::objs::Kind, content: &[u8]) -> Result<ObjectId, SourceError> {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, content).map_err(|error| hashing(&error))
}

fn hashing(error: &dyn std::fmt::Display) -> SourceError {
    SourceError::Storage { what: "cannot compute a git id".into(), cause: error.to_string() }
}

fn storage(path: &Path, error: &std::io::Error) -> SourceError {
    let what = format!("cannot read {}", path.display());
    SourceError::Storage { what, cause: error.to_string() }
}
