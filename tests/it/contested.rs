//! Somebody else keeps writing what Git says: it is told, backed off from, and never an endless
//! loop.

use crate::bed::Webhook;
use crate::drift::written;
use crate::world::{App, World, mk_config_map, mk_deployment};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn warnings(world: &World) -> String {
    world.item("Kustomization/flux-system/apps")["warnings"].to_string()
}

fn key(world: &World, name: &str) -> String {
    let object = world.get("configmap", name).unwrap_or_default();
    object["data"]["key"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_opposing_writer_is_named_and_backed_off_from_until_git_changes() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files =
        [("a.yaml", mk_config_map(&ns, "a", "1")), ("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let cluster = world.cluster();
    let edit = |name: &str, manager: &str| {
        let by = format!("--field-manager={manager}");
        let patch = r#"{"data":{"key":"theirs"}}"#;
        cluster.kubectl_ok(&["-n", &ns, "patch", "configmap", name, &by, "-p", patch]);
    };
    let mark = cluster.mark();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                edit("a", "opponent");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        world.eventually("the fight is told", |world| {
            warnings(world)
                .contains(&format!("ConfigMap/{ns}/a: contested: opponent writes data.key"))
        });
        // The other goes on; we do not, and what else moves is healed at once.
        std::thread::sleep(Duration::from_secs(3));
        edit("b", "somebody");
        world.eventually("another object is healed", |world| key(world, "b") == "1");
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(key(&world, "a"), "theirs");
    assert!(warnings(&world).contains("opponent writes data.key"), "a run for another keeps it");
    let requests = written(&world, mark);
    let of = |name: &str| requests.iter().filter(|r| r.contains(&format!("/{name}?"))).count();
    assert_eq!((of("a"), of("b")), (3, 1), "{requests:?}");
    let all = cluster.audit_of(&world.user, mark).len();
    assert!(all < 30, "{all} requests");
    assert!(world.log().contains("contested: opponent writes data.key"));
    let status = world.ok(&["history"]);
    assert!(status.contains("drift"), "{status}");

    // A new manifest is no heal.
    repo.replace("apps/apps/a.yaml", "\"1\"", "\"2\"");
    repo.commit("two");
    repo.push("main");
    assert!(world.reconcile());
    assert_eq!(key(&world, "a"), "2");
    assert!(!warnings(&world).contains("contested"), "{}", warnings(&world));
}

#[test]
fn a_fight_outlives_the_daemon() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files =
        [("a.yaml", mk_config_map(&ns, "a", "1")), ("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let edit = |world: &World| {
        let patch = r#"{"data":{"key":"theirs"}}"#;
        let edit = ["-n", &ns, "patch", "configmap", "a", "--field-manager=opponent", "-p", patch];
        world.cluster().kubectl_ok(&edit);
    };
    for number in 1..=3 {
        edit(&world);
        world.eventually(&format!("heal {number}"), |world| key(world, "a") == "1");
        // The run has to end, or two edits are one.
        world.settled();
    }
    world.eventually("the fight is told", |world| warnings(world).contains("contested"));
    edit(&world);
    for stop in [true, false] {
        if stop {
            assert_eq!(world.stop(), Some(0));
        } else {
            world.kill();
        }
        let mark = world.cluster().mark();
        world.start();
        world.settled();
        world.eventually("what is contested is told", |world| {
            warnings(world).contains("contested: opponent writes data.key again after each heal")
        });
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(written(&world, mark), Vec::<String>::new(), "nothing is healed: {stop}");
        assert_eq!(key(&world, "a"), "theirs");
    }
    // What nobody fights over is healed as ever, and a new manifest ends the fight for good.
    world.cluster().kubectl_ok(&["-n", &ns, "delete", "configmap", "b"]);
    world.eventually("another object is back", |world| key(world, "b") == "1");
    assert_eq!(key(&world, "a"), "theirs");
    repo.replace("apps/apps/a.yaml", "\"1\"", "\"2\"");
    repo.commit("two");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(key(&world, "a"), "2");
    world.kill();
    world.start();
    world.settled();
    assert!(!warnings(&world).contains("contested"), "{}", warnings(&world));
}

/// Takes no dry-run of one object, and forbids another whatever is asked.
fn only_for_real(object: &Value, dry: bool) -> Value {
    match object["metadata"]["name"].as_str() {
        Some("a") if dry => json!("this webhook has side effects and takes no dry run"),
        Some("never") => json!("not on my watch"),
        _ => json!([]),
    }
}

#[test]
fn what_a_webhook_judges_only_for_real_is_applied_last_and_healed() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let webhook = Webhook::start(only_for_real);
    world.cluster().apply(&webhook.registration(&ns, "configmaps"));
    let map = |name: &str| (format!("{name}.yaml"), mk_config_map(&ns, name, "1"));
    let files = ["a", "b", "never"].map(map);
    let files: Vec<(&str, String)> = files.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.eventually("what is not forbidden is there", |world| {
        key(world, "a") == "1" && key(world, "b") == "1"
    });
    world.eventually("what is forbidden is told", |world| {
        world.message("apps").contains("denied the request: not on my watch")
    });
    assert!(world.get("configmap", "never").is_none());
    // It is tried again each second; what stands as it was applied is left alone.
    let mark = world.cluster().mark();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(written(&world, mark), Vec::<String>::new());
    repo.remove("apps/apps/never.yaml");
    repo.commit("without it");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());

    let runs = world.json(&["history", "apps"]);
    let first = runs.as_array().unwrap().last().unwrap()["run"].as_str().unwrap().to_owned();
    let shown = world.json(&["history", "show", &first]);
    let objects = shown["objects"].as_array().unwrap();
    let order: Vec<&str> =
        objects.iter().map(|change| change["object"].as_str().unwrap()).collect();
    assert_eq!(order, [format!("ConfigMap/{ns}/b"), format!("ConfigMap/{ns}/a")], "{shown:#}");
    let told = warnings(&world);
    assert!(told.contains("(apps/apps/a.yaml:1): applied last and without a dry-run"), "{told}");
    assert!(told.contains("takes no dry run"), "{told}");

    // Nobody can say what an apply would change; what nobody has touched is not asked about.
    let diff = |world: &World| world.json(&["diff", "apps"])[0]["steps"].clone();
    assert_eq!(diff(&world), json!([]));
    let mark = world.cluster().mark();
    assert!(world.reconcile());
    assert_eq!(written(&world, mark), Vec::<String>::new());

    let patch = r#"{"data":{"key":"theirs"}}"#;
    world.cluster().kubectl_ok(&["-n", &ns, "patch", "configmap", "a", "-p", patch]);
    world.eventually("it is healed", |world| key(world, "a") == "1");
    let healed = |world: &World| {
        world.log().contains("healed: ~ data.key: \"theirs\" -> \"1\" (by kubectl-patch)")
    };
    world.eventually("and told with the field and its writer", healed);

    world.ok(&["suspend", "apps"]);
    repo.replace("apps/apps/a.yaml", "\"1\"", "\"2\"");
    repo.commit("two");
    repo.push("main");
    world.run(&["reconcile", "GitRepository/flux-system/flux-system"]);
    world.eventually("the plan names it", |world| {
        let steps = diff(world);
        steps[0]["verb"] == "configure" && steps[0].to_string().contains("takes no dry run")
    });
    world.ok(&["resume", "apps"]);
    world.eventually("it is applied", |world| key(world, "a") == "2");
    world.settled();
    // A start can ask no more than any run: it applies, and finds that nothing changes.
    world.kill();
    let before = world.get("configmap", "a").unwrap()["metadata"]["resourceVersion"].clone();
    world.start();
    world.settled();
    assert_eq!(world.get("configmap", "a").unwrap()["metadata"]["resourceVersion"], before);
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);
}

/// Takes no dry-run at all, and forbids one object for real.
fn never_dry(object: &Value, dry: bool) -> Value {
    match object["metadata"]["name"].as_str() {
        _ if dry => json!("this webhook has side effects and takes no dry run"),
        Some("never") => json!("not on my watch"),
        _ => json!([]),
    }
}

#[test]
fn what_a_webhook_judges_only_for_real_is_forced_where_git_says_so_and_asked_at_its_own_pace() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let webhook = Webhook::start(never_dry);
    world.cluster().apply(&webhook.registration(&ns, "configmaps"));
    let forced = "metadata:\n  annotations: {kustomize.toolkit.fluxcd.io/force: enabled}";
    let fixed = mk_config_map(&ns, "fixed", "1").replacen("metadata:", forced, 1);
    let beside = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: beside, namespace: {ns}, \
         labels: {{tier: ours}}}}\n"
    );
    let files = [("fixed.yaml", fixed + "immutable: true\n"), ("beside.yaml", beside)];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    repo.replace("clusters/my-cluster/apps.yaml", "retryInterval: 1s", "retryInterval: 1h");
    repo.commit("patience");
    repo.push("main");
    world.start();
    world.settled();
    let uid = |world: &World| {
        world.get("configmap", "fixed").unwrap_or_default()["metadata"]["uid"].clone()
    };
    let before = uid(&world);
    repo.replace("apps/apps/fixed.yaml", "\"1\"", "\"2\"");
    repo.commit("two");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(key(&world, "fixed"), "2");
    assert_ne!(uid(&world), before, "only another object can have another value");

    // What is refused is asked again when its own pause is over, whatever else fails meanwhile.
    repo.write("apps/apps/never.yaml", &mk_config_map(&ns, "never", "1"));
    repo.commit("one that is refused");
    repo.push("main");
    world.run(&["reconcile", "--with-source"]);
    let refused = "denied the request: not on my watch";
    world.eventually("it is told", |world| world.message("apps").contains(refused));
    let mark = world.cluster().mark();
    let tier = |world: &World| world.get("serviceaccount", "beside").unwrap_or_default();
    let tier = |world: &World| tier(world)["metadata"]["labels"]["tier"].clone();
    for _ in 0..3 {
        let patch = r#"{"metadata":{"labels":{"tier":"theirs"}}}"#;
        world.cluster().kubectl_ok(&["-n", &ns, "patch", "serviceaccount", "beside", "-p", patch]);
        world.eventually("another object is healed", |world| tier(world) == "ours");
    }
    let asked = |mark| {
        let written = written(&world, mark);
        written.iter().filter(|line| line.contains("never")).count()
    };
    assert_eq!(asked(mark), 0);
    let told = warnings(&world);
    assert!(told.contains("applied last and without a dry-run"), "{told}");
    assert!(world.message("apps").contains(refused), "{}", world.message("apps"));
    let mark = world.cluster().mark();
    world.run(&["reconcile", "apps"]);
    assert_eq!(asked(mark), 1, "a person wants to know");
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);
}

/// Adds a label and a sidecar and sets the replicas, also in a dry-run.
fn rewrite(object: &Value, _dry: bool) -> Value {
    let mut patch = vec![json!({"op": "add", "path": "/metadata/labels/mesh", "value": "on"})];
    if object["kind"] == "Deployment" {
        patch.push(json!({"op": "replace", "path": "/spec/replicas", "value": 2}));
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        if !containers.iter().any(|container| container["name"] == "sidecar") {
            let sidecar = json!({"name": "sidecar", "image": "registry.test.invalid/mesh:1"});
            let path = "/spec/template/spec/containers/-";
            patch.push(json!({"op": "add", "path": path, "value": sidecar}));
        }
    }
    json!(patch)
}

/// Says one thing to a dry-run and does another.
fn lie(_object: &Value, dry: bool) -> Value {
    let patch = json!({"op": "replace", "path": "/data/key", "value": "rewritten"});
    if dry { json!([]) } else { json!([patch]) }
}

#[test]
fn a_mutating_webhook_is_no_endless_loop() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let other = World::new();
    let (honest, liar) = (Webhook::start(rewrite), Webhook::start(lie));
    world.cluster().apply(&honest.registration(&ns, "deployments"));
    let files = [("web.yaml", mk_deployment(&ns, "web", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let web = world.get("deployment", "web").unwrap();
    assert_eq!(web["metadata"]["labels"]["mesh"], "on");
    assert_eq!(web["spec"]["replicas"], 2);
    assert_eq!(web["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let mark = world.cluster().mark();
    world.kill();
    world.start();
    world.settled();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(written(&world, mark), Vec::<String>::new(), "equal to what an apply makes of it");
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);

    // One that acts against our dry-runs: each look finds a difference, no look follows from it.
    let mut world = other;
    let ns = world.namespace.clone();
    world.cluster().apply(&liar.registration(&ns, "configmaps"));
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let mark = world.cluster().mark();
    let touch = |world: &World, n: u32| {
        let label = format!("touched={n}");
        let cluster = world.cluster();
        cluster.kubectl_ok(&["-n", &ns, "label", "--overwrite", "configmap", "a", &label]);
    };
    for n in 0..6 {
        touch(&world, n);
        std::thread::sleep(Duration::from_millis(700));
    }
    let requests = written(&world, mark);
    assert!(requests.len() <= 8, "three heals, with their take-overs: {requests:?}");
    assert!(warnings(&world).contains("contested"), "{}\n{}", warnings(&world), world.log());
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);
    drop(repo);
}
