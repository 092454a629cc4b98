//! When the edge is run: with the connection, at its interval, when its objects move, when asked.
//!
//! One run at a time. What asks for another meanwhile is taken together: the task that does most
//! wins, and of up and down what was said last. A failure that may pass is tried again after
//! [`FIRST`], ever less often, at the latest at the interval; one that needs a person, at the
//! interval. It has no place in the graph: nothing depends on it, and what it waits for keeps no
//! workload from being reconciled.

use super::Daemon;
use super::boot::{edge_on_disk, now_ms};
use super::calls::{Decided, Reply, while_waited};
use crate::api::{EdgeAsk, Refused};
use crate::flux::Key;
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{EdgeReport, EdgeTask, EdgeView, Pipeline, Preview, Retry};
use crate::plan::{Held, Owner};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First pause after a run that has something to wait for.
const FIRST: Duration = Duration::from_secs(2);

/// Longest pause while something is waited for that comes by itself, such as a connection.
const WAITING: Duration = Duration::from_secs(60);

/// Events on a connector's Deployment that are taken together.
const CALM: Duration = Duration::from_secs(1);

/// Least pause between two runs that events on a healthy connector lead to.
const HEALTHY: Duration = Duration::from_secs(30);

/// Said of a plan that is not the next run's.
const COMING: &str =
    "this is what a reload leads to: the configuration on disk is not in force yet";
const UNSEEN: &str =
    "a credential that is new on the host is seen only once a reload hands it over";
const WRONG: &str = "the configuration on disk is wrong, as gitopsd check tells: this is planned by \
                     the one in force";

/// Where the edge stands.
pub struct Edge {
    wanted: bool,
    /// Something is left of an edge that is not configured any more.
    left: bool,
    /// Who has taken it down.
    down: Option<String>,
    /// Somebody has asked for it to be up again, and no run has noted that yet.
    up: bool,
    interval: Duration,
    due: Option<(Instant, EdgeTask, Trigger)>,
    /// When objects in the cluster are put right, which needs no provider and disturbs no plan.
    heal: Option<(Instant, Trigger)>,
    running: Option<EdgeTask>,
    /// When it began, by both clocks.
    since: (Instant, i64),
    /// Objects moved while a run was under way.
    moved: bool,
    view: EdgeView,
    /// Runs in a row after which something was still wanting.
    tries: u32,
    /// What the journal was told last.
    told: Option<String>,
    /// The same of what only heals.
    told_heal: Option<String>,
    held: Vec<Held>,
    ended: Option<Instant>,
}

/// How much a task does.
fn rank(task: &EdgeTask) -> u8 {
    match task {
        EdgeTask::Heal => 0,
        EdgeTask::Keep => 1,
        EdgeTask::Rotate => 2,
        EdgeTask::Up => 3,
        EdgeTask::Withdraw => 4,
        EdgeTask::Down(_) => 5,
    }
}

impl Edge {
    /// Nothing is due before there is a connection.
    pub(super) fn new(wanted: bool, left: bool, interval: Duration) -> Self {
        let message = if wanted { "not run yet" } else { "to be withdrawn" }.to_owned();
        Edge {
            wanted,
            left,
            down: None,
            up: false,
            interval,
            due: None,
            heal: None,
            running: None,
            since: (Instant::now(), now_ms()),
            moved: false,
            view: EdgeView { message, ..EdgeView::default() },
            tries: 0,
            told: None,
            told_heal: None,
            held: Vec::new(),
            ended: None,
        }
    }

    /// Who has taken it down in an earlier process, and whether somebody has asked for it since.
    pub(super) fn said(self, (down, up): (Option<String>, bool)) -> Self {
        Edge { down: down.filter(|_| !up), up, ..self }
    }

    /// True when there is one, or something is left of one.
    pub(super) fn there(&self) -> bool {
        self.wanted || self.left
    }

    /// True when somebody has said something of an edge that is not there any more: one that is
    /// configured later comes up.
    pub(super) fn is_over(&self) -> bool {
        !self.there() && (self.down.is_some() || self.up)
    }

    /// Why the tunnel cannot get another secret now.
    fn unfit(&self) -> Option<Refused> {
        let (message, hint) = match (&self.down, self.up) {
            (Some(by), _) => (
                format!("the edge was taken down by {by}: there is no token to replace"),
                "bring it up first: gitopsd edge up",
            ),
            (None, true) => (
                "the edge is being brought up".to_owned(),
                "ask again once gitopsd edge says that it is reachable",
            ),
            (None, false) => return None,
        };
        Some(Refused::new(409, &message, Some(hint.to_owned())))
    }

    /// A connection is there.
    pub(super) fn begin(&mut self) {
        if let (true, Some(by)) = (self.wanted, &self.down) {
            self.ask(EdgeTask::Down(by.clone()), Trigger::Boot, Duration::ZERO);
        } else if self.wanted {
            let task = if self.up { EdgeTask::Up } else { EdgeTask::Keep };
            self.ask(task, Trigger::Boot, Duration::ZERO);
        } else if self.left {
            self.ask(EdgeTask::Withdraw, Trigger::Prune, Duration::ZERO);
        }
    }

    /// Asks for a run; the earlier time and the greater task win.
    pub(super) fn ask(&mut self, task: EdgeTask, trigger: Trigger, delay: Duration) {
        if !self.there() {
            return;
        }
        // Without a section there is nothing to keep.
        let task = if self.wanted { task } else { EdgeTask::Withdraw };
        let at = Instant::now() + delay;
        if task == EdgeTask::Heal {
            let sooner = self.heal.take().filter(|(heal, _)| *heal <= at);
            self.heal = Some(sooner.unwrap_or((at, trigger)));
            return;
        }
        let opposed =
            |known: &EdgeTask| matches!((known, &task), (EdgeTask::Down(_), EdgeTask::Up));
        self.due = Some(match self.due.take() {
            Some((due, known, why)) if rank(&known) > rank(&task) && !opposed(&known) => {
                (due.min(at), known, why)
            }
            Some((due, ..)) => (due.min(at), task, trigger),
            None => (at, task, trigger),
        });
    }

    /// Something was confirmed.
    pub(super) fn again(&mut self) {
        self.held.clear();
        self.begin();
    }

    /// Objects that no inventory knew are ours.
    pub(super) fn found(&mut self) {
        self.left |= !self.wanted;
    }

    /// Everything is compared.
    pub(super) fn verify(&mut self) {
        if self.wanted {
            self.ask(EdgeTask::Keep, Trigger::Verify, Duration::ZERO);
        }
    }

    /// An object of ours is not as it was applied.
    pub(super) fn moved(&mut self, patience: u64) {
        if self.running.is_some() {
            // Most likely the run's own write, whose answer it has not read yet.
            self.moved = true;
        } else if self.wanted {
            self.ask(EdgeTask::Heal, Trigger::Drift, Duration::from_millis(patience));
        }
    }

    /// An event spoke of the connectors.
    pub(super) fn touched(&mut self) {
        if self.running.is_some() || !self.wanted {
            return;
        }
        let since = self.ended.map_or(HEALTHY, |ended| ended.elapsed());
        let delay = if self.view.ready { HEALTHY.saturating_sub(since).max(CALM) } else { CALM };
        self.ask(EdgeTask::Keep, Trigger::Health, delay);
    }

    /// When to go round for it without any event.
    pub(super) fn wake(&self) -> Option<Instant> {
        let due = self.due.as_ref().map(|(at, ..)| *at);
        let heal = self.heal.as_ref().map(|(at, _)| *at);
        due.into_iter().chain(heal).min().filter(|_| self.running.is_none())
    }

    /// Takes out what is due.
    fn next(&mut self, now: Instant) -> Option<(EdgeTask, Trigger)> {
        if let Some((_, trigger)) = self.heal.take_if(|(at, _)| *at <= now) {
            return Some((EdgeTask::Heal, trigger));
        }
        let (_, task, trigger) = self.due.take_if(|(at, ..)| *at <= now)?;
        Some((task, trigger))
    }

    /// As `status` shows it; `None` where there is none.
    pub(super) fn view(&self) -> Option<EdgeView> {
        if !self.there() {
            return None;
        }
        let running = self.running.is_some();
        let (began, epoch_ms) = self.since;
        let next = self.due.as_ref().filter(|_| !running).map(|(at, ..)| {
            let after = at.saturating_duration_since(began).as_millis();
            epoch_ms.saturating_add(i64::try_from(after).unwrap_or(i64::MAX))
        });
        Some(EdgeView { running, next_ms: next, ..self.view.clone() })
    }

    /// Deletions of the edge that wait, under its name.
    pub(super) fn held(&self) -> impl Iterator<Item = (Key, Vec<Held>)> {
        let held = (!self.held.is_empty()).then(|| (Owner::edge().key(), self.held.clone()));
        held.into_iter()
    }

    /// Takes in what came of a run, and says when the next is due.
    fn ran(&mut self, report: &EdgeReport) {
        let task = self.running.take();
        self.ended = Some(Instant::now());
        self.view = report.view.clone();
        self.held.clone_from(&report.held);
        if report.withdrawn && !self.wanted {
            self.left = false;
            self.due = None;
            return;
        }
        let healed = task == Some(EdgeTask::Heal) && report.failure.is_none() && !report.waits;
        if healed && self.due.is_some() {
            return;
        }
        let hopeless = report.failure.as_ref().is_some_and(|f| f.retry != Retry::Soon);
        let pause = if hopeless || (report.failure.is_none() && !report.waits) {
            self.tries = 0;
            self.interval
        } else {
            let most = if report.failure.is_some() { self.interval } else { WAITING };
            let pause = FIRST.saturating_mul(1 << self.tries.min(16)).min(most);
            self.tries += 1;
            pause
        };
        let next = if self.wanted { EdgeTask::Keep } else { EdgeTask::Withdraw };
        // What a person has asked for and the run could not note is done by no other task.
        let again = task.filter(|task| !report.noted && self.stays(task));
        let task = again.unwrap_or(next);
        let trigger = if report.failure.is_some() { Trigger::Retry } else { Trigger::Interval };
        self.ask(task, trigger, pause.max(report.pause));
    }

    /// Whether a task is one that a person has asked for, and nobody for the opposite since.
    fn stays(&self, task: &EdgeTask) -> bool {
        match task {
            EdgeTask::Down(_) => self.down.is_some(),
            EdgeTask::Up => self.down.is_none(),
            _ => false,
        }
    }

    /// Whether the journal is to be told what came of the run under way. One that only healed says
    /// nothing of the provider: a failure there is no news again because of it. Nor does one that
    /// waits for something say that what failed before is in order.
    fn news(&mut self, text: Option<String>, ready: bool) -> bool {
        if text.is_none() && !ready && self.running != Some(EdgeTask::Heal) {
            return false;
        }
        let told = match self.running {
            Some(EdgeTask::Heal) => &mut self.told_heal,
            _ => &mut self.told,
        };
        let news = *told != text;
        *told = text;
        if self.told.is_none() && self.running != Some(EdgeTask::Heal) {
            self.told_heal = None;
        }
        news
    }
}

impl Daemon {
    /// Starts what is due.
    pub(super) fn run_edge(&mut self) {
        let busy = self.edge.running.is_some() || self.ending;
        if busy || self.pipeline.connection().is_none() {
            return;
        }
        if let Some((task, trigger)) = self.edge.next(Instant::now()) {
            self.pipeline.edge_complete(self.graph.complete());
            self.edge.running = Some(task.clone());
            self.edge.moved = false;
            self.workers.edge(task, trigger);
        }
    }

    /// Takes in what came of a run.
    pub(super) fn edge_ran(&mut self, report: EdgeReport) {
        let before = self.edge.view.message.clone();
        let healed = self.edge.running == Some(EdgeTask::Heal);
        if self.edge.news(report.trouble(), report.view.ready) {
            match &report.failure {
                Some(failure) => tracing::error!(
                    message_id = Message::RunFailed.id(),
                    gitopsd_kustomization = Owner::edge().to_string(),
                    gitopsd_run = report.run,
                    "edge: {failure}"
                ),
                // Of the rest it knows nothing.
                None if healed => {}
                None => tracing::info!(
                    message_id = Message::HealthPassed.id(),
                    gitopsd_kustomization = Owner::edge().to_string(),
                    "edge: in order again: {}",
                    report.view.message
                ),
            }
        } else if report.failure.is_none() && report.changes == 0 && report.view.message != before {
            tracing::info!("edge: {}", report.view.message);
        }
        if report.noted && self.edge.running == Some(EdgeTask::Up) && self.edge.down.is_none() {
            // Not before: killed in between, the next start asks for it once more.
            self.edge.up = false;
            self.state.edge(None);
        }
        self.edge.ran(&report);
        if self.edge.is_over() {
            (self.edge.down, self.edge.up) = (None, false);
            self.state.edge(None);
        }
        if self.edge.moved
            && let Some(patience) = self.pipeline.nominated(&Owner::edge())
        {
            self.edge.ask(EdgeTask::Heal, Trigger::Drift, Duration::from_millis(patience));
        }
    }

    /// What a person asks of the edge.
    pub(super) fn ask_edge(&mut self, ask: EdgeAsk, by: String) -> Decided {
        if !self.edge.wanted {
            return Err(no_edge());
        }
        if self.pipeline.connection().is_none() {
            return Err(Refused::new(409, "the API server is not reachable", None));
        }
        if let (EdgeAsk::Rotate, Some(refused)) = (ask, self.edge.unfit()) {
            return Err(refused);
        }
        let trigger = Trigger::Request { by: by.clone() };
        let (task, stored) = match ask {
            EdgeAsk::Reconcile => (EdgeTask::Keep, None),
            EdgeAsk::Down => {
                (self.edge.down, self.edge.up) = (Some(by.clone()), false);
                (EdgeTask::Down(by.clone()), Some(self.state.edge(Some(by))))
            }
            EdgeAsk::Up => {
                (self.edge.down, self.edge.up) = (None, true);
                (EdgeTask::Up, Some(self.state.edge_up()))
            }
            EdgeAsk::Rotate => (EdgeTask::Rotate, None),
        };
        self.edge.ask(task, trigger, Duration::ZERO);
        Ok((vec![Owner::edge().key()], stored))
    }

    /// Plans beside the loop.
    pub(super) fn plan_edge(&self, down: bool, reply: Reply<Preview>) {
        let (pipeline, there) = (self.pipeline.clone(), self.edge.there());
        let config = self.origin.config.clone();
        let plan = async move {
            match down {
                true if there => Ok(pipeline.edge_plan_down().await),
                true => Err(no_edge()),
                false => next_run(pipeline, config, there).await.ok_or_else(no_edge),
            }
        };
        tokio::spawn(while_waited(plan, reply));
    }
}

/// There is nothing to be asked about.
pub(super) fn no_edge() -> Refused {
    let hint = "write a section edge: into the configuration, see gitopsd.config(5)";
    Refused::new(409, "no edge is configured", Some(hint.to_owned()))
}

/// Plans the next run, or the first one after a reload where the configuration on disk has another
/// edge. A reload carries out at once what has changed: whoever wants to look first looks here.
/// `None` where there is no edge, and none is to be.
pub(super) async fn next_run(
    pipeline: Arc<Pipeline>,
    config: PathBuf,
    there: bool,
) -> Option<Preview> {
    let on_disk = tokio::task::spawn_blocking(move || edge_on_disk(&config)).await;
    let (mut preview, notes) = match on_disk {
        Ok(Ok((settings, token)))
            if !pipeline.edge_in_force(settings.as_ref(), token.as_ref())
                && (there || settings.is_some()) =>
        {
            let notes = if token.is_some() { vec![COMING] } else { vec![COMING, UNSEEN] };
            (pipeline.edge_plan_with(settings, token).await, notes)
        }
        _ if !there => return None,
        Ok(Ok(_)) => (pipeline.edge_plan().await, Vec::new()),
        Ok(Err(_)) | Err(_) => (pipeline.edge_plan().await, vec![WRONG]),
    };
    preview.notes.extend(notes.into_iter().map(str::to_owned));
    Some(preview)
}

#[cfg(test)]
mod tests;
