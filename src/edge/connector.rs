//! Pure: what stands in the cluster: the tunnel's connectors, and Traefik's settings.
//!
//! The token is in a Secret and reaches the connector through its environment, never its arguments.
//! A mark of it on the pods makes a new one roll them, one after the other: of two, one serves.

use crate::render::Manifest;
use crate::secrets::Plaintext;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Namespace of the connectors.
pub const NAMESPACE: &str = "gitopsd-edge";
/// Their Deployment.
pub const CONNECTOR: &str = "cloudflared";
/// The Secret with their token.
pub const SECRET: &str = "cloudflared-token";

/// Where they tell whether they are connected.
const METRICS: u16 = 2000;

/// The range of pods' addresses in k3s, unless it was given another.
const K3S: &str = "10.42.0.0/16";

/// What the connectors are made from.
pub struct Connector<'a> {
    /// The image.
    pub image: &'a str,
    /// How many.
    pub replicas: u32,
    /// Id of the tunnel.
    pub tunnel: &'a str,
    /// The token.
    pub token: &'a Plaintext,
    /// Changes with the token and tells nothing of it.
    pub mark: &'a str,
}

/// Namespace, Secret and Deployment.
pub fn manifests(connector: &Connector<'_>) -> Vec<Manifest> {
    let labels =
        json!({"app.kubernetes.io/name": CONNECTOR, "app.kubernetes.io/managed-by": "gitopsd"});
    let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": labels});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {
            "app.kubernetes.io/managed-by": "gitopsd",
            "pod-security.kubernetes.io/enforce": "restricted"}}});
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": metadata(SECRET),
        "data": {"token": STANDARD.encode(connector.token.expose())}});
    secret["metadata"]["annotations"] = json!({"gitopsd.io/tunnel": connector.tunnel});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(CONNECTOR),
        "spec": {
            "replicas": connector.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": CONNECTOR}},
            // The next one is ready before one goes.
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels,
                    "annotations": {"gitopsd.io/token": connector.mark}},
                "spec": pod(connector)}}});
    [namespace, secret, deployment].map(|body| Manifest::new(body, None, false)).into()
}

fn pod(connector: &Connector<'_>) -> Value {
    let probe = |period: u32, failures: u32| {
        json!({"httpGet": {"path": "/ready", "port": "metrics"},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5})
    };
    let listen = format!("0.0.0.0:{METRICS}");
    json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": CONNECTOR,
            "image": connector.image,
            "args": ["tunnel", "--no-autoupdate", "--metrics", listen, "run"],
            "env": [{"name": "TUNNEL_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "token"}}}],
            "ports": [{"name": "metrics", "containerPort": METRICS}],
            "readinessProbe": probe(10, 3),
            // Ten minutes without the uplink: whatever keeps it from coming back ends here.
            "livenessProbe": probe(60, 10),
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"memory": "256Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]}}}]})
}

/// Settings of k3s's Traefik: it believes what connectors in the cluster say of who asks, and its
/// class is, or is not, the default one. `ranges` are those of the nodes' pods.
pub fn traefik(default: bool, ranges: &[String]) -> Manifest {
    let trusted = trusted(ranges).into_iter().collect::<Vec<_>>().join(", ");
    let values = format!(
        "ingressClass:\n  enabled: true\n  isDefaultClass: {default}\nports:\n  web:\n    \
         forwardedHeaders:\n      trustedIPs: [{trusted}]\n  websecure:\n    \
         forwardedHeaders:\n      trustedIPs: [{trusted}]\n"
    );
    let body = json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChartConfig",
        "metadata": {"name": "traefik", "namespace": "kube-system"},
        "spec": {"valuesContent": values}});
    Manifest::new(body, None, false)
}

/// Where pods speak from. Of k3s's own range all is taken: not every network plugin keeps to the part
/// that a node has.
fn trusted(ranges: &[String]) -> BTreeSet<String> {
    let whole = |range: &String| match range.starts_with("10.42.") {
        true => K3S.to_owned(),
        // Colons of IPv6 mean something in YAML.
        false => format!("{range:?}"),
    };
    match ranges {
        [] => [K3S.to_owned()].into(),
        ranges => ranges.iter().map(whole).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_in_the_secret_and_nowhere_else() {
        let token = Plaintext::new(b"eyJhIjoi".to_vec());
        let connector =
            Connector { image: "c:1", replicas: 2, tunnel: "t", token: &token, mark: "m" };
        let all = manifests(&connector);
        let ids: Vec<String> = all.iter().map(|manifest| manifest.id.to_string()).collect();
        assert_eq!(
            ids,
            [
                "Namespace/gitopsd-edge",
                "Secret/gitopsd-edge/cloudflared-token",
                "Deployment/gitopsd-edge/cloudflared"
            ]
        );
        let encoded = STANDARD.encode(token.expose());
        for manifest in &all {
            let text = manifest.body().to_string();
            assert!(!text.contains("eyJhIjoi"), "{}", manifest.id);
            assert_eq!(text.contains(&encoded), manifest.id.kind == "Secret", "{}", manifest.id);
            assert_eq!(manifest.sensitive, manifest.id.kind == "Secret");
        }
        let container = &all[2].body()["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["args"][4], "run");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
        assert_eq!(all[2].body()["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    }

    #[test]
    fn traefik_believes_the_clusters_own_pods() {
        let trusted = |ranges: &[&str]| {
            let ranges: Vec<String> = ranges.iter().map(|range| (*range).to_owned()).collect();
            let config = traefik(true, &ranges);
            let values = config.body()["spec"]["valuesContent"].as_str().unwrap_or_default();
            let line = values.lines().find_map(|line| line.trim().strip_prefix("trustedIPs: "));
            line.expect("it is said").to_owned()
        };
        assert_eq!(trusted(&[]), "[10.42.0.0/16]");
        assert_eq!(trusted(&["10.42.0.0/24", "10.42.1.0/24"]), "[10.42.0.0/16]");
        assert_eq!(
            trusted(&["172.20.0.0/24", "fd00:42::/64"]),
            r#"["172.20.0.0/24", "fd00:42::/64"]"#
        );
    }
}
