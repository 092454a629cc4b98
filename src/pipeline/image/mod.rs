//! Image automation: one scan of a registry, one choice of a policy, one commit of an automation.
//!
//! [`Pipeline::scan`] lists the tags of an ImageRepository and stores them when they are news.
//! [`Pipeline::choose`] lets an ImagePolicy choose among what is stored: it asks nobody, unless a
//! digest is wanted or the policy stands in another namespace. [`Pipeline::automate`] looks whether
//! the files of a source name what is chosen; where they do, that is all. Otherwise it edits them on
//! the remote's present tip, stores the commit and pushes it. A run notes which images it applied,
//! and whether they were healthy (`running`°, `deployed`); [`Pipeline::images`] shows all of it.
//!
//! What is stored is in force: a registry that is away, or a restart, changes no choice. A commit
//! is stored before it leaves the host. Killed at any point, the next ordinary pass looks at the
//! branch as it is then: values that are in place need no commit.
//!
//! When each is due is decided by `graph`; which tag wins, how a file is edited and what the
//! message says by `image`.

mod access;
mod automate;
mod choose;
mod deployed;
mod edit;
mod files;
mod hold;
mod running;
mod scan;
mod show;
mod target;

pub use automate::Automation;
pub use files::{MarkedFiles, marked_files};
pub use show::{Candidate, ImageAsk, ImageView, RunningView, Unwell};

use super::{Failure, Pipeline, Revision};
use crate::flux::{ImagePolicy, Key, Kind};
use crate::history::{Choice, HistoryError, Replaced};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a scan found.
#[derive(Debug)]
pub struct Scanned {
    /// How many tags, without the excluded ones.
    pub tags: usize,
    /// Of their list, in hex.
    pub checksum: String,
    /// Whether policies may choose otherwise now.
    pub changed: bool,
    /// When to scan next, where that is not the interval.
    pub next: Option<Duration>,
}

/// What a policy made of the tags.
#[derive(Debug)]
pub struct Chosen {
    /// What is in force, also where choosing failed.
    pub choice: Option<Choice>,
    /// Whether that is another one than before.
    pub news: bool,
    /// What an operator should know of how it was chosen.
    pub notice: Option<String>,
    /// The sentence for the Ready condition, or why there is no new choice.
    pub result: Result<String, Failure>,
}

/// What an automation did.
#[derive(Debug)]
pub struct Automated {
    /// The sentence for the Ready condition.
    pub message: String,
    /// What it pushed, if there was something to replace.
    pub pushed: Option<Pushed>,
    /// Notices for `status`: markers without effect, and what waits.
    pub warnings: Vec<String>,
    /// When to look again, where that is sooner than the interval.
    pub again: Option<Duration>,
}

/// A commit that has arrived.
#[derive(Debug)]
pub struct Pushed {
    /// URL of the remote as the source says it.
    pub url: String,
    /// The branches that were pushed to.
    pub branches: Vec<String>,
    /// The commit.
    pub revision: Revision,
    /// What it replaced.
    pub replaced: Vec<Replaced>,
}

impl Chosen {
    /// A choice that failed with nothing in force.
    pub fn failed(failure: Failure) -> Self {
        Chosen { choice: None, news: false, notice: None, result: Err(failure) }
    }
}

/// What lives from one step to the next. All of it is a help: it is gone after a restart, but for
/// the choices, which are read again.
pub(super) struct Images {
    /// What was learnt by the last scan of a repository.
    listed: HashMap<Key, scan::Listed>,
    /// What repositories are asked with.
    keys: HashMap<Key, scan::Keys>,
    /// Registries that want no request, and until when, Unix milliseconds.
    rests: HashMap<String, i64>,
    /// Scans take turns at each registry.
    registries: HashMap<String, Arc<Semaphore>>,
    /// By policy, `namespace/name`: what is in force, and the policy once it has chosen here.
    known: BTreeMap<String, Known>,
    /// Trees and files, by Git's ids, in which no marker stands.
    unmarked: Arc<HashSet<String>>,
    /// By automation, `namespace/name`: what a person should know of its last commit.
    told: HashMap<String, Vec<String>>,
    /// Policies of whose order the journal was told.
    noticed: HashSet<Key>,
    /// One automation at a time for each remote.
    remotes: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// One policy's choice.
struct Known {
    choice: Choice,
    policy: Option<ImagePolicy>,
}

impl Images {
    /// What is stored of choices: a run may come before the policies.
    pub(super) fn restore(choices: Vec<(String, Choice)>) -> Self {
        let known = choices
            .into_iter()
            .map(|(policy, choice)| (policy, Known { choice, policy: None }))
            .collect();
        Images {
            listed: HashMap::new(),
            keys: HashMap::new(),
            rests: HashMap::new(),
            registries: HashMap::new(),
            known,
            unmarked: Arc::default(),
            told: HashMap::new(),
            noticed: HashSet::new(),
            remotes: HashMap::new(),
        }
    }
}

impl Pipeline {
    /// What each policy, `namespace/name`, has chosen: at the start, what is stored.
    pub fn choices(&self) -> Vec<(String, Choice)> {
        let images = super::lock(&self.images);
        images.known.iter().map(|(policy, known)| (policy.clone(), known.choice.clone())).collect()
    }

    /// True once for each policy, for what is to be told of its order a single time: its words follow
    /// the tags, and it comes and goes with them. A restart tells it again.
    pub fn first_notice(&self, policy: &Key) -> bool {
        super::lock(&self.images).noticed.insert(policy.clone())
    }

    /// Lets go of what is stored of an image object that left Git. Commits stay in the history.
    pub async fn forget_image(&self, key: &Key) {
        let (name, kind) = (format!("{}/{}", key.namespace, key.name), key.kind);
        {
            let mut images = super::lock(&self.images);
            images.listed.remove(key);
            images.keys.remove(key);
            images.noticed.remove(key);
            match kind {
                Kind::ImagePolicy => drop(images.known.remove(&name)),
                Kind::ImageUpdateAutomation => drop(images.told.remove(&name)),
                _ => {}
            }
        }
        let forgotten = self.database(move |history| match kind {
            Kind::ImageRepository => history.forget_tags(&name),
            Kind::ImagePolicy => history.forget_choice(&name),
            _ => Ok::<(), HistoryError>(()),
        });
        if let Err(failure) = forgotten.await {
            // A row too many costs nothing; one of the same name replaces it.
            tracing::warn!("{key} left Git: {failure}");
        }
    }
}
