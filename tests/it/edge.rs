//! The way from outside: the daemon, a real control plane, and a stand-in for Cloudflare.
//!
//! The cluster's side is real: objects, server-side apply, watches, pods as kwok simulates them. The
//! provider's is `bed::cloudflare`, strict and stateful, but no Cloudflare; no connector connects to
//! it, so a test says how many connections there are. Each scenario has a control plane of its own,
//! since the edge's namespace has one name, and they run one after the other for the memory of it.
//!
//! `client` needs no cluster. `made` brings an edge up from nothing and undoes what others do to it, `foreign` has tunnels,
//! rules and records of somebody else, `former` changes zones, tunnels and accounts, `faulty` is about tokens, outages and kills between any two
//! calls, `killed` about kills in the middle of a rotation or a change, `ingresses` about who brings the controller and the connector,
//! `planned` about plans of what is not in force yet, `zones` about zones and accounts as they are configured, `gone` about withdrawal.

mod client;
mod faulty;
mod foreign;
mod former;
mod gone;
mod ingresses;
mod killed;
mod made;
mod planned;
mod zones;

use crate::bed::cloudflare::Cloudflare;
use crate::world::{World, mk_config_map, mk_deployment, mk_namespace};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// A daemon, a cluster and a provider.
struct Edge {
    world: World,
    cloud: Cloudflare,
    _turn: MutexGuard<'static, ()>,
}

/// The public host of most scenarios.
const HOST: &str = "blaster.muppit.au";

impl Edge {
    /// With Traefik as k3s has it, and further lines of the section.
    fn new(extra: &str) -> Edge {
        let edge = Edge::bare(extra);
        edge.world.cluster().apply(&traefik());
        edge
    }

    /// Without any ingress controller.
    fn bare(extra: &str) -> Edge {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let edge = Edge { world: World::alone(), cloud: Cloudflare::start(), _turn: turn };
        edge.token("good-token");
        edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n{extra}"));
        edge.world.entry(&[("clusters/my-cluster/a.yaml", mk_config_map("default", "a", "1"))]);
        edge
    }

    fn token(&self, token: &str) {
        let path = self.world.path("cloudflare-token");
        fs::write(&path, format!("{token}\n")).expect("ours to write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// Writes the section; what is given stands below the provider's keys.
    fn configure(&self, rest: &str) {
        self.configure_in("muppit.au", rest);
    }

    /// The same with these zones.
    fn configure_in(&self, zones: &str, rest: &str) {
        self.configure_by(&format!("zones: [{zones}]"), rest);
    }

    /// The same with these of the provider's keys.
    fn configure_by(&self, provider: &str, rest: &str) {
        let token = self.world.path("cloudflare-token");
        self.world.drop_in(&format!(
            "edge:\n  cloudflare:\n    tokenFile: {}\n    {provider}\n    url: {}\n{rest}",
            token.display(),
            self.cloud.url()
        ));
    }

    fn view(&self) -> Value {
        self.world.status()["edge"].clone()
    }

    fn message(&self) -> String {
        self.view()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the edge says something.
    fn says(&self, text: &str) {
        self.world.eventually(&format!("the edge says {text:?}"), |_| {
            let view = self.view();
            view["running"] == false && view["message"].as_str().is_some_and(|m| m.contains(text))
        });
    }

    /// Name of the one tunnel of ours.
    fn tunnel(&self) -> String {
        let tunnels = self.cloud.tunnels();
        let ours: Vec<_> = tunnels.iter().filter(|(name, _)| name.starts_with("home-")).collect();
        assert_eq!(ours.len(), 1, "one tunnel, and no other: {tunnels:?}");
        ours[0].0.clone()
    }

    fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.world.cluster().get("gitopsd-edge", kind, name)
    }

    /// The token in the Secret, in base64.
    fn secret(&self) -> String {
        let secret = self.get("secret", "cloudflared-token").unwrap_or_default();
        secret["data"]["token"].as_str().unwrap_or_default().to_owned()
    }
}

/// What a plan prints that has something to do, or cannot be made.
fn plan_of(edge: &Edge, verb: &[&str]) -> String {
    let output = edge.world.run(verb);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{verb:?}: {plan}{said}");
    plan
}

/// What k3s's Traefik leaves in a cluster, as far as anybody looks at it, with an image that exists.
fn traefik() -> String {
    let deployment = mk_deployment("kube-system", "traefik", "1");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: traefik\n  \
         annotations: {{ingressclass.kubernetes.io/is-default-class: \"true\"}}\nspec:\n  \
         controller: traefik.io/ingress-controller\n---\napiVersion: v1\nkind: Service\nmetadata:\n  \
         name: traefik\n  namespace: kube-system\n  labels: {{app.kubernetes.io/name: traefik}}\n\
         spec:\n  selector: {{app: traefik}}\n  ports:\n  - {{name: web, port: 80}}\n  - {{name: \
         websecure, port: 443}}\n---\n{deployment}---\n{}",
        mk_ingress(HOST, "")
    )
}

/// An Ingress of a host, in namespace `default`.
fn mk_ingress(host: &str, labels: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  \
         namespace: default\n  labels: {{{labels}}}\nspec:\n  rules:\n  - host: {host}\n    http:\n      \
         paths:\n      - path: /\n        pathType: Prefix\n        backend: {{service: {{name: web, \
         port: {{number: 80}}}}}}\n"
    )
}

/// ingress-nginx as a repository brings it.
fn nginx() -> String {
    let labels = "app.kubernetes.io/name: ingress-nginx, app.kubernetes.io/component: controller";
    format!(
        "{}---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: nginx\n\
         spec:\n  controller: k8s.io/ingress-nginx\n---\napiVersion: v1\nkind: Service\nmetadata:\n  \
         name: controller\n  namespace: ingress-nginx\n  labels: {{{labels}}}\nspec:\n  selector: \
         {{app: controller}}\n  ports:\n  - {{name: http, port: 80}}\n---\n{}",
        mk_namespace("ingress-nginx"),
        mk_deployment("ingress-nginx", "controller", "1")
    )
}
