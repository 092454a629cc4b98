//! `gitopsd run`: the daemon.

use super::{Context, Exit};
use crate::config::{self, Config, Problems};
use crate::daemon::{self, DaemonError, Ending};
use crate::history::HistoryError;
use crate::logging::{self, LoggingError, Message, Target};
use std::time::Duration;

const EXAMPLES: &str = "EXAMPLES
  systemctl start gitopsd                    as the package does it
  gitopsd run --check                        would it start? reads, and touches nothing
  gitopsd run --config ./config.yaml         in a terminal, until Ctrl-C

EXIT CODES
  0 stopped by a signal   1 this host cannot run it, or its database is damaged
  2 wrong usage
  78 the configuration is wrong, or a key or the state is of no use to this version:
     every problem is printed, a restart does not help";

/// How long the process stays after its last line: journald asks which unit a line is of when it
/// reads it, and of a process that is gone nobody can tell.
const LAST_LINE: Duration = Duration::from_millis(200);

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
            refuse(context, args, &problems);
            return Ok(Exit::Config);
        }
    };
    if args.check {
        return Ok(check(context, &config));
    }
    if let Err(error) = logging::init(Target::Auto) {
        unheard(context, &error);
        return Ok(if error.retry() { Exit::Problems } else { Exit::Config });
    }
    let error = match daemon::run(&config, &context.config) {
        Ok(Ending::Stopped) => return Ok(Exit::Ok),
        Ok(Ending::Restart(credentials)) => daemon::restart(&credentials),
        Err(error) => error,
    };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    last_line(kind(&error), &format!("{error}{hint}"));
    Ok(match error {
        DaemonError::Credentials(_) | DaemonError::Secrets(_) => Exit::Config,
        // The state of a newer version, or a file that somebody has to mend.
        DaemonError::History(error) if !error.retry() => Exit::Config,
        _ => Exit::Problems,
    })
}

/// Tells what is wrong with the configuration: a person as it is, the journal as one event.
fn refuse(context: &Context, args: &Args, problems: &Problems) {
    if !args.check && logging::to_journal() && logging::init(Target::Auto).is_ok() {
        last_line(Message::ConfigRefused, &format!("the configuration is wrong: {problems}"));
    } else {
        context.terminal.note(&problems.to_string());
    }
}

/// Tells why nothing can be told by the usual way; systemd reads the priority off a line.
fn unheard(context: &Context, error: &LoggingError) {
    let priority = if logging::to_journal() { "<3>" } else { "" };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    context.terminal.note(&format!("{priority}gitopsd: {error}{hint}"));
}

/// What kind of event it is that the daemon cannot start or go on.
fn kind(error: &DaemonError) -> Message {
    match error {
        DaemonError::Credentials(_) | DaemonError::Secrets(_) => Message::ConfigRefused,
        DaemonError::History(HistoryError::DiskFull { .. }) => Message::DiskFull,
        _ => Message::CannotRun,
    }
}

/// Logs an event after which the process ends.
fn last_line(kind: Message, text: &str) {
    tracing::error!(message_id = kind.id(), "{text}");
    if logging::to_journal() {
        std::thread::sleep(LAST_LINE);
    }
}

/// What a start would find wrong with the keys and credentials; the configuration was read.
fn check(context: &Context, config: &Config) -> Exit {
    crate::net::install_crypto();
    match daemon::secrets(config) {
        Ok(_) => Exit::Ok,
        Err(error) => {
            // Bare, as the problems of a configuration: a reload tells it behind our name.
            context.terminal.note(&error.to_string());
            error.hint().iter().for_each(|hint| context.terminal.note(hint));
            Exit::Config
        }
    }
}
