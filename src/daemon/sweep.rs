//! What left Git while nobody was looking, and what is ours in no inventory.
//!
//! Both are looked for once it is sure what is in Git: at the start, after an outage, once a day,
//! and after an end that failed. The lists are made by a worker, so that the loop never waits for a
//! disk.

use super::Daemon;
use super::parted::Parted;
use crate::flux::{Key, Kind, Kustomization};
use crate::graph::{Effect, Event};
use crate::history::Trigger;
use crate::pipeline::{Departed, EdgeTask, Failure, Pipeline, Standing, Survey, Verdict};
use crate::plan::Owner;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First and longest pause after a sweep that could not see everything, or an end that failed.
pub const PAUSE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

/// Where the search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// It is to be made as soon as it is sure what is in Git.
    Wanted,
    /// It is to be made, but not before.
    Later(Instant),
    /// It is under way; true when another is wanted after it.
    Running(bool),
    /// It was made.
    Done,
}

impl Sweep {
    /// Asks for another.
    pub fn again(&mut self) {
        *self = match self {
            Sweep::Running(_) => Sweep::Running(true),
            _ => Sweep::Wanted,
        };
    }

    /// When to go round for it without any event.
    pub fn at(self) -> Option<Instant> {
        match self {
            // What keeps a sweep from beginning once it is due ends with an event.
            Sweep::Later(at) if at > Instant::now() => Some(at),
            _ => None,
        }
    }

    fn due(self) -> bool {
        match self {
            Sweep::Wanted => true,
            Sweep::Later(at) => Instant::now() >= at,
            Sweep::Running(_) | Sweep::Done => false,
        }
    }
}

/// What a sweep found.
pub struct Swept {
    /// Kustomizations of the inventory that Git does not declare.
    pub departed: Departed,
    /// What is in no inventory.
    pub survey: Survey,
}

/// Looks in the inventory and in the cluster.
pub async fn look(pipeline: Arc<Pipeline>, standing: Standing) -> Result<Swept, Failure> {
    let survey = pipeline.survey(&standing).await?;
    let departed = pipeline.departed(standing).await?;
    Ok(Swept { departed, survey })
}

impl Daemon {
    /// Begins a sweep once every Kustomization that runs has rendered with success.
    pub(super) fn sweep(&mut self) {
        let connected = self.pipeline.connection().is_some();
        if !self.sweep.due() || !connected || !self.graph.complete() {
            return;
        }
        self.sweep = Sweep::Running(false);
        let in_force = self.graph.items().map(|(key, _)| key);
        let declared = in_force.filter(|key| key.kind == Kind::Kustomization).map(Owner::at);
        let waiting = self.parted.iter().filter(|(_, parted)| parted.ends()).map(|(key, _)| key);
        self.silent = self.graph.silent().cloned().collect();
        // It is no Kustomization: nobody looks for its declaration in Git.
        let declared = declared.chain([Owner::edge()]);
        self.workers.sweep(Standing {
            declared: declared.collect(),
            silent: self.silent.iter().map(Owner::at).collect(),
            ending: waiting.chain(self.workers.ends()).map(Owner::at).collect(),
        });
    }

    /// A Kustomization has rendered: what the last sweep left alone for its silence is looked for.
    pub(super) fn spoke(&mut self, key: &Key) {
        if self.silent.remove(key) {
            self.sweep.again();
        }
    }

    /// Takes in what a sweep found.
    pub(super) fn swept(&mut self, swept: Result<Swept, Failure>) {
        let again = std::mem::replace(&mut self.sweep, Sweep::Done) == Sweep::Running(true);
        let found = match swept {
            Ok(found) => found,
            Err(failure) => {
                tracing::warn!("what left Git could not be looked for: {failure}");
                self.sweep_later();
                return;
            }
        };
        let blind = found.survey.blind.join("; ");
        if again {
            self.sweep = Sweep::Wanted;
        } else if !blind.is_empty() {
            self.sweep_later();
        }
        if !blind.is_empty() && blind != self.blind {
            tracing::warn!(
                "objects outside the inventory are left alone until all can be listed: {blind}"
            );
        }
        self.blind = blind;
        // Not what was declared, or began to end, while the sweep was under way.
        let ends = |key: &Key| {
            self.parted.get(key).is_some_and(Parted::ends)
                || self.workers.ends().any(|of| of == key)
        };
        let gone = |key: &Key| self.graph.item(key).is_none() && !ends(key);
        let Verdict { free, waits } = found.departed.judge(&self.graph.root(), gone);
        for together in waits {
            self.hold_departed(together);
        }
        for kustomization in free {
            let key = kustomization.key();
            if !self.publisher.ails(&key) {
                tracing::info!("{key} left Git while gitopsd was not running");
            }
            self.part(kustomization);
        }
        if self.blind.is_empty() {
            self.strays(found.survey.found);
        }
    }

    /// Another sweep, after a pause that doubles from one to the next.
    pub(super) fn sweep_later(&mut self) {
        if let Sweep::Running(again) = &mut self.sweep {
            *again = true;
            return;
        }
        self.sweep = Sweep::Later(Instant::now() + self.sweep_pause);
        self.sweep_pause = (self.sweep_pause * 2).min(LONGEST);
    }

    /// Objects are in the inventory again: the next run judges them, or the end that was
    /// confirmed goes on.
    pub(super) fn entered(&mut self, kustomization: Kustomization, entered: Result<(), Failure>) {
        let key = kustomization.key();
        if let Err(failure) = entered {
            tracing::warn!("{key}: {failure}");
            self.sweep_later();
        } else if Owner::at(&key) == Owner::edge() {
            self.edge.ask(EdgeTask::Keep, Trigger::Prune, Duration::ZERO);
        } else if self.graph.item(&key).is_some() {
            self.handle(Event::Request(key, Trigger::Prune, 0));
        } else {
            self.part(kustomization);
        }
    }

    /// Ends a Kustomization that is known by its inventory only.
    pub(super) fn part(&mut self, kustomization: Kustomization) {
        // What was suspended when it left is let go of (Flux: Kustomization, Suspend).
        let orphan = self.state.stopped(&kustomization.key());
        let kustomization = Box::new(kustomization);
        self.carry_out(vec![Effect::Finalize { kustomization, orphan, revision: None }]);
    }
}
