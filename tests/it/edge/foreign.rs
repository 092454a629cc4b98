//! Tunnels, rules and records of somebody else: named, and never touched.

use super::{Edge, HOST};
use crate::bed::cloudflare::Mishap;
use crate::world::PATIENCE;
use serde_json::{Value, json};

/// Where requests go.
const TRAEFIK: &str = "http://traefik.kube-system.svc.cluster.local:80";

#[test]
fn a_record_of_somebody_elses_is_named_and_costs_its_host_alone() {
    let mut edge = Edge::new("");
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}, www.muppit.au, api.muppit.au]\n"));
    edge.cloud.connect(4);
    edge.cloud.record("A", "www.muppit.au", "192.0.2.1", None);
    edge.cloud.record("CNAME", "api.muppit.au", "elsewhere.example", Some("mine"));
    edge.cloud.record("CNAME", "old.muppit.au", "elsewhere.example", Some("mine"));
    let foreign = edge.cloud.records();
    edge.world.start();
    edge.says("dns: api.muppit.au has a record of somebody else's: CNAME elsewhere.example");
    let records = edge.cloud.records();
    assert_eq!(records[..3], foreign[..], "none of theirs was touched");
    assert_eq!(records[3..].iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), [HOST]);
    let view = edge.view();
    assert!(view["message"].as_str().unwrap().contains("and 1 more"), "{view}");
    assert!(view["hint"].as_str().unwrap().contains("delete that record"), "{view}");
    assert_eq!(edge.world.run(&["edge"]).status.code(), Some(1));
    edge.world.eventually("the workloads are reconciled", |world| world.is_ready("flux-system"));

    // Once they are gone, the names are ours.
    edge.cloud.delete_record("www.muppit.au");
    edge.cloud.delete_record("api.muppit.au");
    edge.world.run(&["edge", "reconcile"]);
    edge.says("reachable through 4");
    assert_eq!(edge.cloud.records().len(), 4);

    // A record that somebody has bent elsewhere is his, comment or not.
    edge.world.stop();
    let mark = edge.cloud.records()[1].comment.clone().expect("ours has one");
    edge.cloud.delete_record(HOST);
    edge.cloud.record("CNAME", HOST, "elsewhere.example", Some(&mark));
    edge.world.start();
    edge.says("dns: blaster.muppit.au has a record of somebody else's");
    assert!(
        edge.cloud.records().iter().any(|r| r.content == "elsewhere.example" && r.name == HOST)
    );
}

#[test]
fn a_rule_by_hand_in_our_tunnel_is_named_and_nothing_is_written_until_it_is_decided() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable");
    let tunnel = edge.tunnel();
    let by_hand = json!([{"hostname": "grafana.muppit.au", "service": "http://10.0.0.2:3000"},
        {"service": "http_status:404"}]);
    edge.cloud.set_rules(&tunnel, by_hand);
    let before = edge.cloud.rules(&tunnel);
    edge.world.run(&["edge", "reconcile"]);
    edge.says("a rule for grafana.muppit.au to http://10.0.0.2:3000 that gitopsd has not written");
    assert_eq!(edge.cloud.rules(&tunnel), before);
    // It holds up a withdrawal too, whose plan says so.
    let down = edge.world.run(&["edge", "down", "--yes"]);
    let plan = String::from_utf8_lossy(&down.stdout).into_owned();
    assert_eq!(down.status.code(), Some(1));
    assert!(plan.contains("a rule for grafana.muppit.au to http://10.0.0.2:3000"), "{plan}");
    assert_eq!((edge.cloud.rules(&tunnel), edge.cloud.records().len()), (before, 1));
    // Named in the configuration, it is ours to write.
    edge.world.stop();
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}, grafana.muppit.au]\n"));
    edge.world.start();
    edge.says("reachable through 4");
    assert_eq!(
        edge.cloud.rules(&tunnel),
        [
            format!("{HOST} -> {TRAEFIK}"),
            format!("grafana.muppit.au -> {TRAEFIK}"),
            " -> http_status:404".to_owned()
        ]
    );
}

/// Rules of an adopted tunnel: these, and what its owner has there anyway.
fn theirs(first: &[Value]) -> Value {
    let nas = json!({"hostname": "nas.muppit.au", "service": "https://10.0.0.9:5001",
        "originRequest": {"noTLSVerify": true}});
    first.iter().cloned().chain([nas, json!({"service": "http://10.0.0.9"})]).collect()
}

#[test]
fn in_an_adopted_tunnel_a_rule_made_by_hand_is_taken_over_only_if_it_is_ours_to_the_letter() {
    let mut edge = Edge::new("");
    edge.configure(&format!("  tunnel: {{name: lab, adopt: true}}\n  hosts: [{HOST}]\n"));
    edge.cloud.connect(4);
    // It leads where ours would, and lets in whom Access knows.
    let guarded = json!({"hostname": HOST, "service": TRAEFIK, "originRequest":
        {"access": {"required": true, "teamName": "home", "audTag": ["1"]}}});
    edge.cloud.tunnel("lab", theirs(std::slice::from_ref(&guarded)));
    edge.world.start();
    edge.says(&format!("route: tunnel lab has a rule of somebody else's for {HOST} to {TRAEFIK}"));
    let message = edge.message();
    assert!(message.contains(r#"with originRequest {"access":"#), "{message}");
    assert_eq!(edge.world.run(&["edge"]).status.code(), Some(1));
    let untouched = || {
        assert_eq!(edge.cloud.ingress("lab"), theirs(std::slice::from_ref(&guarded)));
        let writes = edge.cloud.calls().into_iter().filter(|call| call.starts_with("PUT "));
        assert_eq!(writes.collect::<Vec<_>>(), Vec::<String>::new());
    };
    untouched();
    edge.world.ok(&["edge", "down", "--yes"]);
    untouched();

    // As we would write it: nobody can tell it from ours.
    let same = json!({"hostname": HOST, "service": TRAEFIK,
        "originRequest": {"httpHostHeader": HOST}});
    edge.cloud.set_rules("lab", theirs(&[same]));
    edge.world.ok(&["edge", "up"]);
    edge.says("reachable through 4");
    assert!(edge.cloud.calls().iter().all(|call| !call.starts_with("PUT ")));
    edge.world.ok(&["edge", "down", "--yes"]);
    assert_eq!(edge.cloud.ingress("lab"), theirs(&[]));
}

#[test]
fn an_adopted_tunnel_keeps_its_own_rules_and_outlives_us() {
    let mut edge = Edge::new("");
    edge.configure(&format!("  tunnel: {{name: lab, adopt: true}}\n  hosts: [{HOST}]\n"));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("tunnel: there is no tunnel called lab to adopt");
    edge.cloud.tunnel("lab", theirs(&[]));
    edge.cloud.tunnel("other", json!([{"service": "http_status:404"}]));
    let other = edge.cloud.rules("other");
    edge.world.run(&["edge", "reconcile"]);
    edge.says("reachable through 4");
    let ours = json!({"hostname": HOST, "service": TRAEFIK,
        "originRequest": {"httpHostHeader": HOST}});
    assert_eq!(edge.cloud.ingress("lab"), theirs(std::slice::from_ref(&ours)));

    // What its owner writes between our look and our write stays.
    edge.cloud.set_rules("lab", theirs(&[]));
    edge.cloud.inject_next("GET", "/configurations", Mishap::Held);
    let mut verb = edge.world.lasting(&["edge", "reconcile"]);
    assert!(edge.cloud.wait_held(PATIENCE), "the configuration was not read");
    let git = json!({"hostname": "git.muppit.au", "service": "http://10.0.0.8"});
    edge.cloud.set_rules("lab", theirs(std::slice::from_ref(&git)));
    edge.cloud.release();
    assert!(verb.wait().expect("our child").success());
    assert_eq!(edge.cloud.ingress("lab"), theirs(&[ours, git]));
    let refused = edge.world.run(&["edge", "rotate"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(edge.message().contains("somebody else's"), "{}", edge.message());

    // Its owner takes our host for himself: named, and neither overwritten nor taken away.
    let bent = json!([{"hostname": HOST, "service": "http://10.0.0.7"},
        {"hostname": "nas.muppit.au", "service": "https://10.0.0.9:5001"},
        {"service": "http://10.0.0.9"}]);
    edge.cloud.set_rules("lab", bent);
    edge.world.run(&["edge", "reconcile"]);
    edge.says(&format!("route: tunnel lab has a rule of somebody else's for {HOST}"));
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.says("taken down by");
    assert_eq!(
        edge.cloud.rules("lab"),
        [
            &format!("{HOST} -> http://10.0.0.7"),
            "nas.muppit.au -> https://10.0.0.9:5001",
            " -> http://10.0.0.9"
        ]
    );
    assert_eq!(edge.cloud.tunnels().len(), 2, "neither was deleted");
    assert_eq!((edge.cloud.rules("other"), edge.cloud.records()), (other, vec![]));
}
