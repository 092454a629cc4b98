//! Pure: what a Kustomization owns, what left Git, and what may be touched.
//!
//! *Ours* = the owner labels match **and** our Apply entry owns those label fields **and** there is
//! no controller ownerReference. Labels alone lie: a labelled Service hands them to its Endpoints.

use super::desired::Owner;
use super::writer::is_ours;
use crate::flux::{Class, classify, is_flux_group};
use crate::render::{Manifest, ObjectId};
use serde_json::Value;
use std::collections::BTreeSet;

/// One row of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The object.
    pub id: ObjectId,
    /// API version it was last applied with, such as `v1` (without the group).
    pub version: String,
}

impl Entry {
    /// The entry of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let version = manifest.api_version.rsplit('/').next().unwrap_or_default();
        Entry { id: manifest.id.clone(), version: version.to_owned() }
    }

    /// `group/version` for the API.
    pub fn api_version(&self) -> String {
        if self.id.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.id.group, self.version)
        }
    }
}

/// Entries of the inventory that the latest render no longer names.
pub fn stale(inventory: &[Entry], rendered: &BTreeSet<ObjectId>) -> Vec<Entry> {
    inventory.iter().filter(|entry| !rendered.contains(&entry.id)).cloned().collect()
}

/// Whether a live object is ours to prune for this owner.
pub fn owned(live: &Value, owner: &Owner) -> bool {
    if Owner::on(live).as_ref() != Some(owner) {
        return false;
    }
    let references = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controlled = references
        .is_some_and(|list| list.iter().any(|r| r.get("controller") == Some(&Value::Bool(true))));
    if controlled {
        return false;
    }
    let managed = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    managed.is_some_and(|entries| entries.iter().any(claims_owner_labels))
}

/// True for Flux's own objects and components, which are never deleted: a live Flux would take
/// the workloads along. Works on metadata alone.
pub fn of_flux(live: &Value) -> bool {
    let text = |pointer| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let ours = |group: &str| is_flux_group(group) || group == "fluxcd.controlplane.io";
    let group = text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let defines = match text("/kind") {
        // A CRD is called `PLURAL.GROUP`.
        "CustomResourceDefinition" => text("/metadata/name").split_once('.').map(|(_, g)| g),
        _ => None,
    };
    ours(group) || defines.is_some_and(ours) || matches!(classify(live), Class::SetAside(_))
}

/// True for our own Apply entry when it owns the owner-name label.
fn claims_owner_labels(entry: &Value) -> bool {
    is_ours(entry)
        && entry
            .pointer("/fieldsV1/f:metadata/f:labels")
            .and_then(|labels| labels.get(format!("f:{}", Owner::NAME_LABEL)))
            .is_some()
}

/// Why an object is not pruned although it left Git: Flux's opt-out marks on the live copy.
pub fn opted_out(live: &Value) -> Option<&'static str> {
    let marked = |key: &str, value: &str| {
        ["labels", "annotations"].iter().any(|map| {
            live.pointer(&format!("/metadata/{map}"))
                .and_then(|map| map.get(key))
                .and_then(Value::as_str)
                .is_some_and(|said| said.eq_ignore_ascii_case(value))
        })
    };
    if marked("kustomize.toolkit.fluxcd.io/prune", "disabled") {
        Some("kustomize.toolkit.fluxcd.io/prune: disabled")
    } else if marked("kustomize.toolkit.fluxcd.io/reconcile", "disabled") {
        Some("kustomize.toolkit.fluxcd.io/reconcile: disabled")
    } else if marked("kustomize.toolkit.fluxcd.io/ssa", "ignore") {
        Some("kustomize.toolkit.fluxcd.io/ssa: Ignore")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner() -> Owner {
        Owner { namespace: "flux-system".into(), name: "apps".into() }
    }

    fn live() -> Value {
        json!({"metadata": {
            "labels": {"kustomize.toolkit.fluxcd.io/name": "apps",
                "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
            "managedFields": [{"manager": "kustomize-controller", "operation": "Apply",
                "fieldsV1": {"f:metadata": {"f:labels":
                    {"f:kustomize.toolkit.fluxcd.io/name": {}}}}}],
        }})
    }

    #[test]
    fn an_object_is_ours_by_labels_apply_entry_and_no_controller() {
        assert!(owned(&live(), &owner()));
        let mut inherited = live();
        inherited["metadata"]["managedFields"][0]["manager"] = json!("endpoint-controller");
        assert!(!owned(&inherited, &owner()), "labels were handed down, not applied by us");
        let mut controlled = live();
        controlled["metadata"]["ownerReferences"] =
            json!([{"kind": "Service", "controller": true}]);
        assert!(!owned(&controlled, &owner()));
        let other = Owner { namespace: "flux-system".into(), name: "infra".into() };
        assert!(!owned(&live(), &other), "it moved to another Kustomization");
        let mut updated = live();
        updated["metadata"]["managedFields"][0]["operation"] = json!("Update");
        assert!(!owned(&updated, &owner()));
    }

    #[test]
    fn what_belongs_to_flux_is_known_by_its_metadata() {
        let object = |api: &str, kind: &str, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        let crd = |name| object("apiextensions.k8s.io/v1", "CustomResourceDefinition", name);
        assert!(of_flux(&object("helm.toolkit.fluxcd.io/v2", "HelmRelease", "web")));
        assert!(of_flux(&object("fluxcd.controlplane.io/v1", "FluxInstance", "flux")));
        assert!(of_flux(&crd("helmreleases.helm.toolkit.fluxcd.io")));
        assert!(!of_flux(&crd("certificates.cert-manager.io")));
        assert!(!of_flux(&object("apps/v1", "Deployment", "web")));
        let mut controller = object("apps/v1", "Deployment", "helm-controller");
        controller["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "flux"});
        assert!(of_flux(&controller));
    }

    #[test]
    fn opt_out_marks_are_read_from_labels_and_annotations_in_any_case() {
        let mut marked = live();
        marked["metadata"]["annotations"] =
            json!({"kustomize.toolkit.fluxcd.io/prune": "Disabled"});
        assert_eq!(opted_out(&marked), Some("kustomize.toolkit.fluxcd.io/prune: disabled"));
        assert_eq!(opted_out(&live()), None);
    }
}
