//! What left Git while nobody was looking, and what is ours in no inventory.
//!
//! Both are looked for once it is sure what is in Git: at the start, after an outage, and after an
//! end that failed. The lists are made by a worker, so that the loop never waits for a disk.

use super::Daemon;
use crate::flux::{Key, Kind, Kustomization};
use crate::graph::{Effect, Event};
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{Failure, Pipeline, Survey, former};
use crate::plan::{Entry, Held, Owner, delete_set};
use crate::render::ObjectId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause after a sweep that could not see everything.
const PAUSE: Duration = Duration::from_secs(30);

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
            Sweep::Later(at) => Some(at),
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

/// A Kustomization that left Git while deletions wait for a confirmation.
pub struct Parted {
    /// As far as it is known.
    pub kustomization: Kustomization,
    /// What waits.
    pub held: Vec<Held>,
    /// Objects that are not in its inventory yet.
    pub strays: Vec<Entry>,
}

/// What a sweep found.
pub struct Swept {
    /// Kustomizations of the inventory that Git does not declare.
    pub departed: Vec<Kustomization>,
    /// What is in no inventory.
    pub survey: Survey,
}

/// Looks in the inventory and in the cluster. What is declared is given by name.
pub async fn look(pipeline: Arc<Pipeline>, declared: BTreeSet<Owner>) -> Result<Swept, Failure> {
    let departed = pipeline.departed(move |owner| declared.contains(owner)).await?;
    let survey = pipeline.survey().await?;
    Ok(Swept { departed, survey })
}

impl Daemon {
    /// Begins a sweep once every Kustomization has rendered with success.
    pub(super) fn sweep(&mut self) {
        let connected = self.pipeline.connection().is_some();
        if !self.sweep.due() || !connected || !self.graph.complete() {
            return;
        }
        self.sweep = Sweep::Running(false);
        let owner = |key: &Key| Owner { namespace: key.namespace.clone(), name: key.name.clone() };
        let known = self.graph.items().map(|(key, _)| key).chain(self.parted.keys());
        let declared = known.filter(|key| key.kind == Kind::Kustomization).map(owner).collect();
        self.workers.sweep(declared);
    }

    /// Takes in what a sweep found.
    pub(super) fn swept(&mut self, swept: Result<Swept, Failure>) {
        let again = self.sweep == Sweep::Running(true);
        let found = match swept {
            Ok(found) => found,
            Err(failure) => {
                tracing::warn!("what left Git could not be looked for: {failure}");
                self.sweep = Sweep::Later(Instant::now() + PAUSE);
                return;
            }
        };
        let blind = &found.survey.blind;
        self.sweep = match (again, blind.is_empty()) {
            (true, _) => Sweep::Wanted,
            (false, true) => Sweep::Done,
            (false, false) => Sweep::Later(Instant::now() + PAUSE),
        };
        if !blind.is_empty() {
            tracing::warn!(
                "objects outside the inventory are left alone until all can be listed: {}",
                blind.join("; ")
            );
        }
        for kustomization in found.departed {
            let key = kustomization.key();
            // It may have been declared while the sweep was under way.
            if self.graph.item(&key).is_none() && !self.parted.contains_key(&key) {
                tracing::info!("{key} left Git while gitopsd was not running");
                self.part(kustomization);
            }
        }
        if found.survey.blind.is_empty() {
            for (owner, entries) in found.survey.found {
                self.found(owner, entries);
            }
        }
    }

    /// Objects with an owner's labels that no inventory knows.
    fn found(&mut self, owner: Owner, entries: Vec<Entry>) {
        let key = Key::new(Kind::Kustomization, &owner.namespace, &owner.name);
        let count = entries.len();
        if let Some(kustomization) = self.graph.kustomization(&key) {
            tracing::warn!(
                message_id = Message::InventoryRegained.id(),
                gitopsd_kustomization = key.to_string(),
                "{key}: {count} objects of its own that the inventory did not know are back in it"
            );
            self.workers.enter(kustomization.clone(), entries);
            return;
        }
        let Some(kustomization) = former(&owner, true) else { return };
        let ids: Vec<ObjectId> = entries.iter().map(|entry| entry.id.clone()).collect();
        let digest = delete_set(&ids);
        let reason = "they carry the labels of a Kustomization that Git does not declare, and no \
                      inventory knows them"
            .to_owned();
        tracing::warn!(
            message_id = Message::PruneHeld.id(),
            gitopsd_kustomization = key.to_string(),
            "{key}: {count} objects are held: {reason}; to delete: gitopsd confirm {digest}"
        );
        let held = vec![Held { digest, ids, reason }];
        self.parted.insert(key, Parted { kustomization, held, strays: entries });
    }

    /// Goes on with a Kustomization whose held deletions were confirmed.
    pub(super) fn release(&mut self, key: &Key) {
        let Some(Parted { kustomization, strays, .. }) = self.parted.remove(key) else { return };
        if strays.is_empty() {
            self.part(kustomization);
        } else {
            self.workers.enter(kustomization, strays);
        }
    }

    /// Objects are in the inventory again: the next run judges them, or the end that was
    /// confirmed goes on.
    pub(super) fn entered(&mut self, kustomization: Kustomization, entered: Result<(), Failure>) {
        let key = kustomization.key();
        if let Err(failure) = entered {
            tracing::warn!("{key}: {failure}");
            self.sweep = Sweep::Later(Instant::now() + PAUSE);
        } else if self.graph.item(&key).is_some() {
            self.handle(Event::Request(key, Trigger::Prune, 0));
        } else {
            self.part(kustomization);
        }
    }

    /// Ends a Kustomization that is known by its inventory only.
    pub(super) fn part(&mut self, kustomization: Kustomization) {
        // What was suspended when it left is let go of (`flux-semantics §4.12`).
        let orphan = self.state.stopped(&kustomization.key());
        let kustomization = Box::new(kustomization);
        self.carry_out(vec![Effect::Finalize { kustomization, orphan }]);
    }
}
