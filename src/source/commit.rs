//! A commit of ours: the tip with some files replaced, as objects in memory.
//!
//! Only the trees along the edited paths are written; every other entry, its mode and its order
//! stay as they are. Nothing is written to the disk, so a kill before the push leaves nothing
//! behind, and the next pass makes the commit again: equal input gives an equal id.

use super::error::SourceError;
use super::mirror::Mirror;
use super::sign::SigningKey;
use super::tip::Tip;
use gix::ObjectId;
use gix::objs::{Kind, WriteTo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of one commit's files and trees. A tag in a manifest is a few kilobytes; a thousand
/// manifests of 64 KiB fit.
const MAX_BYTES: usize = 64 << 20;

/// Bytes of a commit message: room for a line on each of a thousand changes.
const MAX_MESSAGE: usize = 256 << 10;

/// Commits before a tip that are looked for: a destination that lags further is nobody's plan.
const MAX_EARLIER: usize = 200;

/// Who writes or commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Full name. Where it is empty, the part of the address before the `@` stands in.
    pub name: String,
    /// Mail address.
    pub email: String,
}

/// What a commit is to hold.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Paths and their new bytes. Each must be a regular file of the tip.
    pub edits: &'a [(String, Vec<u8>)],
    /// Who made the change.
    pub author: &'a Person,
    /// Who committed it.
    pub committer: &'a Person,
    /// The message; a line end is added where it has none.
    pub message: &'a str,
    /// Unix seconds, written as UTC.
    pub time: i64,
    /// Signs the commit.
    pub sign: Option<&'a SigningKey>,
}

/// A commit that can be pushed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commit {
    /// 40 hex digits.
    pub id: String,
    /// The commit that it follows, 40 hex digits.
    pub parent: String,
    /// Commits before that one, as far as the mirror knows them.
    pub(super) earlier: Arc<Vec<String>>,
    pub(super) objects: Arc<Vec<Object>>,
}

/// One git object.
#[derive(Clone)]
pub(super) struct Object {
    pub id: ObjectId,
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

impl Tip {
    /// Makes a commit on this tip; none where the files already have these bytes.
    pub fn commit(&self, change: &Change<'_>) -> Result<Option<Commit>, SourceError> {
        let mut edits = BTreeMap::new();
        for (path, bytes) in change.edits {
            edits.insert(path.as_str(), bytes.as_slice());
        }
        let root = parse(&self.tree.id())?;
        let mut made = Made::default();
        let tree = made.tree(&self.mirror, root, "", &edits)?;
        if tree == root {
            return Ok(None);
        }
        let parent = &self.revision.commit;
        let mut commit = gix::objs::Commit {
            tree,
            parents: [parse(parent)?].into_iter().collect(),
            author: signature(change.author, change.time)?,
            committer: signature(change.committer, change.time)?,
            encoding: None,
            message: message(change.message)?.into(),
            extra_headers: Vec::new(),
        };
        if let Some(key) = change.sign {
            let signed = key.sign(&serialised(&commit)?)?;
            commit.extra_headers.push(("gpgsig".into(), signed.trim_end().into()));
        }
        let id = made.add(Kind::Commit, serialised(&commit)?)?;
        let objects = Arc::new(made.objects);
        let earlier = Arc::new(self.earlier());
        Ok(Some(Commit { id: id.to_string(), parent: parent.clone(), earlier, objects }))
    }

    /// Commits before the tip, the nearest first. The mirror is shallow, but a commit names its
    /// parents all the same: what was a tip once leads on to what was one before.
    fn earlier(&self) -> Vec<String> {
        let repo = self.mirror.repository();
        let mut found: Vec<ObjectId> = parse(&self.revision.commit).into_iter().collect();
        let mut next = 0;
        while let Some(id) = found.get(next).copied().filter(|_| found.len() < MAX_EARLIER) {
            next += 1;
            // The last one that is known by name is not here itself.
            let Ok(commit) = repo.find_commit(id) else { continue };
            let parents = commit.parent_ids().map(|id| id.detach());
            let new: Vec<ObjectId> = parents.filter(|id| !found.contains(id)).collect();
            found.extend(new);
        }
        found.into_iter().skip(1).map(|id| id.to_string()).collect()
    }
}

/// Objects that the remote does not have yet.
#[derive(Default)]
struct Made {
    objects: Vec<Object>,
    bytes: usize,
}

impl Made {
    fn add(&mut self, kind: Kind, bytes: Vec<u8>) -> Result<ObjectId, SourceError> {
        self.bytes += bytes.len();
        if self.bytes > MAX_BYTES {
            let (what, limit) = ("the commit".to_owned(), MAX_BYTES as u64);
            return Err(SourceError::TooLarge { what, limit });
        }
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, &bytes);
        let id = id.map_err(|error| invalid(&error))?;
        if self.objects.iter().all(|object| object.id != id) {
            self.objects.push(Object { id, kind, bytes });
        }
        Ok(id)
    }

    /// The id of a directory once the edits below it are made.
    fn tree(
        &mut self,
        mirror: &Mirror,
        old: ObjectId,
        dir: &str,
        edits: &BTreeMap<&str, &[u8]>,
    ) -> Result<ObjectId, SourceError> {
        let failed = |error: gix::Error| mirror.broken(dir, &error);
        let repo = mirror.repository();
        let found = repo.find_tree(old).map_err(failed)?;
        let mut tree: gix::objs::Tree = found.decode().map_err(failed)?.into();
        for (name, below) in grouped(edits) {
            let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let missing = || SourceError::PathNotFound { path: path.clone(), kind: "file" };
            let entry = tree.entries.iter_mut().find(|entry| entry.filename == name.as_bytes());
            let entry = entry.ok_or_else(missing)?;
            entry.oid = match below.get("") {
                Some(bytes) if below.len() == 1 && entry.mode.is_blob() => {
                    let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, bytes);
                    match id.map_err(|error| invalid(&error))? {
                        id if id == entry.oid => id,
                        _ => self.add(Kind::Blob, bytes.to_vec())?,
                    }
                }
                None if entry.mode.is_tree() => self.tree(mirror, entry.oid, &path, &below)?,
                _ => return Err(missing()),
            };
        }
        let mut bytes = Vec::new();
        tree.write_to(&mut bytes).map_err(|error| invalid(&error))?;
        let same = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Tree, &bytes);
        match same.map_err(|error| invalid(&error))? {
            id if id == old => Ok(old),
            _ => self.add(Kind::Tree, bytes),
        }
    }
}

/// Edits by the first part of their path; what is left of a file's own path is empty.
fn grouped<'a>(
    edits: &BTreeMap<&'a str, &'a [u8]>,
) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a [u8]>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, &[u8]>> = BTreeMap::new();
    for (path, bytes) in edits {
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        groups.entry(name).or_default().insert(rest, bytes);
    }
    groups
}

fn signature(person: &Person, time: i64) -> Result<gix::actor::Signature, SourceError> {
    let email = plain(&person.email);
    let name = match plain(&person.name) {
        name if name.is_empty() => email.split('@').next().unwrap_or_default().to_owned(),
        name => name,
    };
    if name.is_empty() {
        let cause = "the author has neither name nor address".to_owned();
        return Err(SourceError::InvalidCommit { cause });
    }
    let time = gix::date::Time { seconds: time.max(0), offset: 0 };
    Ok(gix::actor::Signature { name: name.into(), email: email.into(), time })
}

/// A name without what git takes for structure, as git itself leaves it out.
fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>'));
    let kept: String = kept.collect();
    kept.trim().to_owned()
}

fn message(text: &str) -> Result<String, SourceError> {
    let refuse = |cause: &str| Err(SourceError::InvalidCommit { cause: cause.to_owned() });
    let text = text.trim_end();
    match text {
        "" => refuse("the message is empty"),
        _ if text.contains('\0') => refuse("the message contains a NUL byte"),
        _ if text.len() > MAX_MESSAGE => refuse("the message is longer than 256 KiB"),
        _ => Ok(format!("{text}\n")),
    }
}

fn serialised(commit: &gix::objs::Commit) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    commit.write_to(&mut bytes).map_err(|error| invalid(&error))?;
    Ok(bytes)
}

fn parse(id: &str) -> Result<ObjectId, SourceError> {
    ObjectId::from_hex(id.as_bytes()).map_err(|error| invalid(&error))
}

fn invalid(error: &dyn std::fmt::Display) -> SourceError {
    SourceError::InvalidCommit { cause: error.to_string() }
}
