//! One ConfigMap says which machine owns the cluster.

use crate::world::{App, World, mk_config_map};
use serde_json::{Value, json};

fn mark(world: &World) -> Value {
    world.cluster().get("kube-system", "configmap", "gitopsd-owner").unwrap_or_default()
}

fn machine(world: &World) -> Value {
    mark(world)["data"]["machine"].clone()
}

/// Another machine makes the cluster its own.
fn another_machine(world: &World) {
    let data = json!({"data": {"machine": "f".repeat(32), "host": "attic",
        "since": "2026-01-02T03:04:05Z", "repository": "https://git.example/other"}});
    let (ns, patch) = ("kube-system", data.to_string());
    world.cluster().kubectl_ok(&["-n", ns, "patch", "configmap", "gitopsd-owner", "-p", &patch]);
}

fn restart(world: &mut World) {
    assert_eq!(world.stop(), Some(0));
    world.start();
}

/// The daemon refuses the cluster, says whose it is, and writes nothing.
fn refused(world: &World) {
    world.eventually("it is said whose the cluster is", |world| {
        let status = world.status();
        let message = status["cluster"]["message"].as_str().unwrap_or_default();
        let words =
            ["attic", "2026-01-02T03:04:05Z", "https://git.example/other", "confirm cluster"];
        status["cluster"]["connected"] == false && words.iter().all(|word| message.contains(word))
    });
    assert!(world.log().contains("gitopsd on host attic owns this cluster"), "{}", world.log());
}

fn writes(world: &World, since: crate::bed::Mark) -> Vec<Value> {
    let reads = ["get", "list", "watch"];
    let written = world.cluster().audit(since).into_iter();
    written.filter(|request| !reads.contains(&request["verb"].as_str().unwrap())).collect()
}

#[test]
fn the_cluster_is_marked_once_and_another_machines_is_left_alone_until_a_word() {
    let mut world = World::alone();
    world.drop_in("cluster: {verify: 1h}\n");
    let ns = world.namespace.clone();
    let app = App { name: "apps", spec: "", files: &[("a.yaml", mk_config_map(&ns, "a", "1"))] };
    let repo = world.apps(&[app]);
    world.start();
    world.settled();
    let first = mark(&world);
    let id = first["data"]["machine"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(first["data"]["repository"], world.git.url_of("infra/flux-config"));
    for key in ["host", "since"] {
        assert_ne!(first["data"][key].as_str().unwrap_or_default(), "", "{first:#}");
    }
    let host_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    assert!(host_id.trim().is_empty() || !first.to_string().contains(host_id.trim()));

    // Neither a restart nor a lost record writes it again, and nobody heals or prunes it.
    restart(&mut world);
    world.settled();
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_file(world.path("state/history.db")).unwrap();
    world.start();
    world.settled();
    assert_eq!(mark(&world), first);

    assert_eq!(world.stop(), Some(0));
    another_machine(&world);
    repo.write("apps/apps/a.yaml", &mk_config_map(&ns, "a", "2"));
    repo.commit("second");
    repo.push("main");
    let since = world.cluster().mark();
    world.start();
    refused(&world);
    assert!(!world.reconcile(), "nothing is applied in another machine's cluster");
    assert!(world.message("apps").contains("attic"), "{}", world.message("apps"));
    assert_eq!(writes(&world, since), Vec::<Value>::new());

    world.ok(&["confirm", "cluster"]);
    world.settled();
    assert_eq!(machine(&world), id.as_str());
    assert_eq!(world.get("configmap", "a").unwrap()["data"]["key"], "2");
    let again = world.run(&["confirm", "cluster"]);
    assert!(!again.status.success(), "there is nothing to confirm any more");

    // One word covers one take-over; and a mark that goes away is made again.
    another_machine(&world);
    restart(&mut world);
    refused(&world);
    world.cluster().kubectl_ok(&["-n", "kube-system", "delete", "configmap", "gitopsd-owner"]);
    world.settled();
    assert_eq!(machine(&world), id.as_str());
}

#[test]
fn who_loses_the_cluster_while_running_stops_at_once() {
    let mut world = World::alone();
    world.drop_in("cluster: {verify: 24h}\n");
    let files = [("a.yaml", mk_config_map(&world.namespace, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    another_machine(&world);
    refused(&world);
}
