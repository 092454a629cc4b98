//! `gitopsd reload`: has the daemon take a changed configuration or changed credentials.

use super::init::open_sealed;
use super::{Context, EXIT_CODES, Exit};
use crate::api::{ApiError, Client, Handed, ReloadAsk};
use crate::config::credentials_directory;
use crate::secrets::guarded;
use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::OFlag;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const EXAMPLES: &str = "EXAMPLES
  systemctl reload gitopsd     as the package does it: with every credential of the unit
  gitopsd reload               the configuration, and the files that it names
  gitopsd reload --credential kubeconfig=/etc/rancher/k3s/k3s.yaml";

/// How long the daemon may take to come back: it finishes what is in hand and stores what was said,
/// 80 s at most, and starts. systemd gives a reload 2 min.
const BACK: Duration = Duration::from_secs(100);

/// How long there may be no socket before that is taken for a service that is down: between the end
/// of one process image and the start of the next there is none for a moment.
const GAP: Duration = Duration::from_secs(5);

/// systemd's limit for one credential.
const LARGEST: u64 = 1 << 20;

/// Have the daemon read its configuration and credentials again
///
/// What is new is tried first: when something is wrong with it, what was in force stays in force.
/// When nothing has changed, nothing happens.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// Hand over a credential of the unit as it is now on the host: a missing file leaves it as it
    /// was, an empty one takes it away
    #[arg(long, value_name = "ID=FILE", value_parser = pair)]
    credential: Vec<(String, PathBuf)>,
}

fn pair(said: &str) -> Result<(String, PathBuf), String> {
    let (id, file) = said.split_once('=').ok_or("write ID=FILE")?;
    Ok((id.to_owned(), file.into()))
}

/// Asks, and waits until the daemon is back.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let client = context.client();
    if waits(context, &client).await {
        context.terminal.out("nothing to reload: not configured, run gitopsd init")?;
        return Ok(Exit::Ok);
    }
    let mut ask = ReloadAsk::default();
    let keys = credentials_directory(&context.config);
    for (id, file) in &args.credential {
        if file.starts_with(&keys) {
            // Also one that has not changed: the next start would refuse it.
            guarded(id, file, 0o077).map_err(|error| match error.hint() {
                Some(hint) => anyhow::anyhow!("{error}; {hint}"),
                None => error.into(),
            })?;
        }
        let sealed = file.with_file_name(format!("{id}.cred"));
        let handed = match read(file).with_context(|| format!("{id}: {}", file.display()))? {
            Some(bytes) => Handed::new(STANDARD.encode(&*bytes)),
            None if sealed.exists() => {
                Handed::new(STANDARD.encode(open_sealed(id, &sealed).await?.expose()))
            }
            // It may come from elsewhere: a reload takes nothing away because a file is missing.
            None => continue,
        };
        ask.credentials.insert(id.clone(), handed);
    }
    let changed = hand_over(&client, &ask).await?;
    if context.terminal.is_json() {
        context.terminal.json(&serde_json::json!({ "changed": changed }))?;
    } else if changed {
        context.terminal.out("gitopsd runs with the new configuration and credentials")?;
    } else {
        context.terminal.out("nothing has changed")?;
    }
    Ok(Exit::Ok)
}

/// Whether the daemon, if there is one, waits to be configured: it has no socket then, reads nothing
/// and needs no kubeconfig. k3s, which writes one as it starts, must not make the unit look ill. One
/// that answers runs with a configuration that is gone now, and says so.
async fn waits(context: &Context, client: &Client) -> bool {
    let loaded = crate::config::load(&context.config);
    loaded.is_err_and(|problems| problems.not_configured())
        && matches!(client.status(None).await, Err(ApiError::NotRunning { .. }))
}

/// A credential as it is now; `None` where there is no file.
fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    // Opening a FIFO would wait for a writer that never comes.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    anyhow::ensure!(file.metadata()?.is_file(), "is not a regular file");
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= LARGEST, "is larger than {LARGEST} bytes");
    Ok(Some(bytes))
}

/// Asks until it is answered: whoever asked a moment before may have the daemon start anew just now.
/// True when it has started anew for this.
async fn hand_over(client: &Client, ask: &ReloadAsk) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut starting = false;
    loop {
        let asked = async {
            let before = client.status(None).await?.daemon.started_ms;
            client.reload(ask).await.map(|accepted| (before, !accepted.keys.is_empty()))
        };
        let error = match asked.await {
            Ok((_, false)) => return Ok(false),
            Ok((before, true)) => return back(client, before).await.map(|()| true),
            Err(error) => error,
        };
        starting |= match &error {
            ApiError::Broken { .. } | ApiError::Refused { status: 503, .. } => true,
            ApiError::NotRunning { .. } if !starting && begun.elapsed() >= GAP => {
                // Without its first configuration the service has no socket.
                return Err(error).context("a service that is down, or waits for its first configuration, takes it by: systemctl restart gitopsd");
            }
            ApiError::NotRunning { .. } => false,
            _ => return Err(error.into()),
        };
        if begun.elapsed() >= BACK {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a daemon answers that was started later.
async fn back(client: &Client, before: i64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match client.status(None).await {
            Ok(document) if document.daemon.started_ms > before => return Ok(()),
            Err(error) if !error.retry() => return Err(error.into()),
            _ => {}
        }
        anyhow::ensure!(
            begun.elapsed() < BACK,
            "gitopsd did not come back within {} s; see journalctl -u gitopsd",
            BACK.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_regular_file_and_a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (file, fifo) = (dir.path().join("file"), dir.path().join("fifo"));
        std::fs::write(&file, "key").expect("ours");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("ours");
        let found = read(&file).expect("readable").expect("it is there");
        assert_eq!(found.as_slice(), b"key");
        assert!(read(&dir.path().join("none")).expect("no error").is_none());
        for other in [fifo.as_path(), dir.path()] {
            let error = read(other).expect_err("it is no file").to_string();
            assert_eq!(error, "is not a regular file");
        }
    }
}
