//! Labels that were handed down make nothing ours: a Service hands those of its owner to its
//! Endpoints and EndpointSlices, cert-manager those of an Ingress to its Certificates.
//!
//! What a controller derives from our objects is neither found, shown nor deleted: not when the
//! database is lost and made anew from the labels, an object leaves Git, or the Kustomization does.
//! Each of the three signs of what is ours is missing from some of them, and the others are there.

use crate::bed::Repo;
use crate::owned::{deleted, there};
use crate::world::{App, World, mk_config_map, mk_deployment};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Labels as they are copied, with the owner's among them.
const LABELS: &str = "{app: web, kustomize.toolkit.fluxcd.io/name: web, \
                      kustomize.toolkit.fluxcd.io/namespace: flux-system}";

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
     metadata:\n  name: certificates.cert-manager.io\nspec:\n  group: cert-manager.io\n  \
     scope: Namespaced\n  names: {kind: Certificate, plural: certificates}\n  versions:\n  \
     - name: v1\n    served: true\n    storage: true\n    schema: {openAPIV3Schema: {type: object, \
     x-kubernetes-preserve-unknown-fields: true}}\n";

/// What the copies derive from: two Services, one of them without pods of its own, and an Ingress.
fn mk_web(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: {namespace}\n\
         spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: outside\n  namespace: {namespace}\n\
         spec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  \
         namespace: {namespace}\n  annotations: {{cert-manager.io/cluster-issuer: home}}\nspec:\n  \
         tls: [{{hosts: [web.test.invalid], secretName: tls}}]\n  rules:\n  \
         - host: web.test.invalid\n    http:\n      paths:\n      - path: /\n        \
         pathType: Prefix\n        backend: {{service: {{name: web, port: {{number: 80}}}}}}\n"
    )
}

/// A reference to the Ingress or a Service as its owner.
fn mk_reference(world: &World, kind: &str, controller: bool) -> String {
    let version = if kind == "Ingress" { "networking.k8s.io/v1" } else { "v1" };
    let uid = world.uid(kind, "web");
    format!(
        "  ownerReferences: [{{apiVersion: {version}, kind: {kind}, name: web, uid: {uid}, \
         controller: {controller}}}]\n"
    )
}

/// How somebody writes an object: field manager, and whether by server-side apply.
type Way = (&'static str, bool);

const OURS: Way = ("kustomize-controller", true);
const CERT_MANAGER: Way = ("cert-manager-ingress-shim", false);
const OTHERS: Way = ("mesh-controller", true);

fn write(world: &World, (manager, applied): Way, text: &str) {
    let by = format!("--field-manager={manager}");
    let verb: &[&str] = if applied { &["apply", "--server-side"] } else { &["create"] };
    let arguments = [verb, &[by.as_str(), "-f", "-"]].concat();
    // A kind can be used a moment after it was defined.
    world.eventually("it is written", |world| {
        world.cluster().kubectl_with_input(&arguments, text).status.success()
    });
}

/// Writes copies of the labels, beside those that the control plane makes by itself.
fn copy(world: &World) {
    let ns = &world.namespace;
    let meta = |name: &str, more: &str| {
        format!("metadata:\n  name: {name}\n  namespace: {ns}\n  labels: {LABELS}\n{more}")
    };
    let certificate = |name: &str, more: &str| {
        format!(
            "apiVersion: cert-manager.io/v1\nkind: Certificate\n{}\
             spec: {{secretName: tls, dnsNames: [web.test.invalid]}}\n",
            meta(name, more)
        )
    };
    let slice = |name: &str, more: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{}addressType: IPv4\n\
             endpoints: [{{addresses: [192.0.2.1]}}]\nports: [{{port: 80}}]\n",
            meta(name, more)
        )
    };
    world.cluster().apply(DEFINITION);
    let (ingress, service) =
        (mk_reference(world, "Ingress", true), mk_reference(world, "Service", true));
    // As ingress-shim makes it.
    write(world, CERT_MANAGER, &certificate("shim", &ingress));
    // By our own manager: that it has a controller is the only sign.
    write(world, OURS, &certificate("controlled", &ingress));
    write(world, OURS, &slice("controlled", &service));
    // Without a controller: that others have written the labels is the only sign.
    write(world, CERT_MANAGER, &certificate("plain", ""));
    write(world, CERT_MANAGER, &certificate("owned", &mk_reference(world, "Ingress", false)));
    write(world, OTHERS, &slice("plain", ""));
    let endpoints = format!(
        "apiVersion: v1\nkind: Endpoints\n{}\
         subsets: [{{addresses: [{{ip: 192.0.2.1}}], ports: [{{port: 80}}]}}]\n",
        meta("outside", "")
    );
    write(world, OTHERS, &endpoints);
    // Ours in everything but the labels.
    let bare = certificate("labelled", "").replace(&format!("  labels: {LABELS}\n"), "");
    write(world, OURS, &bare);
    let labels = [
        "kustomize.toolkit.fluxcd.io/name=web",
        "kustomize.toolkit.fluxcd.io/namespace=flux-system",
    ];
    let verb = ["-n", ns, "label", "certificates.cert-manager.io", "labelled"];
    world.cluster().kubectl_ok(&[&verb[..], &labels].concat());
}

/// Uids of all that carries the labels and is not ours, slices by what their names begin with.
fn inherited(world: &World) -> BTreeMap<String, String> {
    let kinds = "endpoints,endpointslices,certificates.cert-manager.io";
    let labels = ["-l", "kustomize.toolkit.fluxcd.io/name=web", "-o", "json"];
    let list = [&["-n", &world.namespace, "get", kinds][..], &labels].concat();
    let list: Value = serde_json::from_str(&world.cluster().kubectl_ok(&list)).unwrap();
    let of = |item: &Value| {
        let text = |key: &str| item["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (kind, prefix) = (item["kind"].as_str().unwrap(), text("generateName"));
        let name = if prefix.is_empty() { text("name") } else { prefix };
        (format!("{kind}/{name}"), text("uid"))
    };
    list["items"].as_array().unwrap().iter().map(of).collect()
}

/// All of them; the control plane makes two of the slices, and the Endpoints of `web`.
const ALL: [&str; 11] = [
    "Certificate/controlled",
    "Certificate/labelled",
    "Certificate/owned",
    "Certificate/plain",
    "Certificate/shim",
    "EndpointSlice/controlled",
    "EndpointSlice/outside-",
    "EndpointSlice/plain",
    "EndpointSlice/web-",
    "Endpoints/outside",
    "Endpoints/web",
];

/// The database is lost, and what the last revision was.
fn forget(world: &mut World) {
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_file(world.path("state/history.db")).unwrap();
    std::fs::remove_dir_all(world.path("state/mirrors")).unwrap();
}

fn push(repo: &Repo, message: &str) {
    repo.commit(message);
    repo.push("main");
}

#[test]
fn endpoints_slices_and_certificates_that_inherited_the_labels_are_never_ours() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    let maps = [
        ("keep.yaml", mk_config_map(&ns, "keep", "1")),
        ("gone.yaml", mk_config_map(&ns, "gone", "1")),
    ];
    let web = [("web.yaml", mk_web(&ns)), ("deployment.yaml", mk_deployment(&ns, "web", "1"))];
    let repo = world.apps(&[
        App { name: "apps", spec: "", files: &maps },
        App { name: "web", spec: "  wait: true\n", files: &web },
    ]);
    world.start();
    world.settled();
    copy(&world);
    world.eventually("all have the labels", |world| inherited(world).keys().eq(ALL));
    let before = inherited(&world);

    // What is ours is learnt from the labels, and what has left Git meanwhile is pruned.
    forget(&mut world);
    repo.remove("apps/apps/gone.yaml");
    push(&repo, "an object leaves");
    let since = world.cluster().mark();
    world.start();
    world.eventually("the search finds what left Git", |world| !there(world, "gone"));
    world.settled();
    assert_eq!(world.status()["held"], json!([]));
    let log = world.log();
    let mut back = log.lines().filter(|line| line.contains("are back in it"));
    assert!(back.all(|line| line.contains("flux-system/apps: 1 objects")), "{log}");

    // The same with nobody in Git who could want them.
    forget(&mut world);
    repo.remove("clusters/my-cluster/web.yaml");
    push(&repo, "a Kustomization leaves");
    world.start();
    let held = |world: &World| world.status()["held"].as_array().cloned().unwrap_or_default();
    world.eventually("what was its own is held", |world| !held(world).is_empty());
    let shown = held(&world);
    assert_eq!((shown.len(), &shown[0]["owner"]), (1, &Value::from("flux-system/web")));
    let objects = shown[0]["objects"].as_array().unwrap().iter().filter_map(Value::as_str);
    let objects: BTreeSet<String> = objects.map(str::to_owned).collect();
    let ours = ["Deployment", "Ingress", "Service"].map(|kind| format!("{kind}/{ns}/web"));
    let mut ours = BTreeSet::from(ours);
    ours.insert(format!("Service/{ns}/outside"));
    assert_eq!(objects, ours);
    world.settled();
    assert_eq!(inherited(&world), before);
    let gone = BTreeSet::from(["configmaps/gone".to_owned()]);
    assert_eq!(deleted(world.cluster(), &world.user, since), gone);

    let since = world.cluster().mark();
    world.ok(&["confirm", shown[0]["digest"].as_str().unwrap()]);
    world.eventually("what was shown goes", |world| {
        ["deployment", "ingress", "service"].iter().all(|kind| world.get(kind, "web").is_none())
            && world.get("service", "outside").is_none()
    });
    assert_eq!(world.stop(), Some(0));
    let gone = ["deployments/web", "ingresses/web", "services/outside", "services/web"];
    let gone: BTreeSet<String> = gone.map(str::to_owned).into();
    assert_eq!(deleted(world.cluster(), &world.user, since), gone, "and nothing else, by us");
}
