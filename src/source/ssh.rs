//! One run of the `ssh` program: its key, its known hosts, its words afterwards.
//!
//! The key lies in a directory of mode 0700 below the runtime directory until [`Session`] is
//! dropped. No file of the user or the system is read: no config, no agent, no other key, no
//! global known hosts. ssh never asks; a passphrase is answered by a script in the state directory
//! (the runtime directory is mounted noexec) that prints a file of the session.
//!
//! coreutils' `timeout` ends an ssh that outlives the poll, so nothing is left behind even when
//! the server keeps the line open and says nothing.

use super::error::SourceError;
use super::record::{replace, storage};
use crate::secrets::Plaintext;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Begins the names of one source's session directories, so that `open` can remove those of a
/// killed process and no other source's.
fn prefix(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("ssh-{digest}-")
}

/// What ssh may say before we stop reading: some forty lines of complaint fit.
const MAX_WORDS: u64 = 16 << 10;

/// Files of one run of ssh, removed with the value.
pub(super) struct Session {
    dir: tempfile::TempDir,
    command: String,
}

impl Session {
    /// Lays out the files. `state` holds the passphrase script, `runtime` the secrets.
    pub(super) fn new(
        (state, runtime): (&Path, &Path),
        identity: &Plaintext,
        known_hosts: &[u8],
        password: Option<&Plaintext>,
        timeout: Duration,
    ) -> Result<Session, SourceError> {
        let failed = |error: std::io::Error| storage("cannot lay out the files for ssh", &error);
        let mode = fs::Permissions::from_mode(0o700);
        let prefix = prefix(state);
        let dir = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir_in(runtime);
        let dir = dir.map_err(failed)?;
        let put = |name: &str, content: &[u8]| -> std::io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create_new(true).mode(0o600).open(dir.path().join(name))?;
            file.write_all(content)?;
            // ssh calls a key without a final line break an invalid format.
            if !content.ends_with(b"\n") {
                file.write_all(b"\n")?;
            }
            Ok(())
        };
        put("identity", identity.expose()).map_err(failed)?;
        put("known_hosts", known_hosts).map_err(failed)?;
        if let Some(password) = password {
            put("password", password.expose()).map_err(failed)?;
            let script = state.join("askpass");
            let text = b"#!/bin/sh\nexec cat \"$GITOPSD_PASSPHRASE_FILE\"\n";
            replace(&script, text)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let command = command(dir.path(), state, password.is_some(), timeout);
        Ok(Session { dir, command })
    }

    /// The value for `core.sshCommand`.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// What ssh, or the server through it, complained about.
    pub(super) fn words(&self) -> String {
        let mut words = Vec::new();
        if let Ok(file) = fs::File::open(self.dir.path().join("log")) {
            // Without the words the transport's own error has to do.
            let _ = file.take(MAX_WORDS).read_to_end(&mut words);
        }
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Removes what a killed process left below the runtime directory for this source.
pub(super) fn sweep(state: &Path, runtime: &Path) {
    let prefix = prefix(state);
    for entry in fs::read_dir(runtime).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // What cannot be removed now is tried again at the next start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn command(dir: &Path, state: &Path, asks: bool, timeout: Duration) -> String {
    let seconds = timeout.as_secs().max(1);
    let file = |name: &str| quote(&dir.join(name));
    let mut command = String::from("exec ");
    if asks {
        let script = quote(&state.join("askpass"));
        command += &format!(
            "env SSH_ASKPASS={script} SSH_ASKPASS_REQUIRE=force GITOPSD_PASSPHRASE_FILE={} ",
            file("password")
        );
    }
    // One second more than the poll, so that the poll's own error comes first.
    command += &format!("timeout -s KILL {} ssh -F none -i {}", seconds + 1, file("identity"));
    let connect = format!("ConnectTimeout={}", seconds.min(20));
    let batch = if asks { "BatchMode=no" } else { "BatchMode=yes" };
    for option in [
        batch,
        connect.as_str(),
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        "NumberOfPasswordPrompts=1",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "ForwardAgent=no",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
    ] {
        command += &format!(" -o {option}");
    }
    let known_hosts = file("known_hosts");
    command + &format!(" -o UserKnownHostsFile={known_hosts} 2>>{}", file("log"))
}

/// Quotes a path for the shell. ssh itself splits `UserKnownHostsFile` at blanks, but our own
/// directories have none.
fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Reads the failure out of ssh's words.
pub(super) fn explain(url: &str, words: &str) -> Option<SourceError> {
    let url = url.to_owned();
    let line = |needles: &[&str]| {
        let hit = |line: &&str| needles.iter().any(|needle| line.contains(needle));
        words.lines().map(str::trim).find(hit).map(str::to_owned)
    };
    if words.contains("Host key verification failed") {
        let changed = line(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]);
        let cause = match changed {
            Some(_) => "the server shows another key than the one known".to_owned(),
            None => line(&["host key is known for"]).unwrap_or_else(|| "it is not known".into()),
        };
        return Some(SourceError::HostKeyUnknown { url, cause });
    }
    if let Some(cause) = line(&["incorrect passphrase"]) {
        let cause = format!("the key cannot be opened with the given password: {}", tail(&cause));
        return Some(SourceError::InvalidCredential { cause });
    }
    if let Some(cause) = line(&["Load key"]) {
        let cause = format!("ssh cannot read the key: {}", tail(&cause));
        return Some(SourceError::InvalidCredential { cause });
    }
    if let Some(cause) = line(&["Permission denied", "Too many authentication failures"]) {
        return Some(SourceError::AuthenticationFailed { url, cause });
    }
    let gone =
        ["does not appear to be a git repository", "epository not found", "could not be found"];
    if line(&gone).is_some() {
        return Some(SourceError::RepositoryNotFound { url });
    }
    let unreachable = [
        "Could not resolve hostname",
        "connect to host",
        "Connection closed",
        "Connection reset",
        "timed out",
    ];
    line(&unreachable).map(|cause| SourceError::Unreachable { url, cause })
}

/// The part of ssh's `Load key "/path": reason` that holds no path of ours.
fn tail(line: &str) -> &str {
    line.rsplit(": ").next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ssh_become_errors_with_names() {
        let url = || "ssh://git@h/r".to_owned();
        for (words, expected) in [
            (
                "No ED25519 host key is known for h and you have requested strict checking.\r\nHost key verification failed.\r\n",
                SourceError::HostKeyUnknown {
                    url: url(),
                    cause:
                        "No ED25519 host key is known for h and you have requested strict checking."
                            .into(),
                },
            ),
            (
                "git@h: Permission denied (publickey).",
                SourceError::AuthenticationFailed {
                    url: url(),
                    cause: "git@h: Permission denied (publickey).".into(),
                },
            ),
            (
                "Load key \"/run/x/identity\": error in libcrypto\ngit@h: Permission denied (publickey).",
                SourceError::InvalidCredential {
                    cause: "ssh cannot read the key: error in libcrypto".into(),
                },
            ),
            (
                "fatal: '/r' does not appear to be a git repository",
                SourceError::RepositoryNotFound { url: url() },
            ),
            (
                "ssh: connect to host h port 22: Connection refused",
                SourceError::Unreachable {
                    url: url(),
                    cause: "ssh: connect to host h port 22: Connection refused".into(),
                },
            ),
        ] {
            assert_eq!(explain(&url(), words), Some(expected), "{words}");
        }
        assert_eq!(explain(&url(), "some banner"), None);
    }

    #[test]
    fn a_session_holds_its_files_privately_and_takes_them_along() {
        let state = tempfile::tempdir().unwrap();
        let runtime = tempfile::tempdir().unwrap();
        let key = Plaintext::new(b"key".to_vec());
        let dirs = (state.path(), runtime.path());
        let session = Session::new(dirs, &key, b"h k\n", Some(&key), Duration::from_secs(5));
        let session = session.unwrap();
        let dir = session.dir.path().to_owned();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let mode = fs::metadata(dir.join("identity")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read(dir.join("identity")).unwrap(), b"key\n");
        assert!(!session.command().contains("key\n"));
        drop(session);
        assert!(!dir.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_other_sources_keep_theirs() {
        let runtime = tempfile::tempdir().unwrap();
        let state = Path::new("sources/a");
        fs::create_dir(runtime.path().join(prefix(state) + "x")).unwrap();
        fs::create_dir(runtime.path().join(prefix(Path::new("sources/b")) + "x")).unwrap();
        sweep(state, runtime.path());
        let left: Vec<_> = fs::read_dir(runtime.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].file_name().to_str(),
            Some((prefix(Path::new("sources/b")) + "x").as_str())
        );
    }
}
