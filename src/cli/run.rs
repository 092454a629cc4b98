//! `gitopsd run`: the daemon.

use super::{Context, Exit};
use crate::config;
use crate::daemon::{self, DaemonError};
use crate::logging::{self, Target};

const EXAMPLES: &str = "EXAMPLES
  systemctl start gitopsd                    as the package does it
  gitopsd run --config ./config.yaml         in a terminal, until Ctrl-C

EXIT CODES
  0 stopped by a signal   1 this host cannot run it   2 wrong usage
  78 the configuration is wrong: every problem is printed, a restart does not help";

/// Run the daemon in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs until a signal ends it.
pub fn run(context: &Context, _args: &Args) -> anyhow::Result<Exit> {
    let config = match config::load(&context.config) {
        Ok(config) => config,
        Err(problems) => {
            context.terminal.note(&problems.to_string());
            return Ok(Exit::Config);
        }
    };
    if let Err(error) = logging::init(Target::Auto) {
        context.terminal.error(&error.to_string());
        error.hint().iter().for_each(|hint| context.terminal.note(hint));
        return Ok(if error.retry() { Exit::Problems } else { Exit::Config });
    }
    let Err(error) = daemon::run(&config) else { return Ok(Exit::Ok) };
    // To the journal as well, with everything else that is known of this start.
    match error.hint() {
        Some(hint) => tracing::error!("{error}; {hint}"),
        None => tracing::error!("{error}"),
    }
    Ok(match error {
        DaemonError::Credentials(_) | DaemonError::Secrets(_) => Exit::Config,
        _ => Exit::Problems,
    })
}
