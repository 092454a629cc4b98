//! Pure: one render sorted into what is applied, what is a work order and what is set aside.

use crate::flux::{Class, DeletionPolicy, Kustomization, Object, Unsupported, classify};
use crate::render::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// A manifest that is a part of Flux itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideEntry {
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why it is set aside.
    pub reason: String,
}

/// A work order that cannot be carried out as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The object, as `Kind/namespace/name`.
    pub object: String,
    /// Its file in Git.
    pub origin: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// One Flux object that the graph runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The object, read.
    pub object: Object,
    /// The manifest it was read from.
    pub manifest: Value,
    /// Its file in Git.
    pub origin: Option<String>,
}

/// What the graph learns from one render.
#[derive(Clone, Debug, Default)]
pub struct WorkOrders {
    /// Revision that was rendered.
    pub revision: String,
    /// Objects to run.
    pub work: Vec<Order>,
    /// Objects that could not be read.
    pub problems: Vec<Problem>,
    /// Flux kinds that are not supported yet.
    pub unsupported: Vec<Unsupported>,
    /// Parts of Flux.
    pub set_aside: Vec<SetAsideEntry>,
}

/// One render, sorted.
pub struct Sorted {
    /// Objects to apply.
    pub plain: Vec<Manifest>,
    /// Everything the graph needs to know.
    pub orders: WorkOrders,
    /// Inventory ids of what is kept but never applied: work orders and parts of Flux.
    pub kept: BTreeSet<String>,
}

/// Sorts one render.
pub fn sort(manifests: &[Manifest], revision: &str) -> Sorted {
    let mut plain = Vec::new();
    let mut kept = BTreeSet::new();
    let mut orders = WorkOrders { revision: revision.to_owned(), ..WorkOrders::default() };
    for manifest in manifests {
        let id = &manifest.id;
        match classify(manifest.body()) {
            Class::Plain => {
                plain.push(manifest.clone());
                continue;
            }
            Class::SetAside(why) => orders.set_aside.push(SetAsideEntry {
                kind: id.kind.clone(),
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                reason: why.reason().to_owned(),
            }),
            Class::WorkOrder => order(manifest, &mut orders),
        }
        kept.insert(id.inventory());
    }
    Sorted { plain, orders, kept }
}

fn order(manifest: &Manifest, orders: &mut WorkOrders) {
    let origin = manifest.origin.as_ref().map(ToString::to_string);
    match Object::read(manifest.body()) {
        Some(Ok(object)) => {
            orders.work.push(Order { object, manifest: manifest.body().clone(), origin });
        }
        Some(Err(problems)) => orders.problems.push(Problem {
            object: manifest.id.to_string(),
            origin,
            message: problems.join("; "),
        }),
        None => orders.unsupported.push(Unsupported {
            kind: manifest.id.kind.clone(),
            namespace: manifest.id.namespace.clone(),
            name: manifest.id.name.clone(),
            field: String::new(),
            blocks: false,
        }),
    }
}

/// Whether objects go with their Kustomization (`flux-semantics §4.12`).
pub fn deletes(kustomization: &Kustomization) -> bool {
    match kustomization.deletion_policy {
        DeletionPolicy::MirrorPrune => kustomization.prune,
        DeletionPolicy::Delete | DeletionPolicy::WaitForTermination => true,
        DeletionPolicy::Orphan => false,
    }
}

/// Whether the objects of a Flux object outlive it by its own statement: it is suspended, or
/// carries the mark (`flux-semantics §4.12`).
pub fn keeps(object: &Object, manifest: &Value) -> bool {
    let mark = "kustomize.toolkit.fluxcd.io/prune";
    let marked = ["labels", "annotations"].iter().any(|map| {
        let said = manifest.pointer(&format!("/metadata/{map}")).and_then(|m| m.get(mark));
        said.and_then(Value::as_str).is_some_and(|said| said.eq_ignore_ascii_case("disabled"))
    });
    marked || matches!(object, Object::Kustomization(k) if k.suspend)
}

/// Namespaces that plain objects need and that only a set-aside manifest would have created.
pub fn orphaned_namespaces(plain: &[Manifest], set_aside: &[String]) -> BTreeSet<String> {
    let created: BTreeSet<&str> = plain
        .iter()
        .filter(|m| m.id.kind == "Namespace" && m.id.group.is_empty())
        .map(|m| m.id.name.as_str())
        .collect();
    plain
        .iter()
        .map(|m| m.id.namespace.as_str())
        .filter(|namespace| {
            set_aside.iter().any(|s| s == namespace) && !created.contains(namespace)
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(body: Value) -> Manifest {
        Manifest::new(body, None, false)
    }

    fn tree() -> Vec<Manifest> {
        let part_of = json!({"app.kubernetes.io/part-of": "flux"});
        vec![
            manifest(json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "flux-system", "labels": part_of}})),
            manifest(json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "flux-system"}})),
            manifest(json!({"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
                "metadata": {"name": "h", "namespace": "web"}, "spec": {}})),
            manifest(json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1",
                "kind": "Kustomization", "metadata": {"name": "bad", "namespace": "web"},
                "spec": {"interval": "soon"}})),
        ]
    }

    #[test]
    fn a_render_is_sorted_and_nothing_is_dropped_in_silence() {
        let sorted = sort(&tree(), "r");
        assert_eq!(sorted.plain.len(), 1);
        assert_eq!(sorted.orders.set_aside[0].name, "flux-system");
        assert_eq!(sorted.orders.unsupported[0].to_string(), "HelmRelease/web/h");
        assert!(sorted.orders.problems[0].message.contains("spec.sourceRef: missing"));
        assert_eq!(sorted.kept.len(), 3);
    }

    #[test]
    fn a_namespace_only_flux_would_have_created_is_found() {
        let sorted = sort(&tree(), "r");
        let set_aside = vec!["flux-system".to_owned()];
        let needed = orphaned_namespaces(&sorted.plain, &set_aside);
        assert_eq!(needed.into_iter().collect::<Vec<_>>(), ["flux-system"]);
    }
}
