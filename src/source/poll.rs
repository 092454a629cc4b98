//! One GitRepository's directory: the mirror, the revision in force, the poll.
//!
//! A poll runs its exchange on a thread of its own and waits for it no longer than the timeout.
//! What was fetched counts only once it is complete: every object of the new tree is looked up,
//! the packs are brought to the disk, then the ref and last the record are replaced. A kill at
//! any point leaves the old record with its objects or the new one with its own.
//!
//! Shallow fetches leave a pack each and gix collects no garbage. Above [`MAX_PACKS`] the wanted
//! commit is fetched once more into a fresh mirror and the record changes over to it; trees of the
//! old one stay readable until the last of them is dropped.

use super::credential::{Auth, Credential};
use super::error::{SourceError, public_url, split_userinfo};
use super::fetch::{self, Exchanged, Job, Login};
use super::mirror::{Mirror, remove_others, set_aside};
use super::record::{Record, replace, storage};
use super::select::Revision;
use super::ssh::{self, Session};
use super::tree::Tree;
use crate::flux::GitReference;
use crate::net;
use crate::secrets::Plaintext;
use base64::Engine;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packs in a mirror before it is made anew: at one commit a day that is every seven weeks, and
/// gix keeps two descriptors and two maps for each pack it has looked into.
const MAX_PACKS: usize = 50;

/// Bytes below `objects/pack` at which a fetch is given up. A depth-1 fetch holds one state of the
/// files; a configuration repository of 1 GiB is a mistake in the URL.
const MAX_PACK_BYTES: u64 = 1 << 30;

/// How often a running fetch is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Subjects are cut here, in characters; Flux's events cut at 50, history has more room.
const MAX_SUBJECT: usize = 200;

const CURRENT: &str = "refs/gitopsd/current";

/// What is polled.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `https://`, `http://` or `ssh://`; userinfo is honoured and never shown.
    pub url: String,
    /// What is followed.
    pub reference: GitReference,
    /// Proof of who we are.
    pub credential: Credential,
    /// Limit of the whole poll.
    pub timeout: Duration,
    /// `spec.ignore`.
    pub ignore: Option<String>,
}

/// What a poll found.
#[derive(Clone, Debug)]
pub enum Poll {
    /// The revision in force is still the wanted one.
    Unchanged,
    /// Another revision, or the same with other ignore rules.
    New(Snapshot),
}

/// One revision of a source.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `main@sha1:…`.
    pub revision: Revision,
    /// `Name <mail>` of the commit's author.
    pub author: String,
    /// First line of the commit message, at most 200 characters.
    pub subject: String,
    /// The committer's time in Unix seconds.
    pub time: i64,
    /// Its files.
    pub tree: Tree,
}

/// One GitRepository's directory. Polls of one Source are serialised by the caller; a second poll
/// meanwhile waits.
#[derive(Debug)]
pub struct Source {
    dir: PathBuf,
    runtime: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mirror: Arc<Mirror>,
    record: Option<Record>,
    /// An exchange that outlived its poll.
    late: Option<JoinHandle<()>>,
    /// The last poll failed, and may have left locks: on a disk that turned read-only nobody can
    /// remove them, and every later fetch would stop at them.
    unclean: bool,
}

impl Source {
    /// Opens the directory, makes what is missing, removes what a killed process left. A mirror
    /// that lacks objects of its own revision is set aside as `broken` and made anew.
    pub fn open(dir: &Path, runtime_dir: &Path) -> Result<Source, SourceError> {
        for dir in [dir, runtime_dir] {
            let what = format!("cannot make {}", dir.display());
            fs::create_dir_all(dir).map_err(|error| storage(&what, &error))?;
        }
        let dir = dir.canonicalize().map_err(|error| storage("cannot open a source", &error))?;
        let runtime = runtime_dir.canonicalize();
        let runtime = runtime.map_err(|error| storage("cannot open a source", &error))?;
        ssh::sweep(&dir, &runtime);
        let mut record = Record::load(&dir)?;
        let mut mirror = None;
        if let Some(found) = &record {
            match Mirror::open(&dir.join(&found.mirror)).and_then(|mirror| {
                mirror.complete(&found.revision().commit)?;
                Ok(mirror)
            }) {
                Ok(good) => mirror = Some(good),
                Err(error) => {
                    set_aside(&dir, &found.mirror, &error)?;
                    record = None;
                }
            }
        }
        remove_others(&dir, record.as_ref().map(|record| record.mirror.as_str()))?;
        let mirror = match mirror {
            Some(mirror) => mirror,
            None => Mirror::create(&dir, 1)?,
        };
        let state = State { mirror: Arc::new(mirror), record, late: None, unclean: false };
        Ok(Source { dir, runtime, state: Mutex::new(state) })
    }

    /// The last good revision, from disk.
    pub fn last(&self) -> Result<Option<Snapshot>, SourceError> {
        let state = self.state();
        match &state.record {
            Some(record) => snapshot(&state.mirror, record).map(Some),
            None => Ok(None),
        }
    }

    /// Asks the remote. Any error leaves the revision in force as it is.
    pub fn poll(&self, remote: &Remote) -> Result<Poll, SourceError> {
        let mut state = self.state();
        if state.late.as_ref().is_some_and(|late| !late.is_finished()) {
            let url = public_url(&remote.url);
            return Err(SourceError::Timeout { url, after: remote.timeout });
        }
        state.late = None;
        if state.unclean {
            state.mirror.sweep();
        }
        let polled = self.poll_once(&mut state, remote);
        state.unclean = polled.is_err();
        polled
    }

    fn poll_once(&self, state: &mut State, remote: &Remote) -> Result<Poll, SourceError> {
        let deadline = Instant::now() + remote.timeout;
        if state.mirror.is_broken() {
            tracing::warn!(dir = %self.dir.display(), "the mirror is damaged and is made anew");
            let fresh = Mirror::create(&self.dir, state.mirror.number() + 1)?;
            let exchanged = self.exchange(state, &fresh, remote, None, deadline)?;
            return self.take_over(state, fresh, remote, exchanged.choice.revision);
        }
        let mirror = state.mirror.clone();
        let known = state.record.as_ref().map(|record| record.revision().commit);
        let Exchanged { choice, fetched } =
            self.exchange(state, &mirror, remote, known, deadline)?;
        let record = Record::new(
            &mirror.name(),
            &public_url(&remote.url),
            &choice.revision,
            remote.ignore.as_deref(),
        );
        if state.record.as_ref() == Some(&record) {
            return Ok(Poll::Unchanged);
        }
        if fetched && mirror.packs()? > MAX_PACKS {
            let fresh = Mirror::create(&self.dir, mirror.number() + 1)?;
            let again = self.exchange(state, &fresh, remote, None, deadline);
            match again
                .and_then(|again| self.take_over(state, fresh, remote, again.choice.revision))
            {
                Ok(poll) => return Ok(poll),
                // The old mirror has everything too; the next commit tries again.
                Err(error) => tracing::warn!(%error, "the mirror could not be made anew"),
            }
        }
        self.put_in_force(state, record)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves the old state or the new one, never half of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an exchange on its own thread, for as long as the deadline and the size allow.
    fn exchange(
        &self,
        state: &mut State,
        mirror: &Mirror,
        remote: &Remote,
        known: Option<String>,
        deadline: Instant,
    ) -> Result<Exchanged, SourceError> {
        let timeout =
            || SourceError::Timeout { url: public_url(&remote.url), after: remote.timeout };
        let left = deadline.checked_duration_since(Instant::now()).ok_or_else(timeout)?;
        let job = self.job(mirror, remote, known, left)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (answer, answered) = mpsc::sync_channel(1);
        let flag = stop.clone();
        let work = move || {
            // Nobody listens any more once the deadline has passed.
            let _ = answer.send(fetch::run(&job, &flag));
        };
        let thread = std::thread::Builder::new().name("git".into()).spawn(work);
        let thread = thread.map_err(|error| storage("cannot start a thread", &error))?;
        let given_up = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answered.recv_timeout(left.min(TICK)) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let url = public_url(&remote.url);
                    let cause = "the transport gave up without a reason (see the journal)".into();
                    return Err(SourceError::Protocol { url, cause });
                }
                Err(mpsc::RecvTimeoutError::Timeout) if left.is_zero() => break timeout(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if mirror.pack_bytes() > MAX_PACK_BYTES {
                let what = public_url(&remote.url);
                break SourceError::TooLarge { what, limit: MAX_PACK_BYTES };
            }
        };
        stop.store(true, Ordering::Relaxed);
        state.late = Some(thread);
        Err(given_up)
    }

    fn job(
        &self,
        mirror: &Mirror,
        remote: &Remote,
        known: Option<String>,
        left: Duration,
    ) -> Result<Job, SourceError> {
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
                let pair = [user.as_bytes(), b":", password.expose()].concat();
                let pair = Plaintext::new(pair);
                let coded = base64::engine::general_purpose::STANDARD.encode(pair.expose());
                let coded = Plaintext::new(coded.into());
                header(&[b"Authorization: Basic ", coded.expose()])
            }
            Auth::Basic { user, password } => Login::Basic(user.clone(), password.clone()),
            Auth::Ssh { identity, known_hosts, password } => {
                let dirs = (self.dir.as_path(), self.runtime.as_path());
                let password = password.as_ref();
                Login::Ssh(Session::new(dirs, identity, known_hosts, password, left)?)
            }
        };
        Ok(Job {
            mirror: mirror.path().to_owned(),
            url: wire_url(&remote.url),
            reference: remote.reference.clone(),
            known,
            login,
            trust: net::Trust { ca: remote.credential.ca.clone(), ..net::Trust::default() },
            timeout: left,
        })
    }

    /// Changes over to a fresh mirror.
    fn take_over(
        &self,
        state: &mut State,
        fresh: Mirror,
        remote: &Remote,
        revision: Revision,
    ) -> Result<Poll, SourceError> {
        let url = public_url(&remote.url);
        let record = Record::new(&fresh.name(), &url, &revision, remote.ignore.as_deref());
        let old = std::mem::replace(&mut state.mirror, Arc::new(fresh));
        match self.put_in_force(state, record) {
            Ok(poll) => {
                old.retire();
                Ok(poll)
            }
            Err(error) => {
                let fresh = std::mem::replace(&mut state.mirror, old);
                fresh.retire();
                Err(error)
            }
        }
    }

    /// Makes a record the one in force: check, objects to the disk, ref, record, in this order.
    fn put_in_force(&self, state: &mut State, record: Record) -> Result<Poll, SourceError> {
        let mirror = &state.mirror;
        let commit = record.revision().commit;
        mirror.complete(&commit)?;
        let snapshot = snapshot(mirror, &record)?;
        mirror.sync()?;
        replace(&mirror.path().join(CURRENT), format!("{commit}\n").as_bytes())?;
        record.store(&self.dir)?;
        state.record = Some(record);
        Ok(Poll::New(snapshot))
    }
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

fn snapshot(mirror: &Arc<Mirror>, record: &Record) -> Result<Snapshot, SourceError> {
    let revision = record.revision();
    let failed = |error: gix::Error| mirror.broken(&revision.commit, &error);
    let id = gix::ObjectId::from_hex(revision.commit.as_bytes());
    let id = id.expect("40 hex digits, checked where records are read and refs listed");
    let repo = mirror.repository();
    let commit = repo.find_commit(id).map_err(failed)?;
    let author = commit.author().map_err(failed)?;
    let author = format!("{} <{}>", author.name, author.email);
    let subject = commit.message().map_err(failed)?.summary().to_string();
    let subject = subject.chars().take(MAX_SUBJECT).collect();
    let time = commit.time().map_err(failed)?.seconds;
    let root = commit.tree_id().map_err(failed)?.detach();
    let tree = Tree::from_git(mirror.clone(), root, record.ignore.as_deref())?;
    Ok(Snapshot { revision, author, subject, time, tree })
}
