//! `gitopsd resume`: releases what `suspend` stopped.

use super::{Context, EXIT_CODES, Exit};
use crate::api::ResumeAsk;

const EXAMPLES: &str = "EXAMPLES
  gitopsd resume apps
  gitopsd resume GitRepository/flux-system/blaster";

/// Release what suspend stopped; it runs at once
///
/// What is suspended in Git (spec.suspend) is released in Git.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME
    name: String,
}

/// Asks.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let accepted = context.client().resume(&ResumeAsk { name: args.name }).await?;
    if context.terminal.is_json() {
        context.terminal.json(&accepted)?;
    } else {
        context.terminal.out(&format!("{} resumed", accepted.keys.join(", ")))?;
    }
    Ok(Exit::Ok)
}
