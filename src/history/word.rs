//! Pure: the words of the record: why a run began, what was done, how it ended.
//!
//! Each is one lower-case word in the database, in JSON and for people. A word that a newer
//! gitopsd wrote reads as the nearest harmless one, so that old history always lists.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a run began.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The daemon started.
    Boot,
    /// The interval passed.
    Interval,
    /// The source has a new revision.
    Revision,
    /// A dependency became ready.
    Dependency,
    /// A live object differs.
    Drift,
    /// A ConfigMap or Secret of `substituteFrom` changed.
    Values,
    /// Somebody asked.
    Request {
        /// Who: a user name, or `annotation`.
        by: String,
    },
    /// The last run failed.
    Retry,
    /// A delete was confirmed, or the Kustomization left Git.
    Prune,
    /// It was suspended and no longer is.
    Resume,
    /// An object that Ready depends on is not well any more, or well again.
    Health,
    /// Every object is compared: after an outage, and once a day.
    Verify,
}

/// How much a trigger says; of two that come together the one that says more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Time or the cluster gave cause. What there is to do is remembered beside the trigger.
    Noticed,
    /// Git, a person or another Kustomization gave cause; there may be nothing to do.
    Asked,
    /// There is something to do that no input shows: such a run looks at everything.
    Owed,
}

impl Trigger {
    /// Whether a run for this reason brings in what is new in its commit: one that heals, say, does
    /// not.
    pub fn brings(&self) -> bool {
        use Trigger::{Drift, Health, Prune, Values, Verify};
        !matches!(self, Drift | Health | Verify | Values | Prune)
    }

    /// Whether a run may end at once when no input has changed: neither one that is owed nor one
    /// that is to look for itself.
    pub fn may_be_quiet(&self) -> bool {
        let looks = matches!(self, Trigger::Boot | Trigger::Health | Trigger::Verify);
        !looks && self.rank() < Rank::Owed
    }

    /// How much it says.
    pub fn rank(&self) -> Rank {
        match self {
            Trigger::Interval | Trigger::Drift | Trigger::Health | Trigger::Verify => Rank::Noticed,
            Trigger::Boot
            | Trigger::Revision
            | Trigger::Dependency
            | Trigger::Values
            | Trigger::Request { .. } => Rank::Asked,
            Trigger::Retry | Trigger::Prune | Trigger::Resume => Rank::Owed,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Trigger::Boot => "boot",
            Trigger::Interval => "interval",
            Trigger::Revision => "revision",
            Trigger::Dependency => "dependency",
            Trigger::Drift => "drift",
            Trigger::Values => "values",
            Trigger::Request { .. } => "request",
            Trigger::Retry => "retry",
            Trigger::Prune => "prune",
            Trigger::Resume => "resume",
            Trigger::Health => "health",
            Trigger::Verify => "verify",
        }
    }

    /// From its columns; a word of a newer gitopsd reads as a request by that word.
    pub(super) fn from_columns(word: String, by: Option<String>) -> Trigger {
        match word.as_str() {
            "boot" => Trigger::Boot,
            "interval" => Trigger::Interval,
            "revision" => Trigger::Revision,
            "dependency" => Trigger::Dependency,
            "drift" => Trigger::Drift,
            "values" => Trigger::Values,
            "retry" => Trigger::Retry,
            "prune" => Trigger::Prune,
            "resume" => Trigger::Resume,
            "health" => Trigger::Health,
            "verify" => Trigger::Verify,
            _ => Trigger::Request { by: by.unwrap_or(word) },
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It was not there.
    Created,
    /// It was changed to what Git says now.
    Configured,
    /// It was deleted and made again.
    Recreated,
    /// It was changed back to what Git says.
    Healed,
    /// It left Git and was deleted.
    Deleted,
    /// It was left alone, for the reason in the diff.
    Skipped,
    /// Its deletion waits for a confirmation.
    Held,
}

impl Verb {
    /// The verb as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Created => "created",
            Verb::Configured => "configured",
            Verb::Recreated => "recreated",
            Verb::Healed => "healed",
            Verb::Deleted => "deleted",
            Verb::Skipped => "skipped",
            Verb::Held => "held",
        }
    }

    pub(super) fn from_word(word: &str) -> Verb {
        use Verb::*;
        [Created, Configured, Recreated, Healed, Deleted, Held]
            .into_iter()
            .find(|verb| verb.as_str() == word)
            .unwrap_or(Skipped)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Applied, and healthy where that is waited for.
    Succeeded,
    /// Stopped at a step.
    Failed,
    /// The daemon was gone before the end.
    Interrupted,
    /// Given up in favour of a newer revision, or on request.
    Cancelled,
}

impl Verdict {
    /// The verdict as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Succeeded => "succeeded",
            Verdict::Failed => "failed",
            Verdict::Interrupted => "interrupted",
            Verdict::Cancelled => "cancelled",
        }
    }

    pub(super) fn from_word(word: &str) -> Verdict {
        use Verdict::*;
        [Succeeded, Interrupted, Cancelled]
            .into_iter()
            .find(|verdict| verdict.as_str() == word)
            .unwrap_or(Failed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
