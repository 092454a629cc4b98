//! Pure: taking over the fields that kubectl and Flux's older writes hold.
//!
//! A field is removed from the cluster when it leaves Git only if nobody else holds it. So the
//! entries of `kubectl*`, `before-first-apply` and our own name with operation Update are merged
//! into one Apply entry of ours, as Flux does (Flux: Kustomization, Override). `kubectl-rollout`
//! stays: a restart asked for by hand is carried along.

use crate::plan::{LAST_APPLIED, MANAGER, is_ours, is_taken};
use serde_json::{Map, Value, json};

/// JSON patch that takes the fields of a live object over; empty when there is nothing to take.
///
/// Its `replace` of the resourceVersion makes it conditional on that very state.
pub(super) fn take_over(live: &Value) -> Vec<Value> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entries = entries.map(Vec::as_slice).unwrap_or_default();
    let mut ours = entries.iter().find(|entry| is_ours(entry)).cloned();
    let mut kept = Vec::new();
    let mut taken = false;
    for entry in entries.iter().filter(|entry| !is_ours(entry)) {
        if !is_taken(entry) {
            kept.push(entry.clone());
            continue;
        }
        taken = true;
        match &mut ours {
            Some(ours) => merge(&mut ours["fieldsV1"], &entry["fieldsV1"]),
            None => {
                let mut renamed = entry.clone();
                renamed["manager"] = json!(MANAGER);
                renamed["operation"] = json!("Apply");
                ours = Some(renamed);
            }
        }
    }
    let mut patch = Vec::new();
    if taken {
        kept.extend(ours);
        patch.push(json!({"op": "replace", "path": "/metadata/managedFields", "value": kept}));
    }
    let annotations = live.pointer("/metadata/annotations");
    if annotations.is_some_and(|map| map.get(LAST_APPLIED).is_some()) {
        let path = format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1"));
        patch.push(json!({"op": "remove", "path": path}));
    }
    if !patch.is_empty() {
        let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        patch.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
    }
    patch
}

/// Union of two field sets: a set is a tree of objects.
fn merge(into: &mut Value, from: &Value) {
    let Some(from) = from.as_object() else { return };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    // Invariant: made an object just above.
    let into = into.as_object_mut().expect("an object");
    for (field, below) in from {
        merge(into.entry(field.clone()).or_insert_with(|| json!({})), below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields})
    }

    #[test]
    fn entries_of_kubectl_become_part_of_ours() {
        let status = json!({"manager": "kubectl", "operation": "Update", "subresource": "status"});
        let other = entry("cert-manager", "Update", json!({"f:x": {}}));
        let live = json!({"metadata": {"resourceVersion": "7",
            "annotations": {LAST_APPLIED: "{}"},
            "managedFields": [
                entry("kubectl-client-side-apply", "Update", json!({"f:data": {"f:b": {}}})),
                other, status,
                entry(MANAGER, "Apply", json!({"f:data": {".": {}, "f:a": {}}}))]}});
        assert_eq!(
            take_over(&live),
            [
                json!({"op": "replace", "path": "/metadata/managedFields", "value": [
                    other, status,
                    entry(MANAGER, "Apply", json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}))]}),
                json!({"op": "remove",
                    "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"}),
                json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}),
            ]
        );
    }

    #[test]
    fn without_an_entry_of_ours_the_first_is_renamed() {
        let fields = json!({"f:data": {}});
        let live = json!({"metadata": {"resourceVersion": "7",
            "managedFields": [entry("before-first-apply", "Update", fields.clone())]}});
        let expected = json!([entry(MANAGER, "Apply", fields)]);
        assert_eq!(take_over(&live)[0]["value"], expected);
    }

    #[test]
    fn a_rollout_restart_and_foreign_managers_are_left_alone() {
        let live = json!({"metadata": {"managedFields": [
            entry("kubectl-rollout", "Update", json!({})),
            entry("flux-client-side-apply", "Update", json!({})),
            entry(MANAGER, "Apply", json!({}))]}});
        assert_eq!(take_over(&live), Vec::<Value>::new());
    }
}
