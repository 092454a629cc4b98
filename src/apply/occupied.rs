//! Whether a definition or a namespace has something in it that would go with it.

use super::Applier;
use crate::cluster::{ClusterError, List, Resource, Select};
use crate::plan::{Owner, owned};
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;

/// Lists under way at once: some sixty kinds, asked about once before a namespace goes.
const AT_ONCE: usize = 8;

/// Kinds that the control plane keeps in every namespace, or that only mirror others.
const ITS_OWN: &[&str] = &["Event", "Endpoints", "EndpointSlice", "Lease"];

impl Applier {
    /// True for a CRD that has objects, and for a namespace in which there is anything that this
    /// owner has not applied. Other kinds hold nothing.
    pub async fn occupied(&self, id: &ObjectId, owner: &Owner) -> Result<bool, ClusterError> {
        match id.kind.as_str() {
            "CustomResourceDefinition" => self.has_objects(id).await,
            "Namespace" if id.group.is_empty() => self.holds_others(&id.name, owner).await,
            _ => Ok(false),
        }
    }

    async fn has_objects(&self, id: &ObjectId) -> Result<bool, ClusterError> {
        // A CRD is called `PLURAL.GROUP`.
        let Some((plural, group)) = id.name.split_once('.') else { return Ok(true) };
        let all = self.cluster.everything().await?;
        let serves = |r: &&Resource| r.plural == plural && r.group == group;
        match all.resources.iter().find(serves) {
            Some(resource) => {
                let select = Select::default();
                Ok(!self.cluster.list_some(resource, select, 1).await?.is_empty())
            }
            // Not served, or its group's own server is away: then nobody can tell.
            None => Ok(all.failed.iter().any(|failed| failed.starts_with(group))),
        }
    }

    async fn holds_others(&self, namespace: &str, owner: &Owner) -> Result<bool, ClusterError> {
        let all = self.cluster.everything().await?;
        if !all.failed.is_empty() {
            return Ok(true);
        }
        let kinds = all
            .resources
            .iter()
            .filter(|resource| resource.namespaced && !ITS_OWN.contains(&resource.kind.as_str()));
        // Boxed one by one: a closure over references would not be Send for every lifetime.
        let mut lists: Vec<BoxFuture<'_, Result<List, ClusterError>>> = Vec::new();
        for resource in kinds {
            let select = Select { namespace: Some(namespace), ..Select::default() };
            lists.push(self.cluster.list_metadata(resource, select).boxed());
        }
        let mut lists = futures::stream::iter(lists).buffer_unordered(AT_ONCE);
        while let Some(found) = lists.next().await {
            let found = match found {
                Err(ClusterError::NotFound { .. }) => continue,
                other => other?,
            };
            if found.items.iter().any(|object| foreign(object, owner)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an object in a namespace is neither this owner's, nor made by a controller for
/// something that is there, nor there by itself.
fn foreign(object: &Value, owner: &Owner) -> bool {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let made = references.is_some_and(|references| !references.is_empty());
    let by_itself = matches!(
        (text("/kind"), text("/metadata/name")),
        ("ConfigMap", "kube-root-ca.crt") | ("ServiceAccount", "default")
    );
    !made && !by_itself && !owned(object, owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_there_by_itself_or_made_for_ours_is_not_foreign() {
        let owner = Owner { namespace: "flux-system".into(), name: "apps".into() };
        let object = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name}});
        assert!(foreign(&object("ConfigMap", "theirs"), &owner));
        assert!(!foreign(&object("ConfigMap", "kube-root-ca.crt"), &owner));
        assert!(!foreign(&object("ServiceAccount", "default"), &owner));
        let mut made = object("Pod", "web-1");
        made["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web"}]);
        assert!(!foreign(&made, &owner));
        let mut ours = object("ConfigMap", "ours");
        ours["metadata"]["labels"] = json!({Owner::NAME_LABEL: "apps",
            Owner::NAMESPACE_LABEL: "flux-system"});
        ours["metadata"]["managedFields"] = json!([{"manager": "kustomize-controller",
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels":
                {"f:kustomize.toolkit.fluxcd.io/name": {}}}}}]);
        assert!(!foreign(&ours, &owner));
        ours["metadata"]["labels"][Owner::NAME_LABEL] = json!("infra");
        assert!(foreign(&ours, &owner), "another Kustomization's");
    }
}
