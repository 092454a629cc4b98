//! What has left Git, what only seems to have, and what is asked about before it goes.

use crate::bed::{Cluster, Repo};
use crate::world::{App, World, mk_config_map, mk_kustomization};
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for a deletion that must not come: those beside it took milliseconds.
const A_WHILE: Duration = Duration::from_secs(2);

fn there(world: &World, name: &str) -> bool {
    world.get("configmap", name).is_some()
}

fn push(repo: &Repo, message: &str) {
    repo.commit(message);
    repo.push("main");
}

/// An object with the labels of a Kustomization.
pub fn of(owner: &str, text: &str) -> String {
    let labels = format!(
        "metadata:\n  labels:\n    kustomize.toolkit.fluxcd.io/name: {owner}\n    \
         kustomize.toolkit.fluxcd.io/namespace: flux-system\n"
    );
    text.replacen("metadata:\n", &labels, 1)
}

/// How an object is applied as Flux does, and we.
pub const AS_FLUX: [&str; 5] =
    ["apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"];

/// Applies an object as one that a Kustomization has made and no inventory of ours knows.
pub fn plant(cluster: &Cluster, owner: &str, text: &str) {
    let text = of(owner, text);
    assert!(cluster.kubectl_with_input(&AS_FLUX, &text).status.success(), "{text}");
}

/// A start that knows of the last revision nothing but what the record says.
fn start_without_mirrors(world: &mut World) {
    std::fs::remove_dir_all(world.path("state/mirrors")).expect("there are mirrors");
    world.start();
}

#[test]
fn what_a_parent_that_does_not_run_declared_has_not_left_git() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let map = |name: &str| mk_config_map(&ns, name, "1");
    let child = |of: &str| mk_kustomization(&format!("of-{of}"), &format!("./apps/of-{of}"), "");
    let parent = |name: &str| [("a.yaml", map(name)), ("child.yaml", child(name))];
    let (host, git, blocked) = (parent("host"), parent("git"), parent("blocked"));
    let one = |name: &str| [("a.yaml", map(name))];
    let repo = world.apps(&[
        App { name: "host", spec: "", files: &host },
        App { name: "git", spec: "", files: &git },
        App { name: "blocked", spec: "", files: &blocked },
        App { name: "going", spec: "", files: &one("going") },
        App { name: "staying", spec: "", files: &one("staying") },
        App { name: "as-well", spec: "", files: &one("as-well") },
    ]);
    let children = ["of-host", "of-git", "of-blocked"];
    for name in children {
        repo.write(&format!("apps/{name}/a.yaml"), &map(name));
    }
    push(&repo, "the children");
    world.start();
    world.settled();
    assert!(children.iter().all(|name| there(&world, name)));

    world.ok(&["suspend", "host", "--reason", "not now"]);
    for (name, line) in [("git", "  suspend: true\n"), ("blocked", "  serviceAccountName: x\n")] {
        let text = mk_kustomization(name, &format!("./apps/{name}"), line);
        repo.write(&format!("clusters/my-cluster/{name}.yaml"), &text);
    }
    push(&repo, "two do not run any more");
    world.eventually("they are stopped", |world| {
        world.run(&["reconcile", "flux-system", "--with-source"]);
        world.message("blocked").contains("serviceAccountName")
    });
    assert_eq!(world.stop(), Some(0));
    repo.remove("clusters/my-cluster/going.yaml");
    // It leaves too, but nobody can say so before its parent runs again.
    repo.remove("apps/host/child.yaml");
    push(&repo, "two leave unseen");
    start_without_mirrors(&mut world);
    world.eventually("what left Git goes", |world| !there(world, "going"));
    std::thread::sleep(A_WHILE);
    assert!(children.iter().all(|name| there(&world, name)), "{}", world.log());
    assert_eq!(world.status()["held"], json!([]), "and nothing is asked about them");
    world.ok(&["resume", "host"]);
    world.eventually("its parent has spoken", |world| !there(world, "of-host"));
    assert!(there(&world, "of-git") && there(&world, "of-blocked"));

    // A suspended parent that leaves spares its children, though they never came to the graph.
    repo.remove("clusters/my-cluster/git.yaml");
    push(&repo, "the suspended one leaves");
    world.eventually("it is gone", |world| {
        world.run(&["reconcile", "flux-system", "--with-source"]);
        world.log().contains("Kustomization/flux-system/git left Git")
    });
    world.kill();
    start_without_mirrors(&mut world);
    world.eventually("what became of the child is settled", |world| {
        world.log().contains("of-git left Git while")
    });
    std::thread::sleep(A_WHILE);
    assert!(there(&world, "git") && there(&world, "of-git"), "{}", world.log());
}

/// What is held of a Kustomization, as sets of objects.
fn held(world: &World, name: &str) -> Vec<Value> {
    let owner = format!("flux-system/{name}");
    let all = world.status()["held"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|held| held["owner"] == owner.as_str()).collect()
}

#[test]
fn a_definition_is_held_for_what_controllers_made_of_it_but_not_once_it_is_gone() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let group = format!("{ns}.test.invalid");
    let definition = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
         name: things.{group}\nspec:\n  group: {group}\n  scope: Namespaced\n  \
         names: {{kind: Thing, plural: things}}\n  versions:\n  - name: v1\n    served: true\n    \
         storage: true\n    schema: {{openAPIV3Schema: {{type: object}}}}\n"
    );
    let files = [("definition.yaml", definition)];
    let stays = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    let repo = world.apps(&[
        App { name: "kinds", spec: "", files: &files },
        App { name: "staying", spec: "", files: &stays },
    ]);
    world.start();
    world.settled();
    let made = format!(
        "apiVersion: {group}/v1\nkind: Thing\nmetadata:\n  name: made\n  namespace: {ns}\n  \
         ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: a, uid: {}}}]\n",
        world.uid("configmap", "a")
    );
    world.cluster().apply(&made);
    repo.remove("clusters/my-cluster/kinds.yaml");
    push(&repo, "the definition leaves");
    world.eventually("it is held", |world| {
        world.run(&["reconcile", "flux-system", "--with-source"]);
        !held(world, "kinds").is_empty()
    });
    let name = format!("CustomResourceDefinition/things.{group}");
    assert_eq!(held(&world, "kinds")[0]["objects"], json!([name]));
    let things = format!("things.{group}");
    assert!(world.get(&things, "made").is_some(), "its owner lives on, and it would not");

    // As after a kill between its deletion and the record of that.
    assert_eq!(world.stop(), Some(0));
    world.cluster().kubectl_ok(&["delete", "customresourcedefinition", &things]);
    let said = world.log().len();
    world.start();
    world.eventually("its end is over", |world| {
        world.log()[said..].contains("Kustomization/flux-system/kinds left Git: ")
    });
    assert_eq!(world.stop(), Some(0));
    let database = rusqlite::Connection::open(world.path("state/history.db")).unwrap();
    let count = "SELECT count(*) FROM inventory WHERE owner = 'flux-system/kinds'";
    let left: i64 = database.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "what is gone is held no longer");
}

#[test]
fn what_waits_of_a_kustomization_that_left_goes_by_its_own_digest_only() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    let claim = format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  \
         namespace: {ns}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n"
    );
    let files = [("claim.yaml", claim), ("a.yaml", mk_config_map(&ns, "a", "1"))];
    let stays = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "going", spec: "", files: &files },
        App { name: "staying", spec: "", files: &stays },
    ]);
    world.start();
    world.settled();
    assert_eq!(world.stop(), Some(0));
    repo.remove("clusters/my-cluster/going.yaml");
    push(&repo, "one leaves unseen");
    plant(world.cluster(), "going", &mk_config_map(&ns, "stray", "1"));
    start_without_mirrors(&mut world);
    world.eventually("the rest goes, claim and stray are held", |world| {
        !there(world, "a") && held(world, "going").len() == 2
    });
    let claim = json!([format!("PersistentVolumeClaim/{ns}/data")]);
    let digest_of = |world: &World, claims: bool| {
        let held = held(world, "going");
        let found = held.into_iter().find(|held| (held["objects"] == claim) == claims);
        found.expect("it is held")["digest"].as_str().expect("a digest").to_owned()
    };
    let strays = digest_of(&world, false);
    world.ok(&["confirm", &digest_of(&world, true)]);
    world.eventually("the claim goes", |world| {
        let claim = world.get("pvc", "data");
        claim.is_none_or(|claim| claim["metadata"]["deletionTimestamp"] != Value::Null)
    });
    std::thread::sleep(A_WHILE);
    assert!(there(&world, "stray"), "nobody said so: {}", world.log());
    assert_eq!(digest_of(&world, false), strays);
    world.ok(&["confirm", &strays]);
    world.eventually("confirmed, it goes", |world| !there(world, "stray"));
    world.eventually("nothing waits", |world| held(world, "going").is_empty());
}

#[test]
fn all_children_of_one_parent_are_held_alike_over_a_restart_and_end_by_one_word() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let map = |name: &str| mk_config_map(&ns, name, "1");
    let child = |name: &str| mk_kustomization(name, &format!("./apps/{name}"), "");
    let parent =
        [("one.yaml", child("one")), ("two.yaml", child("two")), ("a.yaml", map("of-the-parent"))];
    let others: Vec<String> = (0..5).map(|number| format!("other-{number}")).collect();
    let files: Vec<_> = others.iter().map(|name| [("a.yaml", map(name))]).collect();
    let mut apps = vec![App { name: "parent", spec: "", files: &parent }];
    let beside = others.iter().zip(&files);
    apps.extend(beside.map(|(name, files)| App { name, spec: "", files }));
    let repo = world.apps(&apps);
    // One of the two declares another itself.
    repo.write("apps/one/deep.yaml", &child("deep"));
    for name in ["one", "two", "deep"] {
        repo.write(&format!("apps/{name}/a.yaml"), &map(name));
    }
    push(&repo, "the children");
    world.start();
    world.settled();
    let all = ["one", "two", "deep"];
    assert!(all.iter().all(|name| there(&world, name)));

    repo.remove("apps/parent/one.yaml");
    repo.remove("apps/parent/two.yaml");
    push(&repo, "the parent loses both");
    world.eventually("they are held", |world| {
        world.run(&["reconcile", "flux-system", "--with-source"]);
        world.run(&["reconcile", "parent"]);
        !held(world, "parent").is_empty()
    });
    let before = world.status()["held"].clone();
    let reason = "Kustomization/flux-system/parent lost 2 of its 2 children at once";
    assert_eq!(before.as_array().map(Vec::len), Some(1), "{before:#}");
    assert_eq!(before[0]["reason"], reason);

    // They are two of eight that the record knows, and three with what hangs from them.
    assert_eq!(world.stop(), Some(0));
    let said = world.log().len();
    world.start();
    world.eventually("they are held again", |world| {
        world.log()[said..].contains(reason) || world.log()[said..].contains("left Git")
    });
    std::thread::sleep(A_WHILE);
    assert!(all.iter().all(|name| there(&world, name)), "{}", &world.log()[said..]);
    assert_eq!(world.status()["held"], before, "one digest, in the same words");

    world.ok(&["confirm", before[0]["digest"].as_str().expect("a digest")]);
    world.eventually("one word ends all", |world| {
        all.iter().all(|name| !there(world, name)) && world.status()["held"] == json!([])
    });
    assert!(there(&world, "of-the-parent"));
    assert!(others.iter().all(|name| there(&world, name)));
}
