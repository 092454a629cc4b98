//! Fetches bases outside the source, and keeps them for days without an uplink.
//!
//! [`Remotes::get`] answers with the copy of an entry. A commit is fetched once; anything that
//! can move (a branch, a tag, a file) is asked after again when the copy is older than the caller
//! accepts. When that fails the copy stands and says so; only an entry that was never fetched is
//! an error. The copy that a former process left is good for a minute, so that a start without a
//! network waits for nobody.
//!
//! A question is a task of its own, one at a time for each entry. Whoever asks for the same entry
//! meanwhile waits for that one and takes its answer; who waits no longer, because the time of its
//! render is over or its run was cancelled, leaves the question to come to its end, within
//! [`TIMEOUT`], for whoever asks next. Git is spoken on a thread that no runtime waits for, so
//! that a remote that hangs holds up no stop.
//!
//! On disk, in the directory of copies: one directory for each entry, named by [`place`]; a
//! repository's is a [`Source`]'s, a file's holds `content`. Copies that nothing has asked for
//! since the start go when another is added, once they are 30 days old.

use super::mount::{Content, Mount};
use super::remote::{Address, address, place};
use crate::flux::GitReference;
use crate::net;
use crate::source::{Credential, MAX_FILE, Poll, Remote, Snapshot, Source, SourceError};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Limit of asking for one entry, fetch included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Least time between two questions about one entry, whatever the caller accepts.
const FLOOR: Duration = Duration::from_secs(5);

/// How long a former process's copy is good without a question.
const GRACE: Duration = Duration::from_secs(60);

/// Age at which a copy that nothing asks for is removed.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is said of an entry whose answer did not come in the time of the render, and of one that
/// had no turn in it.
const LATE: &str = "did not answer in the time that a render waits for its bases";
const NO_TURN: &str = "was not asked: others took all the time that a render waits for its bases";

/// How long this process must have run before it may say that nothing asks for a copy.
const SETTLED: Duration = Duration::from_secs(24 * 3600);

/// Why an entry could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotFetched {
    /// The cause and the remedy, to be put behind the entry.
    pub cause: String,
    /// Whether trying again can help.
    pub retry: bool,
}

/// A copy, and why it may be an old one.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    /// The files.
    pub mount: Arc<Mount>,
    /// The failure of the last question, if it failed.
    pub stale: Option<String>,
}

/// All copies; one question at a time for each entry.
#[derive(Debug)]
pub(crate) struct Remotes {
    home: Option<PathBuf>,
    runtime: PathBuf,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    since: Instant,
}

/// One entry.
#[derive(Debug, Default)]
struct Slot {
    known: Mutex<Known>,
    /// Held by the question under way, with the repository's directory once that is open.
    asking: Arc<tokio::sync::Mutex<Option<Arc<Source>>>>,
}

/// What is known of an entry.
#[derive(Clone, Debug, Default)]
struct Known {
    mount: Option<Arc<Mount>>,
    /// When the last question ended, or the copy was found on disk and for how long that is good.
    asked: Option<Instant>,
    found: Option<Instant>,
    failed: Option<NotFetched>,
}

impl Known {
    fn due(&self, address: &Address, age: Duration) -> bool {
        // A caller to whom no age is too old waits for nobody's server.
        if self.mount.is_some() && (is_fixed(address) || age == Duration::MAX) {
            return false;
        }
        match (self.asked, self.found) {
            (Some(asked), _) if self.mount.is_none() => asked.elapsed() >= FLOOR,
            (Some(asked), _) => asked.elapsed() >= age.max(FLOOR),
            (None, Some(found)) => found.elapsed() >= GRACE.min(age),
            (None, None) => true,
        }
    }

    /// The copy, with why it may be an old one; else why there is none.
    fn answer(self) -> Result<Copy, NotFetched> {
        match (self.mount, self.failed) {
            (Some(mount), failed) => Ok(Copy { mount, stale: failed.map(|failed| failed.cause) }),
            (None, Some(failed)) => Err(failed),
            (None, None) => Err(NotFetched { cause: "was not fetched".to_owned(), retry: true }),
        }
    }
}

impl Slot {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remotes {
    /// Copies in a directory; without one nothing is ever fetched.
    pub fn new(home: Option<PathBuf>, runtime: PathBuf) -> Remotes {
        Remotes { home, runtime, slots: Mutex::default(), since: Instant::now() }
    }

    /// The copy of an entry, at most `age` old where the remote answers before `deadline`.
    ///
    /// # Errors
    /// It was never fetched and cannot be now, or not in time.
    pub async fn get(
        self: &Arc<Self>,
        entry: &str,
        age: Duration,
        deadline: Instant,
    ) -> Result<Copy, NotFetched> {
        let lasting = |cause: String| NotFetched { cause, retry: false };
        let address = address(entry).map_err(lasting)?;
        let Some(home) = &self.home else {
            let cause = "lies outside the source, and nothing is fetched here";
            return Err(lasting(cause.to_owned()));
        };
        let slot = self.slot(entry);
        let known = slot.known().clone();
        if !known.due(&address, age) {
            return known.answer();
        }
        let question = Question {
            remotes: self.clone(),
            slot: slot.clone(),
            entry: entry.to_owned(),
            address,
            dir: home.join(place(entry)),
        };
        let why = match deadline.checked_duration_since(Instant::now()) {
            Some(left) => {
                let answered = tokio::time::timeout(left, tokio::spawn(question.ask(age))).await;
                answered.is_err().then_some(LATE)
            }
            None => Some(NO_TURN),
        };
        let mut known = slot.known().clone();
        if let Some(why) = why {
            known.failed = Some(NotFetched { cause: why.to_owned(), retry: true });
        }
        known.answer()
    }

    fn slot(&self, entry: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(entry.to_owned()).or_default().clone()
    }

    /// Removes copies that nobody asks for, see the module.
    fn sweep(&self) {
        let Some(home) = self.home.as_ref().filter(|_| self.since.elapsed() >= SETTLED) else {
            return;
        };
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<String> = slots.keys().map(|entry| place(entry)).collect();
        drop(slots);
        for dir in fs::read_dir(home).into_iter().flatten().flatten() {
            let age = dir.metadata().and_then(|found| found.modified()).ok();
            let old = age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > OLD);
            if old && !known.iter().any(|name| dir.file_name().to_str() == Some(name)) {
                // What cannot be removed costs disk only, and is tried again.
                let _ = fs::remove_dir_all(dir.path());
            }
        }
    }
}

/// A question about one entry.
struct Question {
    remotes: Arc<Remotes>,
    slot: Arc<Slot>,
    entry: String,
    address: Address,
    dir: PathBuf,
}

impl Question {
    /// Asks, unless another has just been answered.
    async fn ask(self, age: Duration) {
        let question = Arc::new(self);
        let slot = question.slot.clone();
        let mut source = slot.asking.clone().lock_owned().await;
        let known = slot.known().clone();
        if known.mount.is_none() && known.asked.is_none() {
            let (asks, opened) = (question.clone(), source.take());
            let loaded = on_disk(move || asks.load(opened)).await;
            let (mount, opened) = loaded.unwrap_or_default();
            *source = opened;
            if let Some(mount) = mount {
                let mut known = slot.known();
                (known.mount, known.found) = (Some(Arc::new(mount)), Some(Instant::now()));
            }
        }
        if !slot.known().due(&question.address, age) {
            return;
        }
        let answer = match &question.address {
            Address::File { url } => question.file(url).await,
            Address::Git { .. } => question.repository(&mut source).await,
        };
        let mut known = slot.known();
        known.asked = Some(Instant::now());
        known.failed = match answer {
            Ok(mount) => {
                known.mount = Some(Arc::new(mount));
                None
            }
            Err(failed) => Some(failed),
        };
    }

    /// Takes up what a former process has fetched; what cannot be read is fetched again.
    fn load(&self, opened: Option<Arc<Source>>) -> (Option<Mount>, Option<Arc<Source>>) {
        match &self.address {
            Address::File { .. } => {
                let kept = fs::read(self.dir.join("content")).ok();
                (kept.map(|bytes| file(&self.entry, bytes)), None)
            }
            Address::Git { url, path, .. } if opened.is_some() || self.dir.exists() => {
                let open = || Source::open(&self.dir, &self.remotes.runtime).ok().map(Arc::new);
                let source = opened.or_else(open);
                let last = source.as_ref().and_then(|source| source.last().ok().flatten());
                let mount = last.map(|snapshot| repository(&self.entry, url, path, snapshot));
                (mount, source)
            }
            Address::Git { .. } => (None, None),
        }
    }

    async fn file(self: &Arc<Self>, url: &str) -> Result<Mount, NotFetched> {
        let bytes = download(url).await?;
        let question = self.clone();
        on_disk(move || {
            question.remotes.sweep();
            store(&question.dir, &bytes)?;
            Ok(file(&question.entry, bytes))
        })
        .await?
    }

    async fn repository(
        self: &Arc<Self>,
        source: &mut Option<Arc<Source>>,
    ) -> Result<Mount, NotFetched> {
        let opened = match source {
            Some(opened) => opened.clone(),
            None => {
                let question = self.clone();
                let opened = on_disk(move || {
                    question.remotes.sweep();
                    Source::open(&question.dir, &question.remotes.runtime).map_err(from_source)
                });
                source.insert(Arc::new(opened.await??)).clone()
            }
        };
        let (answer, answered) = oneshot::channel();
        let question = self.clone();
        let run = move || {
            let Address::Git { url, reference, path } = &question.address else { return };
            let polled = poll(&opened, url, reference.as_deref());
            // Nobody listens any more when the daemon stops.
            let _ = answer.send(polled.map(|new| repository(&question.entry, url, path, new)));
        };
        let began = std::thread::Builder::new().name("base".into()).spawn(run);
        began.map_err(|error| stopped(&error.to_string()))?;
        answered.await.map_err(|error| stopped(&error.to_string()))?
    }
}

/// Runs what is short and waits for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotFetched> {
    tokio::task::spawn_blocking(work).await.map_err(|error| stopped(&error.to_string()))
}

fn stopped(why: &str) -> NotFetched {
    NotFetched { cause: format!("cannot be fetched: {why}"), retry: true }
}

/// True for what never moves: a whole commit id.
fn is_fixed(address: &Address) -> bool {
    matches!(address, Address::Git { reference: Some(name), .. } if is_commit(name))
}

fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn file(entry: &str, bytes: Vec<u8>) -> Mount {
    let state = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Mount { entry: entry.to_owned(), state, content: Content::File { bytes } }
}

fn repository(entry: &str, url: &str, path: &str, snapshot: Snapshot) -> Mount {
    let Snapshot { revision, tree, .. } = snapshot;
    let content = Content::Git { tree, path: path.to_owned(), url: url.to_owned() };
    Mount { entry: entry.to_owned(), state: revision.commit, content }
}

/// What a name can mean, as `git fetch` tries it: a tag first, then a branch.
fn meanings(reference: Option<&str>) -> Vec<GitReference> {
    match reference {
        None => vec![GitReference::Name("HEAD".to_owned())],
        Some(sha) if is_commit(sha) => {
            vec![GitReference::Commit { sha: sha.to_owned(), branch: None }]
        }
        Some(name) if name.starts_with("refs/") => vec![GitReference::Name(name.to_owned())],
        Some(name) => {
            vec![GitReference::Tag(name.to_owned()), GitReference::Branch(name.to_owned())]
        }
    }
}

fn poll(source: &Source, url: &str, reference: Option<&str>) -> Result<Snapshot, NotFetched> {
    let deadline = Instant::now() + TIMEOUT;
    let mut missing = None;
    for meaning in meanings(reference) {
        let remote = Remote {
            url: url.to_owned(),
            reference: meaning,
            credential: Credential::default(),
            timeout: deadline.saturating_duration_since(Instant::now()),
            // kustomize reads whole clones: nothing in them is left out.
            ignore: Some("!*".to_owned()),
        };
        match source.poll(&remote) {
            Ok(Poll::New(snapshot)) => return Ok(snapshot),
            Ok(Poll::Unchanged) => match source.last().map_err(from_source)? {
                Some(snapshot) => return Ok(snapshot),
                None => continue,
            },
            Err(error @ SourceError::RefNotFound { .. }) => missing = Some(error),
            Err(error) => return Err(from_source(error)),
        }
    }
    let cause = match (reference, missing) {
        (Some(name), Some(_)) => format!("{url} has neither a tag nor a branch {name}"),
        (_, Some(error)) => error.to_string(),
        (_, None) => "was not fetched".to_owned(),
    };
    Err(NotFetched { cause, retry: true })
}

fn from_source(error: SourceError) -> NotFetched {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    NotFetched { cause: format!("cannot be fetched: {error}{hint}"), retry: error.retry() }
}

/// Gets a file.
async fn download(url: &str) -> Result<Vec<u8>, NotFetched> {
    let failed = |error: net::NetError| NotFetched {
        cause: format!("cannot be fetched: {error}"),
        retry: error.retry() || matches!(error, net::NetError::Status { .. }),
    };
    let client = net::Client::new(&net::Trust::default(), TIMEOUT).map_err(failed)?;
    let limit = usize::try_from(MAX_FILE).unwrap_or(usize::MAX);
    client.get_limited(url, limit).await.map_err(failed)
}

/// Replaces a file's copy whole; the same again is no write.
fn store(dir: &Path, bytes: &[u8]) -> Result<(), NotFetched> {
    let path = dir.join("content");
    if fs::read(&path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(bytes)?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| NotFetched {
        cause: format!("cannot be kept in {}: {error}", dir.display()),
        retry: true,
    })
}
