//! The API server as the steps see it: a client, and what works through it.

use crate::apply::Applier;
use crate::cluster::Cluster;
use crate::observe::Observer;

/// One connection to one cluster.
pub struct Connection {
    /// The client.
    pub cluster: Cluster,
    /// Probes and writes.
    pub applier: Applier,
    /// Watches and health.
    pub observer: Observer,
    /// True when this is not the cluster that the history was made on: nothing is pruned then.
    pub stranger: bool,
    /// True when others own objects in it as we do: what no inventory knows is left alone.
    pub shared: bool,
}

impl Connection {
    /// Builds the parts around a client.
    pub fn new(cluster: Cluster, stranger: bool, shared: bool) -> Self {
        Connection {
            applier: Applier::new(cluster.clone()),
            observer: Observer::new(cluster.clone()),
            cluster,
            stranger,
            shared,
        }
    }
}
