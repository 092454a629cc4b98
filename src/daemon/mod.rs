//! The loop: one `select!` that takes events in and carries effects out.
//!
//! [`run`] opens the state, starts the loop and ends it in good order. What each task waits for:
//!
//! * the loop: ended tasks, questions of runs, links to the API server, watch sightings, calls of
//!   the socket, the graph's next due time, the watchdog, signals. It never blocks: databases, Git
//!   and children are on threads and tasks of their own.
//! * a worker (`workers`): one poll, run, end, look or sweep, or one run of the edge; a run asks the
//!   loop one question.
//! * the connection (`connect`): tries until the API server answers, then ends.
//! * the sightings: forwards what the observer's watches see.
//! * the socket: answers from the published status and hands calls to the loop.
//!
//! It decides nothing that `graph` or `plan` could decide.

mod boot;
mod calls;
mod cluster;
mod connect;
mod doubt;
mod edge;
mod end;
mod hear;
mod host;
mod image;
mod owner;
mod patrol;
mod parted;
mod publish;
mod reload;
mod rules;
mod starts;
mod sweep;
mod systemd;
mod vigil;
mod wait;
mod workers;

pub use boot::{DaemonError, edge_token, entry, host_secrets, prepare, secrets};
pub use connect::live_flux;
pub use reload::restart;
pub use wait::wait;

use crate::api::{Command, ReloadAsk};
use crate::config::Config;
use crate::flux::Key;
use crate::graph::{Effect, Event, Graph, Item, Phase, Time, Vigil, brief};
use crate::history::Trigger;
use crate::logging::Message;
use crate::observe::{Notice, Seen};
use crate::pipeline::{Answer, Ask, EdgeTask, Ended, Job, Pipeline, Question, Revision, confirmed};
use crate::plan::Owner;
use boot::Parts;
use connect::Link;
use hear::Hearing;
use host::HostState;
use parted::Parted;
use publish::{Beside, Publisher};
use reload::{Basis, Origin, Refusal, Reload};
use starts::Starts;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweep::Sweep;
use systemd::Manager;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use workers::{Done, Workers};

/// How often a disk that was full is asked for room.
const ROOM: Duration = Duration::from_secs(20);

/// Sightings under way between the watches and the loop: a burst of 1,000 objects fits, and a
/// full queue only slows the forwarding down.
const SIGHTINGS: usize = 1024;

/// How the daemon ended in good order.
#[derive(Debug)]
pub enum Ending {
    /// It was told to stop.
    Stopped,
    /// It is to start anew with the credentials in this directory, see [`restart`].
    Restart(PathBuf),
}

/// Runs the daemon until it is told to stop. `path` is the main file that `config` was read from.
pub fn run(config: &Config, path: &Path) -> Result<Ending, DaemonError> {
    let runtime_dir = config.directories.runtime.clone();
    let starts = Starts::begin(&runtime_dir);
    let origin = Origin {
        config: path.to_owned(),
        basis: Basis::of(config),
        runtime: runtime_dir.clone(),
        decided: Arc::default(),
    };
    reload::sweep(&runtime_dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gitopsd")
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let ending = runtime.block_on(async {
        let parts = prepare(config)?;
        let mut daemon = Daemon::new(parts, origin)?;
        let ending = daemon.turn().await;
        let ending = daemon.end(ending).await;
        // Suspends and confirmations that are still on their way to the disk.
        let _ = tokio::time::timeout(end::CLOSE, daemon.state.close()).await;
        let ending = end::at_last(&mut daemon.terminate, &daemon.manager, ending);
        if ending.is_ok() {
            starts.end();
        }
        ending
    });
    // A poll of a silent server would be waited for until its own limit.
    runtime.shutdown_background();
    ending
}

/// What a watch saw, with the number of its connection.
type Sighting = (u64, Notice);

/// Everything the loop holds.
struct Daemon {
    graph: Graph,
    pipeline: Arc<Pipeline>,
    workers: Workers,
    manager: Manager,
    publisher: Publisher,
    questions: mpsc::Receiver<Question>,
    links: (mpsc::Sender<Link>, mpsc::Receiver<Link>),
    /// What the watches see.
    sightings: (mpsc::Sender<Sighting>, mpsc::Receiver<Sighting>),
    commands: mpsc::Receiver<Command>,
    reloads: (mpsc::Sender<Reload>, mpsc::Receiver<Reload>),
    /// The last reload was refused, and what is on disk is not in force.
    refused: Option<Refusal>,
    origin: Origin,
    target: connect::Target,
    connecting: bool,
    hearing: Hearing,
    /// The other machine that the cluster belongs to, by its id.
    foreign: Option<String>,
    /// Whom it may be taken over from, as a person has said.
    agreed: watch::Sender<Option<String>>,
    /// Forwards what the present connection's watches see.
    forwarding: Option<AbortHandle>,
    /// How many connections there were: after the first, each may find another state.
    connections: u64,
    state: HostState,
    stop: watch::Sender<bool>,
    started: Instant,
    terminate: (Signal, Signal, Signal),
    /// Health after the run.
    vigil: Vigil,
    /// What left Git, or is in no inventory, is looked for.
    sweep: Sweep,
    sweep_pause: Duration,
    /// What the last sweep could not see, and who had not rendered by then.
    blind: String,
    silent: BTreeSet<Key>,
    /// How often, and when next, everything is compared though nothing gave cause.
    verify: (Duration, Instant),
    patrol: patrol::Patrol,
    /// When everything is compared because something gave cause.
    doubt: doubt::Doubt,
    rules: rules::Rules,
    /// Watches that are out.
    away: BTreeMap<String, cluster::Away>,
    /// When the disk was last asked whether there is room again.
    asked_room: Instant,
    /// The daemon is on its way out and begins nothing.
    ending: bool,
    /// Kustomizations whose objects moved while a run of theirs was under way.
    moved: BTreeSet<Key>,
    /// Digests of the children that are held, as the journal was told.
    cascades: BTreeSet<String>,
    /// Kustomizations that left Git while deletions of theirs are held.
    parted: BTreeMap<Key, Parted>,
    /// When the edge is run, and what came of it.
    edge: edge::Edge,
}

impl Daemon {
    fn new(parts: Parts, origin: Origin) -> Result<Self, DaemonError> {
        let (questions, asked) = mpsc::channel(64);
        let started = Instant::now();
        let mut graph = Graph::new(parts.root, 0);
        let (commands, called) = mpsc::channel(32);
        let (stop, stopping) = watch::channel(false);
        let publisher = Publisher::new(parts.about);
        let handle = crate::api::Handle {
            status: publisher.status(),
            commands,
            history: parts.pipeline.history(),
        };
        tokio::spawn(crate::api::serve(parts.listener, handle, stopping));
        let ask = Ask { questions, flux: publisher.flux() };
        parts.state.apply(&mut graph);
        graph.recall(parts.pipeline.choices().into_iter());
        parts.pipeline.confirm(parts.state.confirmed());
        let hook = |kind| signal(kind).map_err(DaemonError::Runtime);
        Ok(Daemon {
            graph,
            workers: Workers::new(parts.pipeline.clone(), ask),
            pipeline: parts.pipeline,
            manager: Manager::new(),
            publisher,
            questions: asked,
            links: mpsc::channel(4),
            sightings: mpsc::channel(SIGHTINGS),
            commands: called,
            reloads: mpsc::channel(1),
            refused: None,
            origin,
            target: parts.target,
            connecting: false,
            hearing: Hearing::default(),
            foreign: None,
            agreed: parts.agreed,
            forwarding: None,
            connections: 0,
            state: parts.state,
            stop,
            started,
            terminate: (
                hook(SignalKind::terminate())?,
                hook(SignalKind::interrupt())?,
                hook(SignalKind::hangup())?,
            ),
            vigil: Vigil::default(),
            sweep: Sweep::Wanted,
            sweep_pause: sweep::PAUSE,
            blind: String::new(),
            silent: BTreeSet::new(),
            verify: (parts.verify, started + parts.verify),
            patrol: patrol::Patrol::idle(),
            doubt: doubt::Doubt::default(),
            rules: rules::Rules::default(),
            away: BTreeMap::new(),
            asked_room: started,
            ending: false,
            moved: BTreeSet::new(),
            cascades: BTreeSet::new(),
            parted: BTreeMap::new(),
            edge: parts.edge,
        })
    }

    /// Goes round until a signal or a reload ends it, or the database turns out to be damaged: then
    /// no run can be recorded, and the next start makes a new one.
    async fn turn(&mut self) -> Result<Ending, DaemonError> {
        self.connect();
        self.publish();
        self.manager.ready();
        tracing::info!(
            message_id = Message::Started.id(),
            "gitopsd {} started",
            env!("CARGO_PKG_VERSION")
        );
        let mut watchdog = self.manager.watchdog();
        let history = self.pipeline.history();
        loop {
            for event in self.state.ended(&self.graph) {
                self.handle(event);
            }
            self.compare();
            self.make_room();
            self.sweep();
            self.watch_over();
            self.run_edge();
            let now = self.now();
            let effects = self.graph.due(now);
            self.carry_out(effects);
            self.tell_cascades();
            self.publish();
            let wake = self.wake();
            tokio::select! {
                done = self.workers.next() => self.done(done),
                Some(question) = self.questions.recv() => self.answer(question),
                Some(link) = self.links.1.recv() => self.linked(link),
                Some((number, notice)) = self.sightings.1.recv() => {
                    if number == self.connections {
                        self.noticed(notice);
                    }
                }
                Some(command) = self.commands.recv() => self.call(command),
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = watchdog.tick() => self.manager.alive(),
                Some(reload) = self.reloads.1.recv() => match reload {
                    Reload::Restart(credentials) => return Ok(Ending::Restart(credentials)),
                    Reload::Refused(refusal) => {
                        self.refused = Some(match self.refused.take() {
                            Some(before) => before.renewed(refusal),
                            None => refusal,
                        });
                    }
                    Reload::Same { handed } => {
                        self.refused.take_if(|refusal| refusal.is_over(handed));
                    }
                },
                damage = history.damaged() => return Err(damage.into()),
                _ = self.terminate.0.recv() => return Ok(Ending::Stopped),
                _ = self.terminate.1.recv() => return Ok(Ending::Stopped),
                _ = self.terminate.2.recv() => {
                    let nobody = tokio::sync::oneshot::channel().0;
                    self.reload(ReloadAsk::default(), "SIGHUP".to_owned(), nobody);
                }
            }
        }
    }

    fn now(&self) -> Time {
        Time::try_from(self.started.elapsed().as_millis()).unwrap_or(Time::MAX)
    }

    /// When to go round without any event: the graph's next due time, or the end of a suspend.
    fn wake(&self) -> Instant {
        let due = self.graph.wake().map(|at| self.started + Duration::from_millis(at));
        let resume = self.state.next_end();
        let look = self.vigil.wake().map(|at| self.started + Duration::from_millis(at));
        let latest = match self.pipeline.history().trouble() {
            Some(_) => self.verify.1.min(self.asked_room + ROOM),
            None => self.verify.1,
        };
        let others = [
            due,
            resume,
            look,
            self.sweep.at(),
            self.patrol.next(),
            self.doubt.wake(),
            self.rules.wake(),
            // Without an API server it cannot run: the connection brings it about.
            self.edge.wake().filter(|_| self.pipeline.connection().is_some()),
        ];
        others.into_iter().flatten().fold(latest, Instant::min)
    }

    /// Once the disk was full: asks beside the loop whether there is room for the reserve again.
    fn make_room(&mut self) {
        let history = self.pipeline.history();
        if history.trouble().is_some() && self.asked_room.elapsed() >= ROOM {
            self.asked_room = Instant::now();
            tokio::task::spawn_blocking(move || history.make_room());
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        let effects = self.graph.handle(event, now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        if self.ending {
            // What is due is due again at the next start.
            return;
        }
        for effect in effects {
            match effect {
                Effect::Poll(key) => match self.graph.source(&key) {
                    Some(source) => self.workers.poll(source.clone()),
                    None => tracing::debug!("{key} is gone"),
                },
                Effect::Run { key, trigger, source, revision } => {
                    if let Some(job) = self.job(&key, trigger, &source, revision) {
                        self.workers.run(job);
                    }
                }
                Effect::Cancel(key) => self.workers.cancel(&key),
                Effect::Finalize { kustomization, orphan, revision } => {
                    self.workers.cancel(&kustomization.key());
                    let job = Job {
                        trigger: Trigger::Prune,
                        revision: revision
                            .or_else(|| self.graph.without(None))
                            .unwrap_or_else(Revision::unknown),
                        tree: None,
                        url: String::new(),
                        root: false,
                        confirmed: Vec::new(),
                        cancel: watch::channel(false).1,
                        kustomization: *kustomization,
                    };
                    self.workers.end(job, orphan);
                }
                Effect::Forget(key) => self.workers.forget(key),
                image => self.image_effect(image),
            }
        }
    }

    fn job(&self, key: &Key, trigger: Trigger, source: &Key, revision: Revision) -> Option<Job> {
        let kustomization = self.graph.kustomization(key)?.clone();
        Some(Job {
            kustomization,
            trigger,
            revision,
            tree: self.pipeline.tree(source),
            url: self.graph.source(source)?.url.clone(),
            root: *key == self.graph.root(),
            confirmed: self
                .graph
                .item(key)
                .map(|item| confirmed(&item.manifest))
                .unwrap_or_default(),
            cancel: watch::channel(false).1,
        })
    }

    fn done(&mut self, done: Done) {
        self.take_in(done);
        for owner in self.pipeline.heirs() {
            if owner == Owner::edge() {
                self.edge.ask(EdgeTask::Keep, Trigger::Prune, Duration::ZERO);
                continue;
            }
            let key = owner.key();
            self.handle(Event::Request(key, Trigger::Prune, 0));
        }
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Restored(key, Ok(revision)) => self.handle(Event::Restored(key, revision)),
            Done::Restored(key, Err(failure)) => self.take_in(Done::Polled(key, Err(failure))),
            Done::Polled(key, result) => {
                if result.is_ok() {
                    self.publisher.works(&key);
                }
                match &result {
                    Ok(Some(revision)) => tracing::info!(
                        message_id = Message::SourceFetched.id(),
                        gitopsd_source = %key,
                        gitopsd_revision = revision.id,
                        "{key}: fetched {} by {}: {}",
                        revision.id,
                        revision.author,
                        revision.subject
                    ),
                    Err(failure) if self.publisher.news(&key, failure) => {
                        tracing::warn!(
                            message_id = Message::SourceFailed.id(),
                            gitopsd_source = %key,
                            "{key}: {failure}"
                        )
                    }
                    _ => {}
                }
                self.handle(Event::Polled(key, result));
            }
            Done::Ran(key, report) => {
                let observed = report.observed;
                let (judged, held) = (report.judged, self.held_by(&key));
                self.handle(Event::Finished(key.clone(), report));
                if judged {
                    self.unconfirm(&key, held);
                }
                // What one that changed nothing has not looked at is as ill as it was.
                if observed {
                    self.vigil.ran(&key, self.now());
                }
                self.moved(&key);
            }
            Done::Ended(kustomization, Ended { failure: None, changes, held }) => {
                let key = kustomization.key();
                self.publisher.works(&key);
                tracing::info!(
                    message_id = Message::Departed.id(),
                    gitopsd_kustomization = %key,
                    "{key} left Git: {changes} objects deleted"
                );
                self.hold_rest(*kustomization, held, false);
            }
            Done::Ended(kustomization, Ended { failure: Some(failure), held, .. }) => {
                let key = kustomization.key();
                if self.publisher.news(&key, &failure) {
                    tracing::warn!(
                        message_id = Message::Departed.id(),
                        gitopsd_kustomization = %key,
                        "{key} left Git: {failure}"
                    );
                }
                if !held.is_empty() {
                    self.hold_rest(*kustomization, held, true);
                }
                // What is left over is found again in the inventory.
                self.sweep_later();
            }
            Done::Swept(swept) => self.swept(swept),
            Done::Looked(key, seen) => self.looked(&key, &seen),
            Done::Entered(kustomization, entered) => self.entered(*kustomization, entered),
            Done::Edge(report) => self.edge_ran(*report),
            Done::Forgotten => {}
            image => self.image_done(image),
        }
    }

    fn answer(&mut self, question: Question) {
        let (key, orders, answer) = match question {
            Question::Rendered { key, orders, answer } => (key, orders, answer),
            Question::Uses { digest, done } => return self.uses(&digest, done),
        };
        let revision = orders.revision.clone();
        self.handle(Event::Rendered(key.clone(), orders));
        self.spoke(&key);
        // The run that asked may have been given up: then nobody listens.
        let _ = answer.send(self.says(&key, &revision));
    }

    /// What the graph says to a run of a Kustomization at a revision.
    fn says(&self, key: &Key, revision: &str) -> Answer {
        Answer {
            may_prune: self.graph.may_prune(key, revision),
            set_aside_namespaces: self.graph.set_aside_namespaces(),
            entry: self.graph.entry(key),
        }
    }

    /// One object as a watch saw it: whoever applied it judges it, if its gate has moved.
    fn seen(&mut self, seen: &Seen) {
        if owner::is_mark(&seen.id) {
            self.ask_owner();
        }
        self.rules.see(seen, Instant::now());
        self.touched(seen);
        for owner in self.pipeline.values_seen(seen) {
            let key = owner.key();
            self.handle(Event::Request(key, Trigger::Values, 0));
        }
        for (owner, patience) in self.pipeline.seen(seen) {
            if owner == Owner::edge() {
                self.edge.moved(patience);
                continue;
            }
            let key = owner.key();
            let running = |item: &Item| matches!(item.phase, Phase::Running { .. });
            if self.graph.item(&key).is_some_and(running) {
                // Most likely its own write, whose answer it has not read yet; but one that waits for
                // health has read them all.
                if patience == 0 && self.pipeline.observes(&owner) {
                    self.workers.cancel(&key);
                }
                self.moved.insert(key);
            } else {
                self.handle(Event::Request(key, Trigger::Drift, patience));
            }
        }
    }

    /// What moved during a run and is not explained by its writes is judged by another run.
    fn moved(&mut self, key: &Key) {
        let owner = Owner::at(key);
        let ready = |item: &Item| item.condition.status == crate::graph::Ready::True;
        let patience = if self.moved.remove(key) {
            self.pipeline.nominated(&owner)
        } else if self.graph.item(key).is_some_and(ready) {
            // The run that was to heal a contested object may have come too early for it.
            self.pipeline.contested(&owner)
        } else {
            None
        };
        if let Some(patience) = patience {
            self.handle(Event::Request(key.clone(), Trigger::Drift, patience));
        }
    }

    fn publish(&mut self) {
        let refused = self.refused.as_ref();
        let refused = refused.map(|r| format!("the last reload was refused: {}", brief(&r.why)));
        let trouble = self.pipeline.history().trouble().map(str::to_owned);
        // What is declared again holds its deletions itself.
        self.parted.retain(|key, _| self.graph.item(key).is_none());
        let beside = Beside {
            children: self.pipeline.render_children(),
            parted: self
                .parted
                .iter()
                .flat_map(|(key, parted)| parted.held(key))
                .chain(self.edge.held())
                .collect(),
            ending: self.workers.ends().cloned().collect(),
            suspended: self.state.suspended(),
            trouble: trouble.into_iter().chain(refused).collect(),
            edge: self.edge.view(),
        };
        let line = self.publisher.publish(&self.graph, beside);
        self.hearing.published();
        self.manager.status(&line);
    }
}
