//! Pure: which files a Kustomization can read.
//!
//! From `spec.path` the walk follows everything that a kustomization file may name: resources,
//! bases, components, patches, inputs of generators, configurations, CRDs, the OpenAPI schema,
//! replacements, and transformers with what these name in turn. The result is both the list of
//! what enters the workspace and, with the files' Git ids, the part of the digest that decides
//! whether a build is needed at all. A directory without a kustomization file is generated as
//! Flux does it (Flux: Kustomization, Generating), at `spec.path` only.
//!
//! The walk reads kustomization files and transformer configurations, no manifests, and it
//! collects every problem instead of stopping at the first.

mod copy;
mod fields;

use super::document;
use super::error::Problem;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// File names of kustomize, in the order in which Flux looks for them.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Most files that one Kustomization may read: ten times the largest public repository seen.
const MAX_FILES: usize = 10_000;

/// Most bytes of them, which are all held in tmpfs while the build runs.
const MAX_BYTES: u64 = 64 << 20;

/// Deepest chain of bases and components, and of directories that are searched for manifests.
const MAX_DEPTH: usize = 64;

/// What a path of the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file.
    File {
        /// Git id of its content.
        id: String,
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Dir,
}

/// Names in a directory and what they are.
pub(crate) type Listing = Vec<(String, Node)>;

/// The source as plain questions, so that the walk knows no Git.
pub(crate) struct View<'a> {
    /// What a path is; paths have no leading slash, the root is empty.
    pub entry: &'a dyn Fn(&str) -> Result<Option<Node>, String>,
    /// Names in a directory, sorted.
    pub list: &'a dyn Fn(&str) -> Result<Listing, String>,
    /// Content of a file.
    pub read: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// Where the copy of an entry outside the source lies, once it was fetched.
    pub copy: &'a dyn Fn(&str) -> Option<String>,
}

/// What a file is read as; it decides how a sealed one is opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A kustomization file.
    Kustomization,
    /// Manifests.
    Resource,
    /// A patch.
    Patch,
    /// `secretGenerator[].files`: sealed in the format of this key.
    SecretFile(String),
    /// `secretGenerator[].envs`.
    SecretEnv,
    /// Input of a configMapGenerator: never opened, as in Flux; an error when it is sealed.
    ConfigInput,
    /// Configuration of kustomize itself.
    Setting,
}

/// One file that the build may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Git id of its content.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// What it is read as, possibly several things.
    pub roles: BTreeSet<Role>,
}

/// One secretGenerator, to tell opened Secrets from plaintext ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generator {
    /// Its kustomization file.
    pub file: String,
    /// Its name, before prefixes and hash.
    pub name: String,
    /// Files it reads.
    pub inputs: Vec<String>,
}

/// A resource outside the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The kustomization file that names it.
    pub file: String,
    /// Line of the entry.
    pub line: Option<u32>,
    /// The entry.
    pub entry: String,
}

/// Everything that a Kustomization reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reach {
    /// `spec.path`, normalised; empty for the root.
    pub root: String,
    /// The kustomization file at the root; `None` when it has to be generated.
    pub file: Option<String>,
    /// Its content, or the generated list of resources.
    pub content: Value,
    /// Files by path.
    pub files: BTreeMap<String, Reached>,
    /// Components of the spec that are there.
    pub components: Vec<String>,
    /// Secret generators.
    pub generators: Vec<Generator>,
    /// Resources outside the source that were not fetched yet.
    pub remotes: Vec<Remote>,
    /// Kustomization files that name copies of what lies outside, as they have to be written.
    pub rewritten: BTreeMap<String, Value>,
    /// Everything that is wrong, in order of files.
    pub problems: Vec<Problem>,
}

/// Why there is no walk at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// `spec.path` is not a directory.
    NoPath(String),
    /// The source cannot be read.
    Source(String),
}

impl From<String> for Unreachable {
    fn from(problem: String) -> Self {
        Unreachable::Source(problem)
    }
}

/// Walks from `path`; `components` are those of the spec, dropped where they are absent if
/// `ignore_missing` says so.
///
/// # Errors
/// `path` is not a directory, or the source cannot be read; all else is in [`Reach::problems`].
pub(crate) fn reach(
    view: &View<'_>,
    path: &str,
    components: &[String],
    ignore_missing: bool,
) -> Result<Reach, Unreachable> {
    let root = clamp(path);
    let is_dir = root.is_empty() || (view.entry)(&root)? == Some(Node::Dir);
    if !is_dir {
        return Err(Unreachable::NoPath(root));
    }
    let mut walk = Walk {
        view,
        reach: Reach { root: root.clone(), ..Reach::default() },
        visited: BTreeSet::new(),
        stack: Vec::new(),
        copies: BTreeMap::new(),
        bytes: 0,
    };
    match walk.find(&root)? {
        Some(_) => {
            let (file, content) = walk.directory(&root, None)?;
            walk.reach.file = file;
            walk.reach.content = content;
        }
        None => walk.generate(&root)?,
    }
    walk.spec_components(&root, components, ignore_missing)?;
    if walk.reach.files.len() > MAX_FILES || walk.bytes > MAX_BYTES {
        let message = format!(
            "reads {} files of {} MiB; the limits are {MAX_FILES} files and {} MiB",
            walk.reach.files.len(),
            walk.bytes >> 20,
            MAX_BYTES >> 20
        );
        let file = walk.reach.file.clone();
        walk.reach.problems.push(Problem { file, line: None, message });
    }
    walk.reach.problems.sort();
    walk.reach.problems.dedup();
    Ok(walk.reach)
}

struct Walk<'a> {
    view: &'a View<'a>,
    reach: Reach,
    visited: BTreeSet<String>,
    stack: Vec<String>,
    /// Entries outside the source and what stands for them, by the file that names them.
    copies: BTreeMap<String, Vec<(String, String)>>,
    bytes: u64,
}

/// The kustomization file that names something, for its problems.
struct Place<'a> {
    file: &'a str,
    dir: &'a str,
    text: &'a str,
}

impl Place<'_> {
    /// Line of an entry: the first that has it as a whole word.
    fn line(&self, entry: &str) -> Option<u32> {
        let entry = entry.lines().next()?.trim();
        let whole = |line: &str| {
            line.match_indices(entry).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + entry.len()..].chars().next();
                let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
                !before.is_some_and(name) && !after.is_some_and(name)
            })
        };
        let at = self.text.lines().position(whole)?;
        u32::try_from(at + 1).ok()
    }

    fn problem(&self, entry: &str, message: String) -> Problem {
        Problem::at(self.file, self.line(entry), message)
    }
}

impl Walk<'_> {
    /// The kustomization file of a directory; two of them are an error of kustomize's.
    fn find(&mut self, dir: &str) -> Result<Option<String>, Unreachable> {
        let mut found = None;
        for name in NAMES {
            let path = join(dir, name);
            if matches!((self.view.entry)(&path)?, Some(Node::File { .. })) {
                match &found {
                    None => found = Some(path),
                    Some(first) => {
                        let message = format!("{first} is in the same directory; keep one of them");
                        self.reach.problems.push(Problem::at(&path, None, message));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Visits a directory with a kustomization file. `from` names it, for the problem of its
    /// absence; `None` at the root.
    fn directory(
        &mut self,
        dir: &str,
        from: Option<(&Place<'_>, &str)>,
    ) -> Result<(Option<String>, Value), Unreachable> {
        if self.stack.iter().any(|open| open == dir) || self.stack.len() >= MAX_DEPTH {
            if let Some((place, entry)) = from {
                let message = format!("{entry} leads back to where it is named from");
                self.reach.problems.push(place.problem(entry, message));
            }
            return Ok((None, Value::Null));
        }
        if !self.visited.insert(dir.to_owned()) {
            return Ok((None, Value::Null));
        }
        let Some(file) = self.find(dir)? else {
            if let Some((place, entry)) = from {
                let message = format!("directory {entry} has no kustomization.yaml");
                self.reach.problems.push(place.problem(entry, message));
            }
            return Ok((None, Value::Null));
        };
        self.add(&file, Role::Kustomization)?;
        let bytes = (self.view.read)(&file)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut content = match document::read_one(&text) {
            Ok(content) => content,
            Err(error) => {
                self.reach.problems.push(Problem::at(&file, error.line, error.message));
                return Ok((Some(file), Value::Null));
            }
        };
        self.stack.push(dir.to_owned());
        let place = Place { file: &file, dir, text: &text };
        let outcome = self.fields(&place, &content);
        self.stack.pop();
        outcome?;
        if let Some(copies) = self.copies.remove(&file) {
            copy::rewrite(&mut content, &copies);
            self.reach.rewritten.insert(file.clone(), content.clone());
        }
        Ok((Some(file), content))
    }

    /// Flux's generation: every YAML file below, and directories with a kustomization file whole.
    fn generate(&mut self, root: &str) -> Result<(), Unreachable> {
        let mut resources = Vec::new();
        self.scan(root, root, &mut resources)?;
        self.reach.content = serde_json::json!({ "resources": resources });
        Ok(())
    }

    fn scan(&mut self, root: &str, dir: &str, found: &mut Vec<String>) -> Result<(), Unreachable> {
        if dir.split('/').count() > root.split('/').count() + MAX_DEPTH {
            let message = format!("is more than {MAX_DEPTH} directories below spec.path");
            self.reach.problems.push(Problem::at(dir, None, message));
            return Ok(());
        }
        for (name, node) in (self.view.list)(dir)? {
            let path = join(dir, &name);
            let relative =
                format!("./{}", path.strip_prefix(root).unwrap_or(&path).trim_start_matches('/'));
            match node {
                Node::Dir if self.find(&path)?.is_some() => {
                    found.push(relative);
                    self.directory(&path, None)?;
                }
                Node::Dir => self.scan(root, &path, found)?,
                Node::File { .. } if name.ends_with(".yaml") || name.ends_with(".yml") => {
                    found.push(relative);
                    self.add(&path, Role::Resource)?;
                }
                Node::File { .. } => {}
            }
        }
        Ok(())
    }

    /// `spec.components`, which stand in no file.
    fn spec_components(
        &mut self,
        root: &str,
        components: &[String],
        ignore_missing: bool,
    ) -> Result<(), Unreachable> {
        for entry in components {
            let wrong = |message: &str| Problem {
                file: None,
                line: None,
                message: format!("spec.components: {entry} {message}"),
            };
            if entry.starts_with('/') || fields::is_remote(entry) {
                self.reach.problems.push(wrong("must be a relative path inside the source"));
                continue;
            }
            let Some(dir) = resolve(root, entry) else {
                self.reach.problems.push(wrong("lies outside the source"));
                continue;
            };
            if (self.view.entry)(&dir)? != Some(Node::Dir) {
                if !ignore_missing {
                    self.reach.problems.push(wrong("is not a directory of this revision"));
                }
                continue;
            }
            if self.find(&dir)?.is_none() {
                self.reach.problems.push(wrong("has no kustomization.yaml"));
                continue;
            }
            self.reach.components.push(entry.clone());
            self.directory(&dir, None)?;
        }
        Ok(())
    }

    /// Adds a file; true when it is one.
    fn add(&mut self, path: &str, role: Role) -> Result<bool, Unreachable> {
        let Some(Node::File { id, size }) = (self.view.entry)(path)? else { return Ok(false) };
        let reached = self.reach.files.entry(path.to_owned()).or_insert_with(|| {
            self.bytes += size;
            Reached { id, size, roles: BTreeSet::new() }
        });
        reached.roles.insert(role);
        Ok(true)
    }
}

/// `dir/name`, with the root as the empty string.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A relative entry seen from `dir`; `None` when it is absolute or leaves the source.
pub(crate) fn resolve(dir: &str, entry: &str) -> Option<String> {
    if entry.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in entry.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Flux's secure join: `spec.path` cannot leave the source, whatever it says.
fn clamp(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
