//! `gitopsd confirm`: lets held deletions go ahead.

use super::{Context, EXIT_CODES, Exit, words};
use crate::api::ConfirmAsk;

const EXAMPLES: &str = "EXAMPLES
  gitopsd status                 names each held deletion and its digest
  gitopsd diff apps              shows the objects
  gitopsd confirm 3f9a1c20b7d4   deletes exactly these
  gitopsd confirm cluster        another cluster, or one of another machine, is ours from now on";

/// Let held deletions go ahead
///
/// Deletions that could cost data are held until somebody names their digest, which stands for
/// this very set of objects: other objects make another digest.
///
/// Held are PersistentVolumeClaims and PersistentVolumes, CRDs with objects, Namespaces with
/// others' objects in them; everything that a render lost when it became empty or lost more than
/// half of three or more; and most of all Kustomizations leaving at once. Removing one
/// Kustomization from Git is intent: only what is named first is held of it.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// The digest, as status prints it, or `cluster`
    digest: String,
}

/// Asks.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let accepted = context.client().confirm(&ConfirmAsk { digest: args.digest }).await?;
    if context.terminal.is_json() {
        context.terminal.json(&accepted)?;
        return Ok(Exit::Ok);
    }
    let of = accepted.keys.join(", ");
    context.terminal.out(&format!("confirmed for {of}\n{}", words::indent(FOLLOW, "  ")))?;
    Ok(Exit::Ok)
}

const FOLLOW: &str = "follow with: gitopsd status -w";
