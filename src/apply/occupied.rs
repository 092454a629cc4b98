//! Whether a definition or a namespace has something in it that would go with it.

use super::Applier;
use crate::cluster::{ClusterError, List, Resource, Select};
use crate::plan::{Owner, opted_out, owned};
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::collections::BTreeSet;

/// Lists under way at once: some sixty kinds, asked about once before a namespace goes.
const AT_ONCE: usize = 8;

/// Kinds that the control plane keeps in every namespace, or that only mirror others.
const ITS_OWN: &[&str] = &["Event", "Endpoints", "EndpointSlice", "Lease"];

impl Applier {
    /// True for a CRD or a namespace with anything in it that does not go with this very prune:
    /// what is not in `going`, is not this owner's, is marked to stay, or holds data. Other kinds
    /// hold nothing. Where that cannot be told, the answer is true.
    pub async fn occupied(
        &self,
        id: &ObjectId,
        owner: &Owner,
        going: &BTreeSet<ObjectId>,
    ) -> Result<bool, ClusterError> {
        let all = self.cluster.everything().await?;
        let stays = |object: &Value| stays(object, owner, going);
        match id.kind.as_str() {
            "CustomResourceDefinition" => {
                // A CRD is called `PLURAL.GROUP`.
                let Some((plural, group)) = id.name.split_once('.') else { return Ok(true) };
                let serves = |r: &&Resource| r.plural == plural && r.group == group;
                let Some(resource) = all.resources.iter().find(serves) else { return Ok(true) };
                let found = self.cluster.list_metadata(resource, Select::default()).await?;
                Ok(found.items.iter().any(stays))
            }
            "Namespace" if id.group.is_empty() => {
                if !all.failed.is_empty() {
                    return Ok(true);
                }
                let kinds = all.resources.iter().filter(|resource| {
                    resource.namespaced && !ITS_OWN.contains(&resource.kind.as_str())
                });
                // Boxed one by one: a closure over references would not be Send for every lifetime.
                let mut lists: Vec<BoxFuture<'_, Result<List, ClusterError>>> = Vec::new();
                for resource in kinds {
                    let select = Select { namespace: Some(&id.name), ..Select::default() };
                    lists.push(self.cluster.list_metadata(resource, select).boxed());
                }
                let mut lists = futures::stream::iter(lists).buffer_unordered(AT_ONCE);
                while let Some(found) = lists.next().await {
                    if found?.items.iter().any(stays) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }
}

/// Whether an object is neither a part of the same prune, nor made by a controller for something
/// that is there, nor there by itself. A claim on a volume stays in any case: it is data.
fn stays(object: &Value, owner: &Owner, going: &BTreeSet<ObjectId>) -> bool {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/kind") == "PersistentVolumeClaim" {
        return true;
    }
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let made = references.is_some_and(|references| !references.is_empty());
    let by_itself = matches!(
        (text("/kind"), text("/metadata/name")),
        ("ConfigMap", "kube-root-ca.crt") | ("ServiceAccount", "default")
    );
    let goes = || {
        going.contains(&ObjectId::of(object)) && owned(object, owner) && opted_out(object).is_none()
    };
    !made && !by_itself && !goes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_goes_with_it_is_there_by_itself_or_made_for_it_does_not_stay() {
        let owner = Owner { namespace: "flux-system".into(), name: "apps".into() };
        let object = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}});
        let none = BTreeSet::new();
        assert!(stays(&object("ConfigMap", "theirs"), &owner, &none));
        assert!(!stays(&object("ConfigMap", "kube-root-ca.crt"), &owner, &none));
        assert!(!stays(&object("ServiceAccount", "default"), &owner, &none));
        let mut made = object("Pod", "web-1");
        made["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web"}]);
        assert!(!stays(&made, &owner, &none));
        let mut ours = object("ConfigMap", "ours");
        ours["metadata"]["labels"] = json!({Owner::NAME_LABEL: "apps",
            Owner::NAMESPACE_LABEL: "flux-system"});
        ours["metadata"]["managedFields"] = json!([{"manager": "kustomize-controller",
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels":
                {"f:kustomize.toolkit.fluxcd.io/name": {}}}}}]);
        let going = [ObjectId::of(&ours)].into();
        assert!(!stays(&ours, &owner, &going));
        assert!(stays(&ours, &owner, &none), "still wanted");
        let mut marked = ours.clone();
        marked["metadata"]["annotations"] =
            json!({"kustomize.toolkit.fluxcd.io/prune": "disabled"});
        assert!(stays(&marked, &owner, &going), "to be kept");
        let mut data = ours.clone();
        data["kind"] = json!("PersistentVolumeClaim");
        assert!(stays(&data, &owner, &[ObjectId::of(&data)].into()), "data");
        ours["metadata"]["labels"][Owner::NAME_LABEL] = json!("infra");
        assert!(stays(&ours, &owner, &going), "another Kustomization's");
    }
}
