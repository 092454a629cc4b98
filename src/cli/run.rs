//! `gitopsd run`: the daemon.

use super::{Context, Exit};
use crate::config::{self, Config};
use crate::daemon::{self, DaemonError, Ending};
use crate::logging::{self, Target};

const EXAMPLES: &str = "EXAMPLES
  systemctl start gitopsd                    as the package does it
  gitopsd run --check                        would it start? reads, and touches nothing
  gitopsd run --config ./config.yaml         in a terminal, until Ctrl-C

EXIT CODES
  0 stopped by a signal   1 this host cannot run it   2 wrong usage
  78 the configuration is wrong, or a key or the state is of no use to this version:
     every problem is printed, a restart does not help";

/// Run the daemon in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only read the configuration, the keys and the credentials, and say what is wrong
    #[arg(long)]
    check: bool,
}

/// Runs until a signal ends it.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let supervised = std::env::var_os("NOTIFY_SOCKET").is_some();
    let config = match config::load(&context.config) {
        Ok(config) => config,
        Err(problems) if problems.not_configured() && supervised && !args.check => {
            // Fresh from the package: no failure, but nothing to do either.
            logging::init(Target::Auto)?;
            daemon::wait()?;
            return Ok(Exit::Ok);
        }
        Err(problems) => {
            context.terminal.note(&problems.to_string());
            return Ok(Exit::Config);
        }
    };
    if args.check {
        return Ok(check(context, &config));
    }
    if let Err(error) = logging::init(Target::Auto) {
        context.terminal.error(&error.to_string());
        error.hint().iter().for_each(|hint| context.terminal.note(hint));
        return Ok(if error.retry() { Exit::Problems } else { Exit::Config });
    }
    let error = match daemon::run(&config, &context.config) {
        Ok(Ending::Stopped) => return Ok(Exit::Ok),
        Ok(Ending::Restart(credentials)) => daemon::restart(&credentials),
        Err(error) => error,
    };
    // To the journal as well, with everything else that is known of this start.
    match error.hint() {
        Some(hint) => tracing::error!("{error}; {hint}"),
        None => tracing::error!("{error}"),
    }
    Ok(match error {
        DaemonError::Credentials(_) | DaemonError::Secrets(_) => Exit::Config,
        // The state of a newer version, or a file that somebody has to mend.
        DaemonError::History(error) if !error.retry() => Exit::Config,
        _ => Exit::Problems,
    })
}

/// What a start would find wrong with the keys and credentials; the configuration was read.
fn check(context: &Context, config: &Config) -> Exit {
    crate::net::install_crypto();
    match daemon::host_secrets(config) {
        Ok(_) => Exit::Ok,
        Err(error) => {
            context.terminal.error(&error.to_string());
            error.hint().iter().for_each(|hint| context.terminal.note(hint));
            Exit::Config
        }
    }
}
