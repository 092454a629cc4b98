//! `gitopsd diff`: the plan that the next run would execute.

use super::table::Style;
use super::terminal::Terminal;
use super::{Context, Exit, words};
use crate::api::{ApiError, Document, HeldView};
use crate::pipeline::{Preview, PreviewStep};

const EXAMPLES: &str = "EXAMPLES
  gitopsd diff                 everything, the edge included
  gitopsd diff apps            one Kustomization
  gitopsd diff edge            the tunnel, its routes and names; of a section that was changed or
                               removed, what a reload would lead to
  gitopsd diff --json | jq '.[].steps[].object'

EXIT CODES
  0 no changes   1 changes, or no plan could be made   2 wrong usage
  69 the daemon cannot be reached   78 it cannot, for the configuration is wrong";

/// Show what the next run would change; nothing is written
///
/// Marks: + created, ~ changed, ! deleted and created anew, - deleted,
/// h held until confirmed, ? decided after an earlier stage,
/// x refused by the API server, . left alone.
/// Values of Secrets are masked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Args {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME of a Kustomization, or edge
    name: Option<String>,
}

/// Asks and prints.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let client = context.client();
    let name = args.name.as_deref();
    let document = client.status(None).await?;
    let held = held_of(&document, name);
    let mut previews = match client.diff(name).await {
        // It left Git, and all there is of it is held.
        Err(ApiError::Refused { status: 404, .. }) if !held.is_empty() => Vec::new(),
        answer => answer?,
    };
    add_held(&mut previews, held);
    let terminal = &context.terminal;
    if terminal.is_json() {
        terminal.json(&previews)?;
    } else {
        terminal.out(&text(&previews, terminal))?;
    }
    let changes = previews.iter().any(|p| p.failure.is_some() || p.steps.iter().any(is_change));
    Ok(if changes { Exit::Problems } else { Exit::Ok })
}

/// Held deletions of what has this name, or of everything.
pub(super) fn held_of<'a>(document: &'a Document, name: Option<&str>) -> Vec<&'a HeldView> {
    let called = |held: &&HeldView| {
        let key = format!("Kustomization/{}", held.owner);
        name.is_none_or(|name| words::is_called(&key, name))
    };
    document.held.iter().filter(called).collect()
}

/// Adds what no plan of a Kustomization shows: held deletions of those that left Git, and the end
/// of many at once.
fn add_held(previews: &mut Vec<Preview>, held: Vec<&HeldView>) {
    for held in held {
        let shown = |preview: &Preview, object: &String| {
            preview.steps.iter().any(|step| step.verb == "hold" && step.object == *object)
        };
        let at = previews.iter().position(|preview| preview.kustomization == held.owner);
        let at = at.unwrap_or_else(|| {
            previews.push(Preview {
                kustomization: held.owner.clone(),
                revision: String::new(),
                steps: Vec::new(),
                unchanged: 0,
                failure: None,
                notes: Vec::new(),
            });
            previews.len() - 1
        });
        let preview = &mut previews[at];
        let why = format!("{}; to delete: gitopsd confirm {}", held.reason, held.digest);
        for object in &held.objects {
            if !shown(preview, object) {
                let (verb, object) = ("hold".to_owned(), object.clone());
                preview.steps.push(PreviewStep {
                    verb,
                    object,
                    file: None,
                    lines: vec![why.clone()],
                });
            }
        }
    }
}

fn is_change(step: &PreviewStep) -> bool {
    step.verb != "skip"
}

pub(super) fn text(previews: &[Preview], terminal: &Terminal) -> String {
    let mut text = String::new();
    for preview in previews {
        let revision = words::revision(&preview.revision);
        let changes = preview.steps.iter().filter(|step| is_change(step)).count();
        let told = match (&preview.failure, changes) {
            (Some(_), 0) => "no plan".to_owned(),
            (Some(_), n) => format!("{}, and no plan beyond", words::count(n, "change")),
            (None, 0) => {
                format!("no changes, {} as in Git", words::count(preview.unchanged, "object"))
            }
            (None, n) => format!("{}, {} as in Git", words::count(n, "change"), preview.unchanged),
        };
        let title = match revision.as_str() {
            "" if preview.failure.is_some() => preview.kustomization.clone(),
            "" => format!("{}, which left Git", preview.kustomization),
            _ => format!("{} at {revision}", preview.kustomization),
        };
        text.push_str(&format!("{}: {told}\n", terminal.paint(Style::Bold, &title)));
        for note in &preview.notes {
            text.push_str(&words::indent(&terminal.paint(Style::Warn, note), "  "));
        }
        for step in &preview.steps {
            text.push_str(&shown(step, terminal));
        }
        if let Some(failure) = &preview.failure {
            let failure = terminal.paint(Style::Bad, &failure.to_string());
            text.push_str(&words::indent(&failure, "  "));
        }
    }
    text
}

fn shown(step: &PreviewStep, terminal: &Terminal) -> String {
    let (sign, style) = match step.verb.as_str() {
        "create" => ("+", Style::Good),
        "configure" => ("~", Style::Warn),
        "recreate" => ("!", Style::Bad),
        "delete" => ("-", Style::Bad),
        "hold" => ("h", Style::Warn),
        "defer" => ("?", Style::Dim),
        "refuse" => ("x", Style::Bad),
        _ => (".", Style::Dim),
    };
    let file = step.file.as_ref().map(|file| format!(" ({file})")).unwrap_or_default();
    let head = terminal.paint(style, &format!("{sign} {}", step.object));
    let mut text = format!("  {head}{}\n", terminal.paint(Style::Dim, &file));
    for line in &step.lines {
        text.push_str(&words::indent(line, "      "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Failure, Step};

    #[test]
    fn what_is_held_of_a_kustomization_that_left_git_is_shown_by_its_name() {
        use crate::api::{ClusterView, DaemonView};
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        document.held = vec![HeldView {
            owner: "flux-system/gone".into(),
            digest: "3f9a".into(),
            reason: "holds data".into(),
            objects: vec!["Namespace/home".into()],
        }];
        assert_eq!(held_of(&document, Some("other")), Vec::<&HeldView>::new());
        let mut previews = Vec::new();
        add_held(&mut previews, held_of(&document, Some("gone")));
        add_held(&mut previews, held_of(&document, None));
        assert_eq!(
            text(&previews, &Terminal::new(Some(false), false)),
            "flux-system/gone, which left Git: one change, 0 as in Git\n  \
             h Namespace/home\n      holds data; to delete: gitopsd confirm 3f9a\n"
        );
    }

    #[test]
    fn a_plan_is_grouped_by_kustomization_with_a_sign_for_each_object() {
        let step = |verb: &str, object: &str, lines: &[&str]| PreviewStep {
            verb: verb.into(),
            object: object.into(),
            file: Some("apps/web.yaml:3".into()),
            lines: lines.iter().map(ToString::to_string).collect(),
        };
        let mut previews = [Preview {
            kustomization: "flux-system/apps".into(),
            revision: "main@sha1:0123456789".into(),
            steps: vec![
                step("create", "Service/web/a", &[]),
                step("configure", "Deployment/web/a", &["~ spec.replicas: 1 -> 2"]),
            ],
            unchanged: 3,
            failure: None,
            notes: Vec::new(),
        }];
        assert_eq!(
            text(&previews, &Terminal::new(Some(false), false)),
            "flux-system/apps at main@0123456: 2 changes, 3 as in Git\n  \
             + Service/web/a (apps/web.yaml:3)\n  \
             ~ Deployment/web/a (apps/web.yaml:3)\n      ~ spec.replicas: 1 -> 2\n"
        );
        let failure = Failure::new(Step::Plan, "EdgeFailed", "someone else's record");
        previews[0].failure = Some(failure);
        let told = |previews: &[Preview]| text(previews, &Terminal::new(Some(false), false));
        let text = told(&previews);
        assert!(text.contains(": 2 changes, and no plan beyond\n"), "{text}");
        assert!(text.ends_with("  plan: someone else's record\n"), "{text}");
        previews[0].steps.clear();
        previews[0].notes.push("not in force yet".into());
        assert!(told(&previews).contains(": no plan\n  not in force yet\n"));
    }
}
