//! Carries out the graph's effects as tasks: polls, runs, ends. One panic costs one item.

use super::sweep::{Swept, look};
use crate::flux::{GitRepository, ImagePolicy, ImageRepository, Key, Kind, Kustomization};
use crate::graph::Look;
use crate::history::Trigger;
use crate::observe::Status;
use crate::pipeline::{
    Ask, Automated, Automation, Chosen, EdgeReport, EdgeTask, Ended, Failure, Job, Outcome,
    Pipeline, Report, Retry, Revision, Scanned, Standing, Step,
};
use crate::plan::{Entry, Owner};
use crate::render::ObjectId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

/// What a task was for, and what came of it.
pub enum Done {
    /// A source was restored from disk.
    Restored(Key, Result<Option<Revision>, Failure>),
    /// A source was asked.
    Polled(Key, Result<Option<Revision>, Failure>),
    /// A Kustomization was run.
    Ran(Key, Box<Report>),
    /// A removed Kustomization was ended.
    Ended(Box<Kustomization>, Ended),
    /// What left Git, or is in no inventory, was looked for.
    Swept(Result<Swept, Failure>),
    /// Objects were entered into the inventory of a Kustomization.
    Entered(Box<Kustomization>, Result<(), Failure>),
    /// Objects were looked at.
    Looked(Key, Vec<(ObjectId, Option<Status>)>),
    /// A source or image object that left Git was let go of.
    Forgotten,
    /// A registry was asked for tags.
    Scanned(Key, Result<Scanned, Failure>),
    /// A policy has chosen.
    Chose(Key, Box<Chosen>),
    /// An automation has replaced values.
    Automated(Key, Result<Automated, Failure>),
    /// The edge was run.
    Edge(Box<EdgeReport>),
}

/// What a task is for, so that a panic can be put down to an item.
#[derive(Clone)]
enum Purpose {
    Poll(Key),
    Run(Key, Revision),
    End(Box<Kustomization>),
    Sweep,
    Look(Key),
    Image(Key),
    Edge,
    Other,
}

/// Longest that tasks take to be gone that were dropped.
const DROP: Duration = Duration::from_secs(1);

/// The tasks under way: at most a poll or run, an end and a look for each item, and one sweep.
pub struct Workers {
    pipeline: Arc<Pipeline>,
    /// The way of runs and ends to the loop.
    ask: Ask,
    tasks: JoinSet<Done>,
    purposes: HashMap<Id, Purpose>,
    cancels: HashMap<Key, watch::Sender<bool>>,
    /// Ends that wait for the last run of their Kustomization, or an end before them.
    waiting: HashMap<Key, (Job, bool)>,
    /// Kustomizations that are being ended.
    ending: HashSet<Key>,
}

impl Workers {
    /// No tasks yet.
    pub fn new(pipeline: Arc<Pipeline>, ask: Ask) -> Self {
        Workers {
            pipeline,
            ask,
            tasks: JoinSet::new(),
            purposes: HashMap::new(),
            cancels: HashMap::new(),
            waiting: HashMap::new(),
            ending: HashSet::new(),
        }
    }

    /// True while something is under way that changes anything; what only asks may be dropped at
    /// any point, and an automation until it pushes.
    pub fn in_hand(&self) -> bool {
        self.purposes.values().any(|purpose| match purpose {
            Purpose::Run(..) | Purpose::End(_) | Purpose::Edge | Purpose::Other => true,
            Purpose::Image(key) => {
                key.kind == Kind::ImageUpdateAutomation && self.pipeline.pushes()
            }
            Purpose::Poll(_) | Purpose::Sweep | Purpose::Look(_) => false,
        })
    }

    fn spawn(&mut self, purpose: Purpose, work: impl Future<Output = Done> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.purposes.insert(id, purpose);
    }

    /// Asks a source. The first time its mirror is opened instead, so that the last good revision
    /// is in force before anybody waits for a remote; the graph then asks again.
    pub fn poll(&mut self, source: GitRepository) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Poll(source.key()), async move {
            let key = source.key();
            if pipeline.opened(&key) {
                Done::Polled(key, pipeline.poll(&source).await)
            } else {
                Done::Restored(key, pipeline.restore(&source).await)
            }
        });
    }

    /// Runs a Kustomization. The receiver in the job is replaced by one that `cancel` reaches.
    pub fn run(&mut self, mut job: Job) {
        let key = job.kustomization.key();
        if self.ending.contains(&key) || self.waiting.contains_key(&key) {
            let cause = "its former declaration is still being ended";
            let failure = Failure::new(Step::Wait, "Progressing", cause).retry(Retry::Soon);
            let report = failed(failure, job.revision);
            self.spawn(Purpose::Other, async move { Done::Ran(key, report) });
            return;
        }
        let (sender, receiver) = watch::channel(false);
        job.cancel = receiver;
        self.cancels.insert(key.clone(), sender);
        let (pipeline, ask) = (self.pipeline.clone(), self.ask.clone());
        let purpose = Purpose::Run(key.clone(), job.revision.clone());
        self.spawn(purpose, async move {
            Done::Ran(key, Box::new(pipeline.reconcile(job, &ask).await))
        });
    }

    /// Ends a Kustomization that left Git, after a run of it that is still under way, or an end that
    /// may not know yet what has been confirmed.
    pub fn end(&mut self, job: Job, orphan: bool) {
        let key = job.kustomization.key();
        if self.cancels.contains_key(&key) || self.ending.contains(&key) {
            self.cancel(&key);
            self.waiting.entry(key).or_insert((job, orphan));
            return;
        }
        self.ending.insert(key.clone());
        let (pipeline, ask) = (self.pipeline.clone(), self.ask.clone());
        let kustomization = Box::new(job.kustomization.clone());
        self.spawn(Purpose::End(kustomization.clone()), async move {
            Done::Ended(kustomization, pipeline.finalize(job, orphan, &ask).await)
        });
    }

    /// Kustomizations that are being ended, or will be after their last run.
    pub fn ends(&self) -> impl Iterator<Item = &Key> {
        self.ending.iter().chain(self.waiting.keys())
    }

    /// Looks for what left Git, or is in no inventory.
    pub fn sweep(&mut self, standing: Standing) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Sweep, async move { Done::Swept(look(pipeline, standing).await) });
    }

    /// Looks at objects that a Kustomization's Ready depends on.
    pub fn look(&mut self, kustomization: Kustomization, look: Look) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Look(look.key.clone()), async move {
            let Look { key, ids, why } = look;
            Done::Looked(key, pipeline.look(&kustomization, ids, why).await)
        });
    }

    /// Enters objects that were found into the inventory of a Kustomization.
    pub fn enter(&mut self, kustomization: Kustomization, entries: Vec<Entry>, left: bool) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Other, async move {
            let entered = pipeline.enter(&Owner::of(&kustomization), &entries, left).await;
            Done::Entered(Box::new(kustomization), entered)
        });
    }

    /// Removes the mirror of a source, or what is stored of an image object, that left Git.
    pub fn forget(&mut self, key: Key) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Other, async move {
            match key.kind {
                Kind::GitRepository => pipeline.forget_source(&key).await,
                _ => pipeline.forget_image(&key).await,
            }
            Done::Forgotten
        });
    }

    /// Lists the tags of an image repository.
    pub fn scan(&mut self, repository: ImageRepository, trigger: Trigger) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Image(repository.key()), async move {
            Done::Scanned(repository.key(), pipeline.scan(&repository, &trigger).await)
        });
    }

    /// Lets a policy choose.
    pub fn choose(&mut self, policy: ImagePolicy, repository: Box<ImageRepository>) {
        let pipeline = self.pipeline.clone();
        self.spawn(Purpose::Image(policy.key()), async move {
            let chosen = pipeline.choose(&policy, &repository).await;
            Done::Chose(policy.key(), Box::new(chosen))
        });
    }

    /// Replaces what policies have chosen.
    pub fn automate(&mut self, job: Automation) {
        let pipeline = self.pipeline.clone();
        let key = job.automation.key();
        self.spawn(Purpose::Image(key.clone()), async move {
            Done::Automated(key, pipeline.automate(job).await)
        });
    }

    /// Runs the edge.
    pub fn edge(&mut self, task: EdgeTask, trigger: Trigger) {
        let (pipeline, ask) = (self.pipeline.clone(), self.ask.clone());
        self.spawn(Purpose::Edge, async move {
            Done::Edge(Box::new(pipeline.edge(task, trigger, &ask).await))
        });
    }

    /// Stops a run's waits: for bases from elsewhere, and for health.
    pub fn cancel(&mut self, key: &Key) {
        if let Some(cancel) = self.cancels.get(key) {
            cancel.send_replace(true);
        }
    }

    /// Stops the waits of every run.
    pub fn cancel_all(&mut self) {
        for cancel in self.cancels.values() {
            cancel.send_replace(true);
        }
    }

    /// Begins the end that has waited for what was under way.
    fn next_end(&mut self, key: &Key) {
        if let Some((job, orphan)) = self.waiting.remove(key) {
            self.end(job, orphan);
        }
    }

    /// Drops what only asks, and waits for it to be gone: the last of them closes the database.
    pub async fn drop_rest(&mut self) {
        // What blocks a thread cannot be dropped, and is not waited for.
        let _ = tokio::time::timeout(DROP, self.tasks.shutdown()).await;
    }

    /// The next task that ends; pends for ever while there is none.
    pub async fn next(&mut self) -> Done {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (purpose, done) = match ended {
            Ok((id, done)) => (self.purposes.remove(&id), Some(done)),
            Err(error) => (self.purposes.remove(&error.id()), None),
        };
        let purpose = purpose.unwrap_or(Purpose::Other);
        match &purpose {
            Purpose::Run(key, _) => {
                self.cancels.remove(key);
                self.next_end(key);
            }
            Purpose::End(kustomization) => {
                self.ending.remove(&kustomization.key());
                self.next_end(&kustomization.key());
            }
            Purpose::Poll(_)
            | Purpose::Sweep
            | Purpose::Look(_)
            | Purpose::Image(_)
            | Purpose::Edge
            | Purpose::Other => {}
        }
        done.unwrap_or_else(|| panicked(purpose))
    }
}

/// A run that ended before it began.
fn failed(failure: Failure, revision: Revision) -> Box<Report> {
    Box::new(Report {
        outcome: Outcome::Failed(failure),
        revision,
        objects: None,
        warnings: Vec::new(),
        others: BTreeMap::new(),
        prune_pending: false,
        held: Vec::new(),
        changes: 0,
        judged: false,
        observed: false,
    })
}

/// A panic as the failure of its item: reported, and tried again at the retry interval.
fn panicked(purpose: Purpose) -> Done {
    let failure = |step| {
        Failure::new(step, "InternalError", "a defect of gitopsd ended this step")
            .hint(Some("please report the lines above this one in journalctl -u gitopsd".into()))
            .retry(Retry::Interval)
    };
    match purpose {
        Purpose::Poll(key) => Done::Polled(key, Err(failure(Step::Fetch))),
        Purpose::Run(key, revision) => Done::Ran(key, failed(failure(Step::Apply), revision)),
        Purpose::End(kustomization) => {
            Done::Ended(kustomization, Ended::failed(failure(Step::Prune)))
        }
        Purpose::Sweep => Done::Swept(Err(failure(Step::Prune))),
        Purpose::Look(key) => Done::Looked(key, Vec::new()),
        Purpose::Image(key) => match key.kind {
            Kind::ImageRepository => Done::Scanned(key, Err(failure(Step::Scan))),
            Kind::ImagePolicy => Done::Chose(key, Box::new(Chosen::failed(failure(Step::Choose)))),
            _ => Done::Automated(key, Err(failure(Step::Push))),
        },
        Purpose::Edge => Done::Edge(Box::new(EdgeReport::failed(failure(Step::Apply)))),
        Purpose::Other => Done::Forgotten,
    }
}
