//! `gitopsd status`: what is ready, what is not, and why.
//!
//! `overview`° lays out everything, `detail`° one item. With `-w` the daemon is asked to answer
//! when its document changes, and the screen is drawn again only when the text does.

mod detail;
mod overview;

pub(super) use detail::in_full;

use super::terminal::Terminal;
use super::{Context, EXIT_CODES, Exit, terminal, words};
use crate::api::{ApiError, Client, Document, HeldView};
use crate::graph::{ItemView, Ready};
use std::time::Duration;

const EXAMPLES: &str = "EXAMPLES
  gitopsd status                   everything
  gitopsd status apps              one item, with its last failure in full
  gitopsd status -w                follow
  gitopsd status --json | jq -r '.summary.items[] | select(.ready != \"True\") | .name'";

/// How long the API server may be silent before it is asked: a watch that nothing happens to says
/// so every minute or so, and an idle server is asked twice as often, while somebody looks.
const SILENCE: Duration = Duration::from_secs(30);

/// Pause before a daemon that is not there is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Show what is ready, what is not, and why
///
/// Exits with 0 only if everything is ready (or suspended) and the API server answers.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME
    name: Option<String>,
    /// Follow, and draw again on change
    #[arg(short, long)]
    watch: bool,
}

/// Asks and prints.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let client = context.client();
    let document = client.status_heard(SILENCE, None).await?;
    let exit = show(context, args, &document, &mut String::new())?;
    if args.watch { follow(context, args, &client, document).await } else { Ok(exit) }
}

async fn follow(
    context: &Context,
    args: &Args,
    client: &Client,
    first: Document,
) -> anyhow::Result<Exit> {
    let mut serial = Some(first.serial);
    let mut drawn = render(context, args, &first)?.0;
    let mut lost = String::new();
    loop {
        match client.status_heard(SILENCE, serial).await {
            Ok(document) => {
                serial = Some(document.serial);
                lost.clear();
                show(context, args, &document, &mut drawn)?;
            }
            Err(error) if error.retry() => {
                // Told once; it comes back with a restart.
                if error.to_string() != lost {
                    lost = error.to_string();
                    context.terminal.error(&lost);
                }
                serial = None;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Prints a document unless it reads as what was `drawn` last.
fn show(
    context: &Context,
    args: &Args,
    document: &Document,
    drawn: &mut String,
) -> anyhow::Result<Exit> {
    let (text, exit) = render(context, args, document)?;
    if text == *drawn {
        return Ok(exit);
    }
    let terminal = &context.terminal;
    // Home, then clear to the end: less flicker than clearing the screen first.
    let clear = args.watch && terminal.interactive() && !terminal.is_json();
    let lead = if clear { "\x1b[H\x1b[2J\x1b[3J" } else { "" };
    terminal.out(&format!("{lead}{text}"))?;
    *drawn = text;
    Ok(exit)
}

fn render(context: &Context, args: &Args, document: &Document) -> anyhow::Result<(String, Exit)> {
    let terminal = &context.terminal;
    let chosen: Vec<&ItemView> = match &args.name {
        None => document.summary.items.iter().collect(),
        Some(name) => match named(document, name) {
            Ok(chosen) => chosen,
            Err(unknown) => return gone(document, name, terminal).ok_or(unknown.into()),
        },
    };
    let (fine, text) = if args.name.is_some() {
        let fine = chosen.iter().all(|item| item.fine());
        let text = if terminal.is_json() {
            serde_json::to_string_pretty(&chosen)?
        } else {
            chosen.iter().map(|item| detail::text(item, document, terminal)).collect()
        };
        (fine, text)
    } else if terminal.is_json() {
        (document.ready, serde_json::to_string_pretty(document)?)
    } else {
        (document.ready, overview::text(document, terminal))
    };
    Ok((text, if fine { Exit::Ok } else { Exit::Problems }))
}

/// The items that a person means.
fn named<'a>(document: &'a Document, name: &str) -> Result<Vec<&'a ItemView>, ApiError> {
    let called = |item: &&ItemView| words::is_called(&key(item), name);
    let found: Vec<&ItemView> = document.summary.items.iter().filter(called).collect();
    if found.is_empty() {
        let message = format!("nothing is called {name:?}");
        let hint = Some("gitopsd status lists every name".to_owned());
        return Err(ApiError::Refused { status: 404, message, hint });
    }
    Ok(found)
}

/// What is held of a Kustomization that left Git, if the name is that of one.
fn gone(document: &Document, name: &str, terminal: &Terminal) -> Option<(String, Exit)> {
    let held = super::diff::held_of(document, Some(name));
    if held.is_empty() {
        return None;
    }
    let text = if terminal.is_json() {
        serde_json::to_string_pretty(&held).unwrap_or_default()
    } else {
        let told = held.iter().map(|held| {
            let objects: String = held.objects.iter().map(|o| format!("  - {o}\n")).collect();
            let HeldView { owner, reason, digest, .. } = held;
            format!(
                "{owner} left Git, and deletions of it are held: {reason}\n{objects}  \
                 to delete: gitopsd confirm {digest}\n"
            )
        });
        told.collect()
    };
    Some((text, Exit::Problems))
}

/// `Kind/namespace/name` of an item.
pub(super) fn key(item: &ItemView) -> String {
    format!("{}/{}/{}", item.kind, item.namespace, item.name)
}

/// The Ready condition in a word, and what it means.
pub(super) fn word(item: &ItemView) -> (&'static str, super::table::Style) {
    use super::table::Style;
    match (item.suspended.is_some(), item.ready) {
        (true, _) => ("Suspended", Style::Warn),
        (_, Ready::True) => ("True", Style::Good),
        (_, Ready::False) => ("False", Style::Bad),
        (_, Ready::Unknown) => ("Unknown", Style::Warn),
    }
}

/// When an item runs next.
pub(super) fn next(item: &ItemView) -> String {
    match (item.running, item.next_ms) {
        (false, _) if item.suspended.is_some() => "-".to_owned(),
        (true, _) => "running".to_owned(),
        (false, Some(at)) => format!("in {}", words::span(at - terminal::now_ms())),
        (false, None) => "-".to_owned(),
    }
}
