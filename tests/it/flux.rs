//! What a former Flux has left in the cluster is not ours to delete, with or without our record.
//!
//! Its definitions, its objects with their finalizer and its controllers carry the labels of Flux's
//! own Kustomization and its field manager, which is ours too. They are tried in every combination,
//! with the labels on the objects of Git or taken off, and with the database there or lost. What no
//! Kustomization in Git declares is found and held each time: so the search has been made.

use crate::left::{AS_FLUX, of};
use crate::owned::{deleted, push, there};
use crate::world::{App, World, mk_config_map, mk_deployment, mk_namespace};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of Flux that are in the cluster, with their plurals and groups.
const KINDS: [(&str, &str, &str); 3] = [
    ("GitRepository", "gitrepositories", "source.toolkit.fluxcd.io"),
    ("Kustomization", "kustomizations", "kustomize.toolkit.fluxcd.io"),
    ("HelmRelease", "helmreleases", "helm.toolkit.fluxcd.io"),
];

/// Its controllers.
const CONTROLLERS: [&str; 3] = ["source-controller", "kustomize-controller", "helm-controller"];

/// A part of Flux itself.
fn part(text: &str) -> String {
    let label = "labels:\n    app.kubernetes.io/part-of: flux\n";
    of("flux-system", text).replacen("labels:\n", label, 1)
}

fn mk_definitions() -> String {
    let definitions = KINDS.map(|(kind, plural, group)| {
        part(&format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
             name: {plural}.{group}\nspec:\n  group: {group}\n  scope: Namespaced\n  \
             names: {{kind: {kind}, plural: {plural}}}\n  versions:\n  - name: v1\n    \
             served: true\n    storage: true\n    schema: {{openAPIV3Schema: {{type: object, \
             x-kubernetes-preserve-unknown-fields: true}}}}\n"
        ))
    });
    definitions.join("---\n")
}

/// The objects by which Flux ran this cluster. A live one would delete what they own with them.
fn mk_orders(namespace: &str) -> String {
    let order = |(kind, _, group): (&str, &str, &str), namespace: &str, name: &str| {
        format!(
            "apiVersion: {group}/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  \
             namespace: {namespace}\n  finalizers: [finalizers.fluxcd.io]\n\
             spec: {{interval: 1h, prune: true}}\n"
        )
    };
    let [source, kustomization, release] = KINDS;
    let orders = [
        part(&mk_namespace("flux-system")),
        of("flux-system", &order(source, "flux-system", "flux-system")),
        of("flux-system", &order(kustomization, "flux-system", "flux-system")),
        of("flux-system", &order(kustomization, "flux-system", "apps")),
        of("flux-system", &order(kustomization, "flux-system", "former")),
        of("apps", &order(release, namespace, "release")),
    ];
    orders.join("---\n")
}

/// Its controllers, scaled to 0, and what belongs to them.
fn mk_controllers() -> String {
    let space = "flux-system";
    let mut parts = vec![
        mk_namespace(space),
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: kustomize-controller\n  \
             namespace: {space}\n"
        ),
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  \
             name: cluster-reconciler-{space}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, \
             kind: ClusterRole, name: cluster-admin}}\nsubjects: [{{kind: ServiceAccount, \
             name: kustomize-controller, namespace: {space}}}]\n"
        ),
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  \
             name: allow-egress\n  namespace: {space}\nspec: {{podSelector: {{}}, \
             policyTypes: [Ingress]}}\n"
        ),
        format!(
            "apiVersion: v1\nkind: ResourceQuota\nmetadata:\n  name: critical-pods-{space}\n  \
             namespace: {space}\nspec: {{hard: {{pods: 1000}}}}\n"
        ),
    ];
    let at_0 = |name| mk_deployment(space, name, "1").replace("replicas: 1", "replicas: 0");
    parts.extend(CONTROLLERS.map(at_0));
    parts.iter().map(|text| part(text)).collect::<Vec<_>>().join("---\n")
}

/// Applies objects as Flux's kustomize-controller did when it ran here.
fn by_flux(world: &World, text: &str) {
    // A kind can be used a moment after it was defined.
    world.eventually("it can be applied", |world| {
        world.cluster().kubectl_with_input(&AS_FLUX, text).status.success()
    });
}

/// Sees to it that this is there of Flux, and nothing else.
fn leave(world: &World, orders: bool, controllers: bool) {
    if orders {
        by_flux(world, &mk_definitions());
        by_flux(world, &mk_orders(&world.namespace));
    }
    match controllers {
        true => by_flux(world, &mk_controllers()),
        false => {
            let all = ["-n", "flux-system", "delete", "deployment", "--all"];
            world.cluster().kubectl_ok(&all);
        }
    }
}

/// Uid and generation of what Git declares and Flux has left, and whether it is on its way out.
fn seen(world: &World, orders: bool) -> BTreeMap<String, Value> {
    let mut kinds = "configmap,service,deployment,namespace,serviceaccount,networkpolicy,\
                     resourcequota,clusterrolebinding,customresourcedefinition"
        .to_owned();
    if orders {
        kinds.extend(KINDS.map(|(_, plural, group)| format!(",{plural}.{group}")));
    }
    let list = world.cluster().kubectl_ok(&["get", "--all-namespaces", "-o", "json", &kinds]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut seen = BTreeMap::new();
    for item in list["items"].as_array().unwrap() {
        let metadata = &item["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or("flux-system");
        let name = metadata["name"].as_str().unwrap();
        // These the control plane makes in its own time.
        let its_own = ["kube-root-ca.crt", "default"].contains(&name);
        if !its_own && ["flux-system", &world.namespace].contains(&namespace) {
            let id = format!("{}/{name}", item["kind"].as_str().unwrap());
            let of = |key: &str| metadata[key].clone();
            seen.insert(id, json!([of("uid"), of("generation"), of("deletionTimestamp")]));
        }
    }
    seen
}

/// What is held, and of whom.
fn held(world: &World) -> Vec<Value> {
    let held = world.status()["held"].as_array().cloned().unwrap_or_default();
    held.iter().map(|held| json!([held["owner"], held["objects"]])).collect()
}

/// Kinds of what Git declares.
const DECLARED: &str = "configmap,service,deployment";

/// Takes the labels off whatever Git declares.
fn strip(world: &World) {
    let selector = ["-l", "kustomize.toolkit.fluxcd.io/name=apps"];
    let labels = ["kustomize.toolkit.fluxcd.io/name-", "kustomize.toolkit.fluxcd.io/namespace-"];
    let verb = ["-n", &world.namespace, "label", DECLARED];
    world.cluster().kubectl_ok(&[&verb[..], &selector, &labels].concat());
}

/// How many of them carry them.
fn labelled(world: &World) -> usize {
    let selector = ["-l", "kustomize.toolkit.fluxcd.io/name=apps", "-o", "name"];
    let verb = ["-n", &world.namespace, "get", DECLARED];
    world.cluster().kubectl_ok(&[verb, selector].concat()).lines().count()
}

#[test]
fn whatever_flux_left_and_whatever_we_have_lost_nothing_is_deleted() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: {ns}\n\
         spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
    );
    let files = [
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("b.yaml", mk_config_map(&ns, "b", "1")),
        ("gone.yaml", mk_config_map(&ns, "gone", "1")),
        ("web.yaml", mk_deployment(&ns, "web", "1")),
        ("service.yaml", service),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    // Flux made them, and one of a Kustomization that is in Git no more.
    files.iter().for_each(|(_, text)| by_flux(&world, &of("apps", text)));
    by_flux(&world, &of("former", &mk_config_map(&ns, "former", "1")));
    let (made, since) = (seen(&world, false), world.cluster().mark());
    world.start();
    world.settled();
    assert_eq!(world.stop(), Some(0));
    assert_eq!(seen(&world, false), made, "they are taken over as they are");
    assert_eq!(deleted(world.cluster(), &world.user, since), BTreeSet::new());

    let former = [json!(["flux-system/former", [format!("ConfigMap/{ns}/former")]])];
    for (orders, controllers) in [(false, false), (false, true), (true, true), (true, false)] {
        leave(&world, orders, controllers);
        for (stripped, lost) in [(false, false), (true, false), (false, true), (true, true)] {
            let row = format!(
                "Flux's objects: {orders}, its controllers at 0: {controllers}, labels taken off: \
                 {stripped}, database lost: {lost}"
            );
            if stripped {
                strip(&world);
            }
            if lost {
                std::fs::remove_file(world.path("state/history.db")).unwrap();
            }
            let (before, since) = (seen(&world, orders), world.cluster().mark());
            world.start();
            world.eventually(&format!("the search was made ({row})"), |world| {
                held(world) == former && labelled(world) == files.len()
            });
            world.settled();
            assert_eq!(held(&world), former, "{row}");
            assert_eq!(world.stop(), Some(0), "{row}");
            let log = world.log();
            assert_eq!(
                deleted(world.cluster(), &world.user, since),
                BTreeSet::new(),
                "{row}\n{log}"
            );
            assert_eq!(seen(&world, orders), before, "{row}\n{log}");
            assert!(!log.contains("are back in it"), "taken for ours ({row})\n{log}");
        }
    }

    // What is looked at does show a deletion: that of what leaves Git, and no other.
    let (mut before, since) = (seen(&world, true), world.cluster().mark());
    world.start();
    world.settled();
    repo.remove("apps/apps/gone.yaml");
    assert!(push(&world, &repo, "one leaves"), "{}", world.log());
    world.eventually("it is pruned", |world| !there(world, "gone"));
    assert_eq!(world.stop(), Some(0));
    let gone = BTreeSet::from(["configmaps/gone".to_owned()]);
    assert_eq!(deleted(world.cluster(), &world.user, since), gone);
    assert!(before.remove("ConfigMap/gone").is_some());
    assert_eq!(seen(&world, true), before);
}
