//! What the verbs say and do, and what an unchanged pass costs.

use crate::bed::{Command, Mark, Repo};
use crate::world::{App, World, mk_config_map, mk_namespace};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Two Kustomizations with one ConfigMap each, `a` and `b`.
fn two(world: &World) -> Repo {
    let file = |name: &str| [("cm.yaml", mk_config_map(&world.namespace, name, "1"))];
    world.apps(&[
        App { name: "a", spec: "", files: &file("a") },
        App { name: "b", spec: "", files: &file("b") },
    ])
}

fn value(world: &World, name: &str) -> String {
    let object = world.get("configmap", name).unwrap_or_default();
    object["data"]["key"].as_str().unwrap_or_default().to_owned()
}

fn set(world: &World, repo: &Repo, name: &str, value: &str) {
    let text = mk_config_map(&world.namespace, name, value);
    repo.write(&format!("apps/{name}/cm.yaml"), &text);
    repo.commit(&format!("{name} becomes {value}"));
    repo.push("main");
}

/// Render children that the daemon has started so far.
fn children(world: &World) -> u64 {
    world.status()["daemon"]["render_children"].as_u64().expect("a number")
}

/// What was asked of the API server, but for the one question of each `reconcile` whether it is
/// there, on which its verdict rests.
fn requests(world: &World, mark: Mark) -> Vec<Value> {
    let mut all = world.cluster().audit_of(&world.user, mark);
    all.retain(|request| request["requestURI"] != "/version");
    all
}

#[test]
fn an_unchanged_pass_starts_no_child_sends_no_request_and_fetches_nothing() {
    let mut world = World::new();
    two(&world);
    world.start();
    world.settled();
    assert!(world.reconcile(), "the first pass may verify");
    let (before, mark) = (children(&world), world.cluster().mark());
    let serial = world.status()["serial"].clone();
    world.git.forget();
    assert!(before >= 3, "{before}: the root and both Kustomizations were rendered");
    for _ in 0..3 {
        assert!(world.reconcile(), "{}", world.log());
    }
    assert_eq!(children(&world), before);
    assert_eq!(requests(&world, mark), Vec::<Value>::new());
    assert_eq!(world.git.count(Command::Fetch), 0);
    assert!(world.git.count(Command::ListRefs) >= 3);
    assert_ne!(world.status()["serial"], serial, "it did run");
}

#[test]
fn substituted_values_cost_no_request_and_their_change_is_applied_at_once() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let values = format!("values-{ns}");
    let spec = format!("  postBuild: {{substituteFrom: [{{kind: ConfigMap, name: {values}}}]}}\n");
    let used = mk_config_map(&ns, "used", "${word}");
    world.apps(&[App { name: "used", spec: &spec, files: &[("u.yaml", used)] }]);
    let word =
        |word: &str| mk_config_map("flux-system", &values, word).replace("  key:", "  word:");
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&word("first"));
    world.start();
    world.settled();
    assert!(world.reconcile());
    let mark = world.cluster().mark();
    assert!(world.reconcile());
    assert_eq!(requests(&world, mark), Vec::<Value>::new());

    world.cluster().apply(&word("second"));
    world.eventually("the new value is applied", |world| {
        world.get("configmap", "used").is_some_and(|used| used["data"]["key"] == "second")
    });
    world.settled();
    let runs = world.json(&["history", "used"]);
    assert_eq!(runs[0]["trigger"], "values", "{runs:#}");
}

#[test]
fn a_commit_costs_only_the_kustomizations_whose_files_it_touches() {
    let mut world = World::new();
    let repo = two(&world);
    world.start();
    world.settled();
    assert!(world.reconcile());
    let (before, mark) = (children(&world), world.cluster().mark());
    repo.write("README.md", "nothing that anybody renders\n");
    let commit = repo.commit("a readme");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(children(&world), before);
    assert_eq!(requests(&world, mark), Vec::<Value>::new());
    let item = world.item("Kustomization/flux-system/a");
    assert_eq!(item["revision"], format!("main@sha1:{commit}"), "it is in force all the same");

    let mark = world.cluster().mark();
    set(&world, &repo, "b", "2");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(children(&world), before + 1);
    let requests = requests(&world, mark);
    let others: Vec<&Value> =
        requests.iter().filter(|request| request["objectRef"]["name"] != "b").collect();
    assert_eq!(others, Vec::<&Value>::new());
    assert!(!requests.is_empty());
}

#[test]
fn reconcile_of_one_name_runs_that_one_and_knows_no_other_names() {
    let mut world = World::new();
    let repo = two(&world);
    world.start();
    world.settled();
    set(&world, &repo, "a", "2");
    let out = world.ok(&["reconcile", "a", "--with-source"]);
    assert!(out.contains("flux-system/a") && out.contains("ready"), "{out}");
    assert!(!out.contains("flux-system/b"), "{out}");
    assert_eq!(value(&world, "a"), "2");
    // As flux has it typed.
    for said in [
        &["kustomization", "a"][..],
        &["ks", "a", "-n", "flux-system"],
        &["Kustomization/a", "-n", "flux-system"],
        &["KS/flux-system/a"],
    ] {
        let out = world.ok(&[&["reconcile"][..], said].concat());
        assert!(out.starts_with("Kustomization/flux-system/a ready"), "{said:?}: {out}");
    }
    let out = world.ok(&["reconcile", "source", "git", "flux-system"]);
    assert!(out.starts_with("GitRepository/flux-system/flux-system ready"), "{out}");

    let output = world.run(&["reconcile", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nobody") && said.contains("gitopsd status"), "{said}");

    // Following ends with the failure, not with the patience.
    repo.write("apps/a/cm.yaml", "kind: [\n");
    repo.commit("broken");
    repo.push("main");
    let output = world.run(&["reconcile", "a", "--with-source", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("not ready") && said.contains("apps/a/cm.yaml:"), "{said}");
}

/// `verb object` of each step that is a change.
fn planned(previews: &Value) -> BTreeSet<String> {
    let steps = previews.as_array().unwrap().iter().flat_map(|p| p["steps"].as_array().unwrap());
    steps
        .map(|step| {
            format!("{} {}", step["verb"].as_str().unwrap(), step["object"].as_str().unwrap())
        })
        .collect()
}

/// The same of a run that was made.
fn done(run: &Value) -> BTreeSet<String> {
    let word = |action: &str| {
        match action {
            "created" => "create",
            "configured" => "configure",
            "deleted" => "delete",
            "recreated" => "recreate",
            other => other,
        }
        .to_owned()
    };
    let objects = run["objects"].as_array().unwrap().iter();
    objects
        .map(|o| {
            format!("{} {}", word(o["action"].as_str().unwrap()), o["object"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn diff_defers_what_the_same_run_makes_possible_first() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let group = format!("{ns}.example.com");
    let crd = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{name: toys.{group}}}\nspec:\n  group: {group}\n  scope: Namespaced\n  \
         names: {{kind: Toy, plural: toys}}\n  versions:\n  - name: v1\n    served: true\n    \
         storage: true\n    schema: {{openAPIV3Schema: {{type: object}}}}\n"
    );
    let toy =
        format!("apiVersion: {group}/v1\nkind: Toy\nmetadata: {{name: bear, namespace: {ns}}}\n");
    let files = [
        ("crd.yaml", crd),
        ("toy.yaml", toy),
        ("space.yaml", mk_namespace(&format!("{ns}-new"))),
        ("map.yaml", mk_config_map(&format!("{ns}-new"), "inside", "1")),
        ("beside.yaml", mk_config_map(&format!("{ns}-flux"), "beside", "1")),
    ];
    let repo = world.apps(&[App { name: "toys", spec: "  suspend: true\n", files: &files }]);
    // A part of Flux, which is set aside: a run makes this namespace for want of anybody else.
    let label = "metadata:\n  labels: {app.kubernetes.io/part-of: flux}\n";
    let space = mk_namespace(&format!("{ns}-flux")).replace("metadata:\n", label);
    repo.write("clusters/my-cluster/gotk-components.yaml", &space);
    repo.commit("a part of Flux");
    repo.push("main");
    world.start();
    world.eventually("it is known", |world| {
        world.item("Kustomization/flux-system/toys") != Value::Null
    });
    let verbs = |world: &World| {
        let preview = world.json(&["diff", "toys"])[0].clone();
        let steps = preview["steps"].as_array().cloned().unwrap_or_default();
        let told = steps.iter().map(|step| {
            let text = |key: &str| step[key].as_str().unwrap().to_owned();
            (text("object"), text("verb"))
        });
        told.collect::<BTreeMap<String, String>>()
    };
    let expected = [
        (format!("ConfigMap/{ns}-flux/beside"), "defer"),
        (format!("ConfigMap/{ns}-new/inside"), "defer"),
        (format!("CustomResourceDefinition/toys.{group}"), "create"),
        (format!("Namespace/{ns}-flux"), "create"),
        (format!("Namespace/{ns}-new"), "create"),
        (format!("Toy/{ns}/bear"), "defer"),
    ];
    let expected = expected.map(|(object, verb)| (object, verb.to_owned())).into();
    assert_eq!(verbs(&world), expected, "{}", world.ok(&["diff", "toys"]));
    // And the run does what was shown.
    App { name: "toys", spec: "", files: &files }.write(&repo);
    repo.commit("not suspended");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    world.settled();
    assert_eq!(verbs(&world), BTreeMap::new());
}

#[test]
fn in_a_cluster_that_nobody_has_confirmed_diff_shows_no_deletion_as_the_run_makes_none() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let frozen = |value: &str| mk_config_map(&ns, "frozen", value) + "immutable: true\n";
    let gone = ("gone.yaml", mk_config_map(&ns, "gone", "1"));
    let files = [("a.yaml", mk_config_map(&ns, "a", "1")), gone];
    let forces = [("frozen.yaml", frozen("1"))];
    let repo = world.apps(&[
        App { name: "leaves", spec: "", files: &files },
        App { name: "forces", spec: "  force: true\n", files: &forces },
    ]);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "frozen");
    assert_eq!(world.stop(), Some(0));
    let database = rusqlite::Connection::open(world.path("state/history.db")).unwrap();
    let other = "UPDATE meta SET value = 'of another cluster' WHERE key = 'cluster'";
    assert_eq!(database.execute(other, []).unwrap(), 1);
    drop(database);
    repo.remove("apps/leaves/gone.yaml");
    repo.write("apps/forces/frozen.yaml", &frozen("2"));
    let head = repo.commit("one leaves, one has to be made anew");
    repo.push("main");
    world.start();
    world.eventually("both have been run", |world| {
        let leaves = world.item("Kustomization/flux-system/leaves");
        let at_head = leaves["revision"].as_str().is_some_and(|at| at.ends_with(&head));
        at_head && leaves["ready"] == "True" && world.message("forces").contains("immutable")
    });
    let plan = |name: &str| world.json(&["diff", name])[0]["steps"].clone();
    let (leaves, forces) = (plan("leaves"), plan("forces"));
    let told = |steps: &Value| {
        let verb = steps[0]["verb"].as_str().unwrap_or_default();
        (steps.as_array().map_or(0, Vec::len), verb.to_owned())
    };
    assert_eq!((told(&leaves), told(&forces)), ((1, "hold".into()), (1, "refuse".into())));
    let why = leaves[0]["lines"].to_string();
    assert!(why.contains("gitopsd confirm cluster"), "{leaves:#}");
    assert!(world.get("configmap", "gone").is_some(), "the run has left it");
    assert_eq!(world.uid("configmap", "frozen"), uid);

    world.ok(&["confirm", "cluster"]);
    world.eventually("once it is confirmed, both are done", |world| {
        world.get("configmap", "gone").is_none() && value(world, "frozen") == "2"
    });
    assert_ne!(world.uid("configmap", "frozen"), uid);
}

#[test]
fn diff_shows_what_the_next_run_does_and_no_secret() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: {ns}\n\
             stringData:\n  password: {value}\n"
        )
    };
    let files = [
        ("a.yaml", mk_config_map(&ns, "a", "old-value")),
        ("b.yaml", mk_config_map(&ns, "b", "1")),
        ("c.yaml", mk_config_map(&ns, "c", "1")),
        ("s.yaml", secret("first-Pw-8841")),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    assert_eq!(world.run(&["diff", "apps"]).status.code(), Some(0), "nothing to do");

    let said = world.ok(&["suspend", "kustomization", "apps", "-n", "flux-system"]);
    assert!(said.starts_with("Kustomization/flux-system/apps suspended"), "{said}");
    repo.write("apps/apps/a.yaml", &mk_config_map(&ns, "a", "new-value"));
    repo.write("apps/apps/s.yaml", &secret("second-Pw-8842"));
    repo.write("apps/apps/d.yaml", &mk_config_map(&ns, "d", "1"));
    repo.remove("apps/apps/c.yaml");
    repo.commit("four changes");
    repo.push("main");
    world.run(&["reconcile", "--with-source"]);
    let mark = world.cluster().mark();
    let output = world.run(&["diff", "apps"]);
    assert_eq!(output.status.code(), Some(1), "there are changes");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("old-value") && shown.contains("new-value"), "{shown}");
    let previews = world.json(&["diff", "apps"]);
    for text in [shown, previews.to_string()] {
        for secret in ["Pw-8841", "Pw-8842", "Zmlyc3Q", "c2Vjb25k"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    let plan = planned(&previews);
    let expected: BTreeSet<String> = [
        format!("configure ConfigMap/{ns}/a"),
        format!("configure Secret/{ns}/s"),
        format!("create ConfigMap/{ns}/d"),
        format!("delete ConfigMap/{ns}/c"),
    ]
    .into();
    assert_eq!(plan, expected);
    for request in world.cluster().audit_of(&world.user, mark) {
        let uri = request["requestURI"].as_str().unwrap();
        let harmless = ["get", "list", "watch"].contains(&request["verb"].as_str().unwrap());
        assert!(harmless || uri.contains("dryRun=All"), "{uri}");
    }

    world.ok(&["resume", "kustomization", "apps"]);
    world.eventually("the changes are made", |world| value(world, "a") == "new-value");
    world.settled();
    let runs = world.json(&["history", "apps"]);
    let last = runs[0]["run"].as_str().unwrap().to_owned();
    let wrong = world.run(&["history", "5"]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("gitopsd history -n 5"), "{said}");
    let run = world.json(&["history", "show", &last]);
    assert_eq!(done(&run), plan);
    assert_eq!(run["subject"], "four changes");
    assert_eq!(run["author"], "Ada Tester <ada@test.invalid>");
    assert_eq!(run["verdict"], "succeeded");
    assert_eq!(run["changes"], 4);
    assert!(run["steps"].as_array().is_some_and(|steps| steps.len() > 3), "{run:#}");
    let text = world.ok(&["history", "show", &last]);
    assert!(text.contains("old-value") && text.contains("apps/apps/a.yaml"), "{text}");
    assert!(!text.contains("Pw-88"), "{text}");
    assert_eq!(world.run(&["history", "show", "999999"]).status.code(), Some(1));
}

#[test]
fn a_suspended_kustomization_is_left_alone_until_it_is_resumed_or_its_time_is_over() {
    let mut world = World::new();
    let repo = two(&world);
    world.start();
    world.settled();
    world.ok(&["suspend", "a", "--reason", "by hand tonight"]);
    set(&world, &repo, "a", "2");
    set(&world, &repo, "b", "2");
    assert!(world.reconcile(), "suspended is fine: {}", world.log());
    assert_eq!((value(&world, "a"), value(&world, "b")), ("1".into(), "2".into()));
    let patch = r#"{"data":{"key":"by hand"}}"#;
    let (ns, cluster) = (world.namespace.clone(), world.cluster());
    cluster.kubectl_ok(&["-n", &ns, "patch", "configmap", "a", "--patch", patch]);
    let item = world.item("Kustomization/flux-system/a");
    assert!(item["suspended"].as_str().unwrap().contains("by hand tonight"), "{item:#}");
    assert_eq!(world.run(&["status"]).status.code(), Some(0), "stopped on purpose");
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.eventually("the other one has run", |world| world.is_ready("b"));
    world.run(&["reconcile"]);
    assert_eq!(value(&world, "a"), "by hand", "it outlasts a restart, and nothing is healed");
    let plan = world.json(&["diff", "a"])[0]["steps"].clone();
    let drift = serde_json::json!(["~ data.key: \"by hand\" -> \"2\""]);
    assert_eq!((&plan[0]["verb"], &plan[0]["lines"]), (&"configure".into(), &drift), "{plan:#}");
    world.ok(&["resume", "a"]);
    world.eventually("Git's value is back", |world| value(world, "a") == "2");

    world.ok(&["suspend", "b", "--for", "3s"]);
    set(&world, &repo, "b", "3");
    world.run(&["reconcile", "--with-source"]);
    assert_eq!(value(&world, "b"), "2");
    let waited = world.eventually("it resumes by itself", |world| value(world, "b") == "3");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    let item = world.item("Kustomization/flux-system/b");
    assert_eq!(item["suspended"], Value::Null);
}

#[test]
fn every_verb_has_its_exit_code_and_its_json() {
    let mut world = World::new();
    two(&world);
    for verb in [&["status"][..], &["reconcile"], &["diff"], &["history"], &["suspend", "a"]] {
        let output = world.run(verb);
        assert_eq!(output.status.code(), Some(69), "{verb:?} without a daemon");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("systemctl"), "{verb:?}: {said}");
    }
    world.start();
    world.settled();
    assert_eq!(world.run(&["status", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(world.run(&["status", "nobody"]).status.code(), Some(1));
    assert_eq!(world.run(&["status"]).status.code(), Some(0));
    let status = world.json(&["status"]);
    assert_eq!((&status["version"], &status["ready"]), (&1.into(), &true.into()));
    assert_eq!(status["daemon"]["pid"], world.pid());
    assert_eq!(world.json(&["status", "a"])[0]["name"], "a");
    assert_eq!(world.json(&["diff"])[0]["steps"], serde_json::json!([]));
    assert!(world.json(&["history"]).as_array().is_some_and(|runs| runs.len() >= 2));
    assert_eq!(world.json(&["suspend", "a"])["keys"][0], "Kustomization/flux-system/a");
    assert_eq!(world.json(&["resume", "a"])["keys"][0], "Kustomization/flux-system/a");
    assert!(world.json(&["reconcile"]).as_array().is_some_and(|items| items.len() == 3));
    assert!(world.json(&["reconcile", "--no-wait"])["keys"].is_array());
    let second = world.run(&["run"]);
    assert_ne!(second.status.code(), Some(0), "one daemon is enough");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another gitopsd answers"), "{said}");
    assert_eq!(world.stop(), Some(0));

    world.drop_in("rooot: {}\n");
    let output = world.run(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("rooot") && said.contains("test.yaml:1"), "{said}");
}
