//! Creates a namespace that other objects need and that nobody in Git owns.

use super::Applier;
use crate::cluster::{Apply, ClusterError, Resource};
use crate::plan::MANAGER;
use serde_json::json;

impl Applier {
    /// Creates the namespace when it is not there. It carries no owner labels, so it is never
    /// pruned: it stands for one that only a set-aside manifest of Flux would have created.
    pub async fn ensure_namespace(&self, name: &str) -> Result<(), ClusterError> {
        let Some(namespaces) = self.without_namespace(name).await? else { return Ok(()) };
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let apply = Apply { dry_run: false, manager: MANAGER, sensitive: false };
        self.cluster.apply(&namespaces, &body, apply).await.map(|_| ())
    }

    /// Whether [`Applier::ensure_namespace`] would create it.
    pub async fn lacks_namespace(&self, name: &str) -> Result<bool, ClusterError> {
        Ok(self.without_namespace(name).await?.is_some())
    }

    /// Where a namespace that is not there is created.
    async fn without_namespace(&self, name: &str) -> Result<Option<Resource>, ClusterError> {
        let Some(namespaces) = self.cluster.resource("v1", "Namespace").await? else {
            return Ok(None);
        };
        let found = self.cluster.get(&namespaces, "", name).await?;
        Ok(found.is_none().then_some(namespaces))
    }
}
