//! Who brings the ingress controller, who brings the connector, and which hosts are public.

use super::{Edge, HOST, mk_ingress, nginx, traefik};
use crate::world::{mk_deployment, mk_namespace};
use serde_json::json;

/// A kind, with no more than is read here.
fn mk_kind(group: &str, kind: &str, plural: &str, scope: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
         name: {plural}.{group}\n  annotations: {{api-approved.kubernetes.io: \"unapproved, for a \
         test\"}}\nspec:\n  group: {group}\n  names: {{kind: {kind}, plural: {plural}, singular: \
         {}}}\n  scope: {scope}\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    \
         schema:\n      openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: \
         true}}\n",
        kind.to_lowercase()
    )
}

#[test]
fn nothing_is_routed_before_there_is_a_controller_and_nginx_is_used_with_a_warning() {
    let mut edge = Edge::bare("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("ingress: there is no ingress controller yet");
    assert_eq!(edge.cloud.records(), []);
    edge.world.cluster().apply(&(nginx() + "---\n" + &mk_ingress(HOST, "")));
    edge.says("reachable through 4");
    assert_eq!(
        edge.cloud.rules(&edge.tunnel())[0],
        format!("{HOST} -> http://controller.ingress-nginx.svc.cluster.local:80")
    );
    let warnings = edge.view()["warnings"].to_string();
    assert!(warnings.contains("ingress-nginx is retired upstream"), "{warnings}");

    // A second one makes the choice unclear; naming the class makes it clear.
    edge.world.cluster().apply(&traefik());
    edge.world.cluster().kubectl_ok(&[
        "annotate",
        "ingressclass",
        "traefik",
        "ingressclass.kubernetes.io/is-default-class-",
    ]);
    edge.world.run(&["edge", "reconcile"]);
    edge.says("ingress: there are several ingress controllers: nginx, traefik");
    edge.world.stop();
    edge.configure(&format!(
        "  tunnel: home\n  hosts: [{HOST}, '*.muppit.au']\n  ingress: {{controller: repository, \
         class: traefik, scheme: https, verify: false}}\n"
    ));
    edge.world.start();
    edge.says("reachable through 4");
    let service = "https://traefik.kube-system.svc.cluster.local:443";
    assert_eq!(
        edge.cloud.ingress(&edge.tunnel()),
        json!([{"hostname": HOST, "service": service, "originRequest": {"httpHostHeader": HOST,
                "originServerName": HOST, "noTLSVerify": true}},
            {"hostname": "*.muppit.au", "service": service, "originRequest":
                {"matchSNItoHost": true, "noTLSVerify": true}},
            {"service": "http_status:404"}])
    );

    // Its pods are a link of the chain too.
    let scale = ["-n", "kube-system", "scale", "deployment", "traefik", "--replicas=0"];
    edge.world.cluster().kubectl_ok(&scale);
    edge.world.eventually("the edge says so", |world| {
        world.run(&["edge", "reconcile"]);
        edge.message() == "service: Service kube-system/traefik has no pod that is ready"
    });

    // And so are the connectors' own.
    edge.world.stop();
    edge.configure(&format!(
        "  tunnel: home\n  hosts: [{HOST}]\n  ingress: {{controller: repository, class: traefik}}\n  \
         connector: {{image: 'registry.test.invalid/cloudflared:missing'}}\n"
    ));
    edge.cloud.connect(0);
    edge.world.start();
    edge.says("cannot pull image registry.test.invalid/cloudflared:missing");
    assert!(edge.message().starts_with("pod: "), "{}", edge.message());
}

#[test]
fn traefik_is_tuned_through_its_helm_chart_config_unless_somebody_else_does() {
    let mut edge = Edge::new("  ingress: traefik\n");
    let cluster = edge.world.cluster();
    let kinds = [("HelmChart", "helmcharts"), ("HelmChartConfig", "helmchartconfigs")];
    let kinds = kinds.map(|(kind, plural)| mk_kind("helm.cattle.io", kind, plural, "Namespaced"));
    cluster.apply(&kinds.join("---\n"));
    cluster.kubectl_ok(&["wait", "--for=condition=established", "crd", "--all"]);
    // As with another --cluster-cidr.
    let range = r#"{"spec": {"podCIDR": "10.99.0.0/24", "podCIDRs": ["10.99.0.0/24"]}}"#;
    cluster.kubectl_ok(&["patch", "node", "box", "-p", range]);
    cluster.apply(
        "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: traefik, namespace: \
         kube-system}\nspec: {chart: x}\n",
    );
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let config = |edge: &Edge| {
        let found = edge.world.cluster().get("kube-system", "helmchartconfig", "traefik");
        found.map(|found| found["spec"]["valuesContent"].as_str().unwrap_or_default().to_owned())
    };
    let values = config(&edge).expect("it was applied");
    assert!(values.contains("isDefaultClass: true"), "{values}");
    assert!(values.contains(r#"trustedIPs: ["10.99.0.0/24"]"#), "{values}");
    edge.world.stop();
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n"));
    edge.world.start();
    edge.says("reachable through 4");
    assert_eq!(config(&edge), None, "what is not wanted any more is taken away");

    edge.world.stop();
    edge.world.cluster().apply(
        "apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata: {name: traefik, namespace: \
         kube-system}\nspec: {valuesContent: mine}\n",
    );
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n  ingress: traefik\n"));
    edge.world.start();
    edge.says("ingress: HelmChartConfig/kube-system/traefik is written by somebody else");
    let found = edge.world.cluster().get("kube-system", "helmchartconfig", "traefik");
    assert_eq!(found.expect("theirs")["spec"]["valuesContent"], "mine");
}

#[test]
fn the_repositorys_connector_is_looked_at_and_beside_ours_it_is_an_error_that_names_both() {
    let mut edge = Edge::new("");
    edge.cloud.tunnel("lab", json!([{"service": "http_status:404"}]));
    let theirs = mk_deployment("tunnels", "cloudflared", "1").replace("/app:", "/cloudflared:");
    edge.world.cluster().apply(&(mk_namespace("tunnels") + "---\n" + &theirs));
    edge.world.start();
    edge.says("connector: the repository brings a connector, Deployment/tunnels/cloudflared");
    let message = edge.message();
    assert!(message.contains("Deployment/gitopsd-edge/cloudflared"), "{message}");
    assert_eq!(edge.cloud.tunnels().len(), 1, "none was made");

    // Its own file says where it leads: that cannot be ours to say, and is only looked at.
    edge.cloud.local_tunnel("den");
    let theirs = |name: &str, rest: &str| {
        edge.configure(&format!(
            "  tunnel: {{name: {name}, adopt: true}}\n  hosts: [{HOST}]\n  connector: \
             repository\n{rest}"
        ));
    };
    theirs("den", "");
    edge.world.ok(&["reload"]);
    edge.says("tunnel: tunnel den is configured by a file of its connector");
    theirs("den", "  routes: off\n  dns: off\n");
    edge.world.ok(&["reload"]);
    edge.says("connector: Deployment/tunnels/cloudflared has no connection to this tunnel");
    edge.cloud.connect(1);
    edge.says("reachable through 1 connection");
    assert!(edge.cloud.calls().iter().all(|call| call.starts_with("GET ")), "nothing was written");

    theirs("lab", "");
    edge.cloud.connect(0);
    edge.world.ok(&["reload"]);
    edge.says("connector: Deployment/tunnels/cloudflared has no connection to this tunnel");
    edge.cloud.connect(1);
    edge.says("reachable through 1 connection");
    assert_eq!(edge.get("deployment", "cloudflared"), None, "none of ours");
    assert_eq!(edge.cloud.records().len(), 1);
    edge.world.stop();
    cluster_scales_to_nothing(&edge);
    edge.cloud.connect(0);
    edge.world.start();
    edge.says("connector: the repository has brought none yet");
}

fn cluster_scales_to_nothing(edge: &Edge) {
    let scale = ["-n", "tunnels", "scale", "deployment", "cloudflared", "--replicas=0"];
    edge.world.cluster().kubectl_ok(&scale);
}

/// A route of a host, in namespace `default`.
fn mk_route(host: &str, labels: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {name}\n  \
         namespace: default\n  labels: {{{labels}}}\nspec:\n  hostnames: [{host}]\n"
    )
}

#[test]
fn a_gateway_is_found_by_its_class_and_its_routes_have_hosts_too() {
    let mut edge = Edge::bare("  discover: {label: gitopsd.io/public=true}\n");
    let cluster = edge.world.cluster();
    let group = "gateway.networking.k8s.io";
    let kinds = [
        mk_kind(group, "GatewayClass", "gatewayclasses", "Cluster"),
        mk_kind(group, "HTTPRoute", "httproutes", "Namespaced"),
        mk_kind("cert-manager.io", "ClusterIssuer", "clusterissuers", "Cluster"),
    ];
    cluster.apply(&kinds.join("---\n"));
    cluster.kubectl_ok(&["wait", "--for=condition=established", "crd", "--all"]);
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: \
                   own}\nspec: {controllerName: test.invalid/gateway}\n---\napiVersion: v1\nkind: \
                   Service\nmetadata:\n  name: own\n  namespace: gateways\n  labels: \
                   {gateway.networking.k8s.io/gateway-name: main}\nspec:\n  selector: {app: own}\n  \
                   ports:\n  - {name: http, port: 80}\n";
    let all = [
        mk_namespace("gateways"),
        gateway.to_owned(),
        mk_deployment("gateways", "own", "1"),
        mk_route(HOST, ""),
        mk_route("shop.muppit.au", "gitopsd.io/public: \"true\""),
        mk_route("secret.muppit.au", ""),
    ];
    cluster.apply(&all.join("---\n"));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let service = "http://own.gateways.svc.cluster.local:80";
    assert_eq!(
        edge.cloud.rules(&edge.tunnel()),
        [
            format!("{HOST} -> {service}"),
            format!("shop.muppit.au -> {service}"),
            " -> http_status:404".to_owned()
        ]
    );
    let problems: Vec<_> = edge.view()["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|host| host["problem"].clone())
        .collect();
    assert_eq!(problems, ["", ""], "each host has its route");
    assert_eq!(edge.message(), "reachable through 4 connections");
    let warnings = edge.view()["warnings"].to_string();
    assert!(warnings.contains("DNS-01"), "cert-manager is there: {warnings}");
}

#[test]
fn a_new_ingress_is_public_only_when_its_label_says_so() {
    let mut edge = Edge::new("");
    edge.configure(&format!(
        "  tunnel: home\n  hosts: [{HOST}]\n  discover: {{label: gitopsd.io/public=true}}\n"
    ));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let cluster = edge.world.cluster();
    let public = "gitopsd.io/public: \"true\"";
    cluster.apply(&format!(
        "{}---\n{}---\n{}",
        mk_ingress("secret.muppit.au", ""),
        mk_ingress("shop.muppit.au", public),
        mk_ingress("blaster.reids.net.au", public)
    ));
    edge.world.ok(&["edge", "reconcile"]);
    let mut names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    names.sort();
    assert_eq!(names, [HOST, "shop.muppit.au"]);
    edge.world.settled();
    cluster.kubectl_ok(&["delete", "ingress", "shop-muppit-au"]);
    // It may just be made again: a name that is taken away is away for long.
    edge.world.ok(&["edge", "reconcile"]);
    let view = edge.view();
    let shop =
        view["hosts"].as_array().and_then(|all| all.iter().find(|h| h["host"] == "shop.muppit.au"));
    let problem = shop.expect("it is still public")["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("no Ingress or HTTPRoute has this host any more"), "{view}");
    assert_eq!(edge.cloud.records().len(), 2);
    edge.world.ok(&["edge", "reconcile"]);
    let names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    assert_eq!(names, [HOST], "what is public no longer is taken away");
    assert_eq!(edge.cloud.rules(&edge.tunnel()).len(), 2);
}
