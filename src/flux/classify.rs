//! Pure: is a manifest a work order, a part of Flux itself, or a plain object?
//!
//! 44 of 57 public flux-config repositories install Flux from the same tree. Its own CRDs and
//! controllers are set aside: neither applied nor pruned, because deleting them would make a live
//! Flux finalise, that is delete, the workloads. A user's object that merely carries
//! `app.kubernetes.io/part-of: flux` (a PodMonitor, say) is a plain object.

use super::{group_of, text};
use serde_json::Value;

/// What is to be done with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// An object of a Flux API group: the daemon acts on it itself.
    WorkOrder,
    /// A part of Flux: left as it is in the cluster.
    SetAside(SetAside),
    /// Anything else: applied.
    Plain,
}

/// Why a manifest is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// A CRD of `*.toolkit.fluxcd.io` or of flux-operator.
    FluxCrd,
    /// A controller's Deployment, Service, RBAC, NetworkPolicy, quota, account or namespace.
    FluxComponent,
    /// A FluxInstance or another object of flux-operator.
    FluxOperator,
}

impl SetAside {
    /// One sentence for `status` and `report.json`.
    pub fn reason(self) -> &'static str {
        match self {
            SetAside::FluxCrd => "definition of a Flux kind: gitopsd needs none in the cluster",
            SetAside::FluxComponent => "part of Flux's own controllers: gitopsd does their work",
            SetAside::FluxOperator => "installs Flux's controllers: gitopsd does their work",
        }
    }
}

/// True for the API groups whose objects are work orders.
pub fn is_flux_group(group: &str) -> bool {
    group.ends_with(".toolkit.fluxcd.io")
}

/// Says what a manifest is.
pub fn classify(manifest: &Value) -> Class {
    let group = group_of(manifest);
    if is_flux_group(group) {
        return Class::WorkOrder;
    }
    let kind = text(manifest, "/kind");
    if group == "fluxcd.controlplane.io" {
        // ResourceSets are work orders of a later day; the rest installs Flux.
        return if kind.starts_with("ResourceSet") {
            Class::WorkOrder
        } else {
            Class::SetAside(SetAside::FluxOperator)
        };
    }
    if kind == "CustomResourceDefinition" {
        let defines = text(manifest, "/spec/group");
        let flux = is_flux_group(&defines) || defines == "fluxcd.controlplane.io";
        return if flux { Class::SetAside(SetAside::FluxCrd) } else { Class::Plain };
    }
    let part_of = manifest
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get("app.kubernetes.io/part-of"))
        .and_then(Value::as_str);
    if part_of == Some("flux") && is_component(&kind, &text(manifest, "/metadata/name")) {
        return Class::SetAside(SetAside::FluxComponent);
    }
    Class::Plain
}

/// The controllers of a Flux installation, as gotk-components.yaml names them.
const CONTROLLERS: &[&str] = &[
    "source-controller",
    "kustomize-controller",
    "helm-controller",
    "notification-controller",
    "image-reflector-controller",
    "image-automation-controller",
    "source-watcher",
    "flux-operator",
];

fn is_component(kind: &str, name: &str) -> bool {
    let controller = CONTROLLERS.contains(&name);
    match kind {
        "Deployment" | "ServiceAccount" => controller,
        "Service" => controller || name == "webhook-receiver",
        "NetworkPolicy" => {
            controller || matches!(name, "allow-egress" | "allow-scraping" | "allow-webhooks")
        }
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => true,
        "ResourceQuota" => name.starts_with("critical-pods"),
        "Namespace" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labelled(api: &str, kind: &str, name: &str) -> Value {
        json!({"apiVersion": api, "kind": kind, "metadata":
            {"name": name, "labels": {"app.kubernetes.io/part-of": "flux"}}})
    }

    #[test]
    fn the_parts_of_gotk_components_are_set_aside() {
        for (api, kind, name) in [
            ("apps/v1", "Deployment", "source-controller"),
            ("v1", "Service", "webhook-receiver"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "crd-controller"),
            ("networking.k8s.io/v1", "NetworkPolicy", "allow-egress"),
            ("v1", "ResourceQuota", "critical-pods-flux-system"),
            ("v1", "Namespace", "flux-system"),
        ] {
            let class = classify(&labelled(api, kind, name));
            assert_eq!(class, Class::SetAside(SetAside::FluxComponent), "{kind} {name}");
        }
    }

    #[test]
    fn a_users_own_object_with_the_label_is_plain() {
        for (api, kind, name) in [
            ("monitoring.coreos.com/v1", "PodMonitor", "flux-system"),
            ("apps/v1", "Deployment", "capacitor"),
            ("v1", "ConfigMap", "flux-grafana-dashboards"),
        ] {
            assert_eq!(classify(&labelled(api, kind, name)), Class::Plain, "{kind} {name}");
        }
    }

    #[test]
    fn crds_are_told_apart_by_the_group_they_define() {
        let crd = |group: &str| {
            json!({"apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition", "metadata": {"name": "x"}, "spec": {"group": group}})
        };
        assert_eq!(classify(&crd("image.toolkit.fluxcd.io")), Class::SetAside(SetAside::FluxCrd));
        assert_eq!(classify(&crd("cert-manager.io")), Class::Plain);
    }

    #[test]
    fn every_flux_group_is_a_work_order_whatever_its_version() {
        for api in ["helm.toolkit.fluxcd.io/v2beta1", "image.toolkit.fluxcd.io/v1beta2"] {
            let order = json!({"apiVersion": api, "kind": "X", "metadata": {"name": "x"}});
            assert_eq!(classify(&order), Class::WorkOrder);
        }
    }
}
