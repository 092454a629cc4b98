//! Another cluster behind the kubeconfig: objects of the same names and with our labels are there,
//! and nobody has said that they are ours.

use crate::bed::{Cluster, Mark, Repo};
use crate::left::plant;
use crate::owned::deleted;
use crate::world::{App, World, mk_config_map, mk_namespace};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Long enough for a deletion that must not come: those beside it took milliseconds.
const A_WHILE: Duration = Duration::from_secs(2);

/// Uids of the scenario's ConfigMaps in one of the clusters.
fn uids(cluster: &Cluster, namespace: &str) -> BTreeMap<String, String> {
    let list = ["-n", namespace, "get", "configmap", "-o", "json"];
    let list: Value = serde_json::from_str(&cluster.kubectl_ok(&list)).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item["metadata"][key].as_str().unwrap().to_owned();
    let entries = items.map(|item| (text(item, "name"), text(item, "uid")));
    entries.filter(|(name, _)| name != "kube-root-ca.crt").collect()
}

fn value(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    cluster.get(namespace, "configmap", name).unwrap_or_default()["data"]["key"].clone()
}

/// The kubeconfig leads to this cluster now, as a wrong one, or the right one again, would.
fn lead_to(world: &World, cluster: &Cluster) {
    std::fs::copy(cluster.kubeconfig(), world.path("kubeconfig")).unwrap();
}

fn push(repo: &Repo, message: &str) {
    repo.commit(message);
    repo.push("main");
}

/// Waits until the daemon has done what it does in a cluster that nobody has confirmed; then it
/// has told so, and deleted nothing.
fn spares(world: &World, cluster: &Cluster, since: Mark, said: usize) {
    world.eventually("it is said what is not done, and what to do", |world| {
        let message = world.status()["cluster"]["message"].to_string();
        let word = "nothing is pruned until gitopsd confirm cluster";
        message.contains(word) && world.log()[said..].contains(word)
    });
    world.settled();
    std::thread::sleep(A_WHILE);
    let none = BTreeSet::new();
    assert_eq!(deleted(cluster, &world.user, since), none, "{}", &world.log()[said..]);
    assert_eq!(world.status()["held"], json!([]));
}

#[test]
fn in_another_cluster_nothing_is_deleted_before_a_word_and_everything_works_after_it() {
    // Both come up at the same time.
    let other = std::thread::spawn(Cluster::start_own);
    let mut world = World::alone();
    let other = other.join().expect("it comes up");
    let ns = world.namespace.clone();
    let map = |name: &str, value: &str| mk_config_map(&ns, name, value);
    let files = [
        ("a.yaml", map("a", "1")),
        ("b.yaml", map("b", "1")),
        ("c.yaml", map("c", "1")),
        ("gone.yaml", map("gone", "1")),
    ];
    let (going, staying) = ([("a.yaml", map("going", "1"))], [("a.yaml", map("staying", "1"))]);
    let repo = world.apps(&[
        App { name: "apps", spec: "", files: &files },
        App { name: "going", spec: "", files: &going },
        App { name: "staying", spec: "", files: &staying },
    ]);
    world.start();
    world.settled();
    assert_eq!(world.stop(), Some(0));
    let (at_home, home) = (uids(world.cluster(), &ns), world.cluster().mark());

    // What the record has as ours, what our own search would take for ours, and what is changed.
    other.apply(&mk_namespace(&ns));
    for (owner, name) in [("apps", "a"), ("apps", "gone"), ("apps", "stray"), ("going", "going")] {
        plant(&other, owner, &map(name, "theirs"));
    }
    let theirs = uids(&other, &ns);
    repo.remove("apps/apps/gone.yaml");
    repo.remove("clusters/my-cluster/going.yaml");
    repo.write("apps/apps/d.yaml", &map("d", "1"));
    push(&repo, "an object and a Kustomization leave, an object comes");
    lead_to(&world, &other);
    let since = other.mark();
    for start in ["the first start", "a later one"] {
        let said = world.log().len();
        world.start();
        world.eventually("what Git declares is applied", |_| {
            value(&other, &ns, "a") == "1" && value(&other, &ns, "d") == "1"
        });
        spares(&world, &other, since, said);
        let found = uids(&other, &ns);
        let same = |(name, uid): (&String, &String)| found.get(name) == Some(uid);
        assert!(theirs.iter().all(same), "{start}: {theirs:#?} {found:#?}");
        let mark = other.get("kube-system", "configmap", "gitopsd-owner");
        assert_eq!(mark, None, "{start}: it is nobody's before a word");
        assert_eq!(world.stop(), Some(0));
    }

    world.start();
    world.eventually("it answers", |world| world.status()["cluster"]["connected"] == true);
    world.ok(&["confirm", "cluster"]);
    let gone = ["configmaps/going", "configmaps/gone", "configmaps/stray"];
    let gone: BTreeSet<String> = gone.map(str::to_owned).into();
    world.eventually("what has left Git goes", |world| {
        deleted(&other, &world.user, since) == gone && uids(&other, &ns).len() == 5
    });
    world.settled();
    assert_eq!(world.status()["cluster"]["message"], "");
    assert_eq!(uids(&other, &ns).get("a"), theirs.get("a"));
    let machine = |cluster: &Cluster| {
        let mark = cluster.get("kube-system", "configmap", "gitopsd-owner").unwrap_or_default();
        mark["data"]["machine"].clone()
    };
    world.eventually("it is ours", |world| machine(&other) == machine(world.cluster()));
    repo.remove("apps/apps/c.yaml");
    repo.write("apps/apps/a.yaml", &map("a", "2"));
    push(&repo, "from now on as ever");
    assert!(world.reconcile(), "{}", world.log());
    world.eventually("it is pruned", |_| other.get(&ns, "configmap", "c").is_none());
    assert_eq!(value(&other, &ns, "a"), "2");
    assert_eq!(world.stop(), Some(0));

    // The one that was known before is the other one now.
    let none = BTreeSet::new();
    assert_eq!(deleted(world.cluster(), &world.user, home), none, "nobody was in there");
    lead_to(&world, world.cluster());
    let said = world.log().len();
    world.start();
    world.eventually("what Git declares is applied", |world| {
        value(world.cluster(), &ns, "a") == "2" && value(world.cluster(), &ns, "d") == "1"
    });
    spares(&world, world.cluster(), home, said);
    let mut found = uids(world.cluster(), &ns);
    assert!(found.remove("d").is_some());
    assert_eq!(found, at_home);
}
