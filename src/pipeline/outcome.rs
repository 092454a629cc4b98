//! Pure: what came of a step, in words for a person and in fields for a machine.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Steps of the pipeline, as named in messages and timings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Asking and fetching from a Git remote.
    Fetch,
    /// Waiting for a source or a dependency.
    Wait,
    /// Opening sealed files.
    Open,
    /// Building manifests.
    Render,
    /// Substituting variables.
    Substitute,
    /// Comparing with the cluster.
    Plan,
    /// Writing to the cluster.
    Apply,
    /// Deleting what left Git.
    Prune,
    /// Waiting for health.
    Observe,
    /// Writing history.
    Record,
    /// Listing the tags of an image.
    Scan,
    /// Choosing one of them.
    Choose,
    /// Replacing marked values.
    Edit,
    /// Pushing a commit.
    Push,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Fetch => "fetch",
            Step::Wait => "wait",
            Step::Open => "open",
            Step::Render => "render",
            Step::Substitute => "substitute",
            Step::Plan => "plan",
            Step::Apply => "apply",
            Step::Prune => "prune",
            Step::Observe => "observe",
            Step::Record => "record",
            Step::Scan => "scan",
            Step::Choose => "choose",
            Step::Edit => "edit",
            Step::Push => "push",
        })
    }
}

/// When trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// Only a new commit or a person helps; still tried at the retry interval, as Flux does.
    Interval,
    /// The cause is outside and may pass at any moment: tried again within seconds, backing off.
    Soon,
    /// Nothing changes until the object itself does.
    Never,
}

/// Why a run or a poll did not reach its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Step that failed.
    pub step: Step,
    /// Flux's reason for the Ready condition, such as `BuildFailed`.
    pub reason: String,
    /// Object concerned, as `Kind/namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// File in Git, with the line when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Revision that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The cause, in a sentence.
    pub cause: String,
    /// What to do, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When a retry may help.
    pub retry: Retry,
}

impl Failure {
    /// A failure of a step with its Flux reason and cause.
    pub fn new(step: Step, reason: &str, cause: impl Into<String>) -> Self {
        Failure {
            step,
            reason: reason.to_owned(),
            object: None,
            file: None,
            revision: None,
            cause: cause.into(),
            hint: None,
            retry: Retry::Interval,
        }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Sets when a retry may help.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Adds the object concerned.
    pub fn object(mut self, object: impl fmt::Display) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Adds the file in Git.
    pub fn file(mut self, file: Option<String>) -> Self {
        self.file = file;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        f.write_str(&self.cause)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_one_sentence_with_place_cause_and_remedy() {
        let failure = Failure::new(Step::Render, "BuildFailed", "not a mapping")
            .object("Deployment/web/app")
            .file(Some("apps/app.yaml:3".into()))
            .hint(Some("indent by two spaces".into()));
        assert_eq!(
            failure.to_string(),
            "render: Deployment/web/app: apps/app.yaml:3: not a mapping; indent by two spaces"
        );
    }
}
