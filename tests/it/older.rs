//! A record, or a cluster, that is older than the other: nothing is lost, nothing stays over.

use crate::bed::Repo;
use crate::world::{App, World, mk_config_map, mk_kustomization};
use serde_json::{Value, json};

fn there(world: &World, name: &str) -> bool {
    world.get("configmap", name).is_some()
}

fn names(world: &World) -> Vec<String> {
    let list = ["-n", &world.namespace, "get", "configmap", "-o", "json"];
    let list: Value = serde_json::from_str(&world.cluster().kubectl_ok(&list)).unwrap();
    let items = list["items"].as_array().unwrap();
    let names = items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name != "kube-root-ca.crt").collect()
}

fn push(repo: &Repo, message: &str) {
    repo.commit(message);
    repo.push("main");
}

fn map(world: &World, name: &str, value: &str) -> String {
    mk_config_map(&world.namespace, name, value)
}

/// `keep` and `gone-N` in one Kustomization, and an object of somebody else's beside them.
fn three(world: &World) -> Repo {
    let files = [
        ("keep.yaml", map(world, "keep", "1")),
        ("more.yaml", map(world, "more", "1")),
        ("gone.yaml", map(world, "gone", "1")),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.cluster().apply(&map(world, "theirs", "x"));
    repo
}

/// What is done while the datastore later forgets it: one object leaves Git, one comes, one
/// changes.
fn change(world: &World, repo: &Repo) {
    repo.remove("apps/apps/gone.yaml");
    repo.write("apps/apps/new.yaml", &map(world, "new", "1"));
    repo.write("apps/apps/more.yaml", &map(world, "more", "2"));
    push(repo, "one leaves, one comes, one changes");
    world.eventually("the commit can be applied", |world| {
        world.reconcile() && !there(world, "gone") && there(world, "new")
    });
    world.settled();
}

fn as_in_git(world: &World) -> bool {
    let value = |name: &str| world.get("configmap", name).map(|map| map["data"]["key"].clone());
    names(world) == ["keep", "more", "new", "theirs"] && value("more") == Some(json!("2"))
}

#[test]
fn a_datastore_put_back_while_we_run_is_noticed_and_brought_to_git_again() {
    let mut world = World::alone();
    let repo = three(&world);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "keep");
    let theirs = world.uid("configmap", "theirs");
    world.cluster().remember();
    change(&world, &repo);
    world.cluster().put_back();
    world.eventually("what came back is pruned, what was lost is back", as_in_git);
    world.settled();
    assert_eq!(world.uid("configmap", "keep"), uid);
    assert_eq!(world.uid("configmap", "theirs"), theirs);
    assert!(world.log().contains("are back in it"), "{}", world.log());
}

#[test]
fn a_datastore_put_back_while_we_are_down_is_brought_to_git_again() {
    let mut world = World::alone();
    let repo = three(&world);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "keep");
    world.cluster().remember();
    world.settled();
    change(&world, &repo);
    // The daemon sees nothing of it: it is killed, and starts on the older cluster.
    world.kill();
    world.cluster().put_back();
    world.start();
    world.eventually("what came back is pruned, what was lost is back", as_in_git);
    world.settled();
    assert_eq!(world.uid("configmap", "keep"), uid);
}

#[test]
fn with_the_database_gone_what_left_git_meanwhile_is_found_again_and_pruned() {
    let mut world = World::alone();
    let repo = three(&world);
    let files = [("other.yaml", map(&world, "other", "1"))];
    App { name: "other", spec: "", files: &files }.write(&repo);
    push(&repo, "another Kustomization");
    world.start();
    world.settled();
    assert!(there(&world, "other") && there(&world, "gone"));
    assert_eq!(world.stop(), Some(0));

    for file in ["history.db", "history.db-wal"] {
        let _ = std::fs::remove_file(world.path("state").join(file));
    }
    // With the mirror there, the last revision would be seen first, and its end be intent.
    std::fs::remove_dir_all(world.path("state/mirrors")).unwrap();
    repo.remove("apps/apps/gone.yaml");
    repo.remove("clusters/my-cluster/other.yaml");
    push(&repo, "an object leaves, and a Kustomization with its own");
    world.start();
    world.eventually("the object is found and pruned", |world| !there(world, "gone"));
    // Nobody can say that the Kustomization ever was in Git: its objects wait for a word.
    let held = |world: &World| {
        let held = world.status()["held"].as_array().cloned().unwrap_or_default();
        held.into_iter().find(|held| held["owner"] == "flux-system/other")
    };
    world.eventually("the other's object is held", |world| held(world).is_some());
    let held = held(&world).unwrap();
    assert_eq!(held["objects"], json!([format!("ConfigMap/{}/other", world.namespace)]));
    world.settled();
    assert_eq!(names(&world), ["keep", "more", "other", "theirs"]);
    world.ok(&["confirm", held["digest"].as_str().unwrap()]);
    world.eventually("confirmed once, it goes", |world| !there(world, "other"));
    assert_eq!(names(&world), ["keep", "more", "theirs"]);
}

#[test]
fn what_was_held_is_held_again_when_the_record_of_it_is_lost() {
    let mut world = World::alone();
    let repo = three(&world);
    let old = ["o1", "o2", "o3", "o4", "o5"];
    let file = |name: &str| format!("apps/apps/{name}.yaml");
    old.iter().for_each(|name| repo.write(&file(name), &map(&world, name, "1")));
    push(&repo, "eight in all");
    world.start();
    world.settled();
    old.iter().for_each(|name| repo.remove(&file(name)));
    let new: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    new.iter().for_each(|name| repo.write(&file(name), &map(&world, name, "1")));
    push(&repo, "most of the eight leave, ten come");
    world.reconcile();
    let held = |world: &World| world.status()["held"].as_array().cloned().unwrap_or_default();
    world.eventually("five are held", |world| held(world).len() == 1);
    let before = held(&world)[0].clone();
    assert_eq!(before["objects"].as_array().unwrap().len(), old.len(), "{before:#}");
    assert_eq!(world.stop(), Some(0));

    // Five of eighteen: to a record that knows no more, a change like any other.
    std::fs::remove_file(world.path("state/history.db")).unwrap();
    world.start();
    world.eventually("they are held again", |world| held(world).len() == 1);
    assert_eq!(held(&world)[0]["digest"], before["digest"], "{}", world.log());
    world.settled();
    assert!(old.iter().all(|name| there(&world, name)), "{}", world.log());
    world.ok(&["confirm", before["digest"].as_str().unwrap()]);
    world.eventually("confirmed, they go", |world| !old.iter().any(|name| there(world, name)));
    assert!(there(&world, "n9") && there(&world, "keep"));
}

/// Owner labels as Flux and we write them.
const LABELS: &str = "    kustomize.toolkit.fluxcd.io/name: apps\n    \
                      kustomize.toolkit.fluxcd.io/namespace: flux-system\n";

#[test]
fn what_was_let_go_of_is_not_taken_back() {
    let mut world = World::alone();
    let repo = three(&world);
    let kustomization =
        |prune: &str| mk_kustomization("apps", "./apps/apps", "").replace("prune: true", prune);
    let mark = "annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}\n  name: marked\n";
    let marked = map(&world, "marked", "1").replace("name: marked\n", mark);
    repo.write("apps/apps/marked.yaml", &marked);
    repo.write("clusters/my-cluster/apps.yaml", &kustomization("prune: false"));
    push(&repo, "nothing is pruned");
    world.start();
    world.settled();
    repo.remove("apps/apps/gone.yaml");
    push(&repo, "one leaves and stays");
    assert!(world.reconcile(), "{}", world.log());
    repo.write("clusters/my-cluster/apps.yaml", &kustomization("prune: true"));
    push(&repo, "from now on they are pruned");
    assert!(world.reconcile(), "{}", world.log());
    for name in ["more", "marked"] {
        repo.remove(&format!("apps/apps/{name}.yaml"));
    }
    push(&repo, "one goes, and one stays for its mark");
    assert!(world.reconcile(), "{}", world.log());
    world.eventually("what leaves now goes", |world| !there(world, "more"));
    world.settled();
    let ns = world.namespace.clone();
    let unmark = "kustomize.toolkit.fluxcd.io/prune-";
    world.cluster().kubectl_ok(&["-n", &ns, "annotate", "configmap", "marked", unmark]);
    // A restart looks for what no record knows, and finds one that nobody let go of.
    assert_eq!(world.stop(), Some(0));
    let stray =
        map(&world, "stray", "1").replace("\ndata:", &format!("\n  labels:\n{LABELS}data:"));
    let by = ["apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"];
    assert!(world.cluster().kubectl_with_input(&by, &stray).status.success());
    world.start();
    world.eventually("the stray is taken back and goes", |world| !there(world, "stray"));
    world.settled();
    assert!(there(&world, "gone") && there(&world, "marked"), "{}", world.log());
    let released = |world: &World| {
        let database = rusqlite::Connection::open(world.path("state/history.db")).unwrap();
        let mut rows = database.prepare("SELECT id FROM released ORDER BY id").unwrap();
        let ids = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        ids.map(Result::unwrap).collect::<Vec<_>>()
    };
    // What is gone need not be known any more.
    assert_eq!(world.stop(), Some(0));
    let id = |name: &str| format!("{ns}_{name}__ConfigMap");
    assert_eq!(released(&world), [id("gone"), id("marked")]);
    world.cluster().kubectl_ok(&["-n", &ns, "delete", "configmap", "gone"]);
    assert!(world.cluster().kubectl_with_input(&by, &stray).status.success());
    world.start();
    world.eventually("another search was made", |world| !there(world, "stray"));
    assert_eq!(world.stop(), Some(0));
    assert_eq!(released(&world), [id("marked")]);
}

#[test]
fn most_kustomizations_gone_at_once_while_we_are_down_wait_for_a_word() {
    let mut world = World::alone();
    let repo = three(&world);
    let names = ["one", "two"];
    for name in names {
        let files = [("map.yaml", map(&world, name, "1"))];
        App { name, spec: "", files: &files }.write(&repo);
    }
    push(&repo, "two more");
    world.start();
    world.settled();
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_dir_all(world.path("state/mirrors")).unwrap();
    for name in names {
        repo.remove(&format!("clusters/my-cluster/{name}.yaml"));
    }
    push(&repo, "most are gone");
    world.start();
    let held = |world: &World| world.status()["held"].as_array().cloned().unwrap_or_default();
    world.eventually("both are held, and shown once", |world| held(world).len() == 1);
    assert!(names.iter().all(|name| there(&world, name)));
    let first = held(&world)[0].clone();
    assert!(first["reason"].as_str().unwrap().contains("lost 2 of its 3 children"), "{first:#}");
    assert_eq!(first["owner"], "flux-system/flux-system", "{first:#}");
    assert_eq!(first["objects"].as_array().unwrap().len(), 2, "{first:#}");
    world.ok(&["confirm", first["digest"].as_str().unwrap()]);
    world.eventually("one word is enough", |world| {
        names.iter().all(|name| !there(world, name)) && held(world).is_empty()
    });
    assert!(there(&world, "keep"));
}

/// An API whose server is not there.
fn mk_dead_api() -> String {
    "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.dead.example}\n\
     spec:\n  group: dead.example\n  version: v1\n  groupPriorityMinimum: 1000\n  \
     versionPriority: 15\n  insecureSkipTLSVerify: true\n  \
     service: {name: nobody, namespace: default}\n"
        .to_owned()
}

#[test]
fn one_api_group_that_does_not_answer_blocks_the_prune_of_a_rebuild_and_nothing_else() {
    let mut world = World::alone();
    let repo = three(&world);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "keep");
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_file(world.path("state/history.db")).unwrap();
    // With the mirror there, the last revision may be applied first, and the prune be intent.
    std::fs::remove_dir_all(world.path("state/mirrors")).unwrap();
    world.cluster().apply(&mk_dead_api());
    world.eventually("the group is known and does not answer", |world| {
        let service = world.cluster().get("", "apiservice", "v1.dead.example").unwrap_or_default();
        service.pointer("/status/conditions/0/status") == Some(&json!("False"))
    });
    repo.remove("apps/apps/gone.yaml");
    repo.write("apps/apps/new.yaml", &map(&world, "new", "1"));
    repo.write("apps/apps/more.yaml", &map(&world, "more", "2"));
    push(&repo, "one leaves, one comes, one changes");
    world.start();
    world.settled();
    let more = world.get("configmap", "more").unwrap_or_default();
    assert!(there(&world, "new") && more["data"]["key"] == "2", "applying goes on");
    world.eventually("it is said what is missing", |world| {
        let log = world.log();
        log.contains("left alone until all can be listed") && log.contains("dead.example")
    });
    repo.write("apps/apps/more.yaml", &map(&world, "more", "3"));
    push(&repo, "and on");
    assert!(world.reconcile(), "{}", world.log());
    assert!(there(&world, "gone"), "nobody can say what is in that group: {}", world.log());

    world.cluster().kubectl_ok(&["delete", "apiservice", "v1.dead.example"]);
    world.eventually("once all groups answer it is pruned", |world| !there(world, "gone"));
    world.settled();
    assert_eq!(names(&world), ["keep", "more", "new", "theirs"]);
    assert_eq!(world.uid("configmap", "keep"), uid);
}
