//! `gitopsd edge`: the way to the box from outside.
//!
//! Without a word it shows what `status` knows of it; `down` shows its plan and asks before it acts.

use super::table::{Cell, Style, Table};
use super::terminal::{self, Terminal};
use super::{Context, EXIT_CODES, Exit, diff, words};
use crate::api::{Client, EdgeAsk};
use crate::pipeline::{EdgeHost, EdgeView};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "EXAMPLES
  gitopsd edge                   which hosts are reachable, and what is wrong
  gitopsd diff edge              what the next run, or a reload, would change
  gitopsd edge reconcile         compare with Cloudflare and put right now
  gitopsd edge rotate            a new token for the connectors, one after the other
  gitopsd edge down              show what would go, ask, and take it away
  gitopsd edge up                bring it up again";

/// Longest time that a run is followed.
const FOLLOW: Duration = Duration::from_secs(300);

/// Show the way to this box from outside, or act on it
///
/// Exits with 0 only if the way to every public host stands (a tunnel with connections, where gitopsd
/// manages them its route and DNS record, and the ingress controller's Service with a pod that is
/// ready), the edge was taken down on purpose, or there is none. A host that no Ingress or HTTPRoute
/// has is named, and fails nothing: the controller may know it by other means.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show it
    Status,
    /// Compare with the provider and put right now
    Reconcile,
    /// Take it away, in the order records, routes, connectors, tunnel
    Down {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Bring it up again
    Up,
    /// Give the tunnel another secret, and the connectors another token
    Rotate,
}

/// Asks and prints.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let client = context.client();
    let ask = match args.verb.unwrap_or(Verb::Status) {
        Verb::Status => return show(context, &client).await,
        Verb::Reconcile => EdgeAsk::Reconcile,
        Verb::Up => EdgeAsk::Up,
        Verb::Rotate => EdgeAsk::Rotate,
        Verb::Down { yes } => {
            let plan = client.edge_plan(true).await?;
            if !context.terminal.is_json() {
                context
                    .terminal
                    .out(&diff::text(std::slice::from_ref(&plan), &context.terminal))?;
            }
            if plan.failure.is_some() {
                return Ok(Exit::Problems);
            }
            if !yes && !agreed()? {
                context.terminal.note("nothing was changed");
                return Ok(Exit::Problems);
            }
            EdgeAsk::Down
        }
    };
    // Down and up are asked for once, and take more than one run where something has to go or come.
    let patient = matches!(ask, EdgeAsk::Down | EdgeAsk::Up);
    client.edge(ask).await?;
    follow(context, &client, patient).await?;
    show(context, &client).await
}

/// Waits for the end of the run that was asked for, and with `patient` of those after it that wait
/// for something. What they wait for is told as it changes.
async fn follow(context: &Context, client: &Client, patient: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut serial, mut told) = (None, String::new());
    while began.elapsed() < FOLLOW {
        let document = client.status(serial).await?;
        serial = Some(document.serial);
        let Some(edge) = document.edge else { break };
        if edge.running {
            continue;
        }
        if !(patient && edge.waits) {
            break;
        }
        if edge.message != told {
            context.terminal.note(&edge.message);
            told = edge.message;
        }
    }
    Ok(())
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nobody is there to be asked: say --yes");
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "Take it away? [y/N]: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().take(64).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn show(context: &Context, client: &Client) -> anyhow::Result<Exit> {
    let terminal = &context.terminal;
    let Some(edge) = client.status(None).await?.edge else {
        if terminal.is_json() {
            terminal.json(&serde_json::Value::Null)?;
        } else {
            terminal.out("no edge is configured, see gitopsd.config(5)")?;
        }
        return Ok(Exit::Ok);
    };
    if terminal.is_json() {
        terminal.json(&edge)?;
    } else {
        terminal.out(&text(&edge, terminal))?;
    }
    Ok(if edge.ready { Exit::Ok } else { Exit::Problems })
}

/// Everything that is known of it.
fn text(edge: &EdgeView, terminal: &Terminal) -> String {
    let style = if edge.ready { Style::Good } else { Style::Bad };
    let mut text = format!("{}\n", terminal.paint(style, &edge.message));
    if let Some(hint) = &edge.hint {
        text.push_str(&words::indent(hint, "  "));
    }
    if let Some(name) = &edge.tunnel {
        let id = edge.tunnel_id.as_deref().unwrap_or_default();
        let adopted = if edge.adopted { ", adopted" } else { "" };
        text.push_str(&format!("tunnel   {name} ({id}{adopted})\n"));
    }
    if let Some(ingress) = &edge.ingress {
        text.push_str(&format!("ingress  {ingress}\n"));
    }
    let next = match (edge.running, edge.next_ms) {
        (true, _) => "running".to_owned(),
        (false, Some(at)) => format!("in {}", words::span(at - terminal::now_ms())),
        (false, None) => "-".to_owned(),
    };
    text.push_str(&format!("next     {next}\n"));
    let mut table = Table::new(&["HOST", "ROUTE", "RECORD", "MESSAGE"]);
    edge.hosts.iter().for_each(|host| table.row(row(host)));
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render(terminal.color()));
    }
    for warning in &edge.warnings {
        text.push_str(&format!("{}\n", terminal.paint(Style::Warn, warning)));
    }
    text
}

fn row(host: &EdgeHost) -> Vec<Cell> {
    let word = |there: bool| match there {
        true => Cell::new("yes", Style::Good),
        false => Cell::new("no", Style::Bad),
    };
    vec![
        host.host.as_str().into(),
        word(host.routed),
        word(host.named),
        host.problem.as_str().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_tunnel_each_host_and_what_is_wrong() {
        let host = |name: &str, named, problem: &str| EdgeHost {
            host: name.into(),
            routed: true,
            named,
            problem: problem.into(),
        };
        let edge = EdgeView {
            ready: false,
            message: "dns: b.x has a record of somebody else's: A 192.0.2.1".into(),
            hint: Some("delete it".into()),
            tunnel: Some("home-3fa9".into()),
            tunnel_id: Some("1".into()),
            connections: 4,
            ingress: Some("http://traefik.kube-system.svc.cluster.local:80".into()),
            hosts: vec![host("a.x", true, ""), host("b.x", false, "taken")],
            ..EdgeView::default()
        };
        let expected = "\
dns: b.x has a record of somebody else's: A 192.0.2.1
  delete it
tunnel   home-3fa9 (1)
ingress  http://traefik.kube-system.svc.cluster.local:80
next     -

HOST  ROUTE  RECORD  MESSAGE
a.x   yes    yes
b.x   yes    no      taken
";
        assert_eq!(text(&edge, &Terminal::new(Some(false), false)), expected);
    }
}
