//! Whether a definition or a namespace has something in it that would go with it.

use super::Applier;
use crate::cluster::{ClusterError, Discovered, List, Resource, Select};
use crate::plan::{Owner, opted_out, owned};
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::collections::BTreeSet;

/// Lists under way at once: some sixty kinds, asked about once before a namespace goes.
const AT_ONCE: usize = 8;

/// Objects after which a namespace is occupied beyond doubt: more names help nobody.
const ENOUGH: usize = 100;

/// Kinds that the control plane keeps in every namespace, or that only mirror others.
const ITS_OWN: &[&str] = &["Event", "Endpoints", "EndpointSlice", "Lease"];

impl Applier {
    /// Names what is in a CRD or a namespace and does not go with this very prune:
    /// what is not in `going`, is not this owner's, is marked to stay, or holds data. Other kinds
    /// hold nothing, and what is gone or on its way out takes nothing along any more. Where it
    /// cannot be told, that is what is named; an error only where nothing at all can be asked.
    /// After a hundred no more is looked for.
    pub async fn occupied(
        &self,
        id: &ObjectId,
        owner: &Owner,
        going: &BTreeSet<ObjectId>,
    ) -> Result<Vec<String>, ClusterError> {
        let version = match (id.kind.as_str(), id.group.as_str()) {
            ("CustomResourceDefinition", group) => format!("{group}/v1"),
            ("Namespace", "") => "v1".to_owned(),
            _ => return Ok(Vec::new()),
        };
        if !self.lasts(id, &version).await? {
            return Ok(Vec::new());
        }
        let all = self.cluster.everything().await?;
        if id.group.is_empty() {
            return self.inhabited(&id.name, &all, |object| lives(object, owner, going)).await;
        }
        // A CRD is called `PLURAL.GROUP`. What it does not serve any more is stored still.
        let Some((plural, group)) = id.name.split_once('.') else { return Ok(unknown()) };
        let serves = |r: &&Resource| r.plural == plural && r.group == group;
        let Some(resource) = all.resources.iter().find(serves) else { return Ok(unknown()) };
        let found = self.cluster.list_metadata(resource, Select::default()).await;
        // Whoever made an object of it: without the definition nobody gets it back.
        let stays = |object: &Value| !goes(object, owner, going);
        Ok(those(found, stays)?.unwrap_or_else(unknown))
    }

    /// Whether an object is there and nobody has asked for its deletion yet.
    async fn lasts(&self, id: &ObjectId, version: &str) -> Result<bool, ClusterError> {
        let Some(resource) = self.cluster.resource(version, &id.kind).await? else {
            return Ok(false);
        };
        let live = self.cluster.get_metadata(&resource, "", &id.name).await?;
        Ok(live.is_some_and(|live| live.pointer("/metadata/deletionTimestamp").is_none()))
    }

    /// What in a namespace stays.
    async fn inhabited(
        &self,
        namespace: &str,
        all: &Discovered,
        stays: impl Fn(&Value) -> bool,
    ) -> Result<Vec<String>, ClusterError> {
        if !all.failed.is_empty() {
            return Ok(unknown());
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
        let mut inside = Vec::new();
        while let Some(found) = lists.next().await {
            // A kind that has just gone has taken its objects along.
            inside.extend(those(found, &stays)?.unwrap_or_default());
            if inside.len() >= ENOUGH {
                break;
            }
        }
        // The lists come in any order, and what is told must not change with it.
        inside.sort();
        Ok(inside)
    }
}

/// Where it cannot be told what there is.
fn unknown() -> Vec<String> {
    vec!["what cannot be listed".to_owned()]
}

/// An object by its name, with the Kustomization whose labels it carries.
fn named(object: &Value) -> String {
    let label = |name: &str| object.pointer("/metadata/labels")?.get(name)?.as_str();
    let id = ObjectId::of(object);
    match (label(Owner::NAMESPACE_LABEL), label(Owner::NAME_LABEL)) {
        (Some(namespace), Some(name)) => format!("{id} of {namespace}/{name}"),
        _ => id.to_string(),
    }
}

/// What in a list stays; `None` where the kind is not there. A list that fails by
/// itself, for a broken conversion webhook say, must not stop every deletion: its objects count.
fn those(
    found: Result<List, ClusterError>,
    stays: impl Fn(&Value) -> bool,
) -> Result<Option<Vec<String>>, ClusterError> {
    match found {
        Ok(list) => Ok(Some(list.items.iter().filter(|o| stays(o)).map(named).collect())),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        Err(error) if error.outage() || matches!(error.status(), 0 | 401 | 429) => Err(error),
        Err(_) => Ok(Some(unknown())),
    }
}

/// Whether an object is a part of the same prune and nothing keeps it from going.
fn goes(object: &Value, owner: &Owner, going: &BTreeSet<ObjectId>) -> bool {
    going.contains(&ObjectId::of(object)) && owned(object, owner) && opted_out(object).is_none()
}

/// Whether an object in a namespace neither goes by itself, nor was made by a controller for
/// something beside it, which counts in its place, nor is there by itself. A claim on a volume
/// stays in any case: it is data.
fn lives(object: &Value, owner: &Owner, going: &BTreeSet<ObjectId>) -> bool {
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
    !made && !by_itself && !goes(object, owner, going)
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
        assert!(lives(&object("ConfigMap", "theirs"), &owner, &none));
        assert!(!lives(&object("ConfigMap", "kube-root-ca.crt"), &owner, &none));
        assert!(!lives(&object("ServiceAccount", "default"), &owner, &none));
        let mut made = object("Pod", "web-1");
        made["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web"}]);
        assert!(!lives(&made, &owner, &none));
        let mut ours = object("ConfigMap", "ours");
        ours["metadata"]["labels"] = json!({Owner::NAME_LABEL: "apps",
            Owner::NAMESPACE_LABEL: "flux-system"});
        ours["metadata"]["managedFields"] = json!([{"manager": "kustomize-controller",
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels":
                {"f:kustomize.toolkit.fluxcd.io/name": {}}}}}]);
        let going = [ObjectId::of(&ours)].into();
        assert!(!lives(&ours, &owner, &going));
        assert!(lives(&ours, &owner, &none), "still wanted");
        let mut marked = ours.clone();
        marked["metadata"]["annotations"] =
            json!({"kustomize.toolkit.fluxcd.io/prune": "disabled"});
        assert!(lives(&marked, &owner, &going), "to be kept");
        let mut data = ours.clone();
        data["kind"] = json!("PersistentVolumeClaim");
        assert!(lives(&data, &owner, &[ObjectId::of(&data)].into()), "data");
        ours["metadata"]["labels"][Owner::NAME_LABEL] = json!("infra");
        assert!(lives(&ours, &owner, &going), "another Kustomization's");
    }
    #[test]
    fn what_a_controller_made_of_a_definition_is_lost_with_it_and_counts() {
        let owner = Owner { namespace: "flux-system".into(), name: "apps".into() };
        let made = json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata":
            {"name": "t", "namespace": "n", "ownerReferences": [{"kind": "Other", "name": "o"}]}});
        assert!(!goes(&made, &owner, &BTreeSet::new()));
        assert!(!goes(&made, &owner, &[ObjectId::of(&made)].into()), "nobody applied it");
    }

    #[test]
    fn a_list_that_fails_by_itself_counts_as_occupied_and_only_an_outage_stops_the_prune() {
        let list = |items: Vec<Value>| List { items, resource_version: String::new() };
        let asked = |found| those(found, |_| true).map_err(|error| error.to_string());
        let db = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db",
            "namespace": "home", "labels": {Owner::NAME_LABEL: "web",
            Owner::NAMESPACE_LABEL: "flux-system"}}});
        let told = vec!["StatefulSet/home/db of flux-system/web".to_owned()];
        assert_eq!(asked(Ok(list(vec![db]))), Ok(Some(told)));
        assert_eq!(asked(Ok(list(vec![]))), Ok(Some(Vec::new())));
        let gone = ClusterError::NotFound { message: "no".into(), kind: String::new() };
        assert_eq!(asked(Err(gone)), Ok(None));
        let failed = |status| ClusterError::Server { status, message: "conversion".into() };
        assert_eq!(asked(Err(failed(500))), Ok(Some(unknown())));
        assert_eq!(asked(Err(ClusterError::Forbidden("no".into()))), Ok(Some(unknown())));
        assert!(asked(Err(failed(503))).is_err());
        assert!(asked(Err(ClusterError::Unreachable("down".into()))).is_err());
    }
}
