//! What a run is going to do: manifests × claims × inventory × evidence → an ordered plan.
//!
//! In the order of use: [`desired()`] finishes each manifest (common metadata, defaults that Flux
//! fills in) and [`label`] writes its owner, [`stages`] splits them so that CRDs and namespaces
//! come first ([`Coming`] tells a plan that is only shown what they will make), [`Claims`] says who
//! else wants an object, [`trim()`] leaves out what the live object forbids, [`decide()`] turns one
//! manifest and its [`Probe`] into a [`Step`], [`writer()`] names who else wrote a field and
//! [`Contest`] when that has become a fight, and [`stale`] with [`Guard`] says which objects of the inventory left
//! Git and which of those deletions are held. `diff` prints the very steps that `run` executes.
//!
//! Everything here is pure. Probing and applying is done by `apply`, the order of the calls is
//! `pipeline`'s, and nothing here reads Git, the cluster or the database.

mod claims;
mod coming;
mod contest;
mod decide;
mod desired;
mod diff;
mod gate;
mod guard;
mod inventory;
mod order;
mod trim;
mod writer;

pub use claims::{Claim, Claims, Conflict};
pub use coming::Coming;
pub use contest::{Contest, Fight};
pub use decide::{
    GOING, VANISHED, by_hand, decide, ended, finite, merges, recreated, unfinished, vanishes,
};
pub use desired::{MANAGER, Owner, desired, label};
pub use diff::{Difference, LAST_APPLIED, differences};
pub use gate::Gate;
pub use guard::{
    Guard, Held, Judged, cascade, children_lost, delete_set, may_hold, most, there_before,
};
pub use inventory::{Entry, of_flux, opted_out, owned, stale};
pub use order::{delete_order, early, late, stages};
pub use trim::{Trimmed, scaled, scales, trim};
pub use writer::{is_ours, is_taken, others, regained, taken, writer};

use crate::render::Manifest;
use serde_json::Value;

/// What the API server said of one manifest, without writing anything.
#[derive(Clone)]
pub struct Probe {
    /// The live object, if there is one.
    pub live: Option<Value>,
    /// The object as it would be after a server-side apply, or why the server refuses it.
    pub dry_run: Result<Value, Refusal>,
    /// The manifest as it is applied, where it is not applied as in Git, or is spoken of.
    pub trimmed: Option<Trimmed>,
}

/// Why the API server refuses an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// HTTP status; 0 when there was no answer.
    pub status: u16,
    /// The server's message, without values of secrets.
    pub message: String,
}

/// Kinds of refusal that lead to different actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The named fields cannot change on the live object.
    Immutable(Vec<String>),
    /// The object itself is wrong: no retry helps until Git changes.
    Invalid,
    /// Its kind is not known to the server.
    UnknownKind,
    /// Its namespace does not exist.
    MissingNamespace,
    /// An admission webhook said no, or does not answer.
    Webhook,
    /// An admission webhook takes no dry-run: what it says of an apply is not known before.
    NoDryRun,
    /// We lack the right.
    Forbidden,
    /// The server is unreachable, overloaded or failing: a retry may help.
    Transient,
}

impl Probe {
    /// True when nobody can say beforehand what an apply would do.
    pub fn blind(&self) -> bool {
        self.dry_run.as_ref().is_err_and(|refusal| refusal.kind == RefusalKind::NoDryRun)
    }
}

impl Refusal {
    /// True when trying again without a new commit may help.
    pub fn retry(&self) -> bool {
        !matches!(self.kind, RefusalKind::Invalid | RefusalKind::Immutable(_))
    }
}

/// What is done with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not there: it is created.
    Create,
    /// It differs: it is applied.
    Configure,
    /// The named immutable fields differ and force is set: deleted by uid, then created.
    Recreate(Vec<String>),
    /// It is as Git says.
    Unchanged,
    /// It is left alone, with the reason.
    Skip(&'static str),
    /// It cannot be judged before an earlier stage has been applied.
    Deferred(String),
    /// The server refuses it.
    Refuse(Refusal),
}

/// One object of a plan.
#[derive(Clone)]
pub struct Step {
    /// The object as it is applied.
    pub manifest: Manifest,
    /// What is done.
    pub action: Action,
    /// What changes, masked.
    pub differences: Vec<Difference>,
    /// Uid of the live object that the decision was taken on.
    pub uid: Option<String>,
    /// Field managers of the live object whose fields are taken over before the apply.
    pub take_over: bool,
    /// It is applied without a dry-run: what changes is known afterwards.
    pub blind: bool,
    /// What is left out of the manifest, and why; how it is applied, if not as others are.
    pub notices: Vec<String>,
}
