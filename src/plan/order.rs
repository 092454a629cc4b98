//! Pure: in which order objects are applied and deleted (Flux: Kustomization, Apply).

use crate::render::{Manifest, ObjectId};

/// Kinds that come first, in this order; all others follow by group and kind.
const FIRST: &[&str] = &[
    "CustomResourceDefinition",
    "Namespace",
    "ClusterRole",
    "ClusterClass",
    "RuntimeClass",
    "PriorityClass",
    "StorageClass",
    "VolumeSnapshotClass",
    "IngressClass",
    "GatewayClass",
    "ClusterRoleBinding",
    "ResourceQuota",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "Service",
    "LimitRange",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

/// Kinds that come last: a webhook must not refuse what has still to be applied.
const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

fn rank(id: &ObjectId) -> (usize, &str, &str, &str, &str) {
    let kind = id.kind.as_str();
    let position = if let Some(at) = FIRST.iter().position(|first| *first == kind) {
        at
    } else if let Some(at) = LAST.iter().position(|last| *last == kind) {
        FIRST.len() + 1 + at
    } else {
        FIRST.len()
    };
    (position, &id.group, kind, &id.namespace, &id.name)
}

/// The stage of an object: definitions (0), classes (1), everything else (2).
fn stage(id: &ObjectId) -> usize {
    match id.kind.as_str() {
        "CustomResourceDefinition" | "Namespace" | "ClusterRole" => 0,
        kind if kind.ends_with("Class") => 1,
        _ => 2,
    }
}

/// True for what later stages build upon: it must be current before they are probed.
pub fn early(id: &ObjectId) -> bool {
    stage(id) < 2
}

/// True for what comes after everything else of its stage.
pub fn late(id: &ObjectId) -> bool {
    LAST.contains(&id.kind.as_str())
}

/// Splits manifests into the stages that are applied one after the other, each in its order.
///
/// Empty stages are left out. A stage's objects must be current before the next one is probed.
pub fn stages(mut manifests: Vec<Manifest>) -> Vec<Vec<Manifest>> {
    manifests.sort_by(|a, b| rank(&a.id).cmp(&rank(&b.id)));
    let mut stages: [Vec<Manifest>; 3] = Default::default();
    for manifest in manifests {
        stages[stage(&manifest.id)].push(manifest);
    }
    stages.into_iter().filter(|stage| !stage.is_empty()).collect()
}

/// Sorts ids for deletion: the reverse of the order in which they are applied.
pub fn delete_order(ids: &mut [ObjectId]) {
    ids.sort_by(|a, b| rank(b).cmp(&rank(a)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(api: &str, kind: &str, namespace: &str, name: &str) -> Manifest {
        let body = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": name, "namespace": namespace}});
        Manifest::new(body, None, false)
    }

    fn all() -> Vec<Manifest> {
        vec![
            manifest("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "v"),
            manifest("cert-manager.io/v1", "Certificate", "a", "c"),
            manifest("apps/v1", "Deployment", "b", "d"),
            manifest("apps/v1", "Deployment", "a", "d"),
            manifest("networking.k8s.io/v1", "IngressClass", "", "nginx"),
            manifest("v1", "Secret", "a", "s"),
            manifest("v1", "Namespace", "", "a"),
            manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "x"),
        ]
    }

    #[test]
    fn definitions_then_classes_then_the_rest_with_webhooks_last() {
        let staged: Vec<Vec<String>> = stages(all())
            .iter()
            .map(|stage| stage.iter().map(|m| m.id.to_string()).collect())
            .collect();
        assert_eq!(
            staged,
            [
                vec!["CustomResourceDefinition/x", "Namespace/a"],
                vec!["IngressClass/nginx"],
                vec![
                    "Secret/a/s",
                    "Deployment/a/d",
                    "Deployment/b/d",
                    "Certificate/a/c",
                    "ValidatingWebhookConfiguration/v"
                ],
            ]
        );
    }

    #[test]
    fn deletion_goes_backwards() {
        let mut ids: Vec<_> = all().into_iter().map(|m| m.id).collect();
        delete_order(&mut ids);
        assert_eq!(ids.first().map(|id| id.kind.as_str()), Some("ValidatingWebhookConfiguration"));
        assert_eq!(ids.last().map(|id| id.kind.as_str()), Some("CustomResourceDefinition"));
    }
}
