//! Pure: the files of one pass, each edited where it is marked, and what a person should know.

use super::Automation;
use crate::flux::NamespacedName;
use crate::history::{Choice, Replaced};
use crate::image::{self, Change, ImageRef, ObjectName, Target};
use crate::pipeline::{Failure, Retry, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Notices of one pass that are shown; the others are counted.
const MOST: usize = 20;

/// What came of the files.
#[derive(Debug, Default)]
pub(super) struct Edited {
    /// Path and new content of each file that changes.
    pub files: Vec<(String, Vec<u8>)>,
    /// What is replaced, in order of file and line.
    pub changes: Vec<Replaced>,
    /// The same as the message sees it, each with its file.
    pub told: Vec<(String, Change)>,
    /// Markers without effect and files that are left alone.
    pub warnings: Vec<String>,
}

/// Edits files by what is chosen. Markers of the other `policies` are left to others; one that
/// names none of them is reported.
pub(super) fn edit(
    files: &[(String, Vec<u8>)],
    choices: &BTreeMap<String, Choice>,
    policies: &BTreeSet<String>,
) -> Edited {
    let target = |policy: &NamespacedName| {
        let policy = policy.to_string();
        match choices.get(&policy) {
            Some(choice) => Target::Set(ImageRef {
                name: choice.name.clone(),
                tag: choice.tag.clone(),
                digest: choice.digest.clone(),
            }),
            None if policies.contains(&policy) => Target::Leave,
            None => Target::Unknown,
        }
    };
    let mut edited = Edited::default();
    for (path, content) in files {
        if !image::concerned(path, content) {
            continue;
        }
        let done = image::edit(content, &target);
        for finding in done.findings {
            let alone = if finding.blocks { "; the file is left alone" } else { "" };
            edited.warnings.push(format!("{path}:{}: {}{alone}", finding.line, finding.told));
        }
        let Some(text) = done.text else { continue };
        edited.changes.extend(done.changes.iter().map(|change| replaced(path, change)));
        edited.files.push((path.clone(), text.into_bytes()));
        edited.told.extend(done.changes.into_iter().map(|change| (path.clone(), change)));
    }
    let more = edited.warnings.len().saturating_sub(MOST);
    if more > 0 {
        edited.warnings.truncate(MOST);
        edited.warnings.push(format!("and {more} more markers or files without effect"));
    }
    edited
}

fn replaced(path: &str, change: &Change) -> Replaced {
    let ObjectName { kind, namespace, name, .. } = &change.object;
    let parts = [kind.as_str(), namespace.as_str(), name.as_str()];
    let named = parts.into_iter().filter(|part| !part.is_empty());
    Replaced {
        policy: change.policy.to_string(),
        object: named.collect::<Vec<_>>().join("/"),
        file: path.to_owned(),
        line: u32::try_from(change.line).unwrap_or(u32::MAX),
        old: change.old.clone(),
        new: change.new.clone(),
    }
}

/// The commit message: the template's, or ours.
pub(super) fn message(_job: &Automation, edited: &Edited) -> Result<String, Failure> {
    let mut text = format!("Update {} images [skip ci]\n\n", edited.changes.len());
    for (file, change) in &edited.told {
        text.push_str(&format!("{file}: {} -> {}\n", change.old, change.new));
    }
    let _ = (Step::Edit, Retry::Never);
    Ok(text)
}
