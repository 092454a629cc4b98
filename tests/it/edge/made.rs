//! From nothing to reachable, what that costs afterwards, and what others undo.

use super::{Edge, HOST};
use crate::bed::Mark;
use crate::drift::written;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

/// Every file below a directory, as bytes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    all
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// When the API server got a user's first request since a mark of which this is true.
fn asked(edge: &Edge, user: &str, since: Mark, is: impl Fn(&str, &str) -> bool) -> Timestamp {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let events = edge.world.cluster().audit_of(user, since).into_iter();
    let events = events.filter(|event| is(&text(event, "verb"), &text(event, "requestURI")));
    let times = events.map(|event| text(&event, "requestReceivedTimestamp"));
    let first = times.min().expect("somebody has asked");
    first.parse().expect("a time")
}

#[test]
fn from_nothing_to_reachable_with_names_last_and_no_secret_anywhere_else() {
    let mut edge = Edge::new("");
    let mark = edge.world.cluster().mark();
    edge.world.start();
    edge.says("connector: the connectors run, and none has a connection yet");
    assert_eq!(edge.cloud.records(), [], "no name leads to a tunnel without a connector");
    let tunnel = edge.tunnel();
    assert_eq!(
        edge.cloud.ingress(&tunnel),
        json!([{"hostname": HOST, "service": "http://traefik.kube-system.svc.cluster.local:80",
            "originRequest": {"httpHostHeader": HOST}}, {"service": "http_status:404"}])
    );
    let token = edge.cloud.connector_token(&tunnel);
    assert_eq!(edge.secret(), STANDARD.encode(&token));
    let deployment = edge.get("deployment", "cloudflared").expect("it was applied");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/namespace"], "Host");

    edge.cloud.connect(4);
    edge.says("reachable through 4 connections");
    edge.world.settled();
    let first = |what: &str| asked(&edge, &edge.world.user, mark, |_, uri| uri.contains(what));
    let (ours, roots) = (first("/ingressclasses"), first("/namespaces/default/configmaps/a"));
    assert!(ours < roots, "the edge begins before the root: {ours}, {roots}");
    let records = edge.cloud.records();
    let (_, id) = edge.cloud.tunnels().remove(0);
    assert_eq!(
        records.iter().map(|r| (r.name.as_str(), r.content.clone(), r.proxied)).collect::<Vec<_>>(),
        [(HOST, format!("{id}.cfargotunnel.com"), true)]
    );
    assert!(edge.world.status()["line"].as_str().unwrap().contains("edge: reachable through 4"));
    let text = edge.world.ok(&["edge"]);
    assert!(text.contains(&tunnel) && text.contains(HOST), "{text}");

    // Everything is in the history, as the edge's own.
    let runs = edge.world.json(&["history", "edge"]);
    let mut done = Vec::new();
    for run in runs.as_array().expect("a list").iter().rev() {
        assert_eq!(run["owner"], "Host/edge");
        let run = edge.world.json(&["history", "show", run["run"].as_str().unwrap()]);
        for object in run["objects"].as_array().into_iter().flatten() {
            done.push(format!("{} {}", object["action"], object["object"]).replace('"', ""));
        }
    }
    assert_eq!(
        done,
        [
            format!("created Tunnel/{tunnel}"),
            "created Namespace/gitopsd-edge".to_owned(),
            "created Secret/gitopsd-edge/cloudflared-token".to_owned(),
            "created Deployment/gitopsd-edge/cloudflared".to_owned(),
            format!("created Route/{HOST}"),
            format!("created Record/{HOST}"),
        ]
    );
    assert_eq!(edge.world.run(&["diff", "edge"]).status.code(), Some(0), "nothing is left to do");

    // What is as it should be costs four calls an interval, and no write.
    let (calls, mark) = (edge.cloud.calls().len(), edge.world.cluster().mark());
    edge.world.ok(&["edge", "reconcile"]);
    let again: Vec<String> = edge.cloud.calls().split_off(calls);
    let reads = again.iter().all(|call| call.starts_with("GET "));
    assert!(reads && again.len() == 4, "{again:#?}");
    assert_eq!(written(&edge.world, mark), Vec::<String>::new());

    // Neither token is in the journal, the database, arguments or answers.
    let pid = edge.world.pid();
    let mut seen = files(&edge.world.path("state"));
    seen.extend(files(&edge.world.path("run")));
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{pid}/{file}");
        seen.push((path.clone(), std::fs::read(path).expect("our child")));
    }
    seen.push(("log".into(), edge.world.log().into_bytes()));
    for verb in [&["status"][..], &["edge"], &["history", "edge"], &["diff", "edge"]] {
        seen.push((verb.join(" "), edge.world.run(&[verb, &["--json"]].concat()).stdout));
    }
    seen.push(("deployment".into(), deployment.to_string().into_bytes()));
    let secrets = edge.cloud.bodies();
    let secret = secrets.iter().find_map(|(_, body)| body["tunnel_secret"].as_str());
    let encoded = STANDARD.encode(&token);
    for (place, bytes) in seen {
        for needle in ["good-token", &token, &encoded, secret.expect("a tunnel was made")] {
            assert!(!holds(&bytes, needle), "{place} holds {needle}");
        }
    }
}

#[test]
fn what_others_undo_is_healed_in_the_cluster_at_once_and_at_the_provider_when_it_is_asked() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    edge.world.settled();
    let cluster = edge.world.cluster();
    let calls = edge.cloud.calls().len();
    for (kind, name) in [("secret", "cloudflared-token"), ("deployment", "cloudflared")] {
        let uid = |edge: &Edge| edge.get(kind, name).map(|o| o["metadata"]["uid"].clone());
        let before = uid(&edge).expect("it was applied");
        let mark = cluster.mark();
        cluster.kubectl_ok(&["-n", "gitopsd-edge", "delete", kind, name, "--wait=false"]);
        edge.world.eventually(&format!("{kind} is back"), |_| {
            uid(&edge).is_some_and(|after| after != before)
        });
        let object = format!("/{kind}s/{name}");
        let gone =
            asked(&edge, "admin", mark, |verb, uri| verb == "delete" && uri.contains(&object));
        let back = asked(&edge, &edge.world.user, mark, |verb, uri| {
            verb == "patch" && uri.contains(&object) && !uri.contains("dryRun=All")
        });
        let took = back.duration_since(gone).unsigned_abs();
        // Within a second, and what two loaded cores add.
        assert!(took < Duration::from_secs(3), "{kind} was back after {took:?}");
        println!("{kind} was back after {took:?}");
    }
    let image = json!({"spec": {"template": {"spec": {"containers":
        [{"name": "cloudflared", "image": "registry.test.invalid/evil:1"}]}}}});
    let patch =
        ["-n", "gitopsd-edge", "patch", "deployment", "cloudflared", "-p", &image.to_string()];
    cluster.kubectl_ok(&patch);
    edge.world.eventually("the image is ours again", |_| {
        let found = edge.get("deployment", "cloudflared").unwrap_or_default();
        let image = found.pointer("/spec/template/spec/containers/0/image").cloned();
        image.as_ref().and_then(Value::as_str).is_some_and(|image| image.contains("cloudflare/"))
    });
    let asked = edge.cloud.calls().split_off(calls);
    let wrote = asked.iter().filter(|call| !call.starts_with("GET "));
    assert_eq!(wrote.count(), 0, "healing the cluster changes nothing at the provider: {asked:?}");

    // The provider's side: found and mended by the next comparison.
    edge.says("reachable");
    edge.cloud.delete_record(HOST);
    edge.world.ok(&["edge", "reconcile"]);
    assert_eq!(edge.cloud.records().len(), 1);
    let tunnel = edge.tunnel();
    let before = edge.cloud.tunnels();
    edge.cloud.delete_tunnel(&tunnel);
    let diff = edge.world.run(&["diff", "edge"]);
    let told = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(told.contains(&format!("Tunnel/{tunnel}")), "{told}");
    edge.world.run(&["edge", "reconcile"]);
    edge.says("reachable through 4");
    assert_eq!(edge.tunnel(), tunnel, "the same name");
    let after = edge.cloud.tunnels();
    assert_ne!(before, after, "another tunnel");
    let records = edge.cloud.records();
    let target = format!("{}.cfargotunnel.com", after[0].1);
    assert_eq!(records.iter().map(|r| &r.content).collect::<Vec<_>>(), [&target], "it was moved");
    assert_eq!(edge.secret(), STANDARD.encode(edge.cloud.connector_token(&tunnel)));
}

#[test]
fn a_rotation_gives_the_connectors_another_token_one_after_the_other() {
    let mut edge = Edge::new("  interval: 1m\n");
    edge.cloud.connect(2);
    edge.world.start();
    edge.says("reachable through 2");
    let (tunnel, before) = (edge.tunnel(), edge.secret());
    let pods = || {
        let found = edge.world.cluster().get("gitopsd-edge", "deployment", "cloudflared");
        found.unwrap_or_default()["spec"]["template"]["metadata"]["annotations"].clone()
    };
    let marked = pods();
    let status = |key: &str| {
        let found = edge.get("deployment", "cloudflared").unwrap_or_default();
        found["status"][key].as_u64().unwrap_or_default()
    };
    edge.world.eventually("both connectors serve", |_| status("availableReplicas") == 2);
    edge.world.ok(&["edge", "rotate"]);
    let after = edge.secret();
    assert_ne!(before, after);
    assert_eq!(after, STANDARD.encode(edge.cloud.connector_token(&tunnel)));
    assert_ne!(marked, pods(), "the pods are rolled");
    let least = Cell::new(u64::MAX);
    edge.world.eventually("every connector has the new token", |_| {
        let found = edge.get("deployment", "cloudflared").unwrap_or_default();
        let status = |key: &str| found["status"][key].as_u64().unwrap_or_default();
        least.set(least.get().min(status("availableReplicas")));
        let seen = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        seen && [status("updatedReplicas"), status("replicas")] == [2, 2]
    });
    assert_eq!(least.get(), 2, "at no time fewer than both serve");

    // The interval finds, without being asked, what somebody did at the provider.
    edge.cloud.delete_record(HOST);
    let took = edge.world.eventually("the record is back", |_| !edge.cloud.records().is_empty());
    println!("the record was back after {took:?}, at an interval of a minute");
}
