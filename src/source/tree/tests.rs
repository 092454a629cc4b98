//! A plain directory as a Tree, ids compared with those that git gives.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn file(id: &str, size: u64) -> Entry {
    Entry::File { id: id.into(), size, executable: false }
}

fn names(tree: &Tree, dir: &str) -> Vec<String> {
    tree.list(dir).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn paths_are_normalised_and_never_leave_the_root() {
    for (path, expected) in [
        ("", ""),
        (".", ""),
        ("./", ""),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        ("a/..", ""),
        ("/a", "a"),
    ] {
        assert_eq!(normalise(path).as_deref(), Ok(expected), "{path}");
    }
    for path in ["..", "a/../..", "/../etc/passwd", "a\0b"] {
        let expected = SourceError::PathEscapes { path: path.into() };
        assert_eq!(normalise(path), Err(expected));
    }
}

#[test]
fn a_directory_has_the_ids_that_git_would_give_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/empty")).unwrap();
    fs::create_dir_all(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join(".git/config"), "x").unwrap();
    fs::write(dir.path().join("a/x.yaml"), "hello\n").unwrap();
    // Git sorts directories as if they ended in a slash: a-b before a/, a0 after it.
    fs::write(dir.path().join("a-b"), "").unwrap();
    fs::write(dir.path().join("a0"), "").unwrap();
    fs::set_permissions(dir.path().join("a0"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a0", dir.path().join("link")).unwrap();

    let tree = Tree::from_dir(dir.path()).unwrap();
    // git init; git add -A; git write-tree
    assert_eq!(tree.id(), "14e34c2a3d5b0a76a3b9590d267f4485ca199c0a");
    assert_eq!(
        tree.entry("a/x.yaml").unwrap(),
        Some(file("ce013625030ba8dba906f756967f9e9ca394464a", 6))
    );
    assert_eq!(names(&tree, ""), ["a", "a-b", "a0"]);
    assert_eq!(names(&tree, "a"), ["x.yaml"]);
    assert_eq!(tree.read("./a/x.yaml").unwrap(), b"hello\n");
    assert_eq!(tree.entry("link").unwrap(), None);
    let missing = SourceError::PathNotFound { path: "link".into(), kind: "file" };
    assert_eq!(tree.read("link"), Err(missing));
    let Some(Entry::File { executable: true, .. }) = tree.entry("a0").unwrap() else {
        panic!("a0 is executable");
    };
}

#[test]
fn ignored_files_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["deploy/app.yaml", "src/keep.yaml", "src/main.rs", "docs/a.md"] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let before = Tree::from_dir(dir.path()).unwrap();
    let rules = "/*\n!/deploy\n!/src/keep.yaml\n";
    fs::write(dir.path().join(".sourceignore"), rules).unwrap();
    let tree = Tree::from_dir(dir.path()).unwrap();
    assert_eq!(names(&tree, ""), ["deploy", "src"]);
    assert_eq!(names(&tree, "src"), ["keep.yaml"]);
    assert_eq!(tree.entry("docs/a.md").unwrap(), None);
    assert_eq!(tree.entry("docs").unwrap(), None);
    let missing = SourceError::PathNotFound { path: "src/main.rs".into(), kind: "file" };
    assert_eq!(tree.read("src/main.rs"), Err(missing));
    assert_ne!(tree.rules_digest(), before.rules_digest());
}

#[test]
fn a_file_above_the_limit_is_named_and_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let big = fs::File::create(dir.path().join("big")).unwrap();
    big.set_len(MAX_FILE + 1).unwrap();
    let tree = Tree::from_dir(dir.path()).unwrap();
    let expected = SourceError::TooLarge { what: "big".into(), limit: MAX_FILE };
    assert_eq!(tree.read("big"), Err(expected));
}
