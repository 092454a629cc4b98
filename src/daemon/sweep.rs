//! What left Git while nobody was looking, and what is ours in no inventory.
//!
//! Both are looked for once it is sure what is in Git: at the start, after an outage, once a day,
//! and after an end that failed. The lists are made by a worker, so that the loop never waits for a
//! disk.

use super::Daemon;
use crate::flux::{Key, Kind, Kustomization};
use crate::graph::{Effect, Event};
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{Failure, Pipeline, Survey, former};
use crate::plan::{Entry, Held, Owner, cascade, delete_set};
use crate::render::ObjectId;
use std::collections::BTreeSet;
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
    /// How many the inventory has in all.
    pub known: usize,
    /// What is in no inventory.
    pub survey: Survey,
}

/// Looks in the inventory and in the cluster. What is declared is given by name.
pub async fn look(pipeline: Arc<Pipeline>, declared: BTreeSet<Owner>) -> Result<Swept, Failure> {
    let survey = pipeline.survey(&declared).await?;
    let (departed, known) = pipeline.departed(move |owner| declared.contains(owner)).await?;
    Ok(Swept { departed, known, survey })
}

impl Daemon {
    /// Begins a sweep once every Kustomization has rendered with success.
    pub(super) fn sweep(&mut self) {
        let connected = self.pipeline.connection().is_some();
        if !self.sweep.due() || !connected || !self.graph.complete() {
            return;
        }
        self.sweep = Sweep::Running(false);
        let known = self.graph.items().map(|(key, _)| key).chain(self.parted.keys());
        let known = known.chain(self.workers.ends());
        let declared = known.filter(|key| key.kind == Kind::Kustomization).map(Owner::at).collect();
        self.workers.sweep(declared);
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
        let gone = |key: &Key| self.graph.item(key).is_none() && !self.parted.contains_key(key);
        let departed: Vec<Kustomization> =
            found.departed.into_iter().filter(|kustomization| gone(&kustomization.key())).collect();
        let known = found.known;
        let reason = |gone| format!("{gone} of {known} Kustomizations are not in Git any more");
        let keys: Vec<Key> = departed.iter().map(Kustomization::key).collect();
        if let Some(held) = cascade(&keys, known, reason) {
            self.hold_departed(departed, held);
        } else {
            for kustomization in departed {
                tracing::info!("{} left Git while gitopsd was not running", kustomization.key());
                self.part(kustomization);
            }
        }
        if self.blind.is_empty() {
            for (owner, entries) in found.survey.found {
                self.found(owner, entries);
            }
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

    /// Holds the end of most of what the record knows: a new entry, a wrong path or an emptied
    /// repository looks like that, and was perhaps held already when the daemon stopped.
    fn hold_departed(&mut self, departed: Vec<Kustomization>, held: Held) {
        tell(&held);
        for kustomization in departed {
            let key = kustomization.key();
            self.hold_parted(key, kustomization, vec![held.clone()], Vec::new());
        }
    }

    /// Tells once of children that their parent lost while we were running.
    pub(super) fn tell_cascades(&mut self) {
        let known = std::mem::take(&mut self.cascades);
        for (parent, held) in self.graph.cascades() {
            if known.get(parent) != Some(&held.digest) {
                tell(held);
            }
            self.cascades.insert(parent.clone(), held.digest.clone());
        }
    }

    /// Keeps held deletions of a Kustomization that left Git, beside those that it has already.
    pub(super) fn hold_parted(
        &mut self,
        key: Key,
        kustomization: Kustomization,
        held: Vec<Held>,
        strays: Vec<Entry>,
    ) {
        let fresh = || Parted { kustomization, held: Vec::new(), strays: Vec::new() };
        let parted = self.parted.entry(key).or_insert_with(fresh);
        for held in held {
            if !parted.held.contains(&held) {
                parted.held.push(held);
            }
        }
        parted.strays.extend(strays);
    }

    /// Objects with an owner's labels that no inventory knows.
    fn found(&mut self, owner: Owner, entries: Vec<Entry>) {
        let key = owner.key();
        let count = entries.len();
        if let Some(kustomization) = self.graph.kustomization(&key) {
            tracing::warn!(
                message_id = Message::InventoryRegained.id(),
                gitopsd_kustomization = key.to_string(),
                "{key}: {count} objects of its own that the inventory did not know are back in it"
            );
            self.workers.enter(kustomization.clone(), entries, false);
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
        self.hold_parted(key, kustomization, held, entries);
    }

    /// Goes on with a Kustomization whose held deletions were confirmed.
    pub(super) fn release(&mut self, key: &Key) {
        let Some(Parted { kustomization, strays, .. }) = self.parted.remove(key) else { return };
        if strays.is_empty() {
            self.part(kustomization);
        } else {
            self.workers.enter(kustomization, strays, true);
        }
    }

    /// Objects are in the inventory again: the next run judges them, or the end that was
    /// confirmed goes on.
    pub(super) fn entered(&mut self, kustomization: Kustomization, entered: Result<(), Failure>) {
        let key = kustomization.key();
        if let Err(failure) = entered {
            tracing::warn!("{key}: {failure}");
            self.sweep_later();
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
        self.carry_out(vec![Effect::Finalize { kustomization, orphan, revision: None }]);
    }
}

/// Tells the journal that the end of several Kustomizations waits.
fn tell(Held { reason, digest, .. }: &Held) {
    tracing::warn!(
        message_id = Message::PruneHeld.id(),
        "held: {reason}; to delete what they own: gitopsd confirm {digest}"
    );
}
