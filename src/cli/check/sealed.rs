//! Sealed files of a repository against the keys of this host: is there one that none of them opens?
//!
//! Nothing is opened: each file says in its `sops` section whom it is sealed to. A file that no
//! Kustomization reads counts too, which is why it is a warning while others are ours.

use super::finding::Finding;
use crate::source::{Entry, Tree};

/// Files looked at: a flux-config repository has some hundred.
const FILES: usize = 5_000;

/// Largest file looked at, as what Flux opens.
const SIZE: usize = 1 << 20;

/// Compares them; nothing where no file is sealed.
pub fn check(tree: &Tree, held: &[String]) -> Option<Finding> {
    let (mut sealed, mut shut) = (0, Vec::new());
    let mut left = FILES;
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        // What cannot be listed is said by the render that needs it.
        for (name, entry) in tree.list(&dir).unwrap_or_default() {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            match entry {
                Entry::Dir { .. } => dirs.push(path),
                Entry::File { .. } if left > 0 => {
                    left -= 1;
                    let bytes = tree.read(&path).unwrap_or_default();
                    if bytes.len() > SIZE {
                        continue;
                    }
                    let to = recipients(&String::from_utf8_lossy(&bytes));
                    if !to.is_empty() {
                        sealed += 1;
                        if !to.iter().any(|to| held.contains(to)) {
                            shut.push((path, to));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    told(sealed, shut)
}

/// The finding on so many sealed files, and those that no key here opens.
fn told(sealed: usize, mut shut: Vec<(String, Vec<String>)>) -> Option<Finding> {
    let what = "sealed files";
    shut.sort();
    let Some((path, to)) = shut.first() else {
        let found = format!("the keys held here open all {sealed} of the repository");
        return (sealed > 0).then(|| Finding::ok(what, found));
    };
    let found = format!(
        "no key held here opens {} of {sealed}, such as {path}, which is sealed to {}",
        shut.len(),
        to.join(", ")
    );
    let fix = "import the key with gitopsd key, or seal them to this host's: sops updatekeys FILE";
    let fix = Some(fix.to_owned());
    Some(match shut.len() == sealed {
        true => Finding::fail(what, found, fix),
        false => Finding::warn(what, found, fix),
    })
}

/// The age recipients that the `sops` section of a file names; none for a file that is not sealed.
fn recipients(text: &str) -> Vec<String> {
    if !text.contains("ENC[AES256_GCM,") || !text.contains("sops") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, _) in text.match_indices("age1") {
        let key: String = text[at..].chars().take_while(char::is_ascii_alphanumeric).collect();
        // `age1` and 58 characters of bech32.
        if key.len() == 62 && !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Level;

    #[test]
    fn files_that_no_key_held_here_opens_are_named_with_whom_they_are_sealed_to() {
        let dir = tempfile::tempdir().expect("temp dir");
        let key = |letter: &str| format!("age1{}", letter.repeat(58));
        let file = |name: &str, key: &str| {
            let text = format!("a: ENC[AES256_GCM,data:x]\nsops:\n  age:\n  - recipient: {key}\n");
            std::fs::write(dir.path().join(name), text).expect("writable");
        };
        let tree = || Tree::from_dir(dir.path()).expect("a tree");
        std::fs::write(dir.path().join("plain.yaml"), key("q")).expect("writable");
        assert_eq!(check(&tree(), &[key("q")]), None);
        file("a.yaml", &key("q"));
        let found = check(&tree(), &[key("q")]).expect("a sealed file");
        assert_eq!(
            found,
            Finding::ok("sealed files", "the keys held here open all 1 of the repository")
        );
        file("b.yaml", &key("z"));
        let found = check(&tree(), &[key("q")]).expect("two");
        let expected = format!(
            "no key held here opens 1 of 2, such as b.yaml, which is sealed to {}",
            key("z")
        );
        assert_eq!((found.level, found.found), (Level::Warn, expected));
        assert_eq!(check(&tree(), &[]).expect("two").level, Level::Fail);
    }
}
