//! What others do to our objects is undone within seconds, and what is not ours is left alone.

use crate::world::{App, World, mk_config_map, mk_deployment};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time from a change to its heal, generous on two loaded cores; it is mostly 0.2 s.
const SECONDS: Duration = Duration::from_secs(10);

/// Requests of the daemon that write: no reads, no dry-runs.
pub fn written(world: &World, mark: crate::bed::Mark) -> Vec<String> {
    let events = world.cluster().audit_of(&world.user, mark).into_iter();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    events
        .filter(|event| !["get", "list", "watch"].contains(&event["verb"].as_str().unwrap()))
        .map(|event| format!("{} {}", text(&event, "verb"), text(&event, "requestURI")))
        .filter(|request| !request.contains("dryRun=All"))
        .collect()
}

/// The lines of the newest change of an object in the history, with its verb before them.
fn told(world: &World, object: &str) -> String {
    let runs = world.json(&["history", "apps"]);
    for run in runs.as_array().unwrap() {
        let shown = world.json(&["history", "show", run["run"].as_str().unwrap()]);
        for change in shown["objects"].as_array().into_iter().flatten() {
            if change["object"] == object {
                let lines = change["lines"].as_array().into_iter().flatten();
                let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
                return format!("{}: {}", change["action"].as_str().unwrap(), lines.join("; "));
            }
        }
    }
    String::new()
}

/// What is compared of a live object: what Git says and whether others' keys are there.
fn essence(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    let containers = &object["spec"]["template"]["spec"]["containers"][0];
    json!({"labels": labels, "data": object["data"], "args": containers["args"],
        "image": containers["image"], "replicas": object["spec"]["replicas"]})
}

/// True when our Apply entry holds the key of the ConfigMap; kubectl shows entries when asked only.
fn held(world: &World) -> bool {
    let arguments = ["-n", &world.namespace, "get", "configmap", "a", "-o", "json"];
    let shown = world.cluster().kubectl_ok(&[&arguments[..], &["--show-managed-fields"]].concat());
    let object: Value = serde_json::from_str(&shown).expect("kubectl prints JSON");
    object["metadata"]["managedFields"].as_array().into_iter().flatten().any(|entry| {
        entry["manager"] == "kustomize-controller"
            && entry["operation"] == "Apply"
            && !entry["fieldsV1"]["f:data"]["f:key"].is_null()
    })
}

#[test]
fn every_kind_of_edit_is_healed_and_recorded_with_the_field_and_its_writer() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let web = mk_deployment(&ns, "web", "1")
        .replace("      - name: main\n", "      - name: main\n        args: [one, two]\n");
    let map =
        mk_config_map(&ns, "a", "1").replace("  name: a\n", "  name: a\n  labels: {team: red}\n");
    world.apps(&[App { name: "apps", spec: "", files: &[("a.yaml", map), ("d.yaml", web)] }]);
    world.start();
    world.settled();
    let cluster = world.cluster();
    let wanted = |kind: &str| {
        essence(&world.get(kind, if kind == "configmap" { "a" } else { "web" }).unwrap())
    };
    let git = (wanted("configmap"), wanted("deployment"));
    let owner = "kustomize.toolkit.fluxcd.io/name-";
    let stripped = r#"[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]"#;
    let ours = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {ns}}}\ndata: {{key: mine}}\n"
    );
    // What is done to which object, and what the history says of the heal. No field three times:
    // that would be a fight.
    let cases: &[(&str, &str, &[&str], &str)] = &[
        (
            "a value edited",
            "configmap/a",
            &["patch", "configmap/a", "-p", r#"{"data":{"key":"x"}}"#],
            r#"healed: ~ data.key: "x" -> "1" (by kubectl-patch)"#,
        ),
        (
            "a key added with kubectl",
            "configmap/a",
            &["patch", "configmap/a", "-p", r#"{"data":{"extra":"x"}}"#],
            r#"healed: - data.extra: "x" (by kubectl-patch)"#,
        ),
        (
            "a key removed",
            "configmap/a",
            &[
                "patch",
                "configmap/a",
                "--type=json",
                "-p",
                r#"[{"op":"remove","path":"/data/key"}]"#,
            ],
            r#"healed: + data: {"key":"1"}"#,
        ),
        (
            "a label removed",
            "configmap/a",
            &["label", "configmap/a", "team-"],
            r#"healed: + metadata.labels.team: "red""#,
        ),
        (
            "the owner's label removed",
            "configmap/a",
            &["label", "configmap/a", owner],
            r#"healed: + metadata.labels["kustomize.toolkit.fluxcd.io/name"]: "apps""#,
        ),
        ("deleted", "configmap/a", &["delete", "configmap/a"], "healed: "),
        (
            "managedFields stripped",
            "configmap/a",
            &["patch", "configmap/a", "--type=json", "-p", stripped],
            "healed: = data.key: held again",
        ),
        (
            "under our own name",
            "configmap/a",
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager=kustomize-controller",
                "-f",
                "-",
            ],
            r#"(by kustomize-controller (somebody else under our name))"#,
        ),
        (
            "an item of a list removed",
            "deployment/web",
            &[
                "patch",
                "deployment/web",
                "--type=json",
                "-p",
                r#"[{"op":"remove","path":"/spec/template/spec/containers/0/args/1"}]"#,
            ],
            r#"~ spec.template.spec.containers[0].args"#,
        ),
        (
            "scaled with kubectl",
            "deployment/web",
            &["scale", "deployment/web", "--replicas=3"],
            "healed: ~ spec.replicas: 3 -> 1 (by kubectl)",
        ),
        (
            "image set",
            "deployment/web",
            &["set", "image", "deployment/web", "main=x"],
            r#"healed: ~ spec.template.spec.containers[0].image: "x" -> "registry.test.invalid/app:1" (by kubectl-set)"#,
        ),
    ];
    for (what, object, arguments, said) in cases {
        // Our own entry's time has whole seconds: a write under our name is told by it.
        if what.contains("own name") {
            std::thread::sleep(Duration::from_millis(1100));
        }
        let before =
            world.get(object.split('/').next().unwrap(), object.split('/').nth(1).unwrap());
        let done = cluster.kubectl_with_input(&[&["-n", &ns], *arguments].concat(), &ours);
        assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
        let (kind, name) = object.split_once('/').unwrap();
        let expected = if kind == "configmap" { &git.0 } else { &git.1 };
        let took = world.eventually(what, |world| {
            let Some(live) = world.get(kind, name) else { return false };
            live["metadata"]["resourceVersion"]
                != before.as_ref().unwrap()["metadata"]["resourceVersion"]
                && essence(&live) == *expected
                && (kind != "configmap" || held(world))
        });
        assert!(took < SECONDS, "{what}: {took:?}");
        let kind = if kind == "configmap" { "ConfigMap" } else { "Deployment" };
        let object = format!("{kind}/{ns}/{name}");
        world.eventually(&format!("{what}: the history says {said}"), |world| {
            let told = told(world, &object);
            told.contains(said) || {
                eprintln!("{told}");
                false
            }
        });
    }
    // No take-over is left undone, and nothing is healed twice.
    world.settled();
    let mark = cluster.mark();
    assert!(world.reconcile());
    assert_eq!(written(&world, mark), Vec::<String>::new());
}

#[test]
fn an_edit_while_a_run_waits_for_health_is_healed_before_that_is_over() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let late = format!("{{apiVersion: v1, kind: ConfigMap, name: late, namespace: {ns}}}");
    let spec = format!("  timeout: 10m\n  healthChecks: [{late}]\n");
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    world.apps(&[App { name: "apps", spec: &spec, files: &files }]);
    world.start();
    let value = |world: &World| world.get("configmap", "a").unwrap_or_default()["data"].clone();
    let waits = |world: &World| world.item("Kustomization/flux-system/apps")["running"] == true;
    let git = json!({"key": "1"});
    world.eventually("it is applied", |world| waits(world) && value(world) == git);
    for key in ["one", "two"] {
        let patch = json!({"data": {key: "theirs"}}).to_string();
        world.cluster().kubectl_ok(&["-n", &ns, "patch", "configmap", "a", "-p", &patch]);
        let took = world.eventually("it is healed", |world| value(world) == git);
        assert!(took < SECONDS, "{took:?}");
        world.eventually("and waited for health again", waits);
    }
    world.cluster().apply(&mk_config_map(&ns, "late", "1"));
    world.settled();
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
    let by_somebody = |world: &World, patch: &str| {
        let arguments = ["-n", &ns, "patch", "configmap", "a", "--patch", patch];
        world.cluster().kubectl_ok(&[&arguments[..], &["--field-manager=somebody"]].concat());
    };
    by_somebody(&world, r#"{"data":{"theirs":"x"},"metadata":{"labels":{"team":"blue"}}}"#);
    assert!(world.reconcile());
    std::thread::sleep(Duration::from_secs(2));
    let object = world.get("configmap", "a").unwrap();
    assert_eq!(object["data"]["theirs"], "x");
    assert_eq!(object["metadata"]["labels"]["team"], "blue");
    assert_eq!(written(&world, mark), Vec::<String>::new());

    // Edited and taken back while nobody looked: the value is ours, the field is not.
    world.kill();
    by_somebody(&world, r#"{"data":{"key":"edited"}}"#);
    by_somebody(&world, r#"{"data":{"key":"1"}}"#);
    assert!(!held(&world), "it left our entry");
    let mark = world.cluster().mark();
    world.start();
    world.settled();
    assert_eq!(written(&world, mark).len(), 1, "it is applied once");
    assert!(
        told(&world, &format!("ConfigMap/{ns}/a"))
            .ends_with("= data.key: held again, its value is as in Git")
    );
    assert!(held(&world));
    let mark = world.cluster().mark();
    world.kill();
    world.start();
    world.settled();
    assert_eq!(written(&world, mark), Vec::<String>::new(), "and only once");
    // The same under a daemon that runs, and is too slow to see more than the end of it.
    let signal = |world: &World, name: &str| {
        let sent =
            std::process::Command::new("kill").args([name, &world.pid().to_string()]).status();
        assert!(sent.expect("kill is everywhere").success());
    };
    signal(&world, "-STOP");
    by_somebody(&world, r#"{"data":{"key":"edited"}}"#);
    by_somebody(&world, r#"{"data":{"key":"1"}}"#);
    assert!(!held(&world), "it left our entry");
    let mark = world.cluster().mark();
    signal(&world, "-CONT");
    world.eventually("it is held again", held);
    world.settled();
    assert_eq!(written(&world, mark).len(), 1, "it is applied once");
    let others = world.item("Kustomization/flux-system/apps")["others"].clone();
    assert_eq!(others, serde_json::json!({format!("ConfigMap/{ns}/a"): ["somebody"]}));
    assert!(world.ok(&["status", "apps"]).contains("is also written by somebody"));
}

/// A finalizer of somebody else keeps the object on its way out.
#[test]
fn an_object_that_is_stuck_in_deletion_is_told_and_made_again_once_it_is_gone() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "a");
    let finalizers = |list: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
        let arguments = ["-n", &ns, "patch", "configmap", "a", "--type=merge", "-p", &patch];
        world.cluster().kubectl_ok(&[&arguments[..], &["--field-manager=somebody"]].concat());
    };
    finalizers(r#"["test.invalid/stay"]"#);
    world.cluster().kubectl_ok(&["-n", &ns, "delete", "configmap", "a", "--wait=false"]);
    world.eventually("it is told", |world| {
        let item = world.item("Kustomization/flux-system/apps");
        let text = |key: &str| item["failure"][key].as_str().unwrap_or_default().to_owned();
        text("object") == format!("ConfigMap/{ns}/a")
            && text("cause").contains("is being deleted by somebody else")
            && text("hint").contains("metadata.finalizers")
    });
    finalizers("null");
    world.settled();
    assert_ne!(world.uid("configmap", "a"), uid);
    assert!(told(&world, &format!("ConfigMap/{ns}/a")).starts_with("healed"));
}

#[test]
fn an_object_that_came_back_to_git_before_it_was_gone_is_nobody_elses_doing() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let map = |name: &str| mk_config_map(&ns, name, "1");
    let files = [("a.yaml", map("a")), ("b.yaml", map("b")), ("c.yaml", map("c"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let finalizers = |list: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
        let arguments = ["-n", &ns, "patch", "configmap", "a", "--type=merge", "-p", &patch];
        world.cluster().kubectl_ok(&[&arguments[..], &["--field-manager=somebody"]].concat());
    };
    finalizers(r#"["test.invalid/stay"]"#);
    repo.remove("apps/apps/a.yaml");
    repo.commit("without");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    repo.write("apps/apps/a.yaml", &map("a"));
    repo.commit("with it again");
    repo.push("main");
    assert!(!world.reconcile(), "it is still on its way out");
    world.eventually("it is told", |world| {
        let item = world.item("Kustomization/flux-system/apps");
        let cause = item["failure"]["cause"].as_str().unwrap_or_default();
        cause.contains("was deleted by gitopsd and is not gone yet")
    });
    finalizers("null");
    world.settled();
    assert!(world.get("configmap", "a").is_some());
}

#[test]
fn objects_made_by_kubectl_and_by_flux_are_taken_over_and_lose_what_leaves_git() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let both = |name: &str| mk_config_map(&ns, name, "1") + "  gone: \"2\"\n";
    let flux = "--field-manager=kustomize-controller";
    let makers: [(&str, &[&str]); 5] = [
        ("applied", &["apply"]),
        ("created", &["create"]),
        ("flux-applied", &["apply", "--server-side", flux]),
        ("flux-updated", &["create", flux]),
        ("edited", &["create", "--field-manager=kubectl-edit"]),
    ];
    world.cluster().apply(&crate::world::mk_namespace(&ns));
    for (name, arguments) in makers {
        let arguments = [arguments, &["-f", "-"]].concat();
        let done = world.cluster().kubectl_with_input(&arguments, &both(name));
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let uids = makers.map(|(name, _)| world.uid("configmap", name));
    let names = makers.map(|(name, _)| format!("{name}.yaml"));
    let files: Vec<(&str, String)> =
        makers.iter().zip(&names).map(|((name, _), file)| (file.as_str(), both(name))).collect();
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    for name in &names {
        repo.replace(&format!("apps/apps/{name}"), "  gone: \"2\"\n", "");
    }
    repo.commit("one key less");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    for (name, _) in makers {
        let live = world.get("configmap", name).unwrap();
        assert_eq!(live["data"], json!({"key": "1"}), "{name}");
        assert_eq!(live["metadata"].get("annotations"), None, "{name}");
    }
    assert_eq!(makers.map(|(name, _)| world.uid("configmap", name)), uids);
}

#[test]
fn what_git_says_to_merge_keeps_the_fields_of_others() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    world.cluster().apply(&crate::world::mk_namespace(&ns));
    let theirs = mk_config_map(&ns, "a", "0") + "  theirs: \"2\"\n";
    let done = world.cluster().kubectl_with_input(&["apply", "-f", "-"], &theirs);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mark = "  name: a\n  annotations: {kustomize.toolkit.fluxcd.io/ssa: Merge}\n";
    let ours = |value: &str| mk_config_map(&ns, "a", value).replace("  name: a\n", mark);
    let repo = world.apps(&[App { name: "apps", spec: "", files: &[("a.yaml", ours("1"))] }]);
    world.start();
    world.settled();
    let data = |world: &World| world.get("configmap", "a").unwrap()["data"].clone();
    assert_eq!(data(&world), json!({"key": "1", "theirs": "2"}), "applied less than they did");
    let edit = |patch: &str| {
        world.cluster().kubectl_ok(&[
            "-n",
            &ns,
            "patch",
            "configmap",
            "a",
            "--type=merge",
            "-p",
            patch,
        ]);
    };
    edit(r#"{"data":{"more":"3"}}"#);
    repo.replace("apps/apps/a.yaml", "\"1\"", "\"4\"");
    repo.commit("another value");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(data(&world), json!({"key": "4", "theirs": "2", "more": "3"}));
    edit(r#"{"data":{"key":"5","more":"6"}}"#);
    world.eventually("our own field is healed", |world| data(world)["key"] == "4");
    assert_eq!(data(&world), json!({"key": "4", "theirs": "2", "more": "6"}));
}
