//! `gitopsd keygen`: a new age identity, as `age-keygen` makes them.
//!
//! The public key goes to stderr in any case. The identity goes into a file that nobody else can
//! read and that was not there before, or to stdout for a pipe; a terminal gets it only on demand,
//! for what a terminal shows stays in its scrollback.

use super::{Context, Exit};
use crate::secrets::{Plaintext, generate};
use anyhow::Context as _;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "EXAMPLES
  gitopsd keygen --output recovery.key     a file of mode 0400; keep it off this host
  gitopsd keygen | age -p > key.age        sealed by a passphrase at once
  gitopsd keygen --output -                on the terminal, to copy it to paper

EXIT CODES
  0 made   1 the file is there already, or cannot be written   2 wrong usage";

/// Make a new age identity
///
/// The host's own is made by `gitopsd init`; this one is for the second recipient, or for you.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write it here; never over another file. `-` is stdout, even on a terminal
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes one and hands it over.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let asked = args.output.as_deref() == Some(Path::new("-"));
    let file = args.output.as_deref().filter(|_| !asked);
    if file.is_none() && !asked && std::io::stdout().is_terminal() {
        anyhow::bail!(
            "a secret key does not belong on a terminal: say --output FILE, or --output -"
        );
    }
    let made = generate(&now());
    match file {
        Some(file) => store(file, &made.text).with_context(|| file.display().to_string())?,
        None => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(made.text.expose())?;
            stdout.flush()?;
        }
    }
    match file {
        Some(file) if context.terminal.is_json() => {
            let shown = serde_json::json!({"path": file, "recipient": made.recipient});
            context.terminal.json(&shown)?;
        }
        _ => context.terminal.note(&format!("Public key: {}", made.recipient)),
    }
    Ok(Exit::Ok)
}

/// The time as `age-keygen` writes it.
pub fn now() -> String {
    let second = jiff::Timestamp::from_second(super::terminal::now_ms() / 1000);
    second.map(|moment| moment.to_string()).unwrap_or_default()
}

/// Writes a file whole, for its owner's eyes, and only if there was none.
fn store(path: &Path, text: &Plaintext) -> anyhow::Result<()> {
    anyhow::ensure!(!path.exists(), "is there already, and a key is never overwritten");
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o400))?;
    file.write_all(text.expose())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}
