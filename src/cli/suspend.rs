//! `gitopsd suspend`: stops one item on this host, without a commit.

use super::object::Named;
use super::{Context, EXIT_CODES, Exit, terminal, words};
use crate::api::{SuspendAsk, SuspendView};
use std::time::Duration;

const EXAMPLES: &str = "EXAMPLES
  gitopsd suspend apps --for 2h --reason 'trying a hotfix by hand'
  gitopsd suspend GitRepository/flux-system/blaster
  gitopsd suspend source git blaster -n flux-system      the same, as flux has it
  gitopsd resume apps";

/// Stop a Kustomization or a source on this host
///
/// Nothing of it is applied, healed or pruned until the time is over or it is resumed. It outlasts
/// restarts. Without --for it is shown as overdue after a day. Another suspend takes the place of
/// the one before, with its end and its reason.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    #[command(flatten)]
    object: Named,
    /// How long, such as 30m, 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = words::duration)]
    time: Option<Duration>,
    /// Why, for whoever reads status
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Asks.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let name = match args.object.name(context) {
        Ok(name) => name,
        Err(exit) => return Ok(exit),
    };
    let until_ms = args.time.map(|time| {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        terminal::now_ms().saturating_add(ms)
    });
    let client = context.client();
    let before = client.status(None).await?.suspended;
    let ask = SuspendAsk { name, until_ms, reason: args.reason };
    let accepted = client.suspend(&ask).await?;
    if context.terminal.is_json() {
        context.terminal.json(&accepted)?;
        return Ok(Exit::Ok);
    }
    let until = match until_ms {
        Some(ms) => format!("until {}", terminal::local(ms)),
        None => "until gitopsd resume".to_owned(),
    };
    context.terminal.out(&format!("{} suspended {until}", accepted.keys.join(", ")))?;
    for replaced in before.iter().filter(|suspend| accepted.keys.contains(&suspend.object)) {
        context.terminal.out(&in_place_of(replaced))?;
    }
    Ok(Exit::Ok)
}

/// What a suspend was before another was put in its place.
fn in_place_of(before: &SuspendView) -> String {
    let until = match before.until_ms {
        Some(ms) => format!("until {}", terminal::local(ms)),
        None => "until gitopsd resume".to_owned(),
    };
    let reason =
        if before.reason.is_empty() { String::new() } else { format!(": {}", before.reason) };
    format!("in place of: {until} by {}{reason}", before.by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspend_that_is_replaced_is_told_with_its_end_its_author_and_its_reason() {
        let before = SuspendView {
            object: "Kustomization/n/a".into(),
            until_ms: None,
            reason: "hotfix".into(),
            by: "root (uid 0)".into(),
            since_ms: 0,
        };
        let told = "in place of: until gitopsd resume by root (uid 0): hotfix";
        assert_eq!(in_place_of(&before), told);
        let silent = SuspendView { until_ms: Some(0), reason: String::new(), ..before };
        let told = format!("in place of: until {} by root (uid 0)", terminal::local(0));
        assert_eq!(in_place_of(&silent), told);
    }
}
