//! The files that an automation looks for markers in, below the directory that it edits.
//!
//! As in the daemon: YAML only, by its name, every file of the tree whatever the ignore rules say,
//! and no more bytes of marked files than it would read. A path may also name one file. Repositories
//! inside a plain directory, submodules among them, are none of its files.

use super::sources::normal;
use crate::image::concerned;
use crate::source::{Entry, MAX_FILE, SourceError, Tree};
use std::collections::HashSet;

/// Directories below one another that are followed, as many as a tree serves.
const DEPTH: usize = 64;

/// Bytes of marked files: thousands of manifests.
const MOST: usize = 32 << 20;

/// Path and content of each file.
type Files = Vec<(String, Vec<u8>)>;

/// Reads the files at or below a path that may hold a marker. Ids of those that hold none are kept
/// in `unmarked`, for the next automation of the same repository.
///
/// # Errors
/// There is nothing at the path, or a file cannot be read.
pub fn marked(
    tree: &Tree,
    dir: &str,
    unmarked: &mut HashSet<String>,
) -> Result<Files, SourceError> {
    let path = normal(dir);
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    match tree.entry(&path)? {
        Some(Entry::Dir { .. }) => dirs.push((path, 0)),
        Some(Entry::File { size, .. }) => {
            if is_yaml(path.rsplit('/').next().unwrap_or_default()) && size <= MAX_FILE {
                let content = tree.read(&path)?;
                files.extend(concerned(&path, &content).then_some((path, content)));
            }
        }
        None => return Err(SourceError::PathNotFound { path, kind: "directory" }),
    }
    let mut bytes = 0;
    while let Some((dir, depth)) = dirs.pop() {
        for (name, entry) in tree.list(&dir)? {
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            match entry {
                Entry::Dir { .. } if depth < DEPTH && !tree.is_nested(&path) => {
                    dirs.push((path, depth + 1));
                }
                Entry::File { id, size, .. }
                    if is_yaml(&name) && size <= MAX_FILE && !unmarked.contains(&id) =>
                {
                    let content = tree.read(&path)?;
                    if !concerned(&path, &content) {
                        unmarked.insert(id);
                        continue;
                    }
                    bytes += content.len();
                    if bytes > MOST {
                        let what = "the files that hold image markers".to_owned();
                        return Err(SourceError::TooLarge { what, limit: MOST as u64 });
                    }
                    files.push((path, content));
                }
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml") || name == "Kustomization"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_files_below_a_directory_are_read_and_the_others_only_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let marker = "image: a:1 # {\"$imagepolicy\": \"n:a\"}\n";
        write("apps/dev/a.yaml", marker);
        write("apps/plain.yaml", "a: 1\n");
        write("apps/note.md", marker);
        write("other/b.yml", marker);
        write("vendor/z/.git", "gitdir: ../../.git/modules/z\n");
        write("vendor/z/z.yaml", marker);
        let tree = Tree::from_dir(dir.path()).expect("a tree");
        let mut unmarked = HashSet::new();
        let mut paths = |dir: &str| {
            let files = marked(&tree, dir, &mut unmarked).map_err(|error| error.to_string())?;
            Ok::<_, String>(files.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
        };
        let dev = "apps/dev/a.yaml".to_owned();
        assert_eq!(paths("./apps/"), Ok(vec![dev.clone()]));
        assert_eq!(paths(""), Ok(vec![dev.clone(), "other/b.yml".to_owned()]));
        assert_eq!(paths("./apps/dev/a.yaml"), Ok(vec![dev]));
        assert_eq!(paths("apps/note.md"), Ok(Vec::new()));
        assert_eq!(paths("apps/a"), Err("there is no directory at \"apps/a\"".to_owned()));
        assert!(paths("../..").is_err(), "the tree is all there is");
        assert_eq!(unmarked.len(), 1);
    }
}
