//! A directory with forty Kustomizations is renamed upstream.

use crate::bed::Repo;
use crate::world::{World, mk_config_map, mk_kustomization, mk_namespace};
use serde_json::Value;
use std::collections::BTreeMap;

const CHILDREN: usize = 40;

fn name(number: usize) -> String {
    format!("tenant-{number:02}")
}

/// The entry has one Kustomization of its own and a directory with forty more; each has one
/// ConfigMap.
fn tenants(world: &World) -> Repo {
    let ns = &world.namespace;
    world.cluster().apply(&mk_namespace(ns));
    let repo = world.flux_config();
    let child = |directory: &str, name: &str| {
        let path = format!("./apps/{name}");
        let file = format!("clusters/my-cluster/{directory}{name}.yaml");
        repo.write(&file, &mk_kustomization(name, &path, ""));
        repo.write(&format!("apps/{name}/map.yaml"), &mk_config_map(ns, name, "1"));
    };
    child("", "plain");
    (0..CHILDREN).for_each(|number| child("tenants/", &name(number)));
    repo.commit("first");
    repo.push("main");
    repo
}

/// Uids of all ConfigMaps by name.
fn uids(world: &World) -> BTreeMap<String, String> {
    let list = ["-n", &world.namespace, "get", "configmap", "-o", "json"];
    let list: Value = serde_json::from_str(&world.cluster().kubectl_ok(&list)).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item["metadata"][key].as_str().unwrap().to_owned();
    let entries = items.map(|item| (text(item, "name"), text(item, "uid")));
    entries.filter(|(name, _)| name != "kube-root-ca.crt").collect()
}

fn held(world: &World) -> Vec<Value> {
    world.status()["held"].as_array().cloned().unwrap_or_default()
}

fn rename(repo: &Repo, from: &str, to: &str) {
    repo.git(&["mv", from, to]);
    repo.commit(&format!("{from} is {to} now"));
    repo.push("main");
}

/// How often the journal told of a hold.
fn told(world: &World, digest: &str) -> usize {
    world.log().lines().filter(|line| line.contains("held") && line.contains(digest)).count()
}

/// The one hold, which names all children.
fn one_hold(world: &World) -> String {
    world.eventually("the children are held", |world| !held(world).is_empty());
    let all = held(world);
    assert_eq!(all.len(), 1, "shown once: {all:#?}");
    assert_eq!(all[0]["objects"].as_array().unwrap().len(), CHILDREN, "{all:#?}");
    all[0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_directory_of_forty_that_is_renamed_is_held_shown_and_confirmed_once() {
    let mut world = World::alone();
    let repo = tenants(&world);
    world.start();
    world.settled();
    let first = uids(&world);
    assert_eq!(first.len(), CHILDREN + 1);

    // Within what the entry reads, a name of a directory means nothing.
    rename(&repo, "clusters/my-cluster/tenants", "clusters/my-cluster/customers");
    assert!(world.reconcile(), "{}", world.log());
    world.settled();
    assert_eq!((held(&world), uids(&world)), (Vec::new(), first.clone()));

    // Out of it, all forty have left Git at once.
    rename(&repo, "clusters/my-cluster/customers", "clusters/customers");
    assert!(world.reconcile(), "{}", world.log());
    let digest = one_hold(&world);
    repo.write("apps/plain/map.yaml", &mk_config_map(&world.namespace, "plain", "2"));
    repo.commit("life goes on");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    let plain = world.get("configmap", "plain").unwrap();
    assert_eq!(plain["data"]["key"], "2", "what is not held goes on");
    assert_eq!(one_hold(&world), digest);
    assert_eq!(told(&world, &digest), 1, "{}", world.log());
    assert_eq!(uids(&world), first, "nothing is deleted without a word");

    // The same over a restart, when they are known from the inventory only.
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.settled();
    assert_eq!(one_hold(&world), digest);
    assert_eq!(told(&world, &digest), 2, "{}", world.log());
    assert_eq!(uids(&world), first);

    // A mistake: they are taken up again as they are.
    rename(&repo, "clusters/customers", "clusters/my-cluster/customers");
    assert!(world.reconcile(), "{}", world.log());
    world.settled();
    assert_eq!((held(&world), uids(&world)), (Vec::new(), first.clone()));

    // Meant so: one word for all.
    rename(&repo, "clusters/my-cluster/customers", "clusters/customers");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(one_hold(&world), digest);
    world.ok(&["confirm", &digest]);
    world.eventually("all forty are gone", |world| uids(world).len() == 1);
    world.settled();
    assert_eq!(held(&world), Vec::<Value>::new());
    assert_eq!(uids(&world).get("plain"), first.get("plain"));
}
