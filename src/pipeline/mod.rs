//! Step calls only: one run of one Kustomization, and one poll of one source.
//!
//! [`Pipeline::poll`] asks a Git remote. [`Pipeline::reconcile`] takes a [`Job`] through open,
//! render, substitute, plan, apply, prune, observe and record, and answers with a [`Report`].
//! Between render and prune it tells the graph which work orders it found, through [`Ask`], and
//! learns whether what left Git may be deleted yet; a confirmation is used up before it is acted
//! upon. [`Pipeline::plan`] goes half the way and
//! writes nothing: it is what `gitopsd diff` prints. Between runs, [`Pipeline::seen`] and
//! [`Pipeline::values_seen`] judge what a watch saw, [`Pipeline::look`] asks after health,
//! [`Pipeline::scan`], [`Pipeline::choose`] and [`Pipeline::automate`] bring a new tag of an image
//! into Git; [`Pipeline::departed`] and [`Pipeline::survey`] find what left Git unseen or stands in no
//! inventory, and [`Pipeline::finalize`] ends what left. [`Pipeline::edge`] keeps the way to the box
//! from outside.
//!
//! No step calls the next; what one learns for another is carried across here. Deciding is done by
//! the pure files of `plan`, waiting and retrying by `graph`.

mod blind;
mod build;
mod carry;
mod connection;
mod departed;
mod disputes;
mod edge;
mod family;
mod finalize;
mod handed;
mod health;
mod image;
mod inputs;
mod kustomization;
mod memory;
mod names;
mod newcomers;
mod note;
mod orders;
mod outcome;
mod patrol;
mod policy;
mod poll;
mod preview;
mod prune;
mod record;
mod survey;
mod turned;
mod values;
mod vigil;
mod write;

pub use connection::Connection;
pub use departed::{Departed, Together, Verdict};
pub use edge::{
    EDGE_OFFLINE, EdgeHost, EdgeParts, EdgeReport, EdgeTask, EdgeView, edge_kustomization,
};
pub use family::Standing;
pub use image::{
    Automated, Automation, Candidate, Chosen, ImageAsk, ImageView, MarkedFiles, Pushed,
    RunningView, Scanned, Unwell, marked_files,
};
pub use inputs::HostSecrets;
pub use orders::{
    Order, Problem, SetAsideEntry, Sorted, WorkOrders, confirmed, deletes, keeps, left_alone,
    requested, set_aside_namespaces, sort,
};
pub use outcome::{Failure, Retry, Step};
pub use policy::former;
pub use preview::{Preview, PreviewStep};
pub use survey::Survey;

use crate::flux::{Key, Kustomization};
use crate::history::{History, HistoryError, Trigger};
use crate::observe::{Event as Watched, Seen};
use crate::plan::{self, Claims, Held, Owner};
use crate::registry::Registry;
use crate::render::Renderer;
use crate::secrets::Keyring;
use crate::source::Tree;
use memory::Memory;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// A revision of a source and who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// `main@sha1:…`
    pub id: String,
    /// Author of the commit, `Name <mail>`.
    pub author: String,
    /// First line of its message.
    pub subject: String,
    /// Commit time, Unix seconds.
    pub time: i64,
}

/// One run that is to be made.
pub struct Job {
    /// The Kustomization.
    pub kustomization: Kustomization,
    /// Why.
    pub trigger: Trigger,
    /// Revision of its source.
    pub revision: Revision,
    /// Files of that revision; `None` only where nothing is rendered.
    pub tree: Option<Tree>,
    /// URL of the source, for the rule on host credentials.
    pub url: String,
    /// True for the root Kustomization.
    pub root: bool,
    /// Digests of held deletions that Git confirms.
    pub confirmed: Vec<String>,
    /// Becomes true when something newer is there, or the run is to stop.
    pub cancel: watch::Receiver<bool>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Revision that was tried.
    pub revision: Revision,
    /// Objects in the inventory, when it got that far.
    pub objects: Option<usize>,
    /// Notices for `status`.
    pub warnings: Vec<String>,
    /// Objects, printed, that somebody else writes too, and who.
    pub others: BTreeMap<String, Vec<String>>,
    /// Deletions wait for other renders of the same source.
    pub prune_pending: bool,
    /// Deletions that wait for a confirmation.
    pub held: Vec<Held>,
    /// Whether it got far enough to know what waits.
    pub judged: bool,
    /// Objects written or deleted.
    pub changes: usize,
    /// Whether it has looked at the health of everything.
    pub observed: bool,
}

/// What came of ending a Kustomization that left Git.
#[derive(Debug)]
pub struct Ended {
    /// Why it is not over.
    pub failure: Option<Failure>,
    /// Objects deleted.
    pub changes: usize,
    /// Deletions that wait for a confirmation.
    pub held: Vec<Held>,
}

impl Ended {
    /// Of an end that did nothing.
    pub fn failed(failure: Failure) -> Self {
        Ended { failure: Some(failure), changes: 0, held: Vec::new() }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// Applied and, where asked for, healthy; the sentence for the Ready condition.
    Ready(String),
    /// Not so.
    Failed(Failure),
    /// Given up for something newer.
    Cancelled,
    /// The repository states its own entry differently from the host's stand-in.
    Adopted(Box<Kustomization>),
}

impl Revision {
    /// For what has no source any more.
    pub fn unknown() -> Self {
        Revision { id: String::new(), author: String::new(), subject: String::new(), time: 0 }
    }
}

/// A question of a run to the loop.
pub enum Question {
    /// May what left be deleted, now that a render is there?
    Rendered {
        /// The Kustomization that asks.
        key: Key,
        /// What its render declared.
        orders: WorkOrders,
        /// What the graph says.
        answer: oneshot::Sender<Answer>,
    },
    /// A confirmation is about to be used.
    Uses {
        /// Of the set that it confirmed.
        digest: String,
        /// Told once the disk has it that it was used, or why that is not so.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// What the graph says to a run.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Whether objects that left this Kustomization may be deleted yet.
    pub may_prune: bool,
    /// Namespaces that only set-aside manifests would have created.
    pub set_aside_namespaces: Vec<String>,
    /// The entry as the repository states it under a name of its own, to the root that does not
    /// run as it yet.
    pub entry: Option<Box<Kustomization>>,
}

/// Readiness of a Flux object as the graph sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluxHealth {
    /// True when its Ready condition is.
    pub ready: bool,
    /// Its message.
    pub message: String,
}

/// A run's way to the graph.
#[derive(Clone)]
pub struct Ask {
    /// Questions are answered by the loop.
    pub questions: mpsc::Sender<Question>,
    /// Readiness of every Flux object, `Kind/namespace/name`.
    pub flux: watch::Receiver<Arc<HashMap<String, FluxHealth>>>,
}

/// Fixed settings of the pipeline.
pub struct Settings {
    /// Directory of the bare mirrors.
    pub mirrors: PathBuf,
    /// Private directory on tmpfs.
    pub runtime: PathBuf,
    /// Key of all digests of what may hold a secret.
    pub digest_key: [u8; 32],
    /// Runs that may be rendering and applying at the same time.
    pub workers: usize,
    /// Origin (scheme, host, port) of the root source, for the rule on host credentials.
    pub root_url: String,
}

/// How long after the start a run waits for the first answer of the API server.
const FIRST_CONNECTION: std::time::Duration = std::time::Duration::from_secs(2);

/// The steps, and what lives from one run to the next.
pub struct Pipeline {
    settings: Settings,
    renderer: Renderer,
    history: Arc<History>,
    host: HostSecrets,
    claims: Mutex<Claims>,
    memory: Mutex<HashMap<Owner, Memory>>,
    /// Names of objects that hold a secret value.
    names: Mutex<HashMap<Owner, names::Names>>,
    /// ConfigMaps that hand a secret on.
    handed: Mutex<handed::Handed>,
    connection: watch::Sender<Option<Arc<Connection>>>,
    workers: Semaphore,
    /// Why there is no connection, as was told last.
    away: Mutex<String>,
    confirmed: Mutex<Vec<String>>,
    sources: Mutex<HashMap<Key, poll::Mirror>>,
    heirs: Mutex<BTreeSet<Owner>>,
    /// The cluster's credentials of each source as they were read last.
    credentials: Mutex<HashMap<Key, inputs::Known>>,
    /// ConfigMaps and Secrets of `substituteFrom` as they were read last.
    values: Mutex<values::Values>,
    /// The keys of each Kustomization as they were read last, and from which Secret.
    keyrings: Mutex<HashMap<Key, (String, Arc<Keyring>)>>,
    /// What is stored of the end of each Kustomization, by its key in the database.
    policies: Mutex<HashMap<String, String>>,
    /// Image registries, with their connections.
    registry: Registry,
    /// Tags, choices and what is known of files, from one image step to the next.
    images: Mutex<image::Images>,
    edge: edge::Edge,
    /// Kustomizations whose run waits for health.
    observing: Mutex<BTreeSet<Owner>>,
    /// Commits that are being pushed.
    pushing: AtomicUsize,
    stopping: watch::Sender<bool>,
    since: std::time::Instant,
}

impl Pipeline {
    /// Puts the parts together and takes up the inventories as claims.
    pub fn new(
        settings: Settings,
        renderer: Renderer,
        history: History,
        host: HostSecrets,
    ) -> Result<Self, HistoryError> {
        let mut claims = Claims::default();
        // Without all of the claims a prune could hit what another one wants.
        for (owner, ids) in record::inventories(&history)? {
            claims.remember(&owner, ids);
        }
        let workers = Semaphore::new(settings.workers);
        let since = std::time::Instant::now();
        let memory = Mutex::new(disputes::restore(&history, disputes::steady_ms(since))?);
        let handed = Mutex::new(handed::Handed::restore(&history)?);
        let images = Mutex::new(image::Images::restore(history.choices()?));
        let registry = Registry::new(host.mirrors.clone());
        Ok(Pipeline {
            settings,
            renderer,
            history: Arc::new(history),
            host,
            claims: Mutex::new(claims),
            memory,
            names: Mutex::default(),
            handed,
            connection: watch::channel(None).0,
            workers,
            away: Mutex::default(),
            confirmed: Mutex::default(),
            sources: Mutex::default(),
            heirs: Mutex::default(),
            credentials: Mutex::default(),
            values: Mutex::default(),
            keyrings: Mutex::default(),
            policies: Mutex::default(),
            registry,
            images,
            edge: edge::Edge::default(),
            observing: Mutex::default(),
            pushing: AtomicUsize::new(0),
            stopping: watch::channel(false).0,
            since,
        })
    }

    /// Ends every run after the object in hand.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// True while a run of this owner has done its writes, and waits for health.
    pub fn observes(&self, owner: &Owner) -> bool {
        lock(&self.observing).contains(owner)
    }

    /// True while a commit is on its way to a remote.
    pub fn pushes(&self) -> bool {
        self.pushing.load(Ordering::SeqCst) > 0
    }

    /// Takes in what a watch saw of an object. Answers the Kustomizations that have to judge it,
    /// each with the milliseconds it should wait: a contested object is not fought over.
    pub fn seen(&self, seen: &Seen) -> Vec<(Owner, u64)> {
        let now = self.steady_ms();
        let deleted = seen.event == Watched::Deleted;
        let gate = (!deleted).then_some(seen.gate);
        let version = version(seen);
        let mut memory = lock(&self.memory);
        memory
            .iter_mut()
            .filter_map(|(owner, memory)| {
                let news = memory.see(&seen.id, gate, version);
                let known = memory.objects.contains_key(&seen.id);
                if known && deleted && plan::unfinished(&seen.metadata) {
                    memory.unfinished.insert(seen.id.clone());
                }
                news.then(|| (owner.clone(), memory.patience(&seen.id, now)))
            })
            .collect()
    }

    /// The patience with the first of an owner's objects that a run is to judge, milliseconds;
    /// `None` when there is none.
    pub fn nominated(&self, owner: &Owner) -> Option<u64> {
        let now = self.steady_ms();
        let memory = lock(&self.memory);
        let memory = memory.get(owner)?;
        memory.nominated.keys().map(|id| memory.patience(id, now)).min()
    }

    /// The same among the contested objects alone, which a run may have passed over.
    pub fn contested(&self, owner: &Owner) -> Option<u64> {
        lock(&self.memory).get(owner)?.contested(self.steady_ms())
    }

    /// Makes the next run of every Kustomization compare all of its objects with the cluster:
    /// nothing that was seen before counts, as after an outage the cluster may be an older one.
    pub fn verify(&self) {
        lock(&self.memory).values_mut().for_each(Memory::doubt);
        lock(&self.values).doubt();
    }

    /// Sets or takes away the connection to the API server.
    pub fn connect(&self, connection: Option<Arc<Connection>>) {
        // Without a watch they are as good as not read.
        lock(&self.values).clear();
        self.connection.send_replace(connection);
    }

    /// Tells runs why there is no connection.
    pub fn away(&self, why: &str) {
        why.clone_into(&mut lock(&self.away));
    }

    /// The connection, if there is one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.borrow().clone()
    }

    /// Right after the start the server may just not have answered yet: that is no failure.
    async fn first_connection(&self) {
        let Some(left) = FIRST_CONNECTION.checked_sub(self.since.elapsed()) else { return };
        let mut connection = self.connection.subscribe();
        // In time or not, and whether it came: the run looks for itself.
        let _ = tokio::time::timeout(left, connection.wait_for(Option::is_some)).await;
    }

    /// Replaces the digests of delete sets that were confirmed.
    pub fn confirm(&self, digests: Vec<String>) {
        *lock(&self.confirmed) = digests;
    }

    /// Child processes that rendering has started so far.
    pub fn render_children(&self) -> u64 {
        self.renderer.children()
    }

    /// Owners that are to run: left alone with a shared object, or refused for one on which all
    /// agree now.
    pub fn heirs(&self) -> BTreeSet<Owner> {
        std::mem::take(&mut *lock(&self.heirs))
    }

    /// Stores which cluster the history is made on, beside the caller.
    pub fn know_cluster(&self, identity: &str) {
        let (history, identity) = (self.history.clone(), identity.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = history.set_meta(record::CLUSTER, &identity) {
                tracing::warn!("the cluster's identity could not be stored: {error}");
            }
        });
    }

    /// The database of runs, for reading.
    pub fn history(&self) -> Arc<History> {
        self.history.clone()
    }
}

/// resourceVersion of an object as a watch saw it; 0 when it cannot be told.
fn version(seen: &Seen) -> u64 {
    let version = seen.metadata.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Locks; a thread that panicked while holding the lock has left whole values behind, because
/// every critical section here is a handful of assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
