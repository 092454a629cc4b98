//! From a configuration to the parts of the daemon: directories, keys, database, socket.
//!
//! Everything that can be wrong with the host is found here, before READY.

use super::connect::Target;
use super::edge::Edge;
use super::host::HostState;
use super::owner::Machine;
use crate::api::DaemonView;
use crate::cluster::Limits;
use crate::config::{
    Config, EdgeSettings, MacPolicy, Problems, RootCredentials, RootRef, credentials_directory,
};
use crate::flux::{GitReference, Root, root};
use crate::history::{History, HistoryError, host_key};
use crate::logging::Message;
use crate::pipeline::{EdgeParts, HostSecrets, Pipeline, Settings};
use crate::registry::Mirrors;
use crate::render::{self, RenderError, Renderer};
use crate::secrets::{Keyring, Plaintext, SecretsError, credential, guarded, handed_over};
use crate::source::{Credential, SourceError};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// Why the daemon cannot run on this host as it is.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The runtime could not be built.
    #[error("the runtime could not be started: {0}")]
    Runtime(std::io::Error),
    /// A directory or the socket cannot be used.
    #[error("{}: {cause}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Another daemon has the socket.
    #[error("{}: another gitopsd answers here", .0.display())]
    Running(PathBuf),
    /// The database or the state file; damage also ends a daemon that runs.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A key or credential of the host.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The credentials of the root repository.
    #[error("root.credentials: {}", in_settings(.0))]
    Credentials(SourceError),
    /// The renderer.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl DaemonError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::History(error) => error.hint(),
            Self::Secrets(error) => error.hint(),
            Self::Credentials(_) => Some(
                "https takes passwordFile (with username) or bearerTokenFile, ssh takes \
                 identityFile and knownHostsFile, all below root.credentials; gitopsd init asks \
                 for them"
                    .to_owned(),
            ),
            Self::Render(error) => error.hint(),
            Self::Runtime(_) | Self::Path { .. } | Self::Running(_) => None,
        }
    }
}

/// An error about keys of a Secret, in words of the configuration, which holds them in files.
fn in_settings(error: &SourceError) -> String {
    let mut text = error.to_string();
    for (key, setting) in [
        ("bearerToken", "bearerTokenFile"),
        ("password", "passwordFile"),
        ("identity", "identityFile"),
        ("known_hosts", "knownHostsFile"),
        ("ca.crt", "caFile"),
    ] {
        text = text.replace(key, setting);
    }
    text
}

/// Everything the loop starts with.
pub struct Parts {
    pub(super) root: Root,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) listener: UnixListener,
    pub(super) target: Target,
    pub(super) agreed: watch::Sender<Option<String>>,
    pub(super) state: HostState,
    pub(super) about: DaemonView,
    pub(super) verify: Duration,
    pub(super) edge: Edge,
}

/// Opens everything. Must be called inside the runtime.
pub fn prepare(config: &Config) -> Result<Parts, DaemonError> {
    crate::net::install_crypto();
    let (state, runtime) = (&config.directories.state, &config.directories.runtime);
    directory(state, 0o700)?;
    directory(runtime, 0o755)?;
    let listener = listen(&runtime.join("api.sock"))?;
    let (history, opened) = History::open(state)?;
    for run in &opened.interrupted {
        tracing::warn!(
            message_id = Message::RecordInterrupted.id(),
            gitopsd_run = %run,
            "run {run} was cut short; the next ordinary run finishes its work"
        );
    }
    if let Some(aside) = &opened.rebuilt {
        tracing::error!(
            message_id = Message::RecordRebuilt.id(),
            "the database was damaged; it lies at {}, and a new one was made",
            aside.display()
        );
    }
    let history = history.with_retention(config.history);
    let known = history.meta("cluster")?;
    let digest_key: [u8; 32] = *host_key(state)?;
    let (host, token) = secrets(config)?;
    let private = runtime.join("private");
    directory(&private, 0o700)?;
    let renderer = Renderer::new(render::Settings {
        runtime_dir: private.clone(),
        engine: config.render.engine.clone(),
        data_dir: config.render.k3s_data_directory.clone(),
        timeout: config.render.timeout,
        memory: config.render.memory,
        // Manifests of some dozens of Kustomizations; they are rendered again on a miss.
        cache_bytes: 4 << 20,
        digest_key,
        mac: match config.decryption.mac {
            MacPolicy::Warn => render::MacPolicy::Warn,
            MacPolicy::Enforce => render::MacPolicy::Enforce,
        },
        // One child each on the two cores of a small box; 46 MB each.
        concurrency: 2,
        remotes: Some(state.join("remotes")),
        remotes_within: render::REMOTES_WITHIN,
    })?;
    let settings = Settings {
        mirrors: state.join("mirrors"),
        runtime: private,
        digest_key,
        workers: config.work.workers,
        root_url: config.root.url.clone(),
    };
    let machine = Machine::here(&digest_key, &config.root.url);
    let edge =
        EdgeParts { settings: config.edge.clone(), token, suffix: machine.suffix().to_owned() };
    let (agreed, agreement) = watch::channel(None);
    let target = Target {
        kubeconfig: config.cluster.kubeconfig.clone(),
        limits: Limits { requests: config.work.api_requests, ..Limits::default() },
        known,
        shared: config.cluster.shared,
        machine,
        agreed: agreement,
    };
    let pipeline = Pipeline::new(settings, renderer, history, host)?.with_edge(edge);
    let pipeline = Arc::new(pipeline);
    let mut state = HostState::load(pipeline.history())?;
    let edge = Edge::new(pipeline.edge_wanted(), pipeline.edge_left()?, pipeline.edge_interval());
    let edge = edge.said(state.edge_said());
    if edge.is_over() {
        // Killed before that was stored.
        state.edge(None);
    }
    Ok(Parts {
        root: entry(config),
        edge,
        state,
        listener,
        target,
        agreed,
        verify: config.cluster.verify,
        pipeline,
        about: DaemonView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: now_ms(),
            config_path: config.files.first().map(|f| f.display().to_string()).unwrap_or_default(),
            render_children: 0,
        },
    })
}

/// The root pair that a configuration stands for.
pub fn entry(config: &Config) -> Root {
    let reference = match config.root.reference.clone() {
        RootRef::Branch(name) => GitReference::Branch(name),
        RootRef::Tag(name) => GitReference::Tag(name),
        RootRef::Semver(range) => GitReference::Semver(range),
        RootRef::Name(name) => GitReference::Name(name),
        RootRef::Commit { sha, branch } => GitReference::Commit { sha, branch },
    };
    root(&config.root.url, reference, &config.root.path, config.root.interval)
}

/// The secret files that a configuration names: what they hold is part of a start. The kubeconfig
/// is not, as it is read again at each connection.
pub(super) fn secret_files(config: &Config) -> impl Iterator<Item = &Path> {
    let of = &config.root.credentials;
    let git = [
        &of.password_file,
        &of.bearer_token_file,
        &of.identity_file,
        &of.known_hosts_file,
        &of.ca_file,
    ];
    let age = config.decryption.age_key_file.as_deref();
    let registries = config.registries.as_deref();
    let edge = config.edge_token_file.as_deref();
    let git = git.into_iter().filter_map(|path| path.as_deref());
    git.chain(age).chain(registries).chain(edge)
}

/// What a start reads of keys and credentials: the host's, and the token of the edge's provider.
pub fn secrets(config: &Config) -> Result<(HostSecrets, Option<Plaintext>), DaemonError> {
    let host = host_secrets(config)?;
    let token = match edge_token(config) {
        Ok(token) => token,
        // One that lies open is refused as any other key.
        Err(exposed @ DaemonError::Secrets(SecretsError::Exposed { .. })) => return Err(exposed),
        // What cannot be read holds up nothing but the edge, which then says that it has none.
        Err(error) => {
            tracing::error!(message_id = Message::ConfigRefused.id(), "the edge's token: {error}");
            None
        }
    };
    Ok((host, token))
}

/// The token of the edge's provider. It is read though no edge is configured: what an earlier
/// configuration has made is withdrawn with it.
pub fn edge_token(config: &Config) -> Result<Option<Plaintext>, DaemonError> {
    Ok(secret(config, "cloudflare-token", config.edge_token_file.as_deref())?)
}

/// The content of a credential that the configuration has settled on, unless others can get at it.
fn secret(
    config: &Config,
    id: &str,
    settled: Option<&Path>,
) -> Result<Option<Plaintext>, SecretsError> {
    if let Some(file) = settled {
        guard(config, id, file)?;
    }
    let found = credential(id, settled)?;
    Ok(found.map(|found| {
        found.warning.iter().for_each(|warning| tracing::warn!("{warning}"));
        found.content
    }))
}

/// What the edge would be made of, were the configuration on disk in force. Of the credentials it
/// sees those that were handed over. A token that cannot be read is as good as none, and a plan
/// says that there is none.
pub(super) fn edge_on_disk(
    path: &Path,
) -> Result<(Option<EdgeSettings>, Option<Plaintext>), Problems> {
    let config = crate::config::load(path)?;
    let token = credential("cloudflare-token", config.edge_token_file.as_deref());
    Ok((config.edge, token.ok().flatten().map(|found| found.content)))
}

/// Reads what the host holds, from the files that the configuration has settled on.
pub fn host_secrets(config: &Config) -> Result<HostSecrets, DaemonError> {
    let mut keyring = Keyring::empty();
    if let Some(found) = secret(config, "age-key", config.decryption.age_key_file.as_deref())? {
        keyring.merge(Keyring::parse(found.expose())?);
    }
    let RootCredentials { username, .. } = &config.root.credentials;
    let files = &config.root.credentials;
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (key, id, path) in [
        ("password", "git-password", &files.password_file),
        ("bearerToken", "git-token", &files.bearer_token_file),
        ("identity", "git-identity", &files.identity_file),
        ("known_hosts", "git-known-hosts", &files.known_hosts_file),
        ("ca.crt", "git-ca", &files.ca_file),
    ] {
        if let Some(found) = secret(config, id, path.as_deref())? {
            let text = found.expose();
            let trimmed = if matches!(key, "password" | "bearerToken") {
                text.trim_ascii_end()
            } else {
                text
            };
            data.insert(key.to_owned(), trimmed.to_vec());
        }
    }
    if data.contains_key("password") {
        let name = username.clone().unwrap_or_else(|| "git".to_owned());
        data.insert("username".to_owned(), name.into_bytes());
    }
    let git = if data.is_empty() {
        Credential::default()
    } else {
        Credential::from_secret(&config.root.url, &data).map_err(DaemonError::Credentials)?
    };
    let mirrors = mirrors(config)?;
    Ok(HostSecrets { keyring: Arc::new(keyring), git, mirrors })
}

/// What k3s's registries.yaml says. What is wrong with it is told and left out: it is k3s's file,
/// and only image automation reads it here.
fn mirrors(config: &Config) -> Result<Mirrors, DaemonError> {
    let Some(found) = credential("registries", config.registries.as_deref())? else {
        return Ok(Mirrors::default());
    };
    let text = String::from_utf8_lossy(found.content.expose());
    match Mirrors::parse("registries.yaml", &text) {
        Ok(mirrors) => Ok(mirrors),
        Err(problems) => {
            for problem in problems {
                tracing::warn!("{problem}; registries are asked as if the file were not there");
            }
            Ok(Mirrors::default())
        }
    }
}

/// Refuses a key that others can get at where it lies. What systemd handed over came from
/// `credentials/` beside the configuration, where nobody but root has to read anything; a file that
/// the configuration names may be open to the service's own group.
fn guard(config: &Config, id: &str, file: &Path) -> Result<(), SecretsError> {
    let usual = config.files.first().map(|main| credentials_directory(main).join(id));
    match usual {
        Some(usual) if handed_over(file) || file == usual => guarded(id, &usual, 0o077),
        _ => guarded(id, file, 0o007),
    }
}

fn directory(path: &Path, mode: u32) -> Result<(), DaemonError> {
    let failed = |cause| DaemonError::Path { path: path.to_owned(), cause };
    std::fs::create_dir_all(path).map_err(failed)?;
    let metadata = std::fs::metadata(path).map_err(failed)?;
    // What systemd or an administrator made tighter or wider on purpose is left as it is, but
    // nobody else may ever look into a private directory.
    if mode == 0o700 && metadata.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// Binds the socket; a socket that nobody answers at is left from a killed daemon.
fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let failed = |cause| DaemonError::Path { path: path.to_owned(), cause };
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(DaemonError::Running(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_credentials_are_spoken_of_by_their_settings() {
        let key = b"-----BEGIN OPENSSH PRIVATE KEY-----".to_vec();
        let data = [("identity".to_owned(), key)].into();
        let error = Credential::from_secret("ssh://git@h/r", &data).expect_err("half of it");
        assert_eq!(
            DaemonError::Credentials(error).to_string(),
            "root.credentials: the credentials are not usable: knownHostsFile is missing, which \
             an ssh URL needs"
        );
    }
}
