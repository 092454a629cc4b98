//! The way to one remote: its URL, our login, our trust and limits, and gix's errors in our words.
//!
//! A [`Wire`] is made for one exchange. Fetching connects through gix's own [`Connection`]; pushing
//! takes the bare transport, since gix knows no push. Both prove who we are in the same way.
//!
//! Credentials are sent with the first request instead of after a refusal, which saves a round
//! trip. gix keeps its own copy of user and password while the connection lives; that copy is not
//! wiped. Bearer tokens, and passwords over plain http, travel as a header of our own: the
//! transport then refuses redirects, and the hint says so.

use super::credential::Auth;
use super::error::{SourceError, public_url, split_userinfo};
use super::poll::Remote;
use super::record::storage;
use super::ssh::{self, Session};
use crate::net;
use crate::secrets::Plaintext;
use base64::Engine;
use gix::protocol::transport;
use gix::protocol::transport::client::blocking_io::{Transport, connect, http};
use gix::remote::{Connection, Direction};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server may say with a refusal by HTTP status: a few lines of text.
const MAX_WORDS: u64 = 4 << 10;

/// A remote and how to reach it.
pub(super) struct Wire {
    /// Without password; an ssh URL keeps its user.
    url: String,
    login: Login,
    trust: net::Trust,
    timeout: Duration,
}

/// How the transport proves who we are.
enum Login {
    Nothing,
    /// User and password by the transport's own means: https only.
    Basic(String, Plaintext),
    /// A whole header line.
    Header(Plaintext),
    Ssh(Session),
}

type Line<'a, 'repo> = Connection<'a, 'static, 'repo, Box<dyn Transport + Send>>;

impl Wire {
    /// Lays out what the login needs. `dirs` are the source's own directory and the runtime one.
    pub(super) fn new(
        remote: &Remote,
        dirs: (&Path, &Path),
        left: Duration,
    ) -> Result<Wire, SourceError> {
        let auth = &remote.credential.auth;
        let is_ssh = remote.url.starts_with("ssh://");
        if is_ssh != matches!(auth, Auth::Ssh { .. }) {
            let cause = if is_ssh {
                "an ssh URL needs the keys identity and known_hosts"
            } else {
                "an ssh key is of no use for this URL"
            };
            return Err(SourceError::InvalidCredential { cause: cause.into() });
        }
        let login = match auth {
            Auth::None => Login::Nothing,
            Auth::Bearer(token) => header(&[b"Authorization: Bearer ", token.expose()]),
            Auth::Basic { user, password } if remote.url.starts_with("http://") => {
                basic(user, password)
            }
            Auth::Basic { user, password } => Login::Basic(user.clone(), password.clone()),
            Auth::Ssh { identity, known_hosts, password } => {
                let password = password.as_ref();
                Login::Ssh(Session::new(dirs, identity, known_hosts, password, left)?)
            }
        };
        Ok(Wire {
            url: wire_url(&remote.url),
            login,
            trust: net::Trust { ca: remote.credential.ca.clone(), ..net::Trust::default() },
            timeout: left,
        })
    }

    /// The URL as the transport gets it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The URL as messages get it.
    pub(super) fn public_url(&self) -> String {
        public_url(&self.url)
    }

    /// Opens a mirror so that gix finds our ssh.
    pub(super) fn open(&self, mirror: &Path) -> Result<gix::Repository, gix::Error> {
        let mut options = super::mirror::options();
        if let Login::Ssh(session) = &self.login {
            let command = format!("core.sshCommand={}", session.command());
            options = options.config_overrides([command.as_str(), "ssh.variant=ssh"]);
        }
        Ok(options.open(mirror)?.to_thread_local())
    }

    /// Opens a connection for fetching with our trust, our limits and our credentials, and nobody
    /// else's.
    pub(super) fn connect<'a, 'repo>(
        &self,
        remote: &'a gix::Remote<'repo>,
    ) -> Result<Line<'a, 'repo>, gix::Error> {
        let mut line = remote.connect(Direction::Fetch)?;
        // Whatever we have was sent already: to be asked means to be refused.
        line.set_credentials(|_| Ok(None));
        if !self.is_ssh() {
            line.set_transport_options(Box::new(self.http_options()));
        }
        self.identify(line.transport_mut())?;
        Ok(line)
    }

    /// A transport for pushing. Version 1 means that the server begins with its refs: no server
    /// speaks version 2 for a push.
    pub(super) fn transport(&self) -> Result<Box<dyn Transport + Send>, gix::Error> {
        use transport::client::blocking_io::ssh;
        let ssh = match &self.login {
            Login::Ssh(session) => ssh::connect::Options {
                command: Some(session.command().into()),
                disallow_shell: false,
                kind: Some(ssh::ProgramKind::Ssh),
            },
            _ => ssh::connect::Options::default(),
        };
        let options = connect::Options {
            version: transport::Protocol::V1,
            ssh,
            ..connect::Options::default()
        };
        let mut made = connect::connect(self.url.as_str(), options)?;
        if !self.is_ssh() {
            made.configure(&self.http_options())?;
        }
        self.identify(&mut made)?;
        Ok(made)
    }

    fn is_ssh(&self) -> bool {
        self.url.starts_with("ssh://")
    }

    fn identify(&self, transport: &mut impl Transport) -> Result<(), gix::Error> {
        let Login::Basic(user, password) = &self.login else { return Ok(()) };
        let identity = gix::sec::identity::Account {
            username: user.clone(),
            password: String::from_utf8_lossy(password.expose()).into_owned(),
            oauth_refresh_token: None,
        };
        transport.set_identity(identity).map_err(gix::Error::from_error)
    }

    fn http_options(&self) -> http::Options {
        let (trust, timeout) = (self.trust.clone(), self.timeout);
        let configure = move |builder: reqwest::blocking::ClientBuilder| {
            net::configure_blocking(builder, &trust, timeout).map_err(gix::Error::from_error)
        };
        let backend = http::reqwest::Options {
            configure_client: Some(Box::new(configure)),
            configure_request: None,
        };
        let extra_headers = match &self.login {
            Login::Header(line) => vec![String::from_utf8_lossy(line.expose()).into_owned()],
            _ => Vec::new(),
        };
        http::Options {
            extra_headers,
            backend: Some(Arc::new(Mutex::new(backend))),
            ..Default::default()
        }
    }

    /// What ssh, or the server through it, complained about; nothing over http.
    pub(super) fn ssh_words(&self) -> Option<String> {
        match &self.login {
            Login::Ssh(session) => Some(session.words()),
            _ => None,
        }
    }

    /// Asks once more for what was refused by an HTTP status, this time for the text beside it:
    /// the transport throws it away. Empty if there is none.
    pub(super) fn http_words(&self, path_and_query: &str) -> Vec<u8> {
        let mut words = Vec::new();
        let ask = || -> Option<reqwest::blocking::Response> {
            let builder = reqwest::blocking::Client::builder();
            let builder = net::configure_blocking(builder, &self.trust, self.timeout).ok()?;
            let client = builder.redirect(reqwest::redirect::Policy::none()).build().ok()?;
            let url = format!("{}/{path_and_query}", self.url.trim_end_matches('/'));
            let request = match &self.login {
                Login::Basic(user, password) => {
                    let password = String::from_utf8_lossy(password.expose());
                    client.get(url).basic_auth(user, Some(password))
                }
                Login::Header(line) => {
                    let line = std::str::from_utf8(line.expose()).ok()?;
                    let (name, value) = line.split_once(": ")?;
                    client.get(url).header(name, value)
                }
                _ => client.get(url),
            };
            let answer = request.send().ok()?;
            let kind = answer.headers().get("content-type")?.to_str().ok()?.to_owned();
            kind.starts_with("text/plain").then_some(answer)
        };
        if let Some(answer) = ask() {
            // Half of the words is better than none.
            let _ = answer.take(MAX_WORDS).read_to_end(&mut words);
        }
        words
    }

    /// Takes the login's secret out of a text that came from the server.
    pub(super) fn scrub(&self, text: String) -> String {
        let secret = match &self.login {
            Login::Basic(_, password) => password.expose(),
            Login::Header(line) => line.expose().rsplit(|byte| *byte == b' ').next().unwrap_or(&[]),
            _ => &[],
        };
        match std::str::from_utf8(secret) {
            // Shorter ones would blot out half the alphabet.
            Ok(secret) if secret.len() >= 4 => text.replace(secret, "(not shown)"),
            _ => text,
        }
    }

    /// Gives gix's error a name of ours.
    pub(super) fn explain(&self, error: &gix::Error) -> SourceError {
        let url = self.public_url();
        if let Login::Ssh(session) = &self.login
            && let Some(known) = ssh::explain(&url, &session.words())
        {
            return known;
        }
        let all = causes(error);
        if let Some(cause) = all.iter().find_map(|one| net::certificate_problem(*one)) {
            return SourceError::CertificateUntrusted { url, cause };
        }
        if let Some(bad) = all.iter().find_map(|one| one.downcast_ref::<net::NetError>()) {
            return SourceError::InvalidCredential { cause: bad.to_string() };
        }
        let mut io = all.iter().filter_map(|one| one.downcast_ref::<std::io::Error>());
        if let Some(error) = io.find(|one| of_the_disk(one)) {
            return storage("cannot write the mirror", error);
        }
        let cause = words(&all, error);
        if error.is_unauthenticated() {
            let cause = match self.login {
                Login::Nothing => "it wants credentials and none are given".to_owned(),
                _ => "HTTP status 401".to_owned(),
            };
            return SourceError::AuthenticationFailed { url, cause };
        }
        match http_status(error) {
            Some(401 | 403) => return SourceError::AuthenticationFailed { url, cause },
            Some(404 | 410) => return SourceError::RepositoryNotFound { url },
            Some(429 | 500..) => return SourceError::Unreachable { url, cause },
            _ => {}
        }
        let http = all.iter().find_map(|one| one.downcast_ref::<reqwest::Error>());
        if http.is_some_and(|http| http.is_timeout()) {
            return SourceError::Timeout { url, after: self.timeout };
        }
        if http.is_some_and(|http| http.is_connect()) || error.is_retryable() {
            return SourceError::Unreachable { url, cause };
        }
        SourceError::Protocol { url, cause }
    }
}

/// Whether no socket answers like this: the mirror's disk does. A lock that is there already is what
/// an earlier failure has left and could not remove.
fn of_the_disk(error: &std::io::Error) -> bool {
    use ErrorKind::{AlreadyExists, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind =
        matches!(error.kind(), AlreadyExists | QuotaExceeded | ReadOnlyFilesystem | StorageFull);
    // With a path added to it, an error has its number in its words alone.
    kind || error.raw_os_error() == Some(libc::EIO) || error.to_string().contains("(os error 5)")
}

/// The HTTP status in an error, where a server gave one that says no.
pub(super) fn http_status(error: &gix::Error) -> Option<u16> {
    let http = causes(error).into_iter().find_map(|one| one.downcast_ref::<reqwest::Error>());
    http?.status().map(|status| status.as_u16())
}

fn causes(error: &gix::Error) -> Vec<&(dyn std::error::Error + 'static)> {
    error.iter_errors().flat_map(net::causes).collect()
}

/// The most telling words: the probable cause, unless the outermost says more.
fn words(all: &[&(dyn std::error::Error + 'static)], error: &gix::Error) -> String {
    let http = all.iter().find_map(|one| one.downcast_ref::<reqwest::Error>());
    if let Some(status) = http.and_then(|http| http.status()) {
        return format!("HTTP status {}", status.as_u16());
    }
    if let Some(http) = http {
        return net::innermost(http);
    }
    let outer = error.to_string();
    let inner = net::innermost(error.probable_cause());
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

fn basic(user: &str, password: &Plaintext) -> Login {
    let pair = Plaintext::new([user.as_bytes(), b":", password.expose()].concat());
    let coded = base64::engine::general_purpose::STANDARD.encode(pair.expose());
    let coded = Plaintext::new(coded.into());
    header(&[b"Authorization: Basic ", coded.expose()])
}

fn header(parts: &[&[u8]]) -> Login {
    Login::Header(Plaintext::new(parts.concat()))
}

/// The URL as the transport gets it: an ssh user stays (`git` if none is said), everything else
/// before the `@` goes, since it was read into the credential.
fn wire_url(url: &str) -> String {
    match split_userinfo(url) {
        Some(("ssh", user, rest)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("ssh://{user}@{rest}")
        }
        None if url.starts_with("ssh://") => url.replacen("ssh://", "ssh://git@", 1),
        _ => public_url(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn an_error_of_the_disk_is_told_from_one_of_a_socket() {
        let system = Error::from_raw_os_error;
        let placed = |number| {
            let error = system(number);
            Error::new(error.kind(), format!("{error} at path \"/m/.tmp1\""))
        };
        for number in [libc::EIO, libc::ENOSPC, libc::EROFS, libc::EDQUOT, libc::EEXIST] {
            assert!(of_the_disk(&system(number)) && of_the_disk(&placed(number)), "{number}");
        }
        for number in [libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::EPROTO] {
            assert!(!of_the_disk(&system(number)) && !of_the_disk(&placed(number)), "{number}");
        }
    }
}
