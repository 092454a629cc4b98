//! What the daemon does while something it needs is away, and once that is back.

use crate::bed::{Fault, Mark, Repo};
use crate::world::{App, World, mk_config_map, mk_deployment, mk_kustomization, mk_namespace};
use std::fmt::Write as _;

/// One Kustomization with one ConfigMap, in the scenario's namespace.
fn one_app(world: &World) -> Repo {
    let files = [("a.yaml", mk_config_map(&world.namespace, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }])
}

/// The same where the API server is away and nobody can make a namespace: the entry brings it.
fn one_app_with_namespace(world: &World) -> Repo {
    world.entry(&[
        ("clusters/my-cluster/namespace.yaml", mk_namespace(&world.namespace)),
        ("clusters/my-cluster/apps.yaml", mk_kustomization("apps", "./apps", "")),
        ("apps/a.yaml", mk_config_map(&world.namespace, "a", "1")),
    ])
}

fn value(world: &World, name: &str) -> Option<String> {
    let object = world.get("configmap", name)?;
    Some(object["data"]["key"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn without_an_api_server_the_daemon_starts_says_so_and_converges_once_it_answers() {
    let mut world = World::alone();
    one_app_with_namespace(&world);
    world.cluster().stop("kube-apiserver");
    world.start();
    world.eventually("what was read from Git is shown, and why it is not applied", |world| {
        world.message("flux-system").contains("no connection to the API server")
    });
    let status = world.status();
    assert_eq!(status["cluster"]["connected"], false);
    assert_ne!(status["cluster"]["message"], "");
    assert_eq!(status["ready"], false);
    assert!(status["line"].as_str().unwrap().contains("API server"), "{status:#}");
    assert_eq!(world.source()["ready"], "True", "Git answers");
    assert_eq!(world.run(&["status"]).status.code(), Some(1));

    world.cluster().start("kube-apiserver");
    world.settled();
    assert_eq!(value(&world, "a").as_deref(), Some("1"));
    assert_eq!(world.run(&["status"]).status.code(), Some(0));
}

#[test]
fn an_api_server_that_goes_away_in_the_middle_costs_nothing_but_time() {
    let mut world = World::alone();
    let repo = one_app_with_namespace(&world);
    world.start();
    world.settled();
    let uid = world.uid("configmap", "a");

    world.cluster().stop("kube-apiserver");
    repo.write("apps/a.yaml", &mk_config_map(&world.namespace, "a", "2"));
    repo.write("apps/b.yaml", &mk_config_map(&world.namespace, "b", "2"));
    repo.commit("second");
    repo.push("main");
    assert!(!world.reconcile(), "nothing can be applied");
    world.eventually("the outage is told", |world| {
        world.status()["cluster"]["connected"] == false && !world.is_ready("apps")
    });
    assert_eq!(world.run(&["status"]).status.code(), Some(1));

    world.cluster().start("kube-apiserver");
    world.settled();
    assert_eq!(value(&world, "a").as_deref(), Some("2"));
    assert_eq!(value(&world, "b").as_deref(), Some("2"));
    assert_eq!(world.uid("configmap", "a"), uid, "it was changed, not made anew");

    // Connections stay open and nobody answers: the worst kind of away.
    world.cluster().freeze("kube-apiserver");
    let asked = world.run(&["reconcile", "apps"]);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&asked.stdout), said(&asked.stderr));
    assert_eq!(asked.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("apps not verified, was ready at main@"), "{out}");
    assert!(err.contains("API server: no answer within 5 s"), "{err}");
    assert_eq!(world.run(&["status"]).status.code(), Some(1));
    repo.write("apps/a.yaml", &mk_config_map(&world.namespace, "a", "3"));
    repo.commit("third");
    repo.push("main");
    world.run(&["reconcile", "--with-source", "--no-wait"]);
    world.eventually("the source moves on, the socket answers", |world| {
        world.source()["subject"] == "third"
    });
    world.cluster().thaw("kube-apiserver");
    world.eventually("the third commit is applied", |world| {
        value(world, "a").as_deref() == Some("3")
    });
    world.settled();
}

#[test]
fn after_an_outage_the_kubeconfig_is_read_again_and_a_live_flux_is_seen() {
    let mut world = World::alone();
    let repo = one_app_with_namespace(&world);
    world.start();
    world.settled();
    let good = std::fs::read_to_string(world.path("kubeconfig")).unwrap();
    world.cluster().stop("kube-apiserver");
    world.eventually("the outage is told", |world| world.status()["cluster"]["connected"] == false);
    std::fs::write(world.path("kubeconfig"), "clusters: [").unwrap();
    world.cluster().start("kube-apiserver");
    world.eventually("the new kubeconfig is looked at", |world| {
        let status = world.status();
        let message = status["cluster"]["message"].as_str().unwrap();
        message.contains("kubeconfig") && message.contains("cannot be used")
    });
    std::fs::write(world.path("kubeconfig"), good).unwrap();
    world.settled();

    // Somebody starts Flux: two owners would fight over every object.
    let controller = mk_deployment("flux-system", "kustomize-controller", "1").replacen(
        "metadata:\n",
        "metadata:\n  labels: {app.kubernetes.io/part-of: flux}\n",
        1,
    );
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&controller);
    world.cluster().stop("kube-apiserver");
    world.cluster().start("kube-apiserver");
    world.eventually("Flux is seen", |world| {
        world.status()["cluster"]["message"].as_str().unwrap().contains("two owners")
    });
    let mark = world.cluster().mark();
    repo.write("apps/a.yaml", &mk_config_map(&world.namespace, "a", "2"));
    repo.commit("second");
    repo.push("main");
    assert!(!world.reconcile());
    let writes =
        world.cluster().audit(mark).into_iter().filter(|request| {
            !["get", "list", "watch"].contains(&request["verb"].as_str().unwrap())
        });
    assert_eq!(writes.collect::<Vec<_>>(), Vec::<serde_json::Value>::new());
    // flux-operator would start it again: it has to go first, and is named.
    let operator = mk_deployment("flux-system", "flux-operator", "1").replacen(
        "metadata:\n",
        "metadata:\n  labels: {app.kubernetes.io/name: flux-operator}\n",
        1,
    );
    world.cluster().apply(&operator);
    world.eventually("flux-operator is seen", |world| {
        world.status()["cluster"]["message"].as_str().unwrap().contains("own flux-operator")
    });
    let scale = ["-n", "flux-system", "scale", "deployment", "--all", "--replicas=0"];
    world.cluster().kubectl_ok(&scale);
    world.eventually("handed over", |world| value(world, "a").as_deref() == Some("2"));
}

#[test]
fn every_object_is_compared_once_in_a_while_whatever_the_watches_say() {
    let mut world = World::new();
    world.configure("cluster: {shared: true, verify: 10s}\n");
    one_app(&world);
    world.start();
    world.settled();
    let mark = world.cluster().mark();
    world.eventually("the object is asked about", |world| {
        world.cluster().audit_of(&world.user, mark).iter().any(|request| {
            let uri = request["requestURI"].as_str().unwrap();
            uri.contains("configmaps/a") && uri.contains("dryRun=All")
        })
    });
    let runs = world.json(&["history", "apps"]);
    assert_eq!(runs.as_array().unwrap().len(), 1, "a look that finds nothing is no run");
}

/// When each look at a ConfigMap was asked for, and each heal, in milliseconds.
fn looks(world: &World, since: Mark) -> (Vec<i64>, Vec<i64>) {
    let (mut looks, mut heals) = (Vec::new(), Vec::new());
    for request in world.cluster().audit_of(&world.user, since) {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let at: jiff::Timestamp = text("requestReceivedTimestamp").parse().unwrap();
        if !text("requestURI").contains(&format!("/namespaces/{}/configmaps/", world.namespace)) {
            continue;
        }
        let heal = text("verb") == "patch" && !text("requestURI").contains("dryRun=All");
        if heal { &mut heals } else { &mut looks }.push(at.as_millisecond());
    }
    looks.sort_unstable();
    (looks, heals)
}

#[test]
fn the_comparison_without_a_cause_is_paced_and_delays_no_heal() {
    const OBJECTS: usize = 200;
    let mut world = World::new();
    world.configure("cluster: {shared: true, verify: 10s}\n");
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("m{number}.yaml")).collect();
    let maps: Vec<(&str, String)> = names
        .iter()
        .map(|name| {
            let map = mk_config_map(&world.namespace, name.trim_end_matches(".yaml"), "1");
            (name.as_str(), map)
        })
        .collect();
    world.apps(&[App { name: "apps", spec: "", files: &maps }]);
    world.start();
    world.settled();
    // What a first run leaves to be looked at is over before the comparison begins.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let since = world.cluster().mark();
    let asked = |world: &World| looks(world, since).0.len();
    world.eventually("it begins", |world| asked(world) >= 100);
    // The last one that it would come to.
    let patch = r#"{"data": {"key": "by hand"}}"#;
    world.cluster().kubectl_ok(&["-n", &world.namespace, "patch", "configmap", "m99", "-p", patch]);
    world.eventually("it is healed", |world| value(world, "m99").as_deref() == Some("1"));
    world.eventually("all are compared", |world| asked(world) >= 2 * OBJECTS);
    let (looks, heals) = looks(&world, since);
    let looks = &looks[..2 * OBJECTS];
    // 50 objects, 100 requests, 5 s: the fourth batch begins 15 s after the first.
    let took = looks[looks.len() - 1] - looks[0];
    assert!(took >= 14_000, "{} requests in {took} ms", looks.len());
    let most = looks.iter().map(|at| looks.iter().filter(|t| (*at..at + 4000).contains(t)).count());
    let most = most.max().unwrap_or_default();
    assert!(most <= 110, "{most} requests within 4 s: a batch has 100, a heal two more");
    let healed = heals[0] - looks[0];
    assert!(healed < took - 4000, "healed after {healed} ms of {took}");
}

#[test]
fn after_a_restart_without_git_the_last_good_revision_is_applied_from_the_mirror() {
    let mut world = World::new();
    let repo = one_app(&world);
    world.start();
    world.settled();
    let revision = world.source()["revision"].clone();
    assert_eq!(world.stop(), Some(0), "{}", world.log());

    world.git.down();
    world.cluster().kubectl_ok(&["-n", &world.namespace, "delete", "configmap", "a"]);
    world.start();
    world.eventually("the object is back with Git down", |world| value(world, "a").is_some());
    world.eventually("the source says why it is not ready", |world| {
        let source = world.source();
        source["ready"] == "False" && source["failure"]["cause"].as_str().is_some()
    });
    let source = world.source();
    assert_eq!(source["revision"], revision, "the last good revision is in force");
    assert!(source["message"].as_str().unwrap().contains(&world.git.url()), "{source:#}");
    world.eventually("its reader is ready all the same", |world| world.is_ready("apps"));
    assert_eq!(world.run(&["status"]).status.code(), Some(1), "the source is not ready");

    repo.write("apps/apps/a.yaml", &mk_config_map(&world.namespace, "a", "2"));
    repo.commit("second");
    repo.push("main");
    world.git.up();
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(value(&world, "a").as_deref(), Some("2"));
}

#[test]
fn a_first_start_without_git_waits_by_name_and_goes_on_by_itself() {
    let mut world = World::new();
    one_app(&world);
    world.git.down();
    world.start();
    world.eventually("the root says what it waits for", |world| {
        let message = world.message("flux-system");
        message.contains("GitRepository/flux-system/flux-system") && message.contains("no revision")
    });
    world.git.up();
    world.settled();
    assert!(value(&world, "a").is_some());
}

#[test]
fn git_that_goes_down_later_leaves_the_workloads_alone_and_is_taken_up_again() {
    let mut world = World::new();
    let repo = one_app(&world);
    world.start();
    world.settled();
    let before = world.get("configmap", "a");

    world.git.fault(Fault::Status(503));
    assert!(!world.reconcile());
    let source = world.source();
    assert_eq!(source["ready"], "False");
    assert_eq!(source["reason"], "GitOperationFailed");
    assert!(source["message"].as_str().unwrap().contains("503"), "{source:#}");
    assert!(world.is_ready("apps"), "{}", world.message("apps"));
    assert_eq!(world.get("configmap", "a"), before, "nothing was written");

    // What is drifting meanwhile is healed from the revision in force.
    world.cluster().kubectl_ok(&["-n", &world.namespace, "delete", "configmap", "a"]);
    world.eventually("the object is back", |world| value(world, "a").is_some());

    world.git.fault(Fault::HangUp);
    assert!(!world.reconcile());
    world.git.fault(Fault::None);
    repo.write("apps/apps/a.yaml", &mk_config_map(&world.namespace, "a", "2"));
    repo.commit("second");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(value(&world, "a").as_deref(), Some("2"));
}

#[test]
fn a_deleted_branch_is_named_and_its_last_revision_stays_in_force() {
    let mut world = World::new();
    let repo = one_app(&world);
    world.start();
    world.settled();
    let revision = world.source()["revision"].clone();

    repo.push("mian");
    let bare = repo.bare().to_str().unwrap().to_owned();
    repo.git(&["--git-dir", &bare, "update-ref", "-d", "refs/heads/main"]);
    assert!(!world.reconcile());
    let source = world.source();
    assert_eq!(source["ready"], "False");
    let message = source["message"].as_str().unwrap();
    assert!(message.contains("branch main") && message.contains("mian"), "{message}");
    assert_eq!(source["revision"], revision);
    assert!(world.is_ready("apps"));
    assert!(value(&world, "a").is_some());

    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
}

#[test]
fn rewritten_history_is_followed() {
    let mut world = World::new();
    let repo = one_app(&world);
    let first = repo.head();
    repo.write("apps/apps/b.yaml", &mk_config_map(&world.namespace, "b", "2"));
    repo.commit("second");
    repo.push("main");
    world.start();
    world.settled();
    assert!(value(&world, "b").is_some());

    repo.reset(&first);
    repo.write("apps/apps/c.yaml", &mk_config_map(&world.namespace, "c", "3"));
    let rewritten = repo.commit("rewritten");
    repo.force_push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert!(value(&world, "c").is_some());
    assert_eq!(value(&world, "b"), None, "it is in no revision of the branch any more");
    assert_eq!(world.source()["revision"], format!("main@sha1:{rewritten}"));
}

/// Names of the ConfigMaps `cm-…` in the scenario's namespace.
fn numbered(world: &World) -> Vec<String> {
    let arguments = ["-n", &world.namespace, "get", "configmap", "-o", "name"];
    let names = world.cluster().kubectl_ok(&arguments);
    names.lines().filter_map(|name| Some(name.split_once("/cm-")?.1.to_owned())).collect()
}

fn many(world: &World, numbers: std::ops::Range<u32>) -> String {
    numbers.fold(String::new(), |mut text, number| {
        let object = mk_config_map(&world.namespace, &format!("cm-{number:03}"), "1");
        let _ = write!(text, "---\n{object}");
        text
    })
}

#[test]
fn killed_in_the_middle_of_its_first_run_the_next_start_finishes_and_orphans_nothing() {
    const ALL: u32 = 400;
    let mut world = World::new();
    let files = [("all.yaml", many(&world, 0..ALL))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.eventually("some objects are there", |world| !numbered(world).is_empty());
    world.kill();
    let done = numbered(&world).len();
    assert!(done < ALL as usize, "killed too late to show anything");

    // Of what was applied, the first leaves Git before the daemon is back.
    repo.write("apps/apps/all.yaml", &many(&world, 1..ALL));
    repo.commit("without the first");
    repo.push("main");
    world.start();
    world.eventually("the second commit is applied", |world| {
        world.is_ready("apps")
            && world.item("Kustomization/flux-system/apps")["subject"] == "without the first"
    });
    world.settled();
    let names = numbered(&world);
    assert_eq!(names.len(), ALL as usize - 1, "{done} were there at the kill");
    assert!(!names.contains(&"000".to_owned()), "nothing is orphaned");
    let runs = world.json(&["history", "apps", "-n", "100"]);
    let verdicts: Vec<&str> =
        runs.as_array().unwrap().iter().map(|run| run["verdict"].as_str().unwrap()).collect();
    assert!(verdicts.contains(&"interrupted"), "{verdicts:?}");
    assert!(verdicts.contains(&"succeeded"), "{verdicts:?}");
}
