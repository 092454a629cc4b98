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

use super::credential::Credential;
use super::error::{SourceError, public_url};
use super::fetch::{self, Exchanged, Job};
use super::mirror::{Mirror, remove_others, set_aside};
use super::record::{Record, replace, storage};
use super::select::Revision;
use super::ssh;
use super::tree::Tree;
use super::wire::Wire;
use super::within::{Limit, within};
use crate::flux::GitReference;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Packs in a mirror before it is made anew: at one commit a day that is every seven weeks, and
/// gix keeps two descriptors and two maps for each pack it has looked into.
pub(super) const MAX_PACKS: usize = 50;

/// Bytes below `objects/pack` at which a fetch is given up. A depth-1 fetch holds one state of the
/// files; a configuration repository of 1 GiB is a mistake in the URL.
pub(super) const MAX_PACK_BYTES: u64 = 1 << 30;

/// Tips that are known to be here in full: a branch and its checkout, for some automations.
const MAX_TIPS: usize = 16;

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
    pub(super) dir: PathBuf,
    pub(super) runtime: PathBuf,
    state: Mutex<State>,
    /// A push that outlived its caller; also keeps pushes one after the other.
    pub(super) pushing: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub mirror: Arc<Mirror>,
    pub record: Option<Record>,
    /// The commits that were last fetched to be edited; the mirror holds them in full.
    pub tips: Vec<String>,
    /// Pairs of tips whose history did not tell how they stand to each other, and why; without the
    /// second where nothing more is asked for on account of the first.
    pub asked: BTreeMap<(String, String), String>,
    /// The tip whose history was not through in time.
    pub slow: BTreeSet<String>,
    /// An exchange that outlived its poll.
    late: Option<JoinHandle<()>>,
    /// The last poll failed, and may have left locks: on a disk that turned read-only nobody can
    /// remove them, and every later fetch would stop at them.
    unclean: bool,
}

impl State {
    /// Commits that need not be fetched.
    pub(super) fn known(&self) -> Vec<String> {
        let current = self.record.as_ref().map(|record| record.revision().commit);
        current.into_iter().chain(self.tips.iter().cloned()).collect()
    }

    /// Notes a commit that was fetched to be edited.
    pub(super) fn note_tip(&mut self, commit: &str) {
        self.tips.retain(|known| known != commit);
        self.tips.push(commit.to_owned());
        let gone = self.tips.len().saturating_sub(MAX_TIPS);
        self.tips.drain(..gone);
    }

    /// Works on a thread of its own, for as long as the deadline and the size of the packs allow.
    pub(super) fn bounded<T: Send + 'static>(
        &mut self,
        mirror: &Mirror,
        most: u64,
        limit: &Limit,
        work: impl FnOnce(&AtomicBool) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let too_large = || {
            let what = limit.url.clone();
            let grown = mirror.pack_bytes() > most;
            grown.then_some(SourceError::TooLarge { what, limit: most })
        };
        match within(limit, work, too_large) {
            Ok(done) => done,
            Err(given_up) => {
                self.late = given_up.late;
                Err(given_up.error)
            }
        }
    }
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
        let state = State {
            mirror: Arc::new(mirror),
            record,
            tips: Vec::new(),
            asked: BTreeMap::new(),
            slow: BTreeSet::new(),
            late: None,
            unclean: false,
        };
        Ok(Source { dir, runtime, state: Mutex::new(state), pushing: Mutex::default() })
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
        self.alone(remote, |state| self.poll_once(state, remote))
    }

    /// Runs something that fetches, while nothing else does.
    pub(super) fn alone<T>(
        &self,
        remote: &Remote,
        fetching: impl FnOnce(&mut State) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut state = self.state();
        if state.late.as_ref().is_some_and(|late| !late.is_finished()) {
            return Err(Limit::new(public_url(&remote.url), remote.timeout).passed());
        }
        state.late = None;
        if state.unclean {
            state.mirror.sweep();
        }
        let fetched = fetching(&mut state);
        state.unclean = fetched.is_err();
        fetched
    }

    fn poll_once(&self, state: &mut State, remote: &Remote) -> Result<Poll, SourceError> {
        let limit = Limit::new(public_url(&remote.url), remote.timeout);
        let record = |mirror: &Mirror, revision: &Revision| {
            Record::new(&mirror.name(), &limit.url, revision, remote.ignore.as_deref())
        };
        if state.mirror.is_broken() {
            tracing::warn!(dir = %self.dir.display(), "the mirror is damaged and is made anew");
            let fresh = Mirror::create(&self.dir, state.mirror.number() + 1)?;
            let exchanged = self.exchange(state, &fresh, remote, Vec::new(), &limit)?;
            let record = record(&fresh, &exchanged.choice.revision);
            return self.take_over(state, fresh, record);
        }
        let mirror = state.mirror.clone();
        let Exchanged { choice, fetched } =
            self.exchange(state, &mirror, remote, state.known(), &limit)?;
        let wanted = record(&mirror, &choice.revision);
        if state.record.as_ref() == Some(&wanted) {
            return Ok(Poll::Unchanged);
        }
        if fetched && mirror.packs()? > MAX_PACKS {
            let fresh = Mirror::create(&self.dir, mirror.number() + 1)?;
            let again = self.exchange(state, &fresh, remote, Vec::new(), &limit);
            match again.and_then(|again| {
                let record = record(&fresh, &again.choice.revision);
                self.take_over(state, fresh, record)
            }) {
                Ok(poll) => return Ok(poll),
                // The old mirror has everything too; the next commit tries again.
                Err(error) => tracing::warn!(%error, "the mirror could not be made anew"),
            }
        }
        self.put_in_force(state, wanted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves the old state or the new one, never half of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to reach a remote.
    pub(super) fn wire(&self, remote: &Remote, limit: &Limit) -> Result<Wire, SourceError> {
        let dirs = (self.dir.as_path(), self.runtime.as_path());
        Wire::new(remote, dirs, limit.left()?)
    }

    /// Runs an exchange.
    pub(super) fn exchange(
        &self,
        state: &mut State,
        mirror: &Mirror,
        remote: &Remote,
        known: Vec<String>,
        limit: &Limit,
    ) -> Result<Exchanged, SourceError> {
        let (wire, reference) = (self.wire(remote, limit)?, remote.reference.clone());
        let job = Job { mirror: mirror.path().to_owned(), wire, reference, known };
        state.bounded(mirror, MAX_PACK_BYTES, limit, move |stop| fetch::run(&job, stop))
    }

    /// Changes over to a fresh mirror, which holds what the record names.
    pub(super) fn take_over(
        &self,
        state: &mut State,
        fresh: Mirror,
        record: Record,
    ) -> Result<Poll, SourceError> {
        let old = std::mem::replace(&mut state.mirror, Arc::new(fresh));
        match self.put_in_force(state, record) {
            Ok(poll) => {
                state.tips.clear();
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
