//! `gitopsd suspend`: stops one item on this host, without a commit.

use super::{Context, EXIT_CODES, Exit, terminal, words};
use crate::api::SuspendAsk;
use std::time::Duration;

const EXAMPLES: &str = "EXAMPLES
  gitopsd suspend apps --for 2h --reason 'trying a hotfix by hand'
  gitopsd suspend GitRepository/flux-system/blaster
  gitopsd resume apps";

/// Stop a Kustomization or a source on this host
///
/// Nothing of it is applied, healed or pruned until the time is over or it is resumed. It outlasts
/// restarts. Without --for it is shown as overdue after a day.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME
    name: String,
    /// How long, such as 30m, 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = words::duration)]
    time: Option<Duration>,
    /// Why, for whoever reads status
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Asks.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let until_ms = args.time.map(|time| {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        terminal::now_ms().saturating_add(ms)
    });
    let ask = SuspendAsk { name: args.name, until_ms, reason: args.reason };
    let accepted = context.client().suspend(&ask).await?;
    if context.terminal.is_json() {
        context.terminal.json(&accepted)?;
        return Ok(Exit::Ok);
    }
    let until = match until_ms {
        Some(ms) => format!("until {}", terminal::local(ms)),
        None => "until gitopsd resume".to_owned(),
    };
    context.terminal.out(&format!("{} suspended {until}", accepted.keys.join(", ")))?;
    Ok(Exit::Ok)
}
