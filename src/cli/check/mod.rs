//! `gitopsd check`: is this host set up well, or is a repository sound?
//!
//! Without an argument `host` tries everything that the daemon will need, in the order in which
//! it will need it: configuration, clock, directories, keys, renderer, API server, Git. With a
//! directory, `tree` walks it as `build` does. Each yields [`Finding`]s (`finding`°), a line each,
//! with what to do.
//!
//! Nothing is changed on the host, in the cluster or in Git: the repository is fetched into a
//! temporary directory, and the renderer is tried on an object of its own.

mod edge;
mod finding;
mod host;
mod sealed;
mod tree;

use super::build::Given;
use super::{Context, Exit};
pub use finding::{Finding, Level};
use std::path::PathBuf;

const EXAMPLES: &str = "EXAMPLES
  sudo gitopsd check                           this host
  sudo gitopsd check --online                  and whether Cloudflare's token may do all it should
  gitopsd check .                              the flux-config repository here
  gitopsd check . --entry clusters/prod --identity age.key
  gitopsd check ../blaster --entry k8s/dev     any directory of manifests

EXIT CODES
  0 nothing failed; a key, a source or values that were not given are warnings
  1 something failed; of a repository: gitopsd build fails too   2 wrong usage
  78 the configuration is wrong (this host only)";

/// Check this host, or a repository in a directory
///
/// Every line is ok, warn or fail, with what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory with a repository, files that Git does not track included; this host when absent
    path: Option<PathBuf>,
    /// Entry directory in the repository [default: where gotk-sync.yaml points, or the only
    /// directory below clusters/]
    #[arg(long, value_name = "PATH", requires = "path")]
    entry: Option<String>,
    /// Ask the provider of the edge too: whether the token is one, and which permission is missing
    #[arg(long, conflicts_with = "path")]
    online: bool,
    #[command(flatten)]
    given: Given,
}

/// Checks and prints.
pub fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let terminal = &context.terminal;
    let told = |finding: &Finding| match terminal.is_json() {
        true => Ok(()),
        false => terminal.out(&finding.text(terminal.color())),
    };
    let (findings, bad_config) = match &args.path {
        Some(path) => (tree::check(path, args.entry.as_deref(), &args.given, &told)?, false),
        None => host::check(context, (&args.given, args.online), &told)?,
    };
    if terminal.is_json() {
        terminal.json(&findings)?;
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(match (bad_config, failed) {
        (true, _) => Exit::Config,
        (_, true) => Exit::Problems,
        _ => Exit::Ok,
    })
}
