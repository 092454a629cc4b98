//! Pure: which kinds have no namespace, as far as that is known without a cluster.
//!
//! kustomize's `namespace:` puts a namespace on every kind it does not know, cluster-scoped custom
//! resources included. The daemon asks the API server and takes it off again; here the CRDs of the
//! walk and the built-in kinds stand in for it.

use crate::render::Manifest;
use serde_json::Value;
use std::collections::HashMap;

/// Built-in kinds without a namespace, by group.
const CLUSTER: &[(&str, &[&str])] = &[
    ("", &["Namespace", "Node", "PersistentVolume"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io", &["IngressClass", "IPAddress", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("resource.k8s.io", &["DeviceClass", "ResourceSlice"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"]),
];

/// Built-in kinds with a namespace that a repository is likely to hold, by group.
const NAMESPACED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "ConfigMap",
            "LimitRange",
            "PersistentVolumeClaim",
            "Pod",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
    ("apps", &["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("batch", &["CronJob", "Job"]),
    ("networking.k8s.io", &["Ingress", "NetworkPolicy"]),
    ("policy", &["PodDisruptionBudget"]),
    ("rbac.authorization.k8s.io", &["Role", "RoleBinding"]),
];

/// Scopes of kinds, `true` for namespaced.
#[derive(Default)]
pub struct Scopes {
    defined: HashMap<(String, String), bool>,
}

impl Scopes {
    /// Takes in a CRD; anything else is no news.
    pub fn learn(&mut self, object: &Value) {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        if text("/kind") != Some("CustomResourceDefinition") {
            return;
        }
        let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
        if let (Some(group), Some(kind), Some(scope)) = (group, kind, text("/spec/scope")) {
            self.defined.insert((group.to_owned(), kind.to_owned()), scope == "Namespaced");
        }
    }

    /// Whether a kind has a namespace, if that is known.
    fn namespaced(&self, group: &str, kind: &str) -> Option<bool> {
        let listed = |list: &[(&str, &[&str])]| {
            list.iter().any(|(g, kinds)| *g == group && kinds.contains(&kind))
        };
        if listed(CLUSTER) {
            return Some(false);
        }
        if listed(NAMESPACED) {
            return Some(true);
        }
        self.defined.get(&(group.to_owned(), kind.to_owned())).copied()
    }

    /// Takes a stray namespace off; answers what the API server will refuse.
    pub fn settle(&self, manifest: &mut Manifest) -> Option<String> {
        let id = manifest.id.clone();
        match self.namespaced(&id.group, &id.kind)? {
            true if id.namespace.is_empty() => Some(format!(
                "{id} has no namespace and will be refused: set metadata.namespace, or \
                 targetNamespace of the Kustomization"
            )),
            false if !id.namespace.is_empty() => {
                manifest.edit(|body| {
                    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
                    {
                        metadata.shift_remove("namespace");
                    }
                });
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stray_namespace_goes_and_a_missing_one_is_told() {
        let mut scopes = Scopes::default();
        scopes.learn(&json!({"kind": "CustomResourceDefinition", "spec": {"group": "x.io",
            "names": {"kind": "Issuer"}, "scope": "Cluster"}}));
        let settled = |api: &str, kind: &str, namespace: Option<&str>| {
            let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "a"}});
            if let Some(namespace) = namespace {
                body["metadata"]["namespace"] = json!(namespace);
            }
            let mut manifest = Manifest::new(body, None, false);
            let told = scopes.settle(&mut manifest).is_some();
            (manifest.id.namespace.clone(), told)
        };
        assert_eq!(settled("x.io/v1", "Issuer", Some("n")), (String::new(), false));
        assert_eq!(settled("v1", "Namespace", Some("n")), (String::new(), false));
        assert_eq!(settled("apps/v1", "Deployment", Some("n")), ("n".into(), false));
        assert_eq!(settled("apps/v1", "Deployment", None), (String::new(), true));
        assert_eq!(settled("y.io/v1", "Unknown", Some("n")), ("n".into(), false));
    }
}
