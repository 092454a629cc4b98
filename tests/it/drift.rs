//! What others do to our objects is undone within seconds, and what is not ours is left alone.

use crate::world::{App, World, mk_config_map, mk_deployment};
use serde_json::Value;
use std::time::Duration;

/// Longest time from a change to its heal, generous on two loaded cores; it is mostly 0.2 s.
const SECONDS: Duration = Duration::from_secs(10);

fn value(world: &World) -> String {
    let object = world.get("configmap", "a").unwrap_or_default();
    object["data"]["key"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_edit_of_our_field_and_a_deletion_are_healed_within_seconds_and_recorded() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files =
        [("a.yaml", mk_config_map(&ns, "a", "1")), ("d.yaml", mk_deployment(&ns, "web", "1"))];
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    world.start();
    world.settled();
    let cluster = world.cluster();
    let patch = |kind: &str, name: &str, patch: &str| {
        cluster.kubectl_ok(&["-n", &ns, "patch", kind, name, "--type=merge", "--patch", patch]);
    };
    patch("configmap", "a", r#"{"data":{"key":"edited"}}"#);
    let took = world.eventually("the value is back", |world| value(world) == "1");
    assert!(took < SECONDS, "{took:?}");

    patch("deployment", "web", r#"{"spec":{"replicas":3}}"#);
    let took = world.eventually("the scale is back", |world| {
        world.get("deployment", "web").unwrap()["spec"]["replicas"] == 1
    });
    assert!(took < SECONDS, "{took:?}");

    cluster.kubectl_ok(&["-n", &ns, "delete", "configmap", "a"]);
    let took = world.eventually("it is there again", |world| value(world) == "1");
    assert!(took < SECONDS, "{took:?}");
    world.settled();
    let runs = world.json(&["history", "apps"]);
    let triggers: Vec<&str> =
        runs.as_array().unwrap().iter().filter_map(|run| run["trigger"].as_str()).collect();
    assert!(triggers.iter().filter(|t| t.contains("drift")).count() >= 3, "{triggers:?}");
}

#[test]
fn a_field_and_a_label_of_somebody_else_stay_and_cost_no_write() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let mark = world.cluster().mark();
    let patch = r#"{"data":{"theirs":"x"},"metadata":{"labels":{"team":"blue"}}}"#;
    let arguments = ["-n", &ns, "patch", "configmap", "a", "--patch", patch];
    world.cluster().kubectl_ok(&[&arguments[..], &["--field-manager=somebody"]].concat());
    assert!(world.reconcile());
    std::thread::sleep(Duration::from_secs(2));
    let object = world.get("configmap", "a").unwrap();
    assert_eq!(object["data"]["theirs"], "x");
    assert_eq!(object["metadata"]["labels"]["team"], "blue");
    let written: Vec<Value> = world
        .cluster()
        .audit_of(&world.user, mark)
        .into_iter()
        .filter(|request| !["get", "list", "watch"].contains(&request["verb"].as_str().unwrap()))
        .filter(|request| !request["requestURI"].as_str().unwrap().contains("dryRun=All"))
        .collect();
    assert_eq!(written, Vec::<Value>::new());
}
