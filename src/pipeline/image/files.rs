//! The files of a tree in which a marker may stand.
//!
//! A repository holds thousands of files and a handful of markers. What was seen to hold none is
//! known by Git's id, whole directories first, so that after a commit only what it touched is read.

use crate::source::{Entry, MAX_FILE, SourceError, Tree};
use std::collections::HashSet;

/// What every marker contains.
const MARK: &[u8] = b"$imagepolicy";

/// Directories below one another that are followed, as many as a tree serves.
const DEPTH: usize = 64;

/// Bytes of marked files in one pass: thousands of manifests.
const MOST: usize = 32 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct MarkedFiles {
    /// Path and content of each file that may hold a marker, in order of their paths.
    pub files: Vec<(String, Vec<u8>)>,
    /// Ids of files and directories that hold none.
    pub unmarked: Vec<String>,
    bytes: usize,
}

/// Reads what may hold a marker at or below a path of a tree, which must serve every file. What is
/// `known` to hold none is not read again.
pub fn marked_files(
    tree: &Tree,
    dir: &str,
    known: &HashSet<String>,
) -> Result<MarkedFiles, SourceError> {
    let mut found = MarkedFiles::default();
    let path = dir.split('/').filter(|part| !part.is_empty() && *part != ".");
    let path = path.collect::<Vec<_>>().join("/");
    match tree.entry(&path)? {
        Some(Entry::Dir { .. }) => {
            walk(tree, &path, 0, known, &mut found)?;
        }
        // Flux takes a file too (Flux: ImageUpdateAutomation, Update path).
        Some(entry @ Entry::File { .. }) => {
            look(tree, path, &entry, known, &mut found)?;
        }
        None => return Err(SourceError::PathNotFound { path, kind: "directory" }),
    }
    Ok(found)
}

/// True when something below the directory may hold a marker.
fn walk(
    tree: &Tree,
    dir: &str,
    depth: usize,
    known: &HashSet<String>,
    found: &mut MarkedFiles,
) -> Result<bool, SourceError> {
    if depth > DEPTH {
        return Ok(false);
    }
    let mut any = false;
    for (name, entry) in tree.list(dir)? {
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        match entry {
            // A repository inside a plain directory is none of its files.
            Entry::Dir { id } if !known.contains(&id) && !tree.is_nested(&path) => {
                match walk(tree, &path, depth + 1, known, found)? {
                    true => any = true,
                    false => found.unmarked.push(id),
                }
            }
            Entry::Dir { .. } => {}
            Entry::File { .. } => any |= look(tree, path, &entry, known, found)?,
        }
    }
    Ok(any)
}

/// True when a file may hold a marker.
fn look(
    tree: &Tree,
    path: String,
    entry: &Entry,
    known: &HashSet<String>,
    found: &mut MarkedFiles,
) -> Result<bool, SourceError> {
    let Entry::File { id, size, .. } = entry else { return Ok(false) };
    if !is_yaml(&path) || *size > MAX_FILE || known.contains(id) {
        return Ok(false);
    }
    let content = tree.read(&path)?;
    if !content.windows(MARK.len()).any(|window| window == MARK) {
        found.unmarked.push(id.clone());
        return Ok(false);
    }
    found.bytes += content.len();
    if found.bytes > MOST {
        let what = "the files that hold image markers".to_owned();
        return Err(SourceError::TooLarge { what, limit: MOST as u64 });
    }
    found.files.push((path, content));
    Ok(true)
}

fn is_yaml(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.ends_with(".yaml") || name.ends_with(".yml") || name == "Kustomization"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_marker_is_known_by_its_id_and_read_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let marker = "image: a:1 # {\"$imagepolicy\": \"n:a\"}\n";
        write("apps/dev/a.yaml", marker);
        write("apps/dev/plain.yaml", "a: 1\n");
        write("apps/prod/a.yml", "a: 2\n");
        write("apps/note.md", marker);
        write("other/b.yaml", marker);
        write("vendor/z/.git", "gitdir: ../../.git/modules/z\n");
        write("vendor/z/z.yaml", marker);
        let tree = Tree::from_dir(dir.path()).expect("a tree");
        let mut known = HashSet::new();
        let found = marked_files(&tree, "./apps", &known).expect("read");
        let paths = |found: &MarkedFiles| {
            found.files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(paths(&found), ["apps/dev/a.yaml"]);
        assert_eq!(found.unmarked.len(), 3, "plain.yaml, a.yml and prod");
        known.extend(found.unmarked);
        let again = marked_files(&tree, "apps/", &known).expect("read");
        assert_eq!((paths(&again), again.unmarked.len()), (vec!["apps/dev/a.yaml".to_owned()], 0));
        assert_eq!(paths(&marked_files(&tree, "", &known).expect("read")).len(), 2);
        let file = marked_files(&tree, "./apps/dev/a.yaml", &known).expect("read");
        assert_eq!(paths(&file), ["apps/dev/a.yaml"]);
        assert_eq!(paths(&marked_files(&tree, "apps/note.md", &known).expect("read")), [""; 0]);
        assert!(marked_files(&tree, "nowhere", &known).is_err());
        assert!(marked_files(&tree, "../..", &known).is_err(), "the tree is all there is");
    }
}
