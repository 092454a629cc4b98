//! Who owns an object, what goes with its declaration, and what is kept whatever happens.

use crate::bed::{Cluster, Mark, Repo};
use crate::world::{App, World, mk_config_map, mk_deployment, mk_kustomization, mk_namespace};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn push(world: &World, repo: &Repo, subject: &str) -> bool {
    repo.commit(subject);
    repo.push("main");
    world.reconcile()
}

pub fn there(world: &World, name: &str) -> bool {
    world.get("configmap", name).is_some()
}

/// What is held of a Kustomization; null when nothing is.
pub fn held(world: &World, name: &str) -> Value {
    let owner = format!("flux-system/{name}");
    let all = world.status()["held"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|held| held["owner"] == owner.as_str()).unwrap_or_default()
}

pub fn digest(world: &World, name: &str) -> String {
    let held = held(world, name);
    held["digest"].as_str().unwrap_or_else(|| panic!("nothing is held")).to_owned()
}

/// What a user has asked a control plane to delete since a mark, as `RESOURCE/NAME`.
pub fn deleted(cluster: &Cluster, user: &str, since: Mark) -> BTreeSet<String> {
    let requests = cluster.audit_of(user, since).into_iter();
    let deletes = requests
        .filter(|request| request["verb"].as_str().is_some_and(|verb| verb.starts_with("delete")));
    let named = |request: Value| {
        let of = |key: &str| request["objectRef"][key].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", of("resource"), of("name"))
    };
    deletes.map(named).collect()
}

#[test]
fn two_declarations_that_differ_are_refused_with_both_files_and_nothing_flaps() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "shared", "1"))];
    let repo = world.apps(&[App { name: "first", spec: "", files: &files }]);
    world.start();
    world.settled();
    let before = world.get("configmap", "shared");

    let files =
        [("b.yaml", mk_config_map(&ns, "shared", "2")), ("c.yaml", mk_config_map(&ns, "own", "1"))];
    App { name: "second", spec: "", files: &files }.write(&repo);
    assert!(!push(&world, &repo, "a second owner"));
    let item = world.item("Kustomization/flux-system/second");
    assert_eq!(item["reason"], "OwnershipConflict", "{item:#}");
    assert_eq!(item["failure"]["object"], format!("ConfigMap/{ns}/shared"), "{item:#}");
    let message = item["message"].as_str().unwrap();
    for word in [
        "apps/second/b.yaml",
        "apps/first/a.yaml",
        "flux-system/first",
        &format!("ConfigMap/{ns}/shared"),
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let plan = world.json(&["diff", "second"])[0].clone();
    let cause = plan["failure"]["cause"].as_str().unwrap_or_default();
    assert!(message.contains(cause) && cause.contains("declared differently"), "{plan:#}");
    assert!(world.is_ready("first"));
    assert!(!there(&world, "own"), "refused before any write");
    assert_eq!(world.get("configmap", "shared"), before);

    // The same over a restart, when the holder is known from the inventory only.
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.eventually("refused again", |world| {
        world.is_ready("first")
            && world.item("Kustomization/flux-system/second")["reason"] == "OwnershipConflict"
    });
    assert_eq!(world.get("configmap", "shared"), before);
}

#[test]
fn identical_declarations_are_shared_and_go_with_the_last() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [
        ("shared.yaml", mk_config_map(&ns, "shared", "1")),
        ("own.yaml", mk_config_map(&ns, "own", "1")),
    ];
    let other = [
        ("shared.yaml", mk_config_map(&ns, "shared", "1")),
        ("other.yaml", mk_config_map(&ns, "other", "1")),
    ];
    let repo = world.apps(&[
        App { name: "first", spec: "", files: &files },
        App { name: "second", spec: "", files: &other },
    ]);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "shared");

    repo.remove("apps/first/shared.yaml");
    assert!(push(&world, &repo, "the first lets go"), "{}", world.log());
    assert_eq!(world.uid("configmap", "shared"), uid, "the second still wants it");

    repo.remove("apps/second/shared.yaml");
    assert!(push(&world, &repo, "the second lets go too"), "{}", world.log());
    world.eventually("it goes with the last", |world| !there(world, "shared"));
    assert!(there(&world, "own") && there(&world, "other"));
}

#[test]
fn a_shared_object_may_be_changed_in_one_commit_or_one_after_the_other() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let shared = |value: &str| mk_config_map(&ns, "shared", value);
    let files =
        |name: &str| [("shared.yaml", shared("1")), ("own.yaml", mk_config_map(&ns, name, "1"))];
    let repo = world.apps(&[
        App { name: "first", spec: "  retryInterval: 1h\n", files: &files("a") },
        App { name: "second", spec: "  retryInterval: 1h\n", files: &files("b") },
    ]);
    for name in ["first", "second"] {
        let path = format!("clusters/my-cluster/{name}.yaml");
        repo.replace(&path, "  retryInterval: 1s\n", "");
    }
    repo.commit("no quick retries");
    repo.push("main");
    world.start();
    world.settled();
    let value = |world: &World| world.get("configmap", "shared").unwrap()["data"]["key"].clone();
    for name in ["first", "second"] {
        repo.write(&format!("apps/{name}/shared.yaml"), &shared("2"));
    }
    push(&world, &repo, "both at once");
    world.settled();
    assert_eq!(value(&world), "2");

    repo.write("apps/first/shared.yaml", &shared("3"));
    assert!(!push(&world, &repo, "one goes ahead"), "they differ");
    assert_eq!(value(&world), "2", "what was agreed upon stays");
    repo.write("apps/second/shared.yaml", &shared("3"));
    push(&world, &repo, "the other follows");
    world.settled();
    assert_eq!(value(&world), "3");

    repo.write("apps/second/shared.yaml", &shared("4"));
    assert!(!push(&world, &repo, "now the other goes ahead"), "they differ");
    repo.remove("apps/first/shared.yaml");
    push(&world, &repo, "and the first lets go");
    world.settled();
    assert_eq!(value(&world), "4");
}

#[test]
fn what_is_there_already_as_git_says_is_owned_too() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files =
        [("a.yaml", mk_config_map(&ns, "a", "1")), ("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    // A new host takes over: the state directory is empty, the cluster is as Git says.
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_dir_all(world.path("state")).unwrap();
    world.start();
    world.settled();
    repo.remove("apps/apps/b.yaml");
    assert!(push(&world, &repo, "one leaves"), "{}", world.log());
    world.eventually("it is pruned", |world| !there(world, "b"));
    assert!(there(&world, "a"));
}

#[test]
fn an_object_that_moves_to_another_kustomization_keeps_its_uid_and_generation() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let moving =
        format!("{}---\n{}", mk_config_map(&ns, "moving", "1"), mk_deployment(&ns, "web", "1"));
    let a = [("moving.yaml", moving.clone()), ("a.yaml", mk_config_map(&ns, "a", "1"))];
    let b = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "one", spec: "", files: &a },
        App { name: "two", spec: "", files: &b },
    ]);
    world.start();
    world.settled();
    let same = |world: &World| {
        let web = world.get("deployment", "web").unwrap();
        (world.uid("configmap", "moving"), web["metadata"]["generation"].clone())
    };
    let (before, uid) = (same(&world), world.uid("deployment", "web"));
    for (from, to) in [("one", "two"), ("two", "one")] {
        repo.remove(&format!("apps/{from}/moving.yaml"));
        repo.write(&format!("apps/{to}/moving.yaml"), &moving);
        assert!(push(&world, &repo, &format!("{from} to {to}")), "{}", world.log());
        world.settled();
        assert_eq!((same(&world), world.uid("deployment", "web")), (before.clone(), uid.clone()));
        let label = "/metadata/labels/kustomize.toolkit.fluxcd.io~1name";
        for (kind, name) in [("configmap", "moving"), ("deployment", "web")] {
            assert_eq!(world.get(kind, name).unwrap().pointer(label).unwrap(), to);
        }
    }
    // It is owned where it is now, and nowhere else.
    repo.remove("apps/one/moving.yaml");
    assert!(push(&world, &repo, "and away"), "{}", world.log());
    world.eventually("it is gone", |world| !there(world, "moving"));
}

#[test]
fn a_kustomization_that_leaves_git_takes_its_objects_along() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let object = |name: &str| [("a.yaml", mk_config_map(&ns, name, "1"))];
    let repo = world.apps(&[
        App { name: "going", spec: "", files: &object("going") },
        App { name: "orphaning", spec: "  deletionPolicy: Orphan\n", files: &object("orphan") },
        App { name: "staying", spec: "", files: &object("staying") },
        App { name: "asleep", spec: "", files: &object("asleep") },
    ]);
    world.start();
    world.settled();
    for name in ["going", "orphaning"] {
        repo.remove(&format!("clusters/my-cluster/{name}.yaml"));
    }
    assert!(push(&world, &repo, "two leave"), "{}", world.log());
    world.eventually("its object goes too", |world| !there(world, "going"));
    assert!(there(&world, "orphan") && there(&world, "staying"));
    assert_eq!(world.item("Kustomization/flux-system/going"), Value::Null);

    // The same while the daemon is away.
    assert_eq!(world.stop(), Some(0));
    repo.remove("clusters/my-cluster/asleep.yaml");
    repo.commit("one leaves unseen");
    repo.push("main");
    world.start();
    world.eventually("it goes after the start", |world| !there(world, "asleep"));
    world.settled();
    assert!(there(&world, "staying"));
}

#[test]
fn a_namespace_goes_with_its_kustomization_unless_somebody_else_lives_there() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = |name: &str| {
        let space = format!("{ns}-{name}");
        [("space.yaml", mk_namespace(&space)), ("a.yaml", mk_config_map(&space, "a", "1"))]
    };
    let stays = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "alone", spec: "", files: &files("alone") },
        App { name: "shared", spec: "", files: &files("shared") },
        App { name: "one", spec: "", files: &stays },
        App { name: "two", spec: "", files: &[("c.yaml", mk_config_map(&ns, "c", "1"))] },
        App { name: "three", spec: "", files: &[("d.yaml", mk_config_map(&ns, "d", "1"))] },
    ]);
    world.start();
    world.eventually("both are there", |world| {
        world.is_ready("alone") && world.is_ready("shared") && world.is_ready("one")
    });
    let space = |name: &str| world.cluster().get("", "namespace", &format!("{ns}-{name}"));
    let going = |name: &str| {
        space(name).is_none_or(|found| found["metadata"]["deletionTimestamp"] != Value::Null)
    };
    world.cluster().apply(&mk_config_map(&format!("{ns}-shared"), "theirs", "x"));
    for name in ["alone", "shared"] {
        repo.remove(&format!("clusters/my-cluster/{name}.yaml"));
    }
    push(&world, &repo, "two leave");
    world.eventually("the one goes as a whole", |_| going("alone"));
    world.eventually("the other's is held", |world| held(world, "shared") != Value::Null);
    let names = serde_json::json!([format!("Namespace/{ns}-shared")]);
    assert_eq!(held(&world, "shared")["objects"], names);
    assert!(!going("shared"));
    world.ok(&["confirm", &digest(&world, "shared")]);
    world.eventually("confirmed, it goes", |_| going("shared"));
}

#[test]
fn what_was_told_to_stay_stays_though_it_leaves_while_nobody_looks() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let object = |name: &str| [("a.yaml", mk_config_map(&ns, name, "1"))];
    let repo = world.apps(&[
        App { name: "told", spec: "", files: &object("told") },
        App { name: "going", spec: "", files: &object("going") },
        App { name: "staying", spec: "", files: &object("staying") },
        App { name: "as-well", spec: "", files: &object("as-well") },
    ]);
    world.start();
    world.settled();
    // A change of the policy alone writes nothing to the cluster.
    let text = mk_kustomization("told", "./apps/told", "").replace("prune: true", "prune: false");
    repo.write("clusters/my-cluster/told.yaml", &text);
    assert!(push(&world, &repo, "told to stay"), "{}", world.log());
    world.settled();
    assert_eq!(world.stop(), Some(0));
    // Without the mirror nothing but the record knows that they were there.
    std::fs::remove_dir_all(world.path("state/mirrors")).unwrap();
    for name in ["told", "going"] {
        repo.remove(&format!("clusters/my-cluster/{name}.yaml"));
    }
    repo.commit("both leave unseen");
    repo.push("main");
    world.start();
    world.eventually("the one goes", |world| !there(world, "going"));
    world.settled();
    assert!(there(&world, "told") && there(&world, "staying"), "{}", world.log());
}

#[test]
fn what_is_not_to_be_pruned_stays() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let marked = mk_config_map(&ns, "marked", "1").replace(
        "metadata:\n",
        "metadata:\n  annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}\n",
    );
    let files = [
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("b.yaml", mk_config_map(&ns, "b", "1")),
        ("marked.yaml", marked),
        ("touched.yaml", mk_config_map(&ns, "touched", "1")),
    ];
    let keep = [
        ("keep-1.yaml", mk_config_map(&ns, "keep-1", "1")),
        ("keep-2.yaml", mk_config_map(&ns, "keep-2", "1")),
    ];
    let repo = world.apps(&[
        App { name: "apps", spec: "", files: &files },
        App { name: "keep", spec: "", files: &keep },
    ]);
    let text = mk_kustomization("keep", "./apps/keep", "").replace("prune: true", "prune: false");
    repo.write("clusters/my-cluster/keep.yaml", &text);
    repo.commit("prune: false");
    repo.push("main");
    world.start();
    world.settled();
    let mark = "kustomize.toolkit.fluxcd.io/prune=disabled";
    // As in Flux, what kubectl holds under its own name is taken over, and undone.
    let by = "--field-manager=flux-client-side-apply";
    world.cluster().kubectl_ok(&["-n", &ns, "annotate", "configmap", "touched", mark, by]);
    for file in ["apps/b.yaml", "apps/marked.yaml", "keep/keep-1.yaml"] {
        repo.remove(&format!("apps/{file}"));
    }
    assert!(push(&world, &repo, "three leave"), "{}", world.log());
    world.eventually("the plain one goes", |world| !there(world, "b"));
    assert!(there(&world, "marked") && there(&world, "keep-1"));
    repo.remove("apps/apps/touched.yaml");
    assert!(push(&world, &repo, "one more"), "{}", world.log());
    world.settled();
    assert!(there(&world, "touched"), "marked on the live object by hand");
    assert!(there(&world, "a"));
}

#[test]
fn a_parent_that_cannot_be_rendered_at_the_start_costs_its_children_nothing() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let child = mk_kustomization("child", "./apps/child", "");
    let parent = [("child.yaml", child)];
    let repo = world.apps(&[App { name: "parent", spec: "", files: &parent }]);
    repo.write("apps/child/a.yaml", &mk_config_map(&ns, "a", "1"));
    repo.commit("the child");
    repo.push("main");
    world.start();
    world.settled();
    assert!(there(&world, "a"));
    assert_eq!(world.stop(), Some(0));
    repo.write("apps/parent/broken.yaml", "kind: [\n");
    repo.commit("broken while nobody looks");
    repo.push("main");
    world.start();
    world.eventually("the parent has failed", |world| {
        world.message("parent").contains("apps/parent/broken.yaml")
    });
    // Nothing may come of it later either.
    world.run(&["reconcile", "--with-source"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(there(&world, "a"), "nobody said that the child has left: {}", world.log());
}
