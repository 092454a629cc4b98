//! Carries a plan out: asks the server what an object would become, writes it, deletes it.
//!
//! In the order of use: [`Applier::normalise`] settles which manifests have a namespace,
//! [`Applier::probe`] reads the live objects and asks for a dry-run of each (nothing is written),
//! `plan` decides, [`Applier::apply`] does one step by server-side apply under Flux's field
//! manager, [`Applier::wait_current`] waits between the stages until definitions can be used, and
//! [`Applier::prune`] deletes what left Git, by uid and only what is ours; [`Applier::occupied`] tells
//! its guard what else a deletion would take along.
//!
//! It chooses nothing: which step is right was decided in `plan`, and a step that the world has
//! overtaken is an error that asks for a new plan. It keeps no state and writes no database; the
//! inventory was stored before it is called. Health after the apply is `observe`'s.

mod current;
mod error;
mod managers;
mod namespace;
mod occupied;
mod probe;
mod prune;
mod refusal;
mod ssa;

pub use error::ApplyError;
pub use prune::Pruned;
pub use ssa::{Applied, IN_HAND};

use crate::cluster::Cluster;

/// Writes to one cluster. Clones share its connection.
#[derive(Clone, Debug)]
pub struct Applier {
    cluster: Cluster,
}

impl Applier {
    /// An applier for a cluster.
    pub fn new(cluster: Cluster) -> Self {
        Applier { cluster }
    }
}
