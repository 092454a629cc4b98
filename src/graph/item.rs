//! Pure: one Flux object of the graph and the state it is in.

use crate::flux::{Kind, Object};
use crate::history::{Choice, Rank, Trigger};
use crate::pipeline::{Failure, Revision};
use crate::plan::Held;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Milliseconds of a monotonic clock; only differences mean anything.
pub type Time = u64;

/// Flux's Ready condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: Ready,
    /// Flux's reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Status of the Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// Reached.
    True,
    /// Not reached, and known why.
    False,
    /// Under way.
    Unknown,
}

impl Condition {
    /// A condition from its parts.
    pub fn new(status: Ready, reason: &str, message: impl Into<String>) -> Self {
        Condition { status, reason: reason.to_owned(), message: message.into() }
    }
}

/// What an item is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing to do before `due`; `None` waits for an event.
    Idle {
        /// When the next run is due, and why.
        due: Option<(Time, Trigger)>,
    },
    /// At work; `again` is what arrived meanwhile.
    Running {
        /// When another run follows, and why.
        again: Option<(Time, Trigger)>,
    },
}

/// One Flux object.
#[derive(Clone, Debug)]
pub struct Item {
    /// The object as specified.
    pub object: Object,
    /// The manifest it was read from, for CEL; null for the host's own root.
    pub manifest: Value,
    /// File in Git that declares it.
    pub origin: Option<String>,
    /// The Kustomization that renders it; `None` for the root pair.
    pub parent: Option<crate::flux::Key>,
    /// What it is doing.
    pub phase: Phase,
    /// A trigger that must not be lost, of a run that could not start.
    pub owed: Option<Trigger>,
    /// Its Ready condition.
    pub condition: Condition,
    /// Last failure, kept until the next success.
    pub failure: Option<Failure>,
    /// Source: revision in force. Kustomization: revision last applied with success. Policy: the tag
    /// that is chosen. Automation: the commit that it pushed last.
    pub revision: Option<Revision>,
    /// Kustomization: revision that was last rendered, successfully or not.
    pub attempted: Option<String>,
    /// Failures in a row, for the back-off.
    pub failures: u32,
    /// Set by `suspend` on the host, beside `spec.suspend`.
    pub suspended: Option<String>,
    /// Objects in its inventory; tags of an image repository.
    pub objects: usize,
    /// Notices of the last run: plaintext Secrets, a wrong MAC.
    pub warnings: Vec<String>,
    /// Objects, printed, that somebody else writes too, and who.
    pub others: BTreeMap<String, Vec<String>>,
    /// Deletions that wait for a confirmation.
    pub held: Vec<Held>,
    /// Deletions that wait for other renders of the same source.
    pub prune_pending: bool,
    /// Policy: what is chosen.
    pub choice: Option<Choice>,
}

impl Item {
    /// A new item, due at once.
    pub fn new(object: Object, manifest: Value, now: Time) -> Self {
        Item {
            object,
            manifest,
            origin: None,
            parent: None,
            phase: Phase::Idle { due: Some((now, Trigger::Boot)) },
            owed: None,
            condition: Condition::new(Ready::Unknown, "Progressing", "not run yet"),
            failure: None,
            revision: None,
            attempted: None,
            failures: 0,
            suspended: None,
            objects: 0,
            warnings: Vec::new(),
            others: BTreeMap::new(),
            held: Vec::new(),
            prune_pending: false,
            choice: None,
        }
    }

    /// True when neither Git nor the host has stopped it.
    pub fn active(&self) -> bool {
        let in_git = match &self.object {
            Object::GitRepository(git) => git.suspend,
            Object::Kustomization(kustomization) => kustomization.suspend,
            Object::ImageRepository(repository) => repository.suspend,
            Object::ImagePolicy(policy) => policy.suspend,
            Object::ImageUpdateAutomation(automation) => automation.suspend,
        };
        !in_git && self.suspended.is_none()
    }

    /// True for a field that must not be left out: the item is then not run.
    pub fn blocked(&self) -> Option<String> {
        let named: Vec<String> = self
            .object
            .unsupported()
            .iter()
            .filter(|unsupported| unsupported.blocks)
            .map(|unsupported| unsupported.field.clone())
            .collect();
        (!named.is_empty()).then(|| named.join(", "))
    }

    /// Asks for a run no later than `at`; the earliest time and the trigger that says most win,
    /// and a running item runs again.
    pub fn request(&mut self, at: Time, trigger: Trigger) {
        let trigger = match self.owed.take() {
            Some(owed) if trigger.rank() < Rank::Owed => owed,
            _ => trigger,
        };
        let slot = match &mut self.phase {
            Phase::Running { again } => again,
            Phase::Idle { due } => due,
        };
        match slot {
            Some((time, earlier)) => {
                *time = at.min(*time);
                if earlier.rank() == Rank::Noticed || trigger.rank() > earlier.rank() {
                    *earlier = trigger;
                }
            }
            None => *slot = Some((at, trigger)),
        }
    }

    /// Waits for an event, as it may not start; what is owed stays so.
    pub fn wait(&mut self, trigger: Trigger) {
        self.phase = Phase::Idle { due: None };
        if trigger.rank() == Rank::Owed {
            self.owed = Some(trigger);
        }
    }

    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        self.object.key().kind
    }
}
