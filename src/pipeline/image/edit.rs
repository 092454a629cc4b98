//! Pure: the files of one pass, each edited where it is marked, and what a person should know.

use crate::flux::{ImageUpdateAutomation, NamespacedName};
use crate::history::{Choice, Replaced};
use crate::image::{self, Change, ImageRef, MessageData, ObjectName, Target, TemplateError};
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

/// The commit message: the template's, or ours. Where the template asks for more than there is
/// here, ours with a word on that beside it: an image is deployed whatever its commit says.
pub(super) fn message(
    automation: &ImageUpdateAutomation,
    edited: &Edited,
) -> Result<(String, Option<String>), Failure> {
    let of =
        NamespacedName { namespace: automation.namespace.clone(), name: automation.name.clone() };
    let data =
        MessageData { automation: &of, values: &automation.message_values, changes: &edited.told };
    let failed = |error: TemplateError| {
        Failure::new(Step::Edit, "InvalidTemplate", error.to_string()).retry(Retry::Never)
    };
    match image::message(automation.message_template.as_deref(), &data) {
        Ok(message) => Ok((message, None)),
        Err(error) if error.unsupported => {
            let ours = image::message(None, &data).map_err(failed)?;
            Ok((ours, Some(replaced_message(automation, &error))))
        }
        Err(error) => Err(failed(error)),
    }
}

/// What the template asks for that is not here, as far as that shows before it is run.
pub(super) fn unsupported(automation: &ImageUpdateAutomation) -> Option<String> {
    let template = automation.message_template.as_deref()?;
    let error = image::check_template(template).err().filter(|error| error.unsupported)?;
    Some(replaced_message(automation, &error))
}

fn replaced_message(automation: &ImageUpdateAutomation, error: &TemplateError) -> String {
    format!("{}: {error}; commits say the default message instead", automation.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn choice(tag: &str) -> Choice {
        Choice {
            name: "r.example/app".into(),
            tag: tag.into(),
            digest: None,
            previous: None,
            since_ms: 0,
        }
    }

    fn file(policy: &str) -> Vec<u8> {
        format!(
            "kind: Deployment\nmetadata: {{name: app, namespace: n}}\n\
             image: r.example/app:1 # {{\"$imagepolicy\": \"n:{policy}\"}}\n"
        )
        .into_bytes()
    }

    #[test]
    fn marked_values_become_what_is_chosen_and_what_cannot_be_done_is_told_by_file_and_line() {
        let files = ["app", "other", "nobody"].map(|p| (format!("k8s/{p}.yaml"), file(p)));
        let choices = [("n/app".to_owned(), choice("2"))].into();
        let policies = ["n/app".to_owned(), "n/other".to_owned()].into();
        let edited = edit(&files, &choices, &policies);
        let changed: Vec<&str> = edited.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(changed, ["k8s/app.yaml"]);
        let expected = Replaced {
            policy: "n/app".into(),
            object: "Deployment/n/app".into(),
            file: "k8s/app.yaml".into(),
            line: 3,
            old: "r.example/app:1".into(),
            new: "r.example/app:2".into(),
        };
        assert_eq!(edited.changes, [expected]);
        assert_eq!(edited.warnings.len(), 1, "{:?}", edited.warnings);
        assert!(edited.warnings[0].starts_with("k8s/nobody.yaml:3: "), "{:?}", edited.warnings);
    }

    #[test]
    fn a_template_writes_the_message_and_one_that_cannot_is_named() {
        let spec = |template: &str| {
            let spec = json!({"interval": "1m", "sourceRef": {"name": "app"}, "git": {"commit":
                {"author": {"email": "a@b"}, "messageTemplate": template}}});
            let manifest = json!({"apiVersion": "image.toolkit.fluxcd.io/v1",
                "kind": "ImageUpdateAutomation",
                "metadata": {"name": "all", "namespace": "n"}, "spec": spec});
            ImageUpdateAutomation::read(&manifest).expect("an automation")
        };
        let files = [("a.yaml".to_owned(), file("app"))];
        let choices = [("n/app".to_owned(), choice("2"))].into();
        let edited = edit(&files, &choices, &BTreeSet::new());
        let by = "{{ range .Changed.Changes }}{{ .OldValue }} to {{ .NewValue }}{{ end }}";
        let (told, word) = message(&spec(by), &edited).expect("it can be run");
        assert_eq!((told.trim(), word), ("r.example/app:1 to r.example/app:2", None));
        let (ours, _) = message(&spec(""), &edited).expect("ours");
        assert!(ours.lines().next().is_some_and(|l| l.ends_with("[skip ci]")), "{ours}");
        let wrong = message(&spec("a\n{{ .Changed.Nothing"), &edited).expect_err("no template");
        assert!(wrong.to_string().contains("line 2"), "{wrong}");

        // What Flux has and we have not keeps no image from being deployed.
        for (template, function) in [("{{ now }}", "\"now\""), ("{{ printf \"%b\" 1 }}", "%b")] {
            let (instead, word) = message(&spec(template), &edited).expect("ours");
            assert_eq!(instead, ours);
            let word = word.expect("it is told");
            let of = "ImageUpdateAutomation/n/all: spec.git.commit.messageTemplate line 1: ";
            assert!(word.starts_with(of) && word.contains(function), "{word}");
        }
        assert!(unsupported(&spec("{{ now }}")).is_some_and(|word| word.contains("\"now\"")));
        assert_eq!((unsupported(&spec(by)), unsupported(&spec("{{"))), (None, None));
    }
}
