//! `gitopsd resume`: releases what `suspend` stopped.

use super::object::Named;
use super::status::key;
use super::{Context, EXIT_CODES, Exit};
use crate::api::{Document, ResumeAsk};

const EXAMPLES: &str = "EXAMPLES
  gitopsd resume apps
  gitopsd resume GitRepository/flux-system/blaster
  gitopsd resume source git blaster -n flux-system      the same, as flux has it";

/// Release what suspend stopped; it runs at once
///
/// What is suspended in Git (spec.suspend) is released in Git.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    #[command(flatten)]
    object: Named,
}

/// Asks.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let name = match args.object.name(context) {
        Ok(name) => name,
        Err(exit) => return Ok(exit),
    };
    let client = context.client();
    let before = client.status(None).await?;
    let accepted = client.resume(&ResumeAsk { name }).await?;
    if context.terminal.is_json() {
        context.terminal.json(&accepted)?;
    } else {
        for key in &accepted.keys {
            context.terminal.out(&told(&before, key))?;
        }
    }
    Ok(Exit::Ok)
}

/// What came of it, by the status before.
fn told(before: &Document, object: &str) -> String {
    let by_host = before.suspended.iter().any(|suspend| suspend.object == object);
    let item = before.summary.items.iter().find(|item| key(item) == object);
    match item.is_some_and(|item| item.suspended.is_some()) {
        _ if by_host => format!("{object} resumed"),
        true => format!("{object} is suspended in Git (spec.suspend): release it there"),
        false => format!("{object} was not suspended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterView, DaemonView, SuspendView};

    #[test]
    fn resumed_is_said_of_what_was_suspended_on_this_host_only() {
        let mut before = Document::starting(DaemonView::default(), ClusterView::default());
        let object = "Kustomization/n/a";
        assert_eq!(told(&before, object), "Kustomization/n/a was not suspended");
        before.suspended.push(SuspendView {
            object: object.into(),
            until_ms: None,
            reason: String::new(),
            by: "root".into(),
            since_ms: 0,
        });
        assert_eq!(told(&before, object), "Kustomization/n/a resumed");
    }
}
