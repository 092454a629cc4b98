//! The edge's runs: step calls that bring it up, keep it right and withdraw it.
//!
//! The edge is one more owner of objects, `Host/edge`, which no Kustomization can be called, since
//! neither a namespace nor a name has capitals. Its objects go through the same plan, apply, observe
//! and record as any other's, and what is done at the provider is recorded in the same run.
//!
//! [`Pipeline::edge`] makes one run: `facts` of the cluster are gathered, `up` brings everything to
//! where it should be or `down` takes it away, both through `provider`, which carries errors of the
//! API across and records each change; `view` is what came of it. [`Pipeline::edge_plan`] goes the
//! same way and writes nothing, and [`Pipeline::edge_plan_with`] does so for a configuration that is
//! not in force yet. A run never waits: what is not there yet, such as a connector's connection, is
//! looked for by the next.
//!
//! After a kill between any two calls the next run goes on: a tunnel is found by its name, records
//! by comment and target, and rules are noted before they are written. `left` clears tunnels that
//! were used before. Without the provider the objects in the cluster are kept right with the token
//! that is known.

mod down;
mod facts;
mod hosts;
mod left;
mod plan;
mod provider;
mod up;
mod view;

pub use view::{EdgeHost, EdgeView};

use super::kustomization::{Run, Wanted};
use super::{
    Ask, Failure, Job, Outcome, Pipeline, Retry, Revision, Step, WorkOrders, former, lock,
};
use crate::config::EdgeSettings;
use crate::edge::{Cloudflare, State, Zoned};
use crate::flux::Kustomization;
use crate::history::{HistoryError, Trigger};
use crate::plan::{Held, Owner};
use crate::render::Manifest;
use crate::secrets::Plaintext;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Reason of a run that ended because objects of ours are on their way out: no failure of anything.
const LEAVING: &str = "Progressing";

/// Reason of a run that reached nobody: whatever the uplink says of it, it is one and the same.
pub const EDGE_OFFLINE: &str = "Offline";

/// Key of the edge's note in the database.
const NOTE: &str = "edge";

/// What the edge is made from.
#[derive(Default)]
pub struct EdgeParts {
    /// As configured; `None` when there is to be none.
    pub settings: Option<EdgeSettings>,
    /// The provider's token.
    pub token: Option<Plaintext>,
    /// What stands for this machine in names at the provider.
    pub suffix: String,
}

/// What of the edge lives from one run to the next.
#[derive(Default)]
pub(super) struct Edge {
    parts: EdgeParts,
    memory: Mutex<Memory>,
}

/// What the last run learned.
#[derive(Default)]
struct Memory {
    /// The client, and the address that it is for.
    client: Option<(String, Arc<Cloudflare>)>,
    /// Account and zones by what the configuration calls them; looked up once.
    zones: Option<(String, Vec<Zoned>)>,
    /// What the connectors run with, and the tunnel that it belongs to.
    token: Option<(String, Plaintext)>,
    /// The objects that were applied last.
    objects: Vec<Manifest>,
    /// Everything in Git is rendered.
    complete: bool,
    /// Hosts that were discovered and that the last run has missed.
    missed: BTreeSet<String>,
    /// What was seen last.
    view: EdgeView,
    /// What the journal was told of a withdrawal before it began.
    foretold: String,
}

impl Edge {
    /// The same with other settings and another token, of which nothing is known yet.
    fn aside(&self, settings: Option<EdgeSettings>, token: Option<Plaintext>) -> Edge {
        let suffix = self.parts.suffix.clone();
        let memory = lock(&self.memory);
        let mut known = Memory {
            complete: memory.complete,
            missed: memory.missed.clone(),
            ..Memory::default()
        };
        if self.has_token(token.as_ref()) {
            // It keeps to the pause that the provider wants.
            known.client.clone_from(&memory.client);
        }
        Edge { parts: EdgeParts { settings, token, suffix }, memory: Mutex::new(known) }
    }

    fn has_token(&self, token: Option<&Plaintext>) -> bool {
        token.map(Plaintext::expose) == self.parts.token.as_ref().map(Plaintext::expose)
    }

    /// The client for the API at this address, made once.
    fn client(&self, url: &str) -> Result<Arc<Cloudflare>, Failure> {
        let mut memory = lock(&self.memory);
        if let Some((_, client)) = memory.client.as_ref().filter(|(known, _)| known == url) {
            return Ok(client.clone());
        }
        let failed = |cause: &str, hint: &str| {
            Failure::new(Step::Plan, "EdgeFailed", cause)
                .object("token")
                .hint(Some(hint.to_owned()))
        };
        let Some(token) = self.parts.token.clone() else {
            let hint = "put one into edge.cloudflare.tokenFile or the credential cloudflare-token, \
                        then: systemctl reload gitopsd";
            return Err(failed("there is no API token of Cloudflare", hint));
        };
        let client = Cloudflare::new(url, token);
        let client = Arc::new(client.map_err(|error| failed(&error.to_string(), "see the log"))?);
        memory.client = Some((url.to_owned(), client.clone()));
        Ok(client)
    }
}

/// What a run is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeTask {
    /// Bring everything to where it should be.
    Keep,
    /// Only what is in the cluster, if it is known what that is.
    Heal,
    /// The same as `Keep`, after the tunnel got a new secret.
    Rotate,
    /// Take everything away, as it is not configured any more.
    Withdraw,
    /// The same, as somebody has asked for, until it is asked for again.
    Down(String),
    /// The end of that.
    Up,
}

/// What came of a run.
#[derive(Debug)]
pub struct EdgeReport {
    /// The edge now.
    pub view: EdgeView,
    /// Why the run failed.
    pub failure: Option<Failure>,
    /// Something is not there yet: another run should come soon.
    pub waits: bool,
    /// The least time before the next run.
    pub pause: Duration,
    /// Deletions that wait for a confirmation.
    pub held: Vec<Held>,
    /// Changes made.
    pub changes: usize,
    /// The run's name in the history; empty when nothing had to be written.
    pub run: String,
    /// Everything has been taken away.
    pub withdrawn: bool,
    /// Whether the edge is to be up or down is in the note. If not, it is to be asked for again.
    pub noted: bool,
}

impl EdgeReport {
    /// Of a run that ended before it could say anything.
    pub fn failed(failure: Failure) -> Self {
        EdgeReport {
            view: EdgeView { message: failure.to_string(), ..EdgeView::default() },
            failure: Some(failure),
            waits: false,
            pause: Duration::ZERO,
            held: Vec::new(),
            changes: 0,
            run: String::new(),
            withdrawn: false,
            noted: false,
        }
    }

    /// What is wrong, in the words that tell one trouble from another.
    pub fn trouble(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| match failure.reason.as_str() {
            EDGE_OFFLINE => EDGE_OFFLINE.to_owned(),
            _ => failure.to_string(),
        })
    }
}

/// What a run leaves for its report.
#[derive(Default)]
struct Course {
    view: EdgeView,
    waits: bool,
    pause: Duration,
    withdrawn: bool,
}

impl Pipeline {
    /// Adds the edge.
    pub fn with_edge(mut self, parts: EdgeParts) -> Self {
        self.edge = Edge { parts, memory: Mutex::default() };
        self
    }

    /// Whether an edge is configured.
    pub fn edge_wanted(&self) -> bool {
        self.edge.parts.settings.is_some()
    }

    /// Tells whether everything in Git is rendered: only then an Ingress that is not there counts.
    pub fn edge_complete(&self, complete: bool) {
        lock(&self.edge.memory).complete = complete;
    }

    /// Whether these are the settings and the token in force.
    pub fn edge_in_force(
        &self,
        settings: Option<&EdgeSettings>,
        token: Option<&Plaintext>,
    ) -> bool {
        settings == self.edge.parts.settings.as_ref() && self.edge.has_token(token)
    }

    /// How often the provider is asked.
    pub fn edge_interval(&self) -> Duration {
        self.edge.parts.settings.as_ref().map_or(Duration::from_secs(600), |s| s.interval)
    }

    /// Whether something of an edge is left that is not configured any more. Reads the database.
    pub fn edge_left(&self) -> Result<bool, HistoryError> {
        if self.edge_wanted() {
            return Ok(false);
        }
        let owned = !self.history.inventory(&Owner::edge().to_string())?.is_empty();
        Ok(owned || self.history.meta(NOTE)?.is_some())
    }

    /// Makes one run.
    pub async fn edge(&self, task: EdgeTask, trigger: Trigger, ask: &Ask) -> EdgeReport {
        let job = edge_job(trigger);
        let mut run = Run::new(self, &job);
        let mut course = Course { view: lock(&self.edge.memory).view.clone(), ..Course::default() };
        let noted = match &task {
            EdgeTask::Down(by) => self.note_down(Some(by.clone())).await,
            EdgeTask::Up => self.note_down(None).await,
            _ => Ok(()),
        };
        let is_noted = noted.is_ok();
        let result = match (noted, &task) {
            (Err(failure), _) => Err(failure),
            (Ok(()), EdgeTask::Withdraw | EdgeTask::Down(_)) => run.down(&mut course, ask).await,
            (Ok(()), _) => run.up(&task, &mut course, ask).await,
        };
        EdgeReport { noted: is_noted, ..run.edge_close(course, result).await }
    }

    /// Notes who has taken the edge down, or that it is to be up again.
    async fn note_down(&self, by: Option<String>) -> Result<(), Failure> {
        let state = self.edge_note().await?;
        // With the note, what stands at the provider is forgotten too.
        let unsure = by.is_some() && state.as_ref().is_none_or(|state| state.unsure);
        let state = state.unwrap_or_default();
        self.keep_edge_state(&State { down: by, unsure, ..state }).await
    }

    /// The note. What cannot be read is as good as lost: everything is found again by its marks.
    async fn edge_note(&self) -> Result<Option<State>, Failure> {
        let note = self.database(|history| history.meta(NOTE)).await?;
        Ok(note.and_then(|note| serde_json::from_str(&note).ok()))
    }

    async fn edge_state(&self) -> Result<State, Failure> {
        self.edge_note().await.map(Option::unwrap_or_default)
    }

    async fn keep_edge_state(&self, state: &State) -> Result<(), Failure> {
        let text = serde_json::to_string(state)
            .map_err(|error| Failure::new(Step::Record, "RecordFailed", error.to_string()))?;
        self.database(move |history| history.set_meta(NOTE, &text)).await
    }

    async fn drop_edge_state(&self) -> Result<(), Failure> {
        self.database(|history| history.drop_meta(NOTE)).await
    }
}

/// A run of the edge in the words of the steps.
fn edge_job(trigger: Trigger) -> Job {
    Job {
        kustomization: edge_kustomization(),
        trigger,
        revision: Revision { id: "configuration".to_owned(), ..Revision::unknown() },
        tree: None,
        url: String::new(),
        root: false,
        confirmed: Vec::new(),
        cancel: watch::channel(false).1,
    }
}

/// The edge as an owner.
pub fn edge_kustomization() -> Kustomization {
    let readable = Owner { namespace: "host".to_owned(), name: "edge".to_owned() };
    // Invariant: both are valid names, and `former` writes the rest.
    let mut kustomization = former(&readable, true).expect("a valid Kustomization");
    let Owner { namespace, name } = Owner::edge();
    (kustomization.namespace, kustomization.name) = (namespace, name);
    kustomization
}

impl Run<'_> {
    /// What the steps take: the objects, and that what left them may go.
    fn edge_objects_wanted(&self, manifests: Vec<Manifest>) -> Wanted {
        Wanted {
            manifests,
            handed: Default::default(),
            kept: Default::default(),
            orders: WorkOrders::default(),
            answer: super::Answer { may_prune: true, ..super::Answer::default() },
            input: "edge".to_owned(),
        }
    }

    async fn edge_close(mut self, course: Course, result: Result<(), Failure>) -> EdgeReport {
        self.enter(Step::Record);
        let Course { mut view, mut waits, pause, withdrawn } = course;
        for warning in std::mem::take(&mut self.warnings) {
            if !view.warnings.contains(&warning) {
                view.warnings.push(warning);
            }
        }
        let result = match result {
            Err(leaving) if leaving.reason == LEAVING => {
                waits = true;
                (view.ready, view.message, view.hint) = (false, leaving.cause, leaving.hint);
                Ok(())
            }
            result => result,
        };
        view.waits = waits;
        view.message = self.redactor.mask(&view.message);
        let stopping = matches!(&result, Err(failure) if failure.reason == super::write::STOPPING);
        let failure = result.err().filter(|_| !stopping).map(|mut failure| {
            failure.cause = self.redactor.mask(&failure.cause);
            failure.hint = failure.hint.map(|hint| self.redactor.mask(&hint));
            failure
        });
        let outcome = match &failure {
            _ if stopping => Outcome::Cancelled,
            Some(failure) => Outcome::Failed(failure.clone()),
            None => Outcome::Ready(view.message.clone()),
        };
        let recorded = self.finish_record(&outcome).await;
        let failure = failure.or(recorded.err());
        if let Some(failure) = failure.as_ref().filter(|_| view.ready || view.message.is_empty()) {
            view.ready = false;
            view.message = failure.to_string();
        }
        lock(&self.edge.memory).view = view.clone();
        if self.changes > 0 && failure.is_none() {
            tracing::info!(
                message_id = crate::logging::Message::RunSucceeded.id(),
                gitopsd_kustomization = self.owner.to_string(),
                gitopsd_revision = self.job.revision.id,
                gitopsd_run = self.run_id(),
                "edge: {}, {} changes",
                view.message,
                self.changes
            );
        }
        let waits = waits || failure.as_ref().is_some_and(|f| f.retry == Retry::Soon);
        EdgeReport {
            view,
            failure,
            waits,
            pause,
            run: self.run_id(),
            held: self.held,
            changes: self.changes,
            withdrawn,
            noted: true,
        }
    }
}
