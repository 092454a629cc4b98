//! Deletes what left Git, after looking at the live object once more.

use super::{Applier, ApplyError};
use crate::cluster::{ClusterError, Resource, When};
use crate::plan::{Entry, Owner, of_flux, opted_out, owned};
use serde_json::Value;

/// How often a deletion is repeated when the object moves between the look and the deletion:
/// a rolling Deployment writes its status several times a second, for seconds.
const TRIES: u32 = 5;

/// What became of an object that left Git.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// Its deletion is accepted; finalizers may still hold it.
    Deleted,
    /// It was not there, or its kind is not there any more.
    Gone,
    /// It stays by a mark on the live object, and is ours no longer.
    Kept(&'static str),
    /// It is another's: another Kustomization's, or never applied by us.
    NotOurs,
}

impl Applier {
    /// Deletes one object of an inventory if it is ours and not marked to be kept.
    ///
    /// The deletion names uid and resourceVersion of the object that was looked at, so a new
    /// object of that name, or one that changed owner in between, is never hit. Children go in
    /// the background (Flux: Kustomization, Prune). Any error leaves the entry in the inventory.
    pub async fn prune(&self, entry: &Entry, owner: &Owner) -> Result<Pruned, ApplyError> {
        let failed = |source| ApplyError::cluster(&entry.id, source);
        let Some(resource) = self.endpoint(entry).await.map_err(failed)? else {
            return Ok(Pruned::Gone);
        };
        if resource.namespaced == entry.id.namespace.is_empty() {
            // An id from before the scope of its kind was known: it names no object of that kind,
            // but a look by name would find the one that the right id stands for.
            return Ok(Pruned::Gone);
        }
        let (namespace, name) = (&entry.id.namespace, &entry.id.name);
        let mut conflict = String::new();
        for _ in 0..TRIES {
            let live = self.cluster.get(&resource, namespace, name).await.map_err(failed)?;
            let Some(live) = live else { return Ok(Pruned::Gone) };
            if of_flux(&live) {
                return Ok(Pruned::Kept("it belongs to Flux, which only its user removes"));
            }
            if let Some(reason) = opted_out(&live) {
                return Ok(Pruned::Kept(reason));
            }
            if !owned(&live, owner) {
                return Ok(Pruned::NotOurs);
            }
            let text = |pointer| live.pointer(pointer).and_then(Value::as_str);
            if text("/metadata/deletionTimestamp").is_some() {
                return Ok(Pruned::Deleted);
            }
            let uid = text("/metadata/uid");
            let resource_version = text("/metadata/resourceVersion");
            let when = When { uid, resource_version, dry_run: false };
            match self.cluster.delete(&resource, namespace, name, when).await {
                Ok(true) => return Ok(Pruned::Deleted),
                Ok(false) => return Ok(Pruned::Gone),
                Err(ClusterError::Conflict(why)) => conflict = why,
                Err(source) => return Err(failed(source)),
            }
        }
        Err(ApplyError::Moved { id: entry.id.clone(), why: conflict })
    }

    /// The endpoint of an entry, in another version when its own is not served any more.
    async fn endpoint(&self, entry: &Entry) -> Result<Option<Resource>, ClusterError> {
        let found = self.cluster.resource(&entry.api_version(), &entry.id.kind).await?;
        match found {
            Some(resource) => Ok(Some(resource)),
            None => self.cluster.any_version(&entry.id.group, &entry.id.kind).await,
        }
    }
}
