//! Other programs: ssh-keygen, ssh-keyscan, systemd-creds, systemctl.
//!
//! Each has a limit of time and of output, and none sees a secret but on its stdin.

use crate::secrets::Plaintext;
use anyhow::Context as _;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Most that is read of what one says: a sealed credential of systemd's own limit of 1 MiB, in
/// base64 and with its wrapping.
const MOST: u64 = 2 << 20;

/// How one ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code was 0.
    pub fine: bool,
    /// What it printed.
    pub out: Plaintext,
    /// What it complained of.
    pub words: String,
}

impl Ended {
    /// What it printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.out.expose()).into_owned()
    }
}

/// Runs one; `None` where there is no such program.
///
/// # Errors
/// It cannot be run, or does not end in time; then it is killed.
pub async fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    input: &[u8],
    limit: Duration,
) -> anyhow::Result<Option<Ended>> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| program.to_owned()),
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Whoever ends without reading says why on stderr.
            let _ = stdin.write_all(input).await;
        }
    };
    let work = async {
        let ((), out, words) = tokio::join!(feed, all(stdout), all(stderr));
        (child.wait().await, out, words)
    };
    let ended = tokio::time::timeout(limit, work).await;
    let (status, out, words) =
        ended.with_context(|| format!("{program} did not end within {} s", limit.as_secs()))?;
    let words = String::from_utf8_lossy(words.expose()).trim().to_owned();
    let fine = status.with_context(|| program.to_owned())?.success();
    Ok(Some(Ended { fine, out, words }))
}

async fn all(from: Option<impl AsyncRead + Unpin>) -> Plaintext {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(16 << 10));
    if let Some(from) = from {
        // What breaks off is told by the exit code.
        let _ = from.take(MOST).read_to_end(&mut bytes).await;
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_fed_read_bounded_and_may_be_missing() {
        let second = Duration::from_secs(60);
        let ended = run("cat", &["-"], b"hello", second).await.expect("runs").expect("is there");
        assert_eq!((ended.fine, ended.text().as_str()), (true, "hello"));
        let ended = run("sh", &["-c", "echo why >&2; exit 3"], b"", second).await;
        let ended = ended.expect("runs").expect("is there");
        assert_eq!((ended.fine, ended.words.as_str()), (false, "why"));
        assert!(run("no-such-program", &["x"], b"", second).await.expect("no error").is_none());
        let late = run("sleep", &["60"], b"", Duration::from_millis(50)).await;
        let error = late.expect_err("too slow").to_string();
        assert_eq!(error, "sleep did not end within 0 s");
    }
}
