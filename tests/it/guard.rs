//! Which deletions wait for a word, and what that word covers.

use crate::bed::Webhook;
use crate::owned::{digest, held, push, there};
use crate::world::{App, World, mk_config_map, mk_namespace};
use serde_json::{Value, json};

#[test]
fn a_render_that_becomes_empty_is_held_until_its_digest_is_confirmed() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [
        ("kustomization.yaml", "resources: [a.yaml, b.yaml]\n".to_owned()),
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("b.yaml", mk_config_map(&ns, "b", "1")),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    repo.write("apps/apps/kustomization.yaml", "resources: []\n");
    push(&world, &repo, "oops");
    assert!(there(&world, "a") && there(&world, "b"), "held");
    let confirmation = digest(&world, "apps");
    let shown = held(&world, "apps");
    assert!(shown["reason"].as_str().unwrap().contains("became empty"), "{shown}");
    let objects = [format!("ConfigMap/{ns}/a"), format!("ConfigMap/{ns}/b")];
    assert_eq!(shown["objects"], json!(objects));
    let text = String::from_utf8(world.run(&["status"]).stdout).unwrap();
    assert!(text.contains(&format!("gitopsd confirm {confirmation}")), "{text}");
    let diff = world.json(&["diff", "apps"]);
    assert_eq!(diff[0]["steps"][0]["verb"], "hold", "{diff}");

    let wrong = world.run(&["confirm", "0123456789ab"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(there(&world, "a") && there(&world, "b"));

    world.ok(&["confirm", &confirmation]);
    world.eventually("both are gone", |world| !there(world, "a") && !there(world, "b"));
    world.settled();
    assert_eq!(world.status()["held"], json!([]));

    // The same accident again is asked about again.
    repo.write("apps/apps/kustomization.yaml", "resources: [a.yaml, b.yaml]\n");
    assert!(push(&world, &repo, "back"), "{}", world.log());
    repo.write("apps/apps/kustomization.yaml", "resources: []\n");
    push(&world, &repo, "oops again");
    assert!(there(&world, "a"), "one confirmation covers one deletion");
}

#[test]
fn a_render_with_flux_objects_alone_is_not_empty() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    repo.write("clusters/my-cluster/own.yaml", &mk_config_map(&ns, "own", "1"));
    repo.commit("an object of the entry's own");
    repo.push("main");
    world.start();
    world.settled();
    assert!(there(&world, "own"));
    repo.remove("clusters/my-cluster/own.yaml");
    assert!(push(&world, &repo, "and away"), "{}", world.log());
    world.eventually("it is gone", |world| !there(world, "own"));
    assert!(there(&world, "a") && held(&world, "flux-system").is_null());
}

#[test]
fn a_render_that_lost_more_than_half_is_held_while_the_rest_of_it_is_applied() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let list = |names: &str| format!("resources: [{names}]\n");
    let mut files: Vec<(&str, String)> = [("a.yaml", "a"), ("b.yaml", "b"), ("c.yaml", "c")]
        .into_iter()
        .chain([("d.yaml", "d"), ("e.yaml", "e")])
        .map(|(file, name)| (file, mk_config_map(&ns, name, "1")))
        .collect();
    files.push(("kustomization.yaml", list("a.yaml, b.yaml, c.yaml, d.yaml, e.yaml")));
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    // Two of five is a change like any other.
    repo.write("apps/apps/kustomization.yaml", &list("a.yaml, b.yaml, c.yaml"));
    assert!(push(&world, &repo, "two less"), "{}", world.log());
    assert!(!there(&world, "d") && !there(&world, "e"));

    repo.write("apps/apps/kustomization.yaml", &list("a.yaml, b.yaml, c.yaml, d.yaml, e.yaml"));
    assert!(push(&world, &repo, "back"), "{}", world.log());
    repo.write("apps/apps/kustomization.yaml", &list("a.yaml, b.yaml"));
    repo.write("apps/apps/a.yaml", &mk_config_map(&ns, "a", "2"));
    push(&world, &repo, "oops");
    assert_eq!(world.get("configmap", "a").unwrap()["data"]["key"], "2", "the rest goes on");
    assert!(["b", "c", "d", "e"].into_iter().all(|name| there(&world, name)), "held");
    let confirmation = digest(&world, "apps");
    let shown = held(&world, "apps");
    assert_eq!(shown["reason"], "the render lost 3 of 5 objects at once", "{shown}");
    let objects = ["c", "d", "e"].map(|name| format!("ConfigMap/{ns}/{name}"));
    assert_eq!(shown["objects"], json!(objects));

    world.ok(&["confirm", &confirmation]);
    world.eventually("they are gone", |world| {
        ["c", "d", "e"].into_iter().all(|name| !there(world, name))
    });
    assert!(there(&world, "a") && there(&world, "b"));
}

/// What a plan says of each deletion that it holds.
fn planned(world: &World) -> Vec<String> {
    let plan = world.json(&["diff", "apps"])[0].clone();
    let steps = plan["steps"].as_array().unwrap_or_else(|| panic!("{plan:#}")).iter();
    let held = steps.filter(|step| step["verb"] == "hold");
    held.map(|step| step["lines"][0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn most_objects_renamed_at_once_are_held_by_plan_and_run_alike_whatever_comes_between() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let names = ["a", "b", "c", "d"];
    let list = |prefix: &str, last: &str| {
        format!("{prefix}resources: [a.yaml, b.yaml, c.yaml, d.yaml{last}]\n")
    };
    let paths = names.map(|name| format!("{name}.yaml"));
    let mut files: Vec<(&str, String)> = vec![("kustomization.yaml", list("", ""))];
    files.extend(paths.iter().zip(names).map(|(path, name)| {
        let text = mk_config_map(&ns, name, "1");
        (path.as_str(), text)
    }));
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let old = |world: &World| names.iter().filter(|name| there(world, name)).count();
    let new =
        |world: &World| names.iter().filter(|name| there(world, &format!("new-{name}"))).count();

    world.ok(&["suspend", "apps"]);
    let prefix = "namePrefix: new-\n";
    repo.write("apps/apps/kustomization.yaml", &list(prefix, ""));
    push(&world, &repo, "other names");
    let head = repo.head();
    world.eventually("the source is there", |world| {
        world.source()["revision"].as_str().is_some_and(|revision| revision.ends_with(&head))
    });
    let plan = planned(&world);
    assert_eq!((plan.len(), new(&world)), (4, 0), "{plan:?}");
    world.ok(&["resume", "apps"]);
    world.eventually("it has run", |world| held(world, "apps") != Value::Null);
    let confirmation = digest(&world, "apps");
    assert!(plan.iter().all(|line| line.contains(&confirmation)), "{plan:?} {confirmation}");
    assert_eq!(held(&world, "apps")["reason"], "the render lost 4 of 4 objects at once");
    assert_eq!((old(&world), new(&world)), (4, 4));

    // The inventory has both by now: another process, and another commit, know which left.
    world.kill();
    repo.write("apps/apps/e.yaml", &mk_config_map(&ns, "e", "1"));
    repo.write("apps/apps/kustomization.yaml", &list(prefix, ", e.yaml"));
    repo.commit("one more");
    repo.push("main");
    world.start();
    world.eventually("the new one is there", |world| there(world, "new-e"));
    world.settled();
    assert_eq!(digest(&world, "apps"), confirmation);
    assert_eq!((old(&world), new(&world), planned(&world).len()), (4, 4, 4));

    world.ok(&["confirm", &confirmation]);
    world.eventually("confirmed, they go", |world| old(world) == 0);
    world.settled();
    assert_eq!((new(&world), held(&world, "apps")), (4, Value::Null));
    // From now on all that is there counts: three of five are a loss, two are not.
    repo.write("apps/apps/kustomization.yaml", &format!("{prefix}resources: [a.yaml, b.yaml]\n"));
    push(&world, &repo, "three less");
    let reason = held(&world, "apps")["reason"].clone();
    assert_eq!(reason, "the render lost 3 of 5 objects at once");
    repo.write(
        "apps/apps/kustomization.yaml",
        &format!("{prefix}resources: [a.yaml, b.yaml, c.yaml]\n"),
    );
    assert!(push(&world, &repo, "two less"), "{}", world.log());
    world.eventually("they go", |world| new(world) == 3 && !there(world, "new-e"));
}

#[test]
fn a_secret_value_in_a_name_is_masked_while_it_is_held_and_when_its_object_goes() {
    const PASSWORD: &str = "swordfish-4711";
    let mut world = World::new();
    let ns = world.namespace.clone();
    let values = format!("names-{ns}");
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {values}, namespace: flux-system}}\n\
         stringData: {{password: {PASSWORD}}}\n"
    ));
    let spec = format!("  postBuild:\n    substituteFrom: [{{kind: Secret, name: {values}}}]\n");
    let files = [
        ("kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
        ("a.yaml", mk_config_map(&ns, "used-${password}", "1")),
    ];
    let stays = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "apps", spec: &spec, files: &files },
        App { name: "staying", spec: "", files: &stays },
    ]);
    world.start();
    world.settled();
    let name = format!("used-{PASSWORD}");
    assert!(there(&world, &name));
    repo.write("apps/apps/kustomization.yaml", "resources: []\n");
    push(&world, &repo, "empty");
    let shown = json!([format!("ConfigMap/{ns}/used-***")]);
    assert_eq!(held(&world, "apps")["objects"], shown);
    for verb in [&["status"][..], &["status", "--json"], &["diff", "apps"], &["history", "apps"]] {
        let said = String::from_utf8(world.run(verb).stdout).unwrap();
        assert!(!said.contains(PASSWORD), "{verb:?}: {said}");
    }
    world.ok(&["confirm", &digest(&world, "apps")]);
    world.eventually("the digest is that of the name itself", |world| !there(world, &name));
    world.settled();

    // Its Kustomization leaves Git, and nobody substitutes anything any more.
    repo.write("apps/apps/kustomization.yaml", "resources: [a.yaml]\n");
    assert!(push(&world, &repo, "back"), "{}", world.log());
    assert!(there(&world, &name));
    repo.remove("clusters/my-cluster/apps.yaml");
    assert!(push(&world, &repo, "it leaves"), "{}", world.log());
    world.eventually("its object goes", |world| !there(world, &name));
    world.settled();
    assert_eq!(world.stop(), Some(0));
    let deleted = format!("ConfigMap/{ns}/used-*** deleted");
    let log = world.log();
    assert!(log.matches(&deleted).count() == 2 && !log.contains(PASSWORD), "{log}");
    let database = rusqlite::Connection::open(world.path("state/history.db")).unwrap();
    let mut rows = database.prepare("SELECT object || ' ' || object_id FROM change").unwrap();
    let told = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let told: Vec<String> = told.map(Result::unwrap).collect();
    assert!(!told.is_empty() && told.iter().all(|text| !text.contains(PASSWORD)), "{told:?}");
}

#[test]
fn a_held_deletion_may_be_confirmed_in_git_and_once_only() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [
        ("kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
        ("a.yaml", mk_config_map(&ns, "a", "1")),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let empty = |message: &str| {
        repo.write("apps/apps/kustomization.yaml", "resources: []\n");
        push(&world, &repo, message);
    };
    empty("on purpose");
    assert!(there(&world, "a"), "held");
    let annotation =
        format!("  annotations: {{gitopsd.io/confirm: {:?}}}\n", digest(&world, "apps"));
    let name = "  name: apps\n";
    repo.replace("clusters/my-cluster/apps.yaml", name, &format!("{name}{annotation}"));
    assert!(push(&world, &repo, "yes"), "{}", world.log());
    world.eventually("it is gone", |world| !there(world, "a"));
    world.settled();

    repo.write("apps/apps/kustomization.yaml", "resources: [a.yaml]\n");
    assert!(push(&world, &repo, "back"), "{}", world.log());
    empty("by accident");
    assert!(there(&world, "a"), "one confirmation covers one deletion");
}

fn mk_claim(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}

/// True once a claim is gone or its deletion has been asked for.
fn leaving(world: &World, name: &str) -> bool {
    let claim = world.get("pvc", name);
    claim.is_none_or(|claim| claim["metadata"]["deletionTimestamp"] != Value::Null)
}

#[test]
fn a_claim_of_a_kustomization_that_left_git_waits_for_its_own_confirmation() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1")), ("d.yaml", mk_claim(&ns, "data"))];
    let stays = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "going", spec: "", files: &files },
        App { name: "staying", spec: "", files: &stays },
    ]);
    world.start();
    world.settled();
    repo.remove("clusters/my-cluster/going.yaml");
    assert!(push(&world, &repo, "one leaves"), "{}", world.log());
    world.eventually("its ConfigMap goes", |world| !there(world, "a"));
    world.eventually("its claim is held", |world| held(world, "going") != Value::Null);
    assert!(!leaving(&world, "data"));
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.eventually("and after a restart", |world| held(world, "going") != Value::Null);
    assert!(!leaving(&world, "data"));
    world.ok(&["confirm", &digest(&world, "going")]);
    world.eventually("confirmed, it goes", |world| leaving(world, "data"));
    world.eventually("nothing waits", |world| held(world, "going") == Value::Null);
}

#[test]
fn a_confirmation_that_was_not_used_is_void_once_its_objects_are_back_in_git() {
    goes_unused(false);
}

#[test]
fn a_confirmation_that_was_not_used_is_void_over_a_restart_too() {
    goes_unused(true);
}

fn goes_unused(restart: bool) {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let claim = mk_claim(&ns, "data");
    let files = [("a.yaml", mk_config_map(&ns, "a", "1")), ("claim.yaml", claim.clone())];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    repo.remove("apps/apps/claim.yaml");
    push(&world, &repo, "no data");
    world.eventually("it is held", |world| held(world, "apps") != Value::Null);
    let first = digest(&world, "apps");
    // It is back in Git, and a word for its deletion comes before anybody has looked.
    world.ok(&["suspend", "apps"]);
    repo.write("apps/apps/claim.yaml", &claim);
    push(&world, &repo, "data after all");
    world.ok(&["confirm", &first]);
    if restart {
        world.kill();
        world.start();
        let apps = "Kustomization/flux-system/apps";
        world.eventually("it is known again", |world| world.item(apps) != Value::Null);
    }
    world.ok(&["resume", "apps"]);
    world.eventually("nothing is held", |world| held(world, "apps") == Value::Null);
    world.settled();
    assert!(!leaving(&world, "data"));
    world.eventually("the word is forgotten", |world| {
        let state = std::fs::read_to_string(world.path("state/state.json")).unwrap();
        !state.contains(&first)
    });
    repo.remove("apps/apps/claim.yaml");
    push(&world, &repo, "no data, again");
    world.eventually("it is held again", |world| held(world, "apps") != Value::Null);
    assert_eq!(digest(&world, "apps"), first, "the same objects");
    assert!(!leaving(&world, "data"));
}

#[test]
fn a_word_outlives_the_runs_that_may_not_delete_yet() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1")), ("d.yaml", mk_claim(&ns, "data"))];
    let other = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "apps", spec: "", files: &files },
        App { name: "other", spec: "", files: &other },
    ]);
    world.start();
    world.settled();
    repo.remove("apps/apps/d.yaml");
    push(&world, &repo, "no data");
    world.eventually("it is held", |world| held(world, "apps") != Value::Null);
    let digest = digest(&world, "apps");
    // What another one wants is not known, so nothing is deleted, confirmed or not.
    repo.write("apps/other/b.yaml", "kind: [");
    repo.write("apps/apps/a.yaml", &mk_config_map(&ns, "a", "2"));
    push(&world, &repo, "a mistake");
    let told = "1 deletion waits until the other Kustomizations";
    let waits = |world: &World| world.ok(&["status", "apps"]).contains(told);
    world.eventually("it waits for the other", waits);
    assert_ne!(held(&world, "apps"), Value::Null, "it is shown meanwhile");
    world.ok(&["confirm", &digest]);
    world.run(&["reconcile", "apps"]);
    assert!(waits(&world) && !leaving(&world, "data"));
    repo.write("apps/other/b.yaml", &mk_config_map(&ns, "b", "2"));
    push(&world, &repo, "mended");
    world.eventually("the word counts", |world| leaving(world, "data"));
    world.eventually("nothing is held", |world| held(world, "apps") == Value::Null);
}

#[test]
fn children_that_were_held_and_come_back_are_at_the_commit_that_brought_them_back() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let (one, two) = (mk_config_map(&ns, "one", "1"), mk_config_map(&ns, "two", "1"));
    let repo = world.apps(&[
        App { name: "one", spec: "", files: &[("m.yaml", one)] },
        App { name: "two", spec: "  dependsOn: [{name: one}]\n", files: &[("m.yaml", two)] },
        App { name: "stays", spec: "", files: &[("m.yaml", mk_config_map(&ns, "stays", "1"))] },
    ]);
    world.start();
    world.settled();
    let declared = ["one", "two"].map(|name| format!("clusters/my-cluster/{name}.yaml"));
    let texts = declared.clone().map(|path| repo.read(&path));
    declared.iter().for_each(|path| repo.remove(path));
    push(&world, &repo, "both leave");
    world.eventually("they are held", |world| world.log().contains("held: "));
    for (path, text) in declared.iter().zip(&texts) {
        repo.write(path, text);
    }
    repo.write("apps/one/m.yaml", &mk_config_map(&ns, "one", "2"));
    repo.write("apps/two/m.yaml", &mk_config_map(&ns, "two", "2"));
    push(&world, &repo, "both are back");
    let value =
        |name: &str| world.get("configmap", name).unwrap_or_default()["data"]["key"].clone();
    world.eventually("both are as Git says", |_| value("one") == "2" && value("two") == "2");
    world.settled();
    let revision = |name: &str| world.item(&format!("Kustomization/flux-system/{name}"));
    let revision = |name: &str| revision(name)["revision"].as_str().unwrap_or_default().to_owned();
    for name in ["one", "two"] {
        assert!(revision(name).contains(&repo.head()), "{name}: {}", revision(name));
    }
}

/// Forbids to delete anything.
fn keep(_object: &Value, _dry: bool) -> Value {
    json!("not now")
}

#[test]
fn what_could_not_be_deleted_beside_a_held_claim_is_tried_again_without_a_word() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1")), ("d.yaml", mk_claim(&ns, "data"))];
    let stays = [("b.yaml", mk_config_map(&ns, "b", "1"))];
    let repo = world.apps(&[
        App { name: "going", spec: "", files: &files },
        App { name: "staying", spec: "", files: &stays },
    ]);
    world.start();
    world.settled();
    let webhook = Webhook::start(keep).registration(&ns, "configmaps");
    world.cluster().apply(&webhook.replace("[CREATE, UPDATE]", "[DELETE]"));
    repo.remove("clusters/my-cluster/going.yaml");
    push(&world, &repo, "one leaves");
    world.eventually("its claim is held", |world| held(world, "going") != Value::Null);
    world.eventually("why the rest stays is told", |world| world.log().contains("not now"));
    assert!(there(&world, "a"));
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);
    world.eventually("the rest goes", |world| !there(world, "a"));
    world.eventually("the claim is held still", |world| held(world, "going") != Value::Null);
    assert!(!leaving(&world, "data"));
    let told = world.log().matches("held: deleting PersistentVolumeClaim").count();
    assert_eq!(told, 1, "{}", world.log());
    world.ok(&["confirm", &digest(&world, "going")]);
    world.eventually("confirmed, it goes", |world| leaving(world, "data"));
    world.eventually("nothing waits", |world| held(world, "going") == Value::Null);
}

#[test]
fn a_claim_that_leaves_git_is_held_while_the_rest_goes() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("b.yaml", mk_config_map(&ns, "b", "1")),
        ("claim.yaml", mk_claim(&ns, "data")),
    ];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    repo.remove("apps/apps/claim.yaml");
    repo.remove("apps/apps/b.yaml");
    push(&world, &repo, "no data");
    world.eventually("the ConfigMap goes", |world| !there(world, "b"));
    assert!(world.get("pvc", "data").is_some());
    let claim = format!("PersistentVolumeClaim/{ns}/data");
    assert_eq!(held(&world, "apps")["objects"], json!([claim]));

    // A restart forgets nothing.
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.eventually("held again", |world| held(world, "apps") != Value::Null);
    assert!(world.get("pvc", "data").is_some());
    world.ok(&["confirm", &digest(&world, "apps")]);
    world.eventually("confirmed, it goes", |world| leaving(world, "data"));
}
