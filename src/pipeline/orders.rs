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
        Some(Ok(mut object)) => {
            if left_alone(manifest.body()).is_some() {
                stop(&mut object);
            }
            if manifest.sensitive {
                guard(&mut object);
            }
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

/// The mark by which Git keeps a Flux object from being applied (Flux: Kustomization, Reconcile).
/// Under Flux it would not be there, or stay as it was: here it is stopped, and its objects stay.
pub fn left_alone(manifest: &Value) -> Option<&'static str> {
    if marked(manifest, "reconcile", "disabled") {
        Some("kustomize.toolkit.fluxcd.io/reconcile: disabled in Git")
    } else if marked(manifest, "ssa", "ignore") {
        Some("kustomize.toolkit.fluxcd.io/ssa: Ignore in Git")
    } else {
        None
    }
}

/// Digests of held deletions that Git itself confirms, on the Kustomization that holds them.
pub fn confirmed(manifest: &Value) -> Vec<String> {
    let digests = annotation(manifest, "gitopsd.io/confirm").unwrap_or_default().split(',');
    digests.map(str::trim).filter(|digest| !digest.is_empty()).map(str::to_owned).collect()
}

/// The token by which somebody asks for a run: another one than before asks anew.
pub fn requested(manifest: &Value) -> Option<&str> {
    annotation(manifest, "reconcile.fluxcd.io/requestedAt")
}

fn annotation<'a>(manifest: &'a Value, key: &str) -> Option<&'a str> {
    manifest.pointer("/metadata/annotations")?.get(key)?.as_str()
}

fn stop(object: &mut Object) {
    match object {
        Object::GitRepository(source) => source.suspend = true,
        Object::Kustomization(kustomization) => kustomization.suspend = true,
        Object::ImageRepository(repository) => repository.suspend = true,
        Object::ImagePolicy(policy) => policy.suspend = true,
        Object::ImageUpdateAutomation(automation) => automation.suspend = true,
    }
}

/// Variables that a secret value may have reached: the child's own run must mask them too.
fn guard(object: &mut Object) {
    if let Object::Kustomization(kustomization) = object
        && let Some(post_build) = &mut kustomization.post_build
    {
        post_build.sensitive = true;
    }
}

/// A mark of Flux's on a manifest, as label or annotation, in any letter case.
fn marked(manifest: &Value, key: &str, value: &str) -> bool {
    let key = format!("kustomize.toolkit.fluxcd.io/{key}");
    ["labels", "annotations"].iter().any(|map| {
        let said = manifest.pointer(&format!("/metadata/{map}")).and_then(|m| m.get(&key));
        said.and_then(Value::as_str).is_some_and(|said| said.eq_ignore_ascii_case(value))
    })
}

/// Whether objects go with their Kustomization (Flux: Kustomization, Deletion).
pub fn deletes(kustomization: &Kustomization) -> bool {
    match kustomization.deletion_policy {
        DeletionPolicy::MirrorPrune => kustomization.prune,
        DeletionPolicy::Delete | DeletionPolicy::WaitForTermination => true,
        DeletionPolicy::Orphan => false,
    }
}

/// Whether the objects of a Flux object outlive it by its own statement: it is suspended, or
/// carries the mark (Flux: Kustomization, Deletion).
pub fn keeps(object: &Object, manifest: &Value) -> bool {
    marked(manifest, "prune", "disabled") || matches!(object, Object::Kustomization(k) if k.suspend)
}

/// Namespaces that set-aside manifests would have created.
pub fn set_aside_namespaces(entries: &[SetAsideEntry]) -> impl Iterator<Item = String> {
    let namespaces = entries.iter().filter(|entry| entry.kind == "Namespace");
    namespaces.map(|entry| entry.name.clone())
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
    fn a_flux_object_that_git_marks_to_be_left_alone_is_stopped_and_keeps_its_objects() {
        for (map, key, value, stops) in [
            ("annotations", "reconcile", "disabled", true),
            ("labels", "reconcile", "Disabled", true),
            ("annotations", "ssa", "Ignore", true),
            ("annotations", "ssa", "Merge", false),
            ("annotations", "prune", "disabled", false),
        ] {
            let mut body = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1",
                "kind": "Kustomization", "metadata": {"name": "a", "namespace": "web"},
                "spec": {"interval": "1h", "prune": true,
                    "sourceRef": {"kind": "GitRepository", "name": "a"}}});
            body["metadata"][map][format!("kustomize.toolkit.fluxcd.io/{key}")] = json!(value);
            let sorted = sort(&[manifest(body)], "r");
            let [order] = sorted.orders.work.as_slice() else { panic!("{key}") };
            let Object::Kustomization(child) = &order.object else { panic!("{key}") };
            assert_eq!(child.suspend, stops, "{map} {key} {value}");
            let stays = stops || key == "prune";
            assert_eq!(keeps(&order.object, &order.manifest), stays, "{map} {key} {value}");
        }
    }

    #[test]
    fn variables_that_a_secret_value_may_have_reached_are_marked() {
        let body = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": "a", "namespace": "web"},
            "spec": {"interval": "1h", "prune": true, "postBuild": {"substitute": {"A": "b"}},
                "sourceRef": {"kind": "GitRepository", "name": "a"}}});
        for sensitive in [false, true] {
            let sorted = sort(&[Manifest::new(body.clone(), None, sensitive)], "r");
            let Object::Kustomization(child) = &sorted.orders.work[0].object else { panic!() };
            assert_eq!(child.post_build.as_ref().unwrap().sensitive, sensitive);
        }
    }

    #[test]
    fn a_namespace_only_flux_would_have_created_is_found() {
        let sorted = sort(&tree(), "r");
        let set_aside = vec!["flux-system".to_owned()];
        let needed = orphaned_namespaces(&sorted.plain, &set_aside);
        assert_eq!(needed.into_iter().collect::<Vec<_>>(), ["flux-system"]);
    }
}
