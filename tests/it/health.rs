//! Health goes on after the run: what breaks an hour later is said, and so is its recovery.

use crate::bed::effects::Front;
use crate::bed::proxy::{Proxy, pattern};
use crate::faults::answer;
use crate::world::{App, World, mk_config_map, mk_deployment, mk_kustomization};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn pods(world: &World) -> Vec<String> {
    let list = ["-n", &world.namespace, "get", "pods", "-o", "json"];
    let list: Value = serde_json::from_str(&world.cluster().kubectl_ok(&list)).unwrap();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Writes a pod's status as the kubelet would.
fn write_status(world: &World, pod: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let ns = &world.namespace;
    let at = ["-n", ns, "patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch];
    world.cluster().kubectl_ok(&at);
}

/// A container that runs, or that has ended with exit code 3 and waits to be started again.
fn container(well: bool) -> Value {
    let ended = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}});
    let state = if well { json!({"running": {}}) } else { waiting };
    let (restarts, ready) = if well { (6, "True") } else { (5, "False") };
    json!({
        "phase": "Running",
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "PodScheduled", "status": "True"},
            {"type": "ContainersReady", "status": ready},
            {"type": "Ready", "status": ready},
        ],
        "containerStatuses": [{"name": "main", "image": "x", "imageID": "", "ready": well,
            "restartCount": restarts, "state": state, "lastState": ended}],
    })
}

#[test]
fn a_crash_loop_long_after_the_run_is_said_with_its_cause_and_so_is_its_end() {
    let mut world = World::new();
    let files = [("web.yaml", mk_deployment(&world.namespace, "web", "1"))];
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    world.start();
    world.settled();
    let pod = pods(&world).remove(0);
    let mark = world.cluster().mark();

    write_status(&world, &pod, &container(false));
    world.eventually("Ready says so, and why", |world| {
        !world.is_ready("apps") && world.message("apps").contains("exit code 3")
    });
    let runs = world.json(&["history", "apps"]);
    assert_eq!(runs[0]["trigger"], "health", "{runs:#}");
    assert_eq!(runs[0]["verdict"], "failed", "{runs:#}");

    write_status(&world, &pod, &container(true));
    world.eventually("it is well again", |world| world.is_ready("apps"));
    let writes = world.cluster().audit_of(&world.user, mark).into_iter().filter(|request| {
        let verb = request["verb"].as_str().unwrap();
        let asked = request["requestURI"].as_str().unwrap().contains("dryRun=All");
        !["get", "list", "watch"].contains(&verb) && !asked
    });
    assert_eq!(writes.collect::<Vec<_>>(), Vec::<Value>::new(), "looking is no writing");
}

#[test]
fn what_breaks_while_its_watch_is_refused_for_a_moment_is_said_too() {
    const REFUSED: usize = 6;
    let mut world = World::new();
    let front = Front::start(&world.path("kubeconfig"), &world.path(""));
    let proxy = Proxy::before(&front.kubeconfig);
    world.drop_in(&format!("kubeconfig: {}\n", front.kubeconfig.display()));
    let files = [("web.yaml", mk_deployment(&world.namespace, "web", "1"))];
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    world.start();
    world.settled();
    let pod = pods(&world).remove(0);
    // A watch that stood for less than a second is not renewed at once.
    std::thread::sleep(Duration::from_millis(1100));
    let watch = pattern(&["GET /apis/apps/v1/deployments?watch=true"]);
    proxy.inject(&watch, REFUSED, answer(500, "InternalError", "overloaded", &json!({})));
    proxy.cut_off();
    world.eventually("it is refused", |_| proxy.hits(&watch) > 0);
    write_status(&world, &pod, &container(false));
    world.eventually("the Deployment says so", |world| {
        let web = world.get("deployment", "web").unwrap();
        web["status"]["unavailableReplicas"] == 1
    });
    assert!(proxy.hits(&watch) < REFUSED, "nobody watches yet");
    world.eventually("Ready says so, and why", |world| {
        !world.is_ready("apps") && world.message("apps").contains("exit code 3")
    });
}

/// A container that runs and does not answer yet.
fn starting() -> Value {
    json!({
        "phase": "Running",
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "PodScheduled", "status": "True"},
            {"type": "ContainersReady", "status": "False"},
            {"type": "Ready", "status": "False"},
        ],
        "containerStatuses": [{"name": "main", "image": "x", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"running": {}}}],
    })
}

#[test]
fn a_pod_that_starts_slowly_costs_ready_nothing_within_the_timeout_and_is_said_after_it() {
    let mut world = World::new();
    let files = [("web.yaml", mk_deployment(&world.namespace, "web", "1"))];
    let spec = "  wait: true\n  timeout: 25s\n";
    world.apps(&[App { name: "apps", spec, files: &files }]);
    world.start();
    world.settled();
    let pod = pods(&world).remove(0);
    write_status(&world, &pod, &starting());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(18) {
        assert!(world.is_ready("apps"), "{}\n{}", world.message("apps"), world.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    write_status(&world, &pod, &container(true));
    std::thread::sleep(Duration::from_secs(3));
    let runs = world.json(&["history", "apps"]);
    let failed = runs.as_array().unwrap().iter().filter(|run| run["verdict"] == "failed");
    assert_eq!(failed.count(), 0, "{runs:#}");

    write_status(&world, &pod, &starting());
    let took = world.eventually("Ready says so", |world| {
        // A run that has nothing to do has not looked at it, and grants no more time.
        world.run(&["reconcile", "apps"]);
        std::thread::sleep(Duration::from_secs(1));
        !world.is_ready("apps")
    });
    assert!(took >= Duration::from_secs(20), "after {took:?}: {}", world.message("apps"));
    assert!(world.message("apps").contains("not healthy"), "{}", world.message("apps"));
}

#[test]
fn a_readiness_probe_that_fails_is_said_in_its_own_words() {
    let mut world = World::new();
    let files = [("web.yaml", mk_deployment(&world.namespace, "web", "unready"))];
    world.apps(&[App { name: "apps", spec: "  wait: true\n  timeout: 5s\n", files: &files }]);
    world.start();
    world.eventually("Ready says so, and why", |world| {
        !world.is_ready("apps") && world.message("apps").contains("readiness probe failed")
    });
    let item = world.item("Kustomization/flux-system/apps");
    let told = item["message"].as_str().unwrap();
    let pod = format!("Pod/{}/{}", world.namespace, pods(&world).remove(0));
    let cause = format!("{pod}: readiness probe failed: HTTP probe failed with statuscode: 503");
    assert!(told.contains(&cause), "{told}");
    let status = String::from_utf8(world.run(&["status"]).stdout).unwrap();
    assert!(status.contains("readiness probe failed"), "{status}");
}

#[test]
fn a_workload_that_comes_and_goes_does_not_take_ready_along_each_time() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: {ns}}}\nspec:\n  \
         containers:\n  - {{name: main, image: \"registry.test.invalid/app:1\"}}\n"
    );
    let files = [("web.yaml", pod)];
    let repo = world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    // What is tried again by itself each second says what it finds each second.
    repo.replace("clusters/my-cluster/apps.yaml", "retryInterval: 1s", "retryInterval: 10m");
    repo.commit("patience");
    repo.push("main");
    world.start();
    world.settled();
    let (mut shown, mut changes) = (true, 0);
    let mut watch = |world: &World| {
        let ready = world.is_ready("apps");
        changes += usize::from(ready != shown);
        shown = ready;
    };
    let turns = 7;
    for turn in 0..2 * turns {
        write_status(&world, "web", &container(turn % 2 == 1));
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(250));
            watch(&world);
        }
    }
    assert!((1..=4).contains(&changes), "{changes} changes in {turns} turns\n{}", world.log());
    let log = world.log();
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let healthy = told("healthy again");
    assert!(healthy <= 2, "{healthy} of {turns}\n{log}");
    let runs = world.json(&["history", "apps"]);
    let failed = runs.as_array().unwrap().iter().filter(|run| run["verdict"] == "failed").count();
    assert!((1..=3).contains(&failed), "{failed} of {turns}: {runs:#}");

    world.eventually("it stays well, and is said to be", |world| world.is_ready("apps"));
}

#[test]
fn a_job_that_fails_is_said_with_its_exit_code() {
    let mut world = World::new();
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: task, namespace: {ns}}}\nspec:\n  \
         backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      \
         - {{name: main, image: \"registry.test.invalid/app:unready\"}}\n",
        ns = world.namespace
    );
    let files = [("job.yaml", job)];
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    world.start();
    world.eventually("the job has its pod", |world| !pods(world).is_empty());
    let pod = pods(&world).remove(0);
    let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "main", "image": "x",
        "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 7, "reason": "Error"}}}]});
    write_status(&world, &pod, &ended);
    world.eventually("Ready says so, and why", |world| {
        !world.is_ready("apps") && world.message("apps").contains("exit code 7")
    });
}

#[test]
fn a_node_that_is_gone_is_said_with_the_schedulers_reason_and_so_is_its_return() {
    let mut world = World::alone();
    let files = [("web.yaml", mk_deployment(&world.namespace, "web", "1"))];
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &files }]);
    world.start();
    world.settled();
    let node = world.cluster().get("", "node", "box").expect("the only one");
    world.cluster().kubectl_ok(&["delete", "node", "box"]);
    // A minute later the garbage collector would do it.
    let ns = world.namespace.clone();
    let lost = ["-n", &ns, "delete", "pods", "--all", "--force", "--grace-period=0"];
    world.cluster().kubectl_ok(&lost);
    world.eventually("Ready says so, and why", |world| {
        !world.is_ready("apps") && world.message("apps").contains("no nodes available")
    });
    let item = world.item("Kustomization/flux-system/apps");
    assert_eq!(item["reason"], "HealthCheckFailed", "{item:#}");
    let deployment = format!("Deployment/{ns}/web");
    assert!(world.message("apps").contains(&deployment), "{}", world.message("apps"));

    let metadata = json!({"name": "box", "labels": node["metadata"]["labels"],
        "annotations": node["metadata"]["annotations"]});
    let back = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
    world.cluster().apply(&back.to_string());
    world.eventually("it is well again", |world| world.is_ready("apps"));
    let runs = world.json(&["history", "apps"]);
    assert_eq!(runs[0]["verdict"], "succeeded", "{runs:#}");
}

/// Marks a manifest for Flux.
fn marked(text: &str, mark: &str) -> String {
    let annotations = format!("metadata:\n  annotations: {{kustomize.toolkit.fluxcd.io/{mark}}}\n");
    text.replacen("metadata:\n", &annotations, 1)
}

#[test]
fn ready_does_not_wait_for_what_git_leaves_alone_nor_is_that_run() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let sick = mk_deployment(&ns, "sick", "broken");
    let files = [
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("ignored.yaml", marked(&mk_config_map(&ns, "ignored", "1"), "ssa: Ignore")),
        ("sick.yaml", marked(&sick, "reconcile: Disabled")),
    ];
    let repo =
        world.apps(&[App { name: "apps", spec: "  wait: true\n  timeout: 5s\n", files: &files }]);
    world.cluster().apply(&sick);
    let idle = mk_kustomization("idle", "./apps/idle", "");
    repo.write("clusters/my-cluster/idle.yaml", &marked(&idle, "reconcile: disabled"));
    repo.write("apps/idle/i.yaml", &mk_config_map(&ns, "idle", "1"));
    repo.commit("a Kustomization that Flux would not apply");
    repo.push("main");
    world.start();
    world.settled();
    // By what is remembered, by what is compared anew, and after a commit.
    world.ok(&["reconcile", "apps"]);
    world.kill();
    world.start();
    world.settled();
    repo.replace("apps/apps/a.yaml", "\"1\"", "\"2\"");
    repo.commit("another value");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(world.get("configmap", "a").unwrap()["data"]["key"], "2");
    assert_eq!(world.get("configmap", "ignored"), None);
    assert_eq!(world.get("configmap", "idle"), None);
    let why = world.item("Kustomization/flux-system/idle")["suspended"].clone();
    assert_eq!(why, "kustomize.toolkit.fluxcd.io/reconcile: disabled in Git");
}
