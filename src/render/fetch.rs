//! Fetches bases outside the source, and keeps them for days without an uplink.
//!
//! [`Remotes::get`] answers with the copy of an entry. A commit is fetched once; anything that
//! can move (a branch, a tag, a file) is asked after again when the copy is older than the caller
//! accepts. When that fails the copy stands and says so; only an entry that was never fetched is
//! an error. The copy that a former process left is good for a minute, so that a start without a
//! network waits for nobody.
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limit of asking for one entry, fetch included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Least time between two questions about one entry, whatever the caller accepts.
const FLOOR: Duration = Duration::from_secs(5);

/// How long a former process's copy is good without a question.
const GRACE: Duration = Duration::from_secs(60);

/// Age at which a copy that nothing asks for is removed.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

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
    slots: Mutex<HashMap<String, Arc<Mutex<Slot>>>>,
    since: Instant,
}

/// What is known of one entry.
#[derive(Debug, Default)]
struct Slot {
    mount: Option<Arc<Mount>>,
    /// When the remote was last asked, or the copy found on disk and for how long that is good.
    asked: Option<Instant>,
    found: Option<Instant>,
    failed: Option<NotFetched>,
    source: Option<Source>,
}

impl Slot {
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
}

impl Remotes {
    /// Copies in a directory; without one nothing is ever fetched.
    pub fn new(home: Option<PathBuf>, runtime: PathBuf) -> Remotes {
        Remotes { home, runtime, slots: Mutex::default(), since: Instant::now() }
    }

    /// The copy of an entry, at most `age` old where the remote answers. Blocks: on the disk,
    /// and for at most half a minute on the remote.
    ///
    /// # Errors
    /// It was never fetched and cannot be now.
    pub fn get(&self, entry: &str, age: Duration) -> Result<Copy, NotFetched> {
        let lasting = |cause: String| NotFetched { cause, retry: false };
        let address = address(entry).map_err(lasting)?;
        let Some(home) = &self.home else {
            let cause = "lies outside the source, and nothing is fetched here";
            return Err(lasting(cause.to_owned()));
        };
        let slot = self.slot(entry);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = home.join(place(entry));
        if slot.mount.is_none() && slot.asked.is_none() {
            self.load(&mut slot, entry, &address, &dir);
        }
        if slot.due(&address, age) {
            self.sweep(home);
            slot.asked = Some(Instant::now());
            slot.failed = match self.ask(&mut slot, entry, &address, &dir) {
                Ok(mount) => {
                    slot.mount = Some(Arc::new(mount));
                    None
                }
                Err(failed) => Some(failed),
            };
        }
        match (&slot.mount, &slot.failed) {
            (Some(mount), failed) => {
                let stale = failed.as_ref().map(|failed| failed.cause.clone());
                Ok(Copy { mount: mount.clone(), stale })
            }
            (None, Some(failed)) => Err(failed.clone()),
            (None, None) => Err(NotFetched { cause: "was not fetched".to_owned(), retry: true }),
        }
    }

    fn slot(&self, entry: &str) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(entry.to_owned()).or_default().clone()
    }

    /// Takes up what a former process has fetched; what cannot be read is fetched again.
    fn load(&self, slot: &mut Slot, entry: &str, address: &Address, dir: &Path) {
        let loaded = match address {
            Address::File { .. } => fs::read(dir.join("content")).ok().map(|b| file(entry, b)),
            Address::Git { url, path, .. } if dir.exists() => {
                let source = Source::open(dir, &self.runtime).ok();
                let last = source.as_ref().and_then(|source| source.last().ok().flatten());
                slot.source = source;
                last.map(|snapshot| repository(entry, url, path, snapshot))
            }
            Address::Git { .. } => None,
        };
        if let Some(mount) = loaded {
            slot.mount = Some(Arc::new(mount));
            slot.found = Some(Instant::now());
        }
    }

    fn ask(
        &self,
        slot: &mut Slot,
        entry: &str,
        address: &Address,
        dir: &Path,
    ) -> Result<Mount, NotFetched> {
        match address {
            Address::File { url } => {
                let bytes = download(url)?;
                store(dir, &bytes)?;
                Ok(file(entry, bytes))
            }
            Address::Git { url, reference, path } => {
                if slot.source.is_none() {
                    slot.source = Some(Source::open(dir, &self.runtime).map_err(from_source)?);
                }
                let Some(source) = &slot.source else { unreachable!("set above") };
                let snapshot = poll(source, url, reference.as_deref())?;
                Ok(repository(entry, url, path, snapshot))
            }
        }
    }

    /// Removes copies that nobody asks for, see the module.
    fn sweep(&self, home: &Path) {
        if self.since.elapsed() < SETTLED {
            return;
        }
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

/// Gets a file; runs on a blocking thread of the runtime.
fn download(url: &str) -> Result<Vec<u8>, NotFetched> {
    let failed = |error: net::NetError| NotFetched {
        cause: format!("cannot be fetched: {error}"),
        retry: error.retry() || matches!(error, net::NetError::Status { .. }),
    };
    let client = net::Client::new(&net::Trust::default(), TIMEOUT).map_err(failed)?;
    let limit = usize::try_from(MAX_FILE).unwrap_or(usize::MAX);
    let body = client.get_limited(url, limit);
    tokio::runtime::Handle::current().block_on(body).map_err(failed)
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
