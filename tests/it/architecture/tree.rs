//! The source tree in memory, and how its files hang together by `mod` lines.

use super::mentions::{Mentions, Scope};
use std::collections::BTreeMap;
use std::path::Path;

/// Files by their path from the top of the repository.
pub struct Tree(pub BTreeMap<String, String>);

/// A file that some root reaches.
#[derive(Debug, PartialEq, Eq)]
pub struct Reached {
    pub path: String,
    /// Its module, empty for a root.
    pub module: Vec<String>,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

impl Tree {
    /// The tree that this test was built from: sources, golden cases, Cargo.toml.
    pub fn here() -> Tree {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = BTreeMap::new();
        for dir in ["src", "tests/it", "tests/golden"] {
            collect(top, &top.join(dir), &mut files);
        }
        collect_file(top, &top.join("Cargo.toml"), &mut files);
        assert!(files.len() > 100, "the tree is not at {}", top.display());
        Tree(files)
    }

    /// A bad sample.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    /// The text of a file; empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Rust files below a directory.
    pub fn rust<'a>(&'a self, below: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter(move |(path, _)| path.starts_with(below) && path.ends_with(".rs"))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// What a file mentions.
    pub fn mentions(&self, path: &str, scope: Scope) -> Mentions {
        Mentions::of(self.text(path), scope).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A root and every file that its `mod` lines lead to.
    pub fn reached(&self, root: &str) -> Vec<Reached> {
        let mut found = vec![Reached { path: root.to_owned(), module: Vec::new(), test: false }];
        let mut next = 0;
        while next < found.len() {
            let parent = &found[next];
            let children: Vec<Reached> = self
                .mentions(&parent.path, Scope::All)
                .mods
                .into_iter()
                .filter_map(|line| {
                    let inner = [line.inside.clone(), vec![line.name.clone()]].concat();
                    let base = format!("{}/{}", folder(parent), inner.join("/"));
                    let places = [format!("{base}.rs"), format!("{base}/mod.rs")];
                    let path = places.into_iter().find(|path| self.0.contains_key(path))?;
                    let module = [parent.module.clone(), inner].concat();
                    Some(Reached { path, module, test: parent.test || line.test })
                })
                .collect();
            found.extend(children);
            next += 1;
        }
        found
    }
}

/// Where the submodules of a file lie.
fn folder(file: &Reached) -> &str {
    let (parent, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    if file.module.is_empty() || name == "mod.rs" {
        parent
    } else {
        file.path.trim_end_matches(".rs")
    }
}

fn collect(top: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            collect(top, &path, files);
        } else {
            collect_file(top, &path, files);
        }
    }
}

fn collect_file(top: &Path, path: &Path, files: &mut BTreeMap<String, String>) {
    let name = path.strip_prefix(top).expect("below the top").to_str().expect("a UTF-8 path");
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    files.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
}
