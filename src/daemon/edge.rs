//! When the edge is run: with the connection, at its interval, when its objects move, when asked.
//!
//! One run at a time. What asks for another meanwhile is taken together: the task that does most
//! wins, and of up and down what was said last. A failure that may pass is tried again after
//! [`FIRST`], ever less often, at the latest at the interval; one that needs a person, at the
//! interval. It has no place in the graph: nothing depends on it, and what it waits for keeps no
//! workload from being reconciled.

use super::Daemon;
use super::boot::now_ms;
use super::calls::Decided;
use crate::api::{EdgeAsk, Refused};
use crate::flux::Key;
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{EdgeReport, EdgeTask, EdgeView, Failure, Preview, Retry};
use crate::plan::{Held, Owner};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// First pause after a run that has something to wait for.
const FIRST: Duration = Duration::from_secs(2);

/// Longest pause while something is waited for that comes by itself, such as a connection.
const WAITING: Duration = Duration::from_secs(60);

/// Events on a connector's Deployment that are taken together.
const CALM: Duration = Duration::from_secs(1);

/// Least pause between two runs that events on a healthy connector lead to.
const HEALTHY: Duration = Duration::from_secs(30);

/// Where the edge stands.
pub struct Edge {
    wanted: bool,
    /// Something is left of an edge that is not configured any more.
    left: bool,
    /// Who has taken it down.
    down: Option<String>,
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

    /// Who has taken it down in an earlier process.
    pub(super) fn down(self, down: Option<String>) -> Self {
        Edge { down, ..self }
    }

    /// A connection is there.
    pub(super) fn begin(&mut self) {
        if let (true, Some(by)) = (self.wanted, &self.down) {
            self.ask(EdgeTask::Down(by.clone()), Trigger::Boot, Duration::ZERO);
        } else if self.wanted {
            self.ask(EdgeTask::Keep, Trigger::Boot, Duration::ZERO);
        } else if self.left {
            self.ask(EdgeTask::Withdraw, Trigger::Prune, Duration::ZERO);
        }
    }

    /// Asks for a run; the earlier time and the greater task win.
    pub(super) fn ask(&mut self, task: EdgeTask, trigger: Trigger, delay: Duration) {
        if !self.wanted && !self.left {
            return;
        }
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
        if !self.wanted && !self.left {
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
    fn news(&mut self, failure: Option<&Failure>, ready: bool) -> bool {
        let text = failure.map(ToString::to_string);
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
        if self.edge.news(report.failure.as_ref(), report.view.ready) {
            match &report.failure {
                Some(failure) => tracing::error!(
                    message_id = Message::RunFailed.id(),
                    gitopsd_kustomization = Owner::edge().to_string(),
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
            // Not before: killed in between, both would not say the same.
            self.state.edge(None);
        }
        self.edge.ran(&report);
        if self.edge.moved
            && let Some(patience) = self.pipeline.nominated(&Owner::edge())
        {
            self.edge.ask(EdgeTask::Heal, Trigger::Drift, Duration::from_millis(patience));
        }
    }

    /// Whether a name that nothing in Git has is the edge's.
    pub(super) fn is_edge(&self, name: Option<&str>) -> bool {
        (self.edge.wanted || self.edge.left) && matches!(name, Some("edge" | "Host/edge"))
    }

    /// What a person asks of the edge.
    pub(super) fn ask_edge(&mut self, ask: EdgeAsk, by: String) -> Decided {
        if !self.edge.wanted {
            let hint = "write a section edge: into the configuration, see gitopsd.config(5)";
            return Err(Refused::new(409, "no edge is configured", Some(hint.to_owned())));
        }
        if self.pipeline.connection().is_none() {
            return Err(Refused::new(409, "the API server is not reachable", None));
        }
        let trigger = Trigger::Request { by: by.clone() };
        let (task, stored) = match ask {
            EdgeAsk::Reconcile => (EdgeTask::Keep, None),
            EdgeAsk::Down => {
                self.edge.down = Some(by.clone());
                (EdgeTask::Down(by.clone()), Some(self.state.edge(Some(by))))
            }
            EdgeAsk::Up => {
                // Stored once the run has noted it.
                self.edge.down = None;
                (EdgeTask::Up, None)
            }
            EdgeAsk::Rotate => (EdgeTask::Rotate, None),
        };
        self.edge.ask(task, trigger, Duration::ZERO);
        Ok((vec![Owner::edge().key()], stored))
    }

    /// Plans beside the loop.
    pub(super) fn plan_edge(&self, down: bool, reply: oneshot::Sender<Result<Preview, Refused>>) {
        if !self.edge.wanted && !self.edge.left {
            let hint = "write a section edge: into the configuration, see gitopsd.config(5)";
            // A caller that has gone away needs no answer.
            let _ =
                reply.send(Err(Refused::new(409, "no edge is configured", Some(hint.to_owned()))));
            return;
        }
        let pipeline = self.pipeline.clone();
        tokio::spawn(async move {
            let _ = reply.send(Ok(pipeline.edge_plan(down).await));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Edge {
        Edge::new(true, false, Duration::from_secs(600))
    }

    fn report(failure: Option<Failure>, waits: bool) -> EdgeReport {
        let view = EdgeView { ready: failure.is_none() && !waits, ..EdgeView::default() };
        EdgeReport { failure, waits, view, ..EdgeReport::failed(soon()) }
    }

    fn soon() -> Failure {
        Failure::new(crate::pipeline::Step::Plan, "EdgeFailed", "away").retry(Retry::Soon)
    }

    fn planned(edge: &Edge) -> EdgeTask {
        edge.due.clone().expect("a run is due").1
    }

    fn left(edge: &Edge) -> u64 {
        let (at, ..) = edge.due.as_ref().expect("a run is due");
        (at.saturating_duration_since(Instant::now()) + Duration::from_millis(500)).as_secs()
    }

    #[test]
    fn what_may_pass_is_tried_ever_less_often_and_what_needs_a_person_at_the_interval() {
        let mut edge = edge();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            edge.due = None;
            edge.ran(&report(Some(soon()), false));
            pauses.push(left(&edge));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        edge.due = None;
        edge.ran(&report(Some(soon().retry(Retry::Interval)), false));
        assert_eq!(left(&edge), 600);
        edge.due = None;
        edge.ran(&report(None, true));
        assert_eq!(left(&edge), 2, "it begins anew");
    }

    #[test]
    fn the_greater_task_wins_at_the_earlier_time() {
        let mut edge = edge();
        edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
        edge.ask(EdgeTask::Rotate, Trigger::Retry, Duration::from_secs(5));
        edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::ZERO);
        assert_eq!((left(&edge), planned(&edge)), (0, EdgeTask::Rotate));
    }

    #[test]
    fn one_failure_is_told_once_whatever_is_healed_meanwhile() {
        let mut edge = edge();
        for (task, failure, ready, news) in [
            (EdgeTask::Keep, Some(soon()), false, true),
            (EdgeTask::Heal, None, false, false),
            (EdgeTask::Keep, Some(soon()), false, false),
            (EdgeTask::Heal, Some(soon()), false, true),
            (EdgeTask::Heal, Some(soon()), false, false),
            // It waits for something.
            (EdgeTask::Keep, None, false, false),
            (EdgeTask::Keep, Some(soon()), false, false),
            (EdgeTask::Keep, None, true, true),
            (EdgeTask::Keep, None, true, false),
            (EdgeTask::Heal, None, true, false),
        ] {
            edge.running = Some(task);
            assert_eq!(edge.news(failure.as_ref(), ready), news);
        }
    }

    #[test]
    fn of_up_and_down_what_was_said_last_is_done() {
        let mut edge = edge();
        let down = || EdgeTask::Down("leo".into());
        edge.ask(down(), Trigger::Boot, Duration::ZERO);
        edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::ZERO);
        assert_eq!(planned(&edge), down());
        edge.ask(EdgeTask::Up, Trigger::Boot, Duration::ZERO);
        edge.ask(EdgeTask::Rotate, Trigger::Boot, Duration::ZERO);
        assert_eq!(planned(&edge), EdgeTask::Up);
        edge.ask(down(), Trigger::Boot, Duration::ZERO);
        assert_eq!(planned(&edge), down());
    }

    #[test]
    fn what_could_not_be_noted_is_asked_for_again_unless_the_opposite_was() {
        let leo = || Some("leo".to_owned());
        let down = || EdgeTask::Down("leo".into());
        for (said, task, noted, next) in [
            (leo(), down(), false, down()),
            (leo(), down(), true, EdgeTask::Keep),
            (None, down(), false, EdgeTask::Keep),
            (None, EdgeTask::Up, false, EdgeTask::Up),
            (None, EdgeTask::Up, true, EdgeTask::Keep),
            (leo(), EdgeTask::Up, false, EdgeTask::Keep),
            (None, EdgeTask::Rotate, false, EdgeTask::Keep),
        ] {
            let mut edge = edge().down(said);
            edge.running = Some(task);
            edge.ran(&EdgeReport { noted, ..report(Some(soon()), false) });
            assert_eq!(planned(&edge), next);
        }
    }

    #[test]
    fn what_a_person_took_down_is_taken_down_by_the_next_start() {
        let mut edge = edge().down(Some("leo".into()));
        edge.begin();
        assert_eq!(planned(&edge), EdgeTask::Down("leo".into()));
    }

    #[test]
    fn a_heal_that_waits_for_something_is_followed_by_a_whole_run_soon() {
        let mut edge = edge();
        edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
        edge.running = Some(EdgeTask::Heal);
        edge.ran(&report(None, true));
        assert_eq!((left(&edge), planned(&edge)), (2, EdgeTask::Keep));
    }

    #[test]
    fn a_heal_asks_nobody_outside_and_moves_no_plan() {
        let mut edge = edge();
        edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
        edge.moved(0);
        assert_eq!(edge.next(Instant::now()), Some((EdgeTask::Heal, Trigger::Drift)));
        edge.running = Some(EdgeTask::Heal);
        edge.ran(&report(None, false));
        assert_eq!((left(&edge), planned(&edge)), (600, EdgeTask::Keep));
    }
}
