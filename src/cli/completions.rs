//! `gitopsd completions`: for the shell.

use super::{Cli, Context, Exit};
use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "EXAMPLES
  gitopsd completions bash > /etc/bash_completion.d/gitopsd
  gitopsd completions zsh > ~/.zfunc/_gitopsd
  gitopsd completions fish > ~/.config/fish/completions/gitopsd.fish

EXIT CODES
  0 done   2 wrong usage";

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Prints them.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gitopsd", &mut text);
    context.terminal.out(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Ok)
}
