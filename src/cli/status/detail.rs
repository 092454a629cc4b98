//! One item in full.

use super::{key, next, word};
use crate::api::Document;
use crate::cli::table::Style;
use crate::cli::terminal::Terminal;
use crate::graph::ItemView;
use crate::pipeline::Failure;

/// The text of one item.
pub fn text(item: &ItemView, document: &Document, terminal: &Terminal) -> String {
    let (ready, style) = word(item);
    let mut text = format!("{}\n", terminal.paint(Style::Bold, &key(item)));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    line("ready", &format!("{} {}", terminal.paint(style, ready), item.reason));
    line("message", &item.message.replace('\n', "\n             "));
    line("suspended", &optional(&item.suspended));
    line("revision", &optional(&item.revision));
    line("author", &optional(&item.author));
    line("subject", &optional(&item.subject));
    let (location, source) = match item.kind.as_str() {
        "GitRepository" => ("url", "source"),
        "ImageRepository" => ("image", "source"),
        "ImagePolicy" => ("image", "repository"),
        _ => ("path", "source"),
    };
    line(location, &item.location);
    line(source, &optional(&item.source));
    line("declared", &optional(&item.origin));
    if item.kind == "Kustomization" {
        line("objects", &item.objects.to_string());
    }
    line("next", &next(item));
    for warning in &item.warnings {
        line("warning", &terminal.paint(Style::Warn, warning));
    }
    for (object, writers) in &item.others {
        line("shared", &format!("{object} is also written by {}", writers.join(", ")));
    }
    let owner = format!("{}/{}", item.namespace, item.name);
    for held in document.held.iter().filter(|held| held.owner == owner) {
        line("held", &format!("{}: gitopsd confirm {}", held.reason, held.digest));
        held.objects.iter().for_each(|object| line("", object));
    }
    if let Some(failure) = &item.failure {
        text.push_str(&in_full(failure, terminal));
    }
    text
}

/// A failure with every field that is known, a line each.
pub fn in_full(failure: &Failure, terminal: &Terminal) -> String {
    let head = format!("failed at {} ({})", failure.step, failure.reason);
    let mut text = format!("  {}\n", terminal.paint(Style::Bad, &head));
    for (name, value) in [
        ("object", failure.object.as_ref()),
        ("file", failure.file.as_ref()),
        ("revision", failure.revision.as_ref()),
        ("cause", Some(&failure.cause)),
        ("do", failure.hint.as_ref()),
    ] {
        if let Some(value) = value {
            let value = value.replace('\n', "\n               ");
            text.push_str(&format!("    {name:<10} {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Step;

    #[test]
    fn a_failure_is_told_with_object_file_revision_cause_and_remedy() {
        let mut failure = Failure::new(Step::Observe, "HealthCheckFailed", "image not found")
            .object("Deployment/web/a")
            .file(Some("apps/web.yaml:3".into()))
            .hint(Some("push the image".into()));
        failure.revision = Some("main@sha1:01".into());
        let expected = "  failed at observe (HealthCheckFailed)
    object     Deployment/web/a
    file       apps/web.yaml:3
    revision   main@sha1:01
    cause      image not found
    do         push the image
";
        assert_eq!(in_full(&failure, &Terminal::new(Some(false), false)), expected);
    }
}
