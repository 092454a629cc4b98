//! What was used before: zones, adopted tunnels and accounts that the configuration left, and a
//! withdrawal that nobody remembers.

use super::{Edge, HOST};
use serde_json::json;
use std::fs;

/// Names of all records, sorted.
fn names(edge: &Edge) -> Vec<String> {
    let mut names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    names.sort();
    names
}

/// Throws the database away, as a damaged one would be.
fn forget(edge: &Edge) {
    for file in ["history.db", "history.db-wal", "history.db-shm"] {
        let _ = fs::remove_file(edge.world.path("state").join(file));
    }
}

#[test]
fn hosts_lie_in_several_zones_and_one_that_is_lost_costs_the_others_nothing() {
    const OTHER: &str = "blaster.reids.net.au";
    let mut edge = Edge::new("");
    edge.cloud.zone("reids.net.au");
    let both = format!("  tunnel: home\n  hosts: [{HOST}, {OTHER}]\n");
    edge.configure_in("muppit.au, reids.net.au", &both);
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    assert_eq!(names(&edge), [HOST, OTHER]);
    assert_eq!(edge.cloud.rules(&edge.tunnel()).len(), 3);

    // It left the configuration and the account: what is ours there cannot be taken away.
    edge.world.stop();
    edge.cloud.hide_zone("reids.net.au", true);
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n"));
    edge.world.start();
    edge.world.eventually("its route is gone", |_| edge.cloud.rules(&edge.tunnel()).len() == 2);
    edge.says("reachable through 4");
    let warnings = edge.view()["warnings"].to_string();
    assert!(
        warnings.contains("zone reids.net.au was used before and cannot be read"),
        "{warnings}"
    );
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.says("taken down by");
    assert_eq!((names(&edge), edge.cloud.tunnels()), (vec![OTHER.to_owned()], vec![]));
    let warnings = edge.view()["warnings"].to_string();
    assert!(warnings.contains("zone reids.net.au"), "{warnings}");

    // Once it is seen again, the rest goes.
    edge.cloud.hide_zone("reids.net.au", false);
    edge.world.ok(&["edge", "reconcile"]);
    assert_eq!(names(&edge), Vec::<String>::new());
    assert_eq!(edge.view()["warnings"], json!([]));
}

#[test]
fn an_adopted_tunnel_that_is_named_no_more_loses_our_rules_and_keeps_its_own() {
    let mut edge = Edge::new("");
    let theirs = json!([{"hostname": "nas.muppit.au", "service": "https://10.0.0.9:5001"},
        {"service": "http://10.0.0.9"}]);
    edge.cloud.tunnel("lab", theirs.clone());
    edge.cloud.tunnel("attic", theirs);
    edge.configure(&format!("  tunnel: {{name: lab, adopt: true}}\n  hosts: [{HOST}]\n"));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let before = edge.cloud.rules("attic");
    edge.world.stop();
    edge.configure(&format!("  tunnel: {{name: attic, adopt: true}}\n  hosts: [{HOST}]\n"));
    edge.world.start();
    edge.world.eventually("ours are gone", |_| edge.cloud.rules("lab") == before);
    edge.says("reachable through 4");
    assert_eq!(edge.cloud.rules("attic").len(), 3);
    assert_eq!(edge.cloud.records().len(), 1);
    let id = |name: &str| {
        let tunnels = edge.cloud.tunnels();
        tunnels.iter().find(|(known, _)| known == name).expect("it lives").1.clone()
    };
    assert_eq!(edge.cloud.records()[0].content, format!("{}.cfargotunnel.com", id("attic")));
}

#[test]
fn another_account_gets_a_tunnel_of_its_own_and_the_former_is_deleted() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let before = edge.cloud.tunnels();
    edge.world.stop();
    edge.cloud.move_zone("muppit.au", "cccccccccccccccccccccccccccccccc");
    edge.world.start();
    edge.world.eventually("the former is gone", |_| {
        let now = edge.cloud.tunnels();
        now.len() == 1 && now != before
    });
    edge.cloud.connect(4);
    edge.says("reachable through 4");
    let target = format!("{}.cfargotunnel.com", edge.cloud.tunnels()[0].1);
    let records = edge.cloud.records();
    assert_eq!(records.iter().map(|r| &r.content).collect::<Vec<_>>(), [&target], "it was moved");
}

#[test]
fn down_outlives_a_lost_database_and_what_stands_is_found_again() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.says("taken down by");
    edge.world.stop();
    forget(&edge);
    edge.world.start();
    edge.says("taken down by");
    edge.world.settled();
    assert_eq!((edge.cloud.tunnels(), names(&edge)), (vec![], vec![]));

    // Lost in the middle of it: everything still stands, and nobody remembers what.
    edge.cloud.connect(4);
    edge.world.ok(&["edge", "up"]);
    edge.says("reachable through 4");
    edge.world.stop();
    forget(&edge);
    let file = edge.world.path("state").join("state.json");
    let text = fs::read_to_string(&file).expect("it is there");
    let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(state.get("edge_down").is_none(), "{state}");
    state["edge_down"] = json!("leo");
    fs::write(&file, state.to_string()).expect("ours");
    edge.world.start();
    edge.says("taken down by leo");
    assert_eq!((edge.cloud.tunnels(), names(&edge)), (vec![], vec![]));
    edge.world
        .eventually("the connectors are gone", |_| edge.get("deployment", "cloudflared").is_none());

    // Killed after `up` was answered, before a run has noted it.
    edge.world.stop();
    let text = fs::read_to_string(&file).expect("it is there");
    let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(state["edge_down"], "leo");
    state["edge_up"] = json!(true);
    fs::write(&file, state.to_string()).expect("ours");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    edge.world.eventually("both are forgotten", |_| {
        let text = fs::read_to_string(&file).expect("it is there");
        !text.contains("edge_")
    });
}
