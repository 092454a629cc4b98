//! Why a step of a plan was not done.

use super::refusal::refusal;
use super::ssa::GONE;
use crate::cluster::ClusterError;
use crate::plan::{Refusal, RefusalKind, by_hand};
use crate::render::ObjectId;

/// Why an object was not applied, pruned or current in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The server refuses it.
    #[error("{id}: {}", refusal.message)]
    Refused {
        /// The object.
        id: ObjectId,
        /// The server's reason.
        refusal: Box<Refusal>,
    },
    /// The live object is no longer the one that the plan was made on.
    #[error("{id} changed while it was being applied: {why}")]
    Moved {
        /// The object.
        id: ObjectId,
        /// What was found.
        why: String,
    },
    /// It was deleted to be created again, and something holds it.
    #[error("{id} was deleted {} s ago and is still there{}", GONE.as_secs(), held_by(.finalizers))]
    StillThere {
        /// The object.
        id: ObjectId,
        /// Who has not let go.
        finalizers: Vec<String>,
    },
    /// It was deleted to be created again, and is not.
    #[error("{id} was deleted to be created again, which failed: {}", why.cause())]
    NotRemade {
        /// The object.
        id: ObjectId,
        /// What the creation failed for.
        why: Box<ApplyError>,
    },
    /// A definition, namespace or class cannot be used yet.
    #[error("{id} is not current: {why}")]
    NotCurrent {
        /// The object.
        id: ObjectId,
        /// What it says of itself.
        why: String,
    },
    /// The step asks for no write.
    #[error("{0}: its step of the plan is no write")]
    NotAWrite(ObjectId),
    /// The request itself failed.
    #[error("{id}: {source}")]
    Cluster {
        /// The object.
        id: ObjectId,
        /// What happened.
        source: Box<ClusterError>,
    },
}

fn held_by(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", held by {}", names.join(", ")) }
}

impl ApplyError {
    pub(super) fn refused(id: &ObjectId, refusal: Refusal) -> Self {
        ApplyError::Refused { id: id.clone(), refusal: Box::new(refusal) }
    }

    pub(super) fn cluster(id: &ObjectId, source: ClusterError) -> Self {
        ApplyError::Cluster { id: id.clone(), source: Box::new(source) }
    }

    /// True when the trouble is the API server's and not this object's: it is away, busy or
    /// broken, and going on with other objects would only repeat that.
    pub fn outage(&self) -> bool {
        match self {
            ApplyError::Refused { refusal, .. } => refusal.kind == RefusalKind::Transient,
            ApplyError::Cluster { source, .. } => refusal(source).kind == RefusalKind::Transient,
            ApplyError::NotRemade { why, .. } => why.outage(),
            _ => false,
        }
    }

    /// The cause without the object.
    pub fn cause(&self) -> String {
        let text = self.to_string();
        let object = self.id().to_string();
        let cause = text.strip_prefix(object.as_str()).unwrap_or(&text);
        cause.trim_start_matches([':', ' ']).to_owned()
    }

    /// The object in question.
    pub fn id(&self) -> &ObjectId {
        match self {
            ApplyError::Refused { id, .. }
            | ApplyError::Moved { id, .. }
            | ApplyError::StillThere { id, .. }
            | ApplyError::NotRemade { id, .. }
            | ApplyError::NotCurrent { id, .. }
            | ApplyError::NotAWrite(id)
            | ApplyError::Cluster { id, .. } => id,
        }
    }

    /// True when planning and applying again may succeed without a new commit.
    pub fn retry(&self) -> bool {
        match self {
            ApplyError::Refused { refusal, .. } => refusal.retry(),
            ApplyError::Moved { .. }
            | ApplyError::StillThere { .. }
            | ApplyError::NotRemade { .. }
            | ApplyError::NotCurrent { .. } => true,
            ApplyError::NotAWrite(_) => false,
            ApplyError::Cluster { source, .. } => source.retry(),
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            ApplyError::Refused { id, refusal } => match &refusal.kind {
                RefusalKind::Immutable(fields) => Some(by_hand(id).unwrap_or_else(|| {
                    format!(
                        "{} cannot change on the live object: take the change back, or let it be \
                         deleted and created again with the annotation \
                         kustomize.toolkit.fluxcd.io/force: enabled",
                        fields.join(", ")
                    )
                })),
                RefusalKind::UnknownKind => Some(
                    "its CRD is not installed: add it to Git, or let this Kustomization depend on \
                     the one that brings it"
                        .to_owned(),
                ),
                RefusalKind::MissingNamespace => Some(
                    "declare the Namespace in Git, or let this Kustomization depend on the one \
                     that does"
                        .to_owned(),
                ),
                RefusalKind::Webhook | RefusalKind::NoDryRun => {
                    Some("see the webhook's own workload: is it running, what does it log?".into())
                }
                _ => None,
            },
            ApplyError::StillThere { finalizers, .. } if !finalizers.is_empty() => {
                Some("the controller that set the finalizer must remove it: is it running?".into())
            }
            ApplyError::Cluster { source, .. } => source.hint(),
            ApplyError::NotRemade { why, .. } => why.hint(),
            _ => None,
        }
    }
}
