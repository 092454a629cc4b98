//! `reload`: a new configuration or new credentials, tried before they are taken.
//!
//! systemd cannot refresh the credentials of a running unit, so the helper behind `ExecReload=`
//! hands them over the socket. They are laid beside those that systemd gave, in a directory of the
//! same shape below the runtime directory (a tmpfs; the unit keeps it off the swap). What is new is
//! tried by a child, `gitopsd run --check`, by the very code that a start runs. Only then does the
//! loop end in good order and the process execute itself anew, with that directory as
//! `$CREDENTIALS_DIRECTORY`: same process id, same unit, nothing of the old state left over. What
//! was under way is finished by the next ordinary run. When nothing has changed, nothing happens.

use super::{Daemon, DaemonError, boot};
use crate::api::{Accepted, Refused, ReloadAsk};
use crate::config::{CREDENTIALS, Config};
use crate::logging::Message;
use base64::Engine;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, oneshot};
use zeroize::Zeroizing;

/// Where systemd says that the credentials are, and where we say so to ourselves.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Time that the trial of a configuration has: it reads a dozen files.
const TRIAL: Duration = Duration::from_secs(20);

/// What is read of the trial's complaint: a line for each problem.
const COMPLAINT: u64 = 64 << 10;

/// What a start was made of; another value means that a reload has something to do.
#[derive(Clone, PartialEq, Eq)]
pub struct Basis([u8; 32]);

impl Basis {
    /// Digests the configuration and the secret files that it names. A missing file counts too.
    pub fn of(config: &Config) -> Basis {
        use sha2::Digest;
        let mut digest = sha2::Sha256::new();
        digest.update(format!("{config:?}"));
        for path in boot::secret_files(config) {
            let content = fs::read(path).map(Zeroizing::new);
            digest.update(content.as_ref().map_or(&b"\0"[..], |bytes| bytes));
        }
        Basis(digest.finalize().into())
    }
}

/// The credentials by id; those that are missing or blank, that is not given, are left out.
type Credentials = BTreeMap<String, Zeroizing<Vec<u8>>>;

fn present() -> Credentials {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return Credentials::new();
    };
    let read = |id: &str| fs::read(directory.join(id)).ok().filter(|bytes| !bytes.is_empty());
    let ids = CREDENTIALS.iter().map(|(id, _)| (*id).to_owned());
    ids.filter_map(|id| Some((id.clone(), Zeroizing::new(read(&id)?)))).collect()
}

/// Removes what earlier reloads of another process left.
pub fn sweep(runtime: &Path) {
    let current = std::env::var_os(DIRECTORY).map(PathBuf::from);
    for name in ["credentials-a", "credentials-b"] {
        let path = runtime.join(name);
        if current.as_ref() != Some(&path) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Daemon {
    /// Looks at what was handed over, beside the loop; what came of it comes back as an event.
    pub(super) fn reload(
        &self,
        ask: ReloadAsk,
        by: String,
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    ) {
        let (origin, reloads) = (self.origin.clone(), self.reloads.0.clone());
        let handed = !ask.credentials.is_empty();
        let mut others = handed;
        tokio::spawn(async move {
            // One at a time: each prepares the same directory, and the one that is decided for must
            // be there when the process starts anew.
            let mut decided = origin.decided.lock().await;
            if *decided {
                let hint = "ask again in a moment".to_owned();
                let _ = reply.send(Err(Refused::new(503, "gitopsd is starting anew", Some(hint))));
                return;
            }
            let answer = consider(&origin, ask, &mut others).await;
            *decided = matches!(answer, Ok(Some(_)));
            match &answer {
                Ok(Some(_)) => tracing::info!(
                    message_id = Message::ConfigReloaded.id(),
                    "configuration or credentials changed, asked by {by}: starting anew with them"
                ),
                Ok(None) => tracing::debug!("reload asked by {by}: nothing has changed"),
                Err(refused) => tracing::error!(
                    message_id = Message::ConfigRefused.id(),
                    "reload refused, what was in force stays in force: {}",
                    refused.message
                ),
            }
            let (said, reload) = match answer {
                Ok(Some(directory)) => {
                    let keys = vec!["restart".into()];
                    (Ok(Accepted { keys }), Reload::Restart(directory))
                }
                Ok(None) => (Ok(Accepted::default()), Reload::Same { handed }),
                Err(refused) => {
                    let why = refused.message.lines().next().unwrap_or_default().to_owned();
                    (Err(refused), Reload::Refused(Refusal { why, credentials: others }))
                }
            };
            // A caller that has gone away needs no answer.
            let _ = reply.send(said);
            // The loop is gone only when the daemon ends anyway.
            let _ = reloads.send(reload).await;
        });
    }
}

/// What came of one.
pub(super) enum Reload {
    /// Starts anew with these credentials, tried and found good.
    Restart(PathBuf),
    /// What is on disk is not in force.
    Refused(Refusal),
    /// What is on disk is in force.
    Same {
        /// That of the credentials, too: they were handed over.
        handed: bool,
    },
}

/// What is known of it until what is on disk is in force.
pub(super) struct Refusal {
    /// The first reason.
    pub(super) why: String,
    /// Other credentials than those in force are on disk, so that nobody knows before they are
    /// handed over again.
    credentials: bool,
}

impl Refusal {
    /// Takes in another one.
    pub(super) fn renewed(self, by: Refusal) -> Refusal {
        Refusal { why: by.why, credentials: self.credentials || by.credentials }
    }

    /// Whether it is over once a reload finds everything in force.
    pub(super) fn is_over(&self, handed: bool) -> bool {
        handed || !self.credentials
    }
}

/// Where a daemon's settings came from.
#[derive(Clone)]
pub struct Origin {
    /// The main configuration file.
    pub config: PathBuf,
    /// What this process was started with.
    pub basis: Basis,
    /// The runtime directory.
    pub runtime: PathBuf,
    /// Held while a reload is considered; true once this process is to start anew.
    pub decided: Arc<Mutex<bool>>,
}

/// The directory to start anew with; `None` when nothing has changed. Says whether there are `others`
/// among the credentials than those in force.
async fn consider(
    origin: &Origin,
    ask: ReloadAsk,
    others: &mut bool,
) -> Result<Option<PathBuf>, Refused> {
    let lost = |cause: String| Refused::new(500, &cause, None);
    let handed = decoded(ask)?;
    let prepared = {
        let origin = origin.clone();
        let work = move || {
            let (credentials, differ) = merged(handed);
            (differ, prepare(&origin, &credentials, differ))
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|e| lost(e.to_string()))?;
        *others = done.0;
        done.1
    };
    let (prepared, same) =
        prepared.map_err(|error| lost(format!("{}: {error}", origin.runtime.display())))?;
    if same {
        let _ = fs::remove_dir_all(prepared);
        return Ok(None);
    }
    match trial(&origin.config, &prepared).await {
        Ok(()) => Ok(Some(prepared)),
        Err(complaint) => {
            let _ = fs::remove_dir_all(prepared);
            let hint = "mend it, then: systemctl reload gitopsd".to_owned();
            Err(Refused::new(422, complaint.trim_end(), Some(hint)))
        }
    }
}

/// What was handed over; an id with nothing means that the credential is gone.
fn decoded(ask: ReloadAsk) -> Result<Credentials, Refused> {
    let mut handed = Credentials::new();
    for (id, text) in ask.credentials {
        if !CREDENTIALS.iter().any(|(known, _)| *known == id) {
            let known: Vec<&str> = CREDENTIALS.iter().map(|(known, _)| *known).collect();
            let hint = format!("known are {}", known.join(", "));
            return Err(Refused::new(400, &format!("no credential is called {id:?}"), Some(hint)));
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.expose());
        let bytes = bytes.map_err(|_| Refused::new(400, &format!("{id}: not base64"), None))?;
        handed.insert(id, Zeroizing::new(bytes));
    }
    Ok(handed)
}

/// What is in force with what was handed over, and whether that is something else.
fn merged(handed: Credentials) -> (Credentials, bool) {
    let before = present();
    let mut after = before.clone();
    for (id, bytes) in handed {
        if bytes.trim_ascii().is_empty() {
            after.remove(&id)
        } else {
            after.insert(id, bytes)
        };
    }
    let differ = before != after;
    (after, differ)
}

/// Writes the directory, and says whether all is as it was.
fn prepare(
    origin: &Origin,
    credentials: &Credentials,
    differ: bool,
) -> std::io::Result<(PathBuf, bool)> {
    let current = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let [a, b] = ["credentials-a", "credentials-b"].map(|name| origin.runtime.join(name));
    let fresh = if current == Some(a.clone()) { b } else { a };
    let _ = fs::remove_dir_all(&fresh);
    if let Err(error) = lay_down(&fresh, credentials) {
        // A tmpfs that is full keeps no half of a key either.
        let _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    // A configuration that cannot be read is for the trial to complain about.
    let config = crate::config::load(&origin.config).map(|config| Basis::of(&config));
    let same = !differ && config.is_ok_and(|basis| basis == origin.basis);
    Ok((fresh, same))
}

fn lay_down(directory: &Path, credentials: &Credentials) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    for (id, bytes) in credentials {
        let mut file = fs::OpenOptions::new();
        file.write(true).create_new(true).mode(0o400).open(directory.join(id))?.write_all(bytes)?;
    }
    Ok(())
}

/// Our own program; a package upgrade may have replaced the file.
fn program() -> PathBuf {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    path.unwrap_or_else(|| "/proc/self/exe".into())
}

/// Lets a child do what a start would do first.
async fn trial(config: &Path, credentials: &Path) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program());
    command.arg("--config").arg(config).args(["run", "--check"]);
    command.env(DIRECTORY, credentials).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot try it: {error}"))?;
    let stderr = child.stderr.take();
    let run = async {
        let mut complaint = String::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(COMPLAINT).read_to_string(&mut complaint).await;
        }
        child.wait().await.map(|status| (status.success(), complaint))
    };
    match tokio::time::timeout(TRIAL, run).await {
        Ok(Ok((true, _))) => Ok(()),
        Ok(Ok((false, complaint))) => Err(complaint),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("trying it took more than {} s", TRIAL.as_secs())),
    }
}

/// Becomes a fresh process of the same id, with these credentials. Returns only if that fails.
pub fn restart(credentials: &Path) -> DaemonError {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = std::process::Command::new(program());
    let cause = command.args(arguments).env(DIRECTORY, credentials).exec();
    DaemonError::Path { path: program(), cause }
}
