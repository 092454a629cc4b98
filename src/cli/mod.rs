//! The command line: a file for each verb.
//!
//! [`Cli::run`] does what the arguments say and answers with an [`Exit`], which `main` turns into
//! the exit code. `run` is the daemon. `check` and `build` work offline, on this host and on a
//! directory; `init` sets the host up; `keygen` and `key` make and show its keys. Every other verb asks the daemon over its socket through `api::Client` and prints
//! what it says: a table for a person, the daemon's own JSON with `--json`.
//!
//! Results go to stdout, everything else to stderr; a reader that goes away is no error. Colours
//! are used on a terminal only, and never with `NO_COLOR`. Files: `terminal` writes, `table`° and
//! `words`° lay out, `object` takes the name of one, `public`° reads the public halves of keys, the
//! rest is named after its verb.
//!
//! Nothing is decided here: what a verb shows was decided by the daemon, and `build` walks the
//! graph by the same functions that the daemon runs on. Errors are `anyhow`'s, because only a
//! person reads them.

mod build;
mod check;
mod completions;
mod confirm;
mod diff;
mod edge;
mod history;
mod images;
mod init;
mod key;
mod keygen;
mod man;
mod object;
mod public;
mod reconcile;
mod reload;
mod resume;
mod run;
mod status;
mod suspend;
mod table;
mod terminal;
mod words;

use crate::api::{ApiError, Client};
use clap::{Parser, Subcommand, ValueEnum};
use std::future::Future;
use std::path::PathBuf;
use terminal::Terminal;

/// Exit codes, as every `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and all is well.
    Ok,
    /// Not ready, or problems were found.
    Problems,
    /// The arguments make no sense.
    Usage,
    /// No daemon answers.
    Unreachable,
    /// The configuration is wrong.
    Config,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Problems => 1,
            Exit::Usage => 2,
            // EX_UNAVAILABLE and EX_CONFIG of sysexits.h; systemd knows the latter by name.
            Exit::Unreachable => 69,
            Exit::Config => 78,
        }
    }
}

const EXIT_CODES: &str = "EXIT CODES
  0 done, all is well   1 not ready, or problems found   2 wrong usage
  69 the daemon cannot be reached   78 the configuration is wrong";

const EXAMPLES: &str = "EXAMPLES
  sudo gitopsd init                  set this host up
  gitopsd status                     what is ready, what is not, and why
  gitopsd reconcile --with-source    fetch and apply now, and follow
  gitopsd diff                       what the next run would change
  gitopsd check                      is this host set up well?
  gitopsd build --tree . --path clusters/my-cluster
                                     the whole repository, without a cluster

EXIT CODES
  0 done, all is well   1 not ready, or problems found   2 wrong usage
  69 the daemon cannot be reached   78 the configuration is wrong";

/// What is told where nothing answers on a host that nobody has configured, and what to do; systemd
/// says the latter too.
const UNANSWERED: &str = "nothing answers, and there is no configuration yet";
const NOT_CONFIGURED: &str = "not configured: run gitopsd init";

/// What all verbs share stands below their own options; none has a hundred.
const LAST: usize = 100;

/// GitOps for one k3s box, from the host.
#[derive(Debug, Parser)]
#[command(name = "gitopsd", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Main configuration file; config.d/*.yaml beside it are read too
    #[arg(long, global = true, value_name = "PATH", default_value = "/etc/gitopsd/config.yaml", display_order = LAST)]
    config: PathBuf,
    /// Socket of the daemon [default: api.sock in the configured runtime directory]
    #[arg(long, global = true, value_name = "PATH", env = "GITOPSD_SOCKET", hide_env = true, display_order = LAST)]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    /// Use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto, display_order = LAST)]
    color: Color,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Check(check::Args),
    Build(build::Args),
    Status(status::Args),
    Reconcile(reconcile::Args),
    Diff(diff::Args),
    Confirm(confirm::Args),
    History(history::Args),
    Images(images::Args),
    Edge(edge::Args),
    Suspend(suspend::Args),
    Resume(resume::Args),
    Reload(reload::Args),
    Init(Box<init::Args>),
    Keygen(keygen::Args),
    Key(key::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// What all verbs share.
struct Context {
    config: PathBuf,
    socket: Option<PathBuf>,
    terminal: Terminal,
}

impl Context {
    /// The way to the daemon. The configuration is a help only: it may not be ours to read.
    fn client(&self) -> Client {
        let socket = self.socket.clone().unwrap_or_else(|| {
            let configured = crate::config::load(&self.config).map(|c| c.directories.runtime);
            configured.unwrap_or_else(|_| "/run/gitopsd".into()).join("api.sock")
        });
        Client::new(socket)
    }
}

impl Cli {
    /// Reads the arguments of this process; ends it with 2 on wrong ones, with 0 on `--help`.
    pub fn from_args() -> Self {
        Cli::parse()
    }

    /// Does what the arguments say. Errors are printed here.
    pub fn run(self) -> Exit {
        let terminal = Terminal::new(
            match self.color {
                Color::Auto => None,
                Color::Always => Some(true),
                Color::Never => Some(false),
            },
            self.json,
        );
        let context = Context { config: self.config, socket: self.socket, terminal };
        let done = match self.verb {
            Verb::Run(args) => run::run(&context, &args),
            Verb::Check(args) => check::run(&context, args),
            Verb::Build(args) => build::run(&context, args),
            Verb::Status(args) => block_on(status::run(&context, &args)),
            Verb::Reconcile(args) => block_on(reconcile::run(&context, &args)),
            Verb::Diff(args) => block_on(diff::run(&context, &args)),
            Verb::Confirm(args) => block_on(confirm::run(&context, args)),
            Verb::History(args) => block_on(history::run(&context, &args)),
            Verb::Images(args) => block_on(images::run(&context, &args)),
            Verb::Edge(args) => block_on(edge::run(&context, args)),
            Verb::Suspend(args) => block_on(suspend::run(&context, args)),
            Verb::Resume(args) => block_on(resume::run(&context, args)),
            Verb::Reload(args) => block_on(reload::run(&context, &args)),
            Verb::Man(args) => man::run(&args),
            Verb::Init(args) => init::run(&context, &args),
            Verb::Keygen(args) => keygen::run(&context, &args),
            Verb::Key(args) => block_on(key::run(&context, &args)),
            Verb::Completions(args) => completions::run(&context, &args),
        };
        done.unwrap_or_else(|error| report(&context, &error))
    }
}

/// Prints an error with what to do about it.
fn report(context: &Context, error: &anyhow::Error) -> Exit {
    let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(gone) {
        return Exit::Ok;
    }
    let (found, fix, exit) = judged(context, error);
    context.terminal.error(&found);
    fix.iter().for_each(|fix| context.terminal.note(fix));
    exit
}

/// What is told of an error, what to do about it, and the exit code.
fn judged(context: &Context, error: &anyhow::Error) -> (String, Option<String>, Exit) {
    let found = format!("{error:#}");
    let Some(api) = error.downcast_ref::<ApiError>() else { return (found, None, Exit::Problems) };
    // A daemon that is not there most likely has a reason that its configuration tells.
    if api.unreachable() && context.socket.is_none() {
        match crate::config::load(&context.config) {
            Err(problems) if problems.not_configured() => {
                // The service has no socket while it waits to be configured, nor where it is
                // stopped or has failed: which of them it is nobody asks here.
                let silent = matches!(api, ApiError::NotRunning { .. });
                let found = if silent { UNANSWERED.to_owned() } else { found };
                return (found, Some(NOT_CONFIGURED.to_owned()), Exit::Unreachable);
            }
            Err(problems) if !problems.unreadable() => {
                return (found, Some(problems.to_string()), Exit::Config);
            }
            _ => {}
        }
    }
    let exit = if api.unreachable() { Exit::Unreachable } else { Exit::Problems };
    (found, api.hint(), exit)
}

/// Runs a verb's questions; they wait for the daemon and for nothing else.
fn block_on(verb: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(verb);
    // A look-up that hangs in the pool must not hold the verb back.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn without_a_configuration_a_service_that_does_not_answer_is_said_neither_up_nor_down() {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = dir.path().join("config.yaml");
        let told = |text: Option<&str>| {
            text.iter().for_each(|text| std::fs::write(&config, text).expect("ours to write"));
            let terminal = Terminal::new(Some(false), false);
            let context = Context { config: config.clone(), socket: None, terminal };
            let silent = ApiError::NotRunning { socket: "/run/gitopsd/api.sock".into() };
            judged(&context, &silent.into())
        };
        let silent = "nothing answers, and there is no configuration yet".to_owned();
        let bare = (silent, Some("not configured: run gitopsd init".to_owned()), Exit::Unreachable);
        assert_eq!(told(None), bare);
        assert_eq!(told(Some("limits: {workers: 2}\n")), bare);
        let down = "gitopsd is not running (nothing answers on /run/gitopsd/api.sock)".to_owned();
        let see = Some("see systemctl status gitopsd".to_owned());
        let right = told(Some("root: {url: 'https://h/r', path: a}\n"));
        assert_eq!(right, (down.clone(), see, Exit::Unreachable));
        let (found, fix, exit) = told(Some("root: {url: nowhere, path: a}\n"));
        assert_eq!((found, exit), (down, Exit::Config));
        assert!(fix.is_some_and(|fix| fix.contains("root.url: no scheme")));
    }

    #[test]
    fn the_arguments_are_sound_and_every_verb_brings_examples_and_exit_codes() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands_mut() {
            let name = verb.get_name().to_owned();
            if name == "help" {
                continue;
            }
            let help = verb.render_long_help().to_string();
            assert!(help.contains("EXAMPLES\n"), "{name}: {help}");
            assert!(help.contains("EXIT CODES\n"), "{name}: {help}");
        }
    }
}
