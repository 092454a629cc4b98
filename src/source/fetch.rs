//! One exchange with a remote: list its refs, choose, fetch depth 1 if the choice moved.
//!
//! Listing and fetching share one connection where the wanted ref is known beforehand; a semver
//! range needs a second one, since its refspec follows from the listing. Nothing is written but a
//! pack and the list of shallow commits: what the exchange means is up to `mirror`.
//!
//! Credentials are sent with the first request instead of after a refusal, which saves a round
//! trip per poll. gix keeps its own copy of user and password while the connection lives; that
//! copy is not wiped. Bearer tokens, and passwords over plain http, travel as a header of our own:
//! the transport then refuses redirects, and the hint says so.
//!
//! The listing itself has no size limit in gix; the deadline bounds it. Nor does gix close a
//! silent http connection at the deadline: the caller gives up on time, this thread follows when
//! the read times out.

use super::error::{SourceError, public_url};
use super::record::storage;
use super::select::{Choice, NoChoice, RemoteRef, choose, describe, listing, similar};
use super::ssh::{self, Session};
use crate::flux::GitReference;
use crate::net;
use crate::secrets::Plaintext;
use gix::protocol::handshake::Ref;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::client::blocking_io::http;
use gix::remote::{Connection, Direction, fetch::Shallow, fetch::Tags};
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything one exchange needs, owned, since it runs on a thread of its own.
pub(super) struct Job {
    pub mirror: PathBuf,
    /// Without password; an ssh URL keeps its user.
    pub url: String,
    pub reference: GitReference,
    /// The commit that the mirror already holds in full.
    pub known: Option<String>,
    pub login: Login,
    pub trust: net::Trust,
    pub timeout: Duration,
}

/// How the transport proves who we are.
pub(super) enum Login {
    Nothing,
    /// User and password by the transport's own means: https only.
    Basic(String, Plaintext),
    /// A whole header line.
    Header(Plaintext),
    Ssh(Session),
}

/// How an exchange ended.
pub(super) struct Exchanged {
    pub choice: Choice,
    /// False where the choice is the known commit and nothing was asked for.
    pub fetched: bool,
}

/// Every branch; only a commit that no server gives by its id leads to refs of that name.
const ALL_BRANCHES: &str = "+refs/heads/*:refs/gitopsd/heads/*";

type Wire<'a, 'repo> = Connection<'a, 'static, 'repo, Box<dyn Transport + Send>>;

/// Runs one exchange. `stop` ends it at the next piece of data.
pub(super) fn run(job: &Job, stop: &AtomicBool) -> Result<Exchanged, SourceError> {
    exchange(job, stop).map_err(|failure| match failure {
        Failure::Known(error) => error,
        Failure::Git(error) => explain(job, &error),
    })
}

/// Either already named, or still in gix's words.
enum Failure {
    Known(SourceError),
    Git(gix::Error),
}

impl From<gix::Error> for Failure {
    fn from(error: gix::Error) -> Self {
        Failure::Git(error)
    }
}

fn exchange(job: &Job, stop: &AtomicBool) -> Result<Exchanged, Failure> {
    let repo = open(job)?;
    if let GitReference::Commit { .. } = &job.reference {
        return fetch_commit(job, &repo, stop);
    }
    let remote = remote(&repo, job, &listing(&job.reference))?;
    let listed =
        connect(&remote, job)?.prepare_fetch(gix::progress::Discard, Default::default())?;
    let choice = match choose(&job.reference, &refs_of(&listed.ref_map().remote_refs)) {
        Ok(choice) => choice,
        Err(missing) => {
            drop(listed);
            return Err(Failure::Known(not_chosen(job, &repo, missing)?));
        }
    };
    if job.known.as_ref() == Some(&choice.revision.commit) {
        return Ok(Exchanged { choice, fetched: false });
    }
    if !matches!(job.reference, GitReference::Semver(_)) {
        listed.with_shallow(depth_one()).receive(gix::progress::Discard, stop)?;
        return Ok(Exchanged { choice, fetched: true });
    }
    drop(listed);
    let remote = self::remote(&repo, job, std::slice::from_ref(&choice.want))?;
    let listed =
        connect(&remote, job)?.prepare_fetch(gix::progress::Discard, Default::default())?;
    listed.with_shallow(depth_one()).receive(gix::progress::Discard, stop)?;
    Ok(Exchanged { choice, fetched: true })
}

/// A commit is asked for by its id; a server that refuses that is asked for the branch, or for
/// everything, with its history.
fn fetch_commit(
    job: &Job,
    repo: &gix::Repository,
    stop: &AtomicBool,
) -> Result<Exchanged, Failure> {
    let choice = choose(&job.reference, &[]).map_err(|_| unlisted(job))?;
    let commit = &choice.revision.commit;
    if job.known.as_ref() == Some(commit) {
        return Ok(Exchanged { choice, fetched: false });
    }
    let receive = |spec: &str, depth: Shallow| -> Result<(), gix::Error> {
        let remote = remote(repo, job, &[spec.to_owned()])?;
        let wire = connect(&remote, job)?;
        let listed = wire.prepare_fetch(gix::progress::Discard, Default::default())?;
        listed.with_shallow(depth).receive(gix::progress::Discard, stop)?;
        Ok(())
    };
    if let Err(error) = receive(commit, depth_one()) {
        if !matches!(explain(job, &error), SourceError::Protocol { .. }) {
            return Err(error.into());
        }
        let branch = choice.revision.name.as_ref().map(|name| format!("refs/heads/{name}"));
        let spec = branch.unwrap_or_else(|| ALL_BRANCHES.to_owned());
        receive(&spec, Shallow::undo())?;
    }
    let id = gix::ObjectId::from_hex(commit.as_bytes()).map_err(|_| unlisted(job))?;
    match repo.has_object(id) {
        true => Ok(Exchanged { choice, fetched: true }),
        false => Err(unlisted(job)),
    }
}

fn unlisted(job: &Job) -> Failure {
    let what = describe(&job.reference);
    let url = public_url(&job.url);
    Failure::Known(SourceError::RefNotFound { url, what, similar: Vec::new() })
}

/// Asks for all refs, to tell an empty repository from a missing name and to name similar ones.
fn not_chosen(
    job: &Job,
    repo: &gix::Repository,
    reason: NoChoice,
) -> Result<SourceError, gix::Error> {
    let url = public_url(&job.url);
    if let (NoChoice::BadRange(cause), GitReference::Semver(range)) = (&reason, &job.reference) {
        return Ok(SourceError::InvalidRange { range: range.clone(), cause: cause.clone() });
    }
    let remote = remote(repo, job, &[ALL_BRANCHES.to_owned()])?;
    let options = gix::remote::ref_map::Options {
        prefix_from_spec_as_filter_on_remote: false,
        ..Default::default()
    };
    let (listed, _) = connect(&remote, job)?.ref_map(gix::progress::Discard, options)?;
    let refs = refs_of(&listed.remote_refs);
    if refs.is_empty() {
        return Ok(SourceError::Empty { url });
    }
    let similar = similar(&job.reference, &refs);
    Ok(SourceError::RefNotFound { url, what: describe(&job.reference), similar })
}

fn open(job: &Job) -> Result<gix::Repository, gix::Error> {
    let mut options = super::mirror::options();
    if let Login::Ssh(session) = &job.login {
        let command = format!("core.sshCommand={}", session.command());
        options = options.config_overrides([command.as_str(), "ssh.variant=ssh"]);
    }
    Ok(options.open(&job.mirror)?.to_thread_local())
}

fn remote<'repo>(
    repo: &'repo gix::Repository,
    job: &Job,
    specs: &[String],
) -> Result<gix::Remote<'repo>, gix::Error> {
    let remote = repo.remote_at_without_url_rewrite(job.url.as_str())?;
    let specs = specs.iter().map(|spec| gix::bstr::BStr::new(spec.as_bytes()));
    Ok(remote.with_refspecs(specs, Direction::Fetch)?.with_fetch_tags(Tags::None))
}

/// Opens a connection with our trust, our limits and our credentials, and nobody else's.
fn connect<'a, 'repo>(
    remote: &'a gix::Remote<'repo>,
    job: &Job,
) -> Result<Wire<'a, 'repo>, gix::Error> {
    let mut wire = remote.connect(Direction::Fetch)?;
    // Whatever we have was sent already: to be asked means to be refused.
    wire.set_credentials(|_| Ok(None));
    if !job.url.starts_with("ssh://") {
        wire.set_transport_options(Box::new(http_options(job)));
    }
    if let Login::Basic(user, password) = &job.login {
        let identity = gix::sec::identity::Account {
            username: user.clone(),
            password: String::from_utf8_lossy(password.expose()).into_owned(),
            oauth_refresh_token: None,
        };
        let set = wire.transport_mut().set_identity(identity);
        set.map_err(gix::Error::from_error)?;
    }
    Ok(wire)
}

fn http_options(job: &Job) -> http::Options {
    let (trust, timeout) = (job.trust.clone(), job.timeout);
    let configure = move |builder: reqwest::blocking::ClientBuilder| {
        net::configure_blocking(builder, &trust, timeout).map_err(gix::Error::from_error)
    };
    let backend = http::reqwest::Options {
        configure_client: Some(Box::new(configure)),
        configure_request: None,
    };
    let extra_headers = match &job.login {
        Login::Header(line) => vec![String::from_utf8_lossy(line.expose()).into_owned()],
        _ => Vec::new(),
    };
    http::Options {
        extra_headers,
        backend: Some(Arc::new(Mutex::new(backend))),
        ..Default::default()
    }
}

fn depth_one() -> Shallow {
    Shallow::DepthAtRemote(NonZeroU32::MIN)
}

fn refs_of(listed: &[Ref]) -> Vec<RemoteRef> {
    let read = |found: &Ref| {
        // Of an annotated tag, `unpack` gives the tag object second and its commit third.
        let (name, target, peeled) = found.unpack();
        let commit = peeled.or(target)?.to_string();
        Some(RemoteRef { name: name.to_string(), commit })
    };
    listed.iter().filter_map(read).collect()
}

/// Gives gix's error a name of ours.
fn explain(job: &Job, error: &gix::Error) -> SourceError {
    let url = public_url(&job.url);
    if let Login::Ssh(session) = &job.login
        && let Some(known) = ssh::explain(&url, &session.words())
    {
        return known;
    }
    let all: Vec<_> = error.iter_errors().flat_map(net::causes).collect();
    if let Some(cause) = all.iter().find_map(|one| net::certificate_problem(*one)) {
        return SourceError::CertificateUntrusted { url, cause };
    }
    if let Some(bad) = all.iter().find_map(|one| one.downcast_ref::<net::NetError>()) {
        return SourceError::InvalidCredential { cause: bad.to_string() };
    }
    let mut io = all.iter().filter_map(|one| one.downcast_ref::<std::io::Error>());
    // No socket answers any of these: the mirror's disk does.
    let disk = |one: &&std::io::Error| {
        use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(one.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
            || one.raw_os_error() == Some(libc::EIO)
    };
    if let Some(error) = io.find(disk) {
        return storage("cannot write the mirror", error);
    }
    let cause = words(&all, error);
    if error.is_unauthenticated() {
        let cause = match job.login {
            Login::Nothing => "it wants credentials and none are given".to_owned(),
            _ => "HTTP status 401".to_owned(),
        };
        return SourceError::AuthenticationFailed { url, cause };
    }
    let http = all.iter().find_map(|one| one.downcast_ref::<reqwest::Error>());
    match http.and_then(|http| http.status()).map(|status| status.as_u16()) {
        Some(401 | 403) => return SourceError::AuthenticationFailed { url, cause },
        Some(404 | 410) => return SourceError::RepositoryNotFound { url },
        Some(429 | 500..) => return SourceError::Unreachable { url, cause },
        _ => {}
    }
    if http.is_some_and(|http| http.is_timeout()) {
        return SourceError::Timeout { url, after: job.timeout };
    }
    if http.is_some_and(|http| http.is_connect()) || error.is_retryable() {
        return SourceError::Unreachable { url, cause };
    }
    SourceError::Protocol { url, cause }
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
