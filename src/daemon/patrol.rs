//! The daily comparison: every object is looked at, a few at a time, whatever the watches say. So
//! is what a changed definition or webhook concerns, see `rules`.
//!
//! It is never urgent, so it never asks much at once: 50 objects of one Kustomization, two
//! requests each, then a pause until that makes [`RATE`] requests a second. 1,000 objects take a
//! hundred seconds, 10,000 a quarter of an hour. A heal waits for the one batch in hand at most,
//! which is a fraction of a second, and finds all workers but one free.
//!
//! What gave cause for doubt, such as an outage, is compared at once instead: see `cluster`.

use super::Daemon;
use super::rules::Concerned;
use super::sweep::PAUSE;
use crate::graph::{Event, Phase, Ready};
use crate::history::Trigger;
use crate::pipeline::EdgeTask;
use crate::plan::Owner;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Objects of one batch: their looks take 8 places of the API server at once, some 13 rounds.
const BATCH: usize = 50;

/// Requests a second, on average. Fewer than a `kubectl get` of a page or two.
const RATE: u32 = 20;

/// Requests for one object: it is read, and asked what an apply would make of it.
const EACH: u32 = 2;

/// Pause before a Kustomization that is busy is tried again.
const BUSY: Duration = Duration::from_secs(1);

/// Where the comparison stands.
pub struct Patrol {
    left: VecDeque<Owner>,
    at: Instant,
}

impl Patrol {
    /// Nothing is to be compared.
    pub(super) fn idle() -> Self {
        Patrol { left: VecDeque::new(), at: Instant::now() }
    }

    /// Gives the comparison up: everything is compared at once.
    pub(super) fn give_up(&mut self) {
        self.left.clear();
    }

    /// When to go round for it without any event.
    pub(super) fn next(&self) -> Option<Instant> {
        // What keeps a batch from beginning once it is due ends with an event.
        (!self.left.is_empty() && self.at > Instant::now()).then_some(self.at)
    }
}

/// How long the looks at so many objects may take.
fn pause(objects: usize) -> Duration {
    let requests = u32::try_from(objects).unwrap_or(u32::MAX).saturating_mul(EACH);
    Duration::from_secs(1) * requests / RATE
}

impl Daemon {
    /// Begins the daily comparison, goes on with it, and makes up for one that had to wait.
    pub(super) fn compare(&mut self) {
        let now = Instant::now();
        if self.doubt.ripens(now) {
            self.compare_all();
        }
        if now >= self.verify.1 {
            self.verify.1 = now + self.verify.0;
            self.ask_owner();
            self.sweep_pause = PAUSE;
            self.sweep.again();
            self.go_round(&Concerned::All, now);
        }
        if let Some(whom) = self.rules.due(now) {
            tracing::debug!("definitions or webhooks have changed: {whom:?} are compared");
            self.go_round(&whom, now);
        }
        while now >= self.patrol.at && self.pipeline.connection().is_some() {
            let Some(owner) = self.patrol.left.pop_front() else { return };
            self.batch(owner, now);
        }
    }

    /// Puts objects on the list of those that are compared, a few at a time.
    fn go_round(&mut self, whom: &Concerned, now: Instant) {
        let owners = self.pipeline.round(|id| whom.has(id));
        if self.patrol.left.is_empty() {
            self.patrol.at = now;
        }
        let more = owners.into_iter().filter(|owner| !self.patrol.left.contains(owner));
        self.patrol.left.extend(Vec::from_iter(more));
    }

    fn batch(&mut self, owner: Owner, now: Instant) {
        if owner == Owner::edge() {
            // Four objects at most.
            if self.pipeline.compare_some(&owner, BATCH) > 0 {
                self.edge.ask(EdgeTask::Heal, Trigger::Verify, Duration::ZERO);
            }
            return;
        }
        let key = owner.key();
        let Some(item) = self.graph.item(&key).filter(|item| item.active()) else { return };
        if !matches!(item.phase, Phase::Idle { .. }) {
            self.patrol.left.push_back(owner);
            self.patrol.at = now + BUSY;
            return;
        }
        if item.condition.status != Ready::True {
            // It will run anyway, by a retry or for what it depends on, and looks at them then.
            self.pipeline.compare_some(&owner, usize::MAX);
            return;
        }
        let objects = self.pipeline.compare_some(&owner, BATCH);
        if objects > 0 {
            self.patrol.left.push_back(owner);
            self.patrol.at = now + pause(objects);
            self.handle(Event::Request(key, Trigger::Verify, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_and_its_pause_make_twenty_requests_a_second() {
        assert_eq!(pause(BATCH), Duration::from_secs(5));
        assert_eq!(pause(1), Duration::from_millis(100));
    }
}
