//! Everything at one look: the line, the table, then whatever wants attention.

use super::{key, next, word};
use crate::api::{Document, SuspendView};
use crate::cli::table::{Cell, Style, Table};
use crate::cli::terminal::{Terminal, local, now_ms};
use crate::cli::words;
use crate::flux::unknown_field;
use crate::graph::{ItemView, Ready};

/// Characters of a message in the table; what is wrong is told in full below.
const MESSAGE: usize = 72;

/// A suspend without an end is overdue after a day.
const OVERDUE_MS: i64 = 86_400_000;

const HEAD: &[&str] = &["KIND", "NAME", "READY", "REVISION", "NEXT", "MESSAGE"];

/// The text of a document.
pub fn text(document: &Document, terminal: &Terminal) -> String {
    let style = if document.ready { Style::Good } else { Style::Bad };
    let mut text = format!("{}\n", terminal.paint(style, &document.line));
    text.push_str(&cluster(document, terminal));
    let mut table = Table::new(HEAD);
    for item in &document.summary.items {
        table.row(row(item));
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render(terminal.color()));
    }
    for (title, style, lines) in [
        ("not ready", Style::Bad, failures(document)),
        ("cannot be read", Style::Bad, problems(document)),
        ("deletions held", Style::Warn, held(document)),
        ("warnings", Style::Warn, warnings(document)),
        ("edge", Style::Warn, edge(document)),
        ("suspended on this host", Style::Warn, suspends(document, now_ms())),
        ("not supported yet, and left out", Style::Warn, left_out(document, false)),
        ("unknown, and left out", Style::Warn, left_out(document, true)),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{}\n", terminal.paint(style, &format!("{title}:"))));
            lines.iter().for_each(|line| text.push_str(&words::indent(line, "  ")));
        }
    }
    let aside = document.summary.set_aside.len();
    if aside > 0 {
        let told = words::count(aside, "manifest");
        text.push_str(&format!(
            "\n{told} of Flux itself set aside: neither applied nor deleted (--json lists them)\n"
        ));
    }
    text
}

/// Kinds that are named one by one when they cannot be watched: of more, it is the server.
const BLIND: usize = 3;

fn cluster(document: &Document, terminal: &Terminal) -> String {
    let cluster = &document.cluster;
    let one = |(followed, why): (&String, &String)| {
        format!("{followed} cannot be watched, its drift shows late: {why}\n")
    };
    let told = match cluster.blind.iter().next() {
        Some(first) if cluster.blind.len() > BLIND => {
            let more = cluster.blind.len() - 1;
            format!("{}and {more} more kinds (--json lists them)\n", one(first))
        }
        _ => cluster.blind.iter().map(one).collect(),
    };
    let blind = match told.is_empty() {
        true => told,
        false => terminal.paint(Style::Warn, &told),
    };
    if cluster.connected && cluster.message.is_empty() {
        return blind;
    }
    let server = if cluster.server.is_empty() { "API server" } else { &cluster.server };
    let style = if cluster.connected { Style::Warn } else { Style::Bad };
    format!("{}\n{blind}", terminal.paint(style, &format!("{server}: {}", cluster.message)))
}

fn row(item: &ItemView) -> Vec<Cell> {
    let (ready, style) = word(item);
    let revision = item.revision.as_deref().map(words::revision).unwrap_or_default();
    let message = item.suspended.as_ref().unwrap_or(&item.message);
    vec![
        item.kind.as_str().into(),
        format!("{}/{}", item.namespace, item.name).into(),
        Cell::new(ready, style),
        revision.into(),
        Cell::new(&next(item), Style::Dim),
        words::brief(message, MESSAGE).into(),
    ]
}

fn failures(document: &Document) -> Vec<String> {
    let bad = |item: &&ItemView| {
        item.ready == Ready::False && !item.fine() && item.message.chars().count() > MESSAGE
            || item.failure.is_some() && !item.fine()
    };
    let items = document.summary.items.iter().filter(bad);
    items.map(|item| format!("{}: {}", key(item), item.message)).collect()
}

fn problems(document: &Document) -> Vec<String> {
    let told = document.summary.problems.iter().map(|problem| {
        let file = problem.origin.as_ref().map(|file| format!("{file}: ")).unwrap_or_default();
        format!("{}: {file}{}", problem.object, problem.message)
    });
    told.collect()
}

fn held(document: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    for held in &document.held {
        let objects = words::count(held.objects.len(), "object");
        lines.push(format!("{}: {objects}: {}", held.owner, held.reason));
        lines.extend(held.objects.iter().map(|object| format!("  - {object}")));
        lines.push(format!("  to delete: gitopsd confirm {}", held.digest));
    }
    lines
}

fn warnings(document: &Document) -> Vec<String> {
    let told = document.summary.items.iter().flat_map(|item| {
        item.warnings.iter().map(move |warning| format!("{}: {warning}", key(item)))
    });
    told.collect()
}

/// What wants attention of the edge; its line stands at the top.
fn edge(document: &Document) -> Vec<String> {
    let Some(edge) = &document.edge else { return Vec::new() };
    let mut lines = Vec::new();
    if !edge.ready {
        let hint = edge.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        lines.push(format!("{}{hint}", edge.message));
    }
    let hosts = edge.hosts.iter().filter(|host| !host.problem.is_empty());
    lines.extend(hosts.map(|host| format!("{}: {}", host.host, host.problem)));
    lines.extend(edge.warnings.iter().cloned());
    lines
}

fn suspends(document: &Document, now: i64) -> Vec<String> {
    let told = |suspend: &SuspendView| {
        let until = match suspend.until_ms {
            Some(ms) => format!("until {}", local(ms)),
            None if now.saturating_sub(suspend.since_ms) > OVERDUE_MS => {
                format!("{} ago, overdue: gitopsd resume;", words::span(now - suspend.since_ms))
            }
            None => format!("{} ago", words::span(now.saturating_sub(suspend.since_ms))),
        };
        let reason =
            if suspend.reason.is_empty() { String::new() } else { format!(": {}", suspend.reason) };
        format!("{} {until} by {}{reason}", suspend.object, suspend.by)
    };
    document.suspended.iter().map(told).collect()
}

/// What is not acted upon: fields that Flux does not have either, or all else.
fn left_out(document: &Document, unknown: bool) -> Vec<String> {
    let told = document.summary.unsupported.iter().filter_map(|found| {
        let why = unknown_field(&found.kind, &found.field);
        if why.is_some() != unknown {
            return None;
        }
        let object = format!("{}/{}/{}", found.kind, found.namespace, found.name);
        let field =
            if found.field.is_empty() { object } else { format!("{object} {}", found.field) };
        Some(why.map_or(field.clone(), |why| format!("{field}: {why}")))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterView, DaemonView, HeldView};
    use crate::graph::UnsupportedView;

    pub(super) fn item(name: &str, ready: Ready) -> ItemView {
        ItemView {
            kind: "Kustomization".into(),
            namespace: "flux-system".into(),
            name: name.into(),
            ready,
            reason: String::new(),
            message: "Applied revision: main@sha1:0123456789".into(),
            revision: Some("main@sha1:0123456789".into()),
            author: None,
            subject: None,
            location: "./apps".into(),
            source: Some("flux-system/flux-system".into()),
            origin: None,
            parent: None,
            suspended: None,
            running: true,
            next_ms: None,
            objects: 3,
            warnings: vec!["apps/s.yaml: a Secret in plain text".into()],
            others: Default::default(),
            failure: None,
        }
    }

    #[test]
    fn the_overview_has_a_row_for_each_item_and_says_what_wants_attention() {
        let cluster = ClusterView { connected: true, ..ClusterView::default() };
        let mut document = Document::starting(DaemonView::default(), cluster);
        document.line = "main@0123456; 1/1 Kustomizations ready, 3 objects".into();
        document.summary.items = vec![item("apps", Ready::True)];
        document.held = vec![HeldView {
            owner: "flux-system/apps".into(),
            digest: "3f9a".into(),
            reason: "holds data".into(),
            objects: vec!["PersistentVolumeClaim/web/data".into()],
        }];
        let expected = "\
main@0123456; 1/1 Kustomizations ready, 3 objects

KIND           NAME              READY  REVISION      NEXT     MESSAGE
Kustomization  flux-system/apps  True   main@0123456  running  Applied revision: main@sha1:0123456789

deletions held:
  flux-system/apps: one object: holds data
    - PersistentVolumeClaim/web/data
    to delete: gitopsd confirm 3f9a

warnings:
  Kustomization/flux-system/apps: apps/s.yaml: a Secret in plain text
";
        assert_eq!(text(&document, &Terminal::new(Some(false), false)), expected);
    }

    #[test]
    fn a_field_that_flux_has_is_not_supported_yet_and_a_misspelt_one_unknown() {
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        let field = |field: &str| UnsupportedView {
            kind: "Kustomization".into(),
            namespace: "web".into(),
            name: "apps".into(),
            field: field.into(),
        };
        document.summary.unsupported = vec![field("spec.ignore"), field("spec.prun")];
        assert_eq!(left_out(&document, false), ["Kustomization/web/apps spec.ignore"]);
        let misspelt = "Kustomization/web/apps spec.prun: unknown field, did you mean prune?";
        assert_eq!(left_out(&document, true), [misspelt]);
    }

    #[test]
    fn a_suspend_without_an_end_is_overdue_after_a_day() {
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        document.suspended = vec![SuspendView {
            object: "Kustomization/flux-system/apps".into(),
            until_ms: None,
            reason: "hotfix".into(),
            by: "root (uid 0)".into(),
            since_ms: 0,
        }];
        let told = |now| suspends(&document, now).join("");
        assert_eq!(told(60_000), "Kustomization/flux-system/apps 1m ago by root (uid 0): hotfix");
        assert!(told(2 * OVERDUE_MS).contains("2d ago, overdue: gitopsd resume; by root"));
    }
}
