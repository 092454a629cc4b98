//! A repository in a directory: the walk of `build`, told as findings.

use super::finding::Finding;
use super::host::Tell;
use crate::cli::build::{Entry, Given, Inputs, Outcome};
use crate::source::{Entry as File, Tree};
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Walks the repository from its entry.
pub fn check(
    path: &Path,
    said: Option<&str>,
    given: &Given,
    tell: Tell<'_>,
) -> anyhow::Result<Vec<Finding>> {
    let entry = match said {
        Some(entry) => entry.to_owned(),
        None => find(path)?,
    };
    let walked = Inputs::open(path, &entry, given)?.walk()?;
    let mut findings = vec![Finding::ok("entry", entry)];
    for entry in &walked.report.kustomizations {
        findings.extend(told(entry, given.identities.is_empty()));
    }
    for finding in &findings {
        tell(finding)?;
    }
    Ok(findings)
}

/// What came of one Kustomization. What makes `build` end with 1 is a failure here too, but for
/// what it was not given: a key, another source and values in the cluster are no fault of the
/// repository.
fn told(entry: &Entry, no_keys: bool) -> Vec<Finding> {
    let name = format!("{}/{}", entry.namespace, entry.name);
    let mut findings = Vec::new();
    let lacking = entry.result == Outcome::Blocked && entry.engine.is_none();
    // Without spec.decryption no key would help.
    let unopened = entry.sealed && entry.decrypts && no_keys;
    for error in &entry.errors {
        findings.push(match (unopened, lacking) {
            (true, _) => {
                let fix = Some("give --identity KEYFILE to look inside".to_owned());
                Finding::warn(&name, error.to_string(), fix)
            }
            (false, true) => Finding::warn(&name, error.to_string(), None),
            (false, false) => Finding::fail(&name, error.to_string(), None),
        });
    }
    for warning in &entry.warnings {
        findings.push(Finding::warn(&name, warning.to_string(), None));
    }
    for missing in entry.missing() {
        findings.push(Finding::warn(&name, missing.told(), None));
    }
    if entry.result == Outcome::Ok {
        let found = crate::cli::words::count(entry.objects, "object");
        findings.insert(0, Finding::ok(&name, found));
    }
    findings
}

/// The entry of a repository: where its gotk-sync.yaml points, else the only cluster.
fn find(path: &Path) -> anyhow::Result<String> {
    let tree = Tree::from_dir(path).with_context(|| path.display().to_string())?;
    let mut entries = Vec::new();
    sync_files(&tree, "", 0, &mut entries)?;
    if entries.is_empty() && matches!(tree.entry("clusters")?, Some(File::Dir { .. })) {
        let listed = tree.list("clusters")?.into_iter();
        let dirs = listed.filter(|(_, entry)| matches!(entry, File::Dir { .. }));
        entries.extend(dirs.map(|(name, _)| format!("clusters/{name}")));
    }
    entries.sort();
    entries.dedup();
    match entries.as_slice() {
        [entry] => Ok(entry.clone()),
        [] => anyhow::bail!("no entry found in {}: say --entry PATH", path.display()),
        several => anyhow::bail!("several entries: say --entry with one of {}", several.join(", ")),
    }
}

/// Looks three directories deep: `clusters/my-cluster/flux-system/`.
fn sync_files(tree: &Tree, dir: &str, depth: usize, found: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, entry) in tree.list(dir)? {
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        match entry {
            File::Dir { .. } if depth < 3 => sync_files(tree, &path, depth + 1, found)?,
            File::File { .. } if name == "gotk-sync.yaml" => {
                found.extend(points_at(&String::from_utf8_lossy(&tree.read(&path)?)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `spec.path` of the Flux Kustomizations in a file; what cannot be read ends it.
fn points_at(text: &str) -> Vec<String> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let read = documents.map_while(|document| Value::deserialize(document).ok());
    let paths = read.filter(|object| object["kind"] == "Kustomization").filter_map(|object| {
        let path = object.pointer("/spec/path")?.as_str()?;
        Some(path.trim_start_matches("./").trim_end_matches('/').to_owned())
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_where_gotk_sync_points() {
        let dir = tempfile::tempdir().expect("temp dir");
        let flux = dir.path().join("clusters/a/flux-system");
        std::fs::create_dir_all(&flux).expect("writable");
        let write = |name: &str, text: &str| std::fs::write(flux.join(name), text).expect("file");
        write("other.yaml", "a: 1\n");
        assert_eq!(find(dir.path()).expect("the only cluster"), "clusters/a");
        write(
            "gotk-sync.yaml",
            "kind: GitRepository\n---\nkind: Kustomization\nspec:\n  path: ./b/\n",
        );
        assert_eq!(find(dir.path()).expect("the sync file"), "b");
        write("gotk-sync.yaml", "kind: [\n");
        assert_eq!(find(dir.path()).expect("the only cluster again"), "clusters/a");
    }
}
