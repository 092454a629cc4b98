//! What systemd, and an operator who watches, are told while things happen.

use crate::bed::dying;
use crate::world::{App, PATIENCE, World, mk_config_map};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Waits for a message that holds a text, and answers all that came until then.
fn until(told: &UnixDatagram, wanted: &str) -> Vec<String> {
    told.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (began, mut heard, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
    while began.elapsed() < PATIENCE {
        let Ok(length) = told.recv(&mut buffer) else { continue };
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        if heard.last().is_some_and(|said| said.contains(wanted)) {
            return heard;
        }
    }
    panic!("{wanted} was not told: {heard:?}");
}

#[test]
fn systemd_hears_ready_the_status_the_watchdog_and_the_end() {
    let mut world = World::new();
    let files = [("a.yaml", mk_config_map(&world.namespace, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    let socket = world.path("notify");
    let told = UnixDatagram::bind(&socket).unwrap();
    let mut env = dying("env");
    env.arg(format!("NOTIFY_SOCKET={}", socket.display())).arg("WATCHDOG_USEC=2000000");
    world.start_under(env);
    let first = until(&told, "READY=1");
    assert!(!first.iter().any(|said| said.contains("WATCHDOG=1")), "{first:?}");
    until(&told, "STATUS=main@");
    until(&told, "2/2 Kustomizations ready, 1 objects");
    until(&told, "WATCHDOG=1");
    until(&told, "WATCHDOG=1");
    assert_eq!(world.stop(), Some(0));
    until(&told, "STOPPING=1");
}

#[test]
fn who_watches_the_status_sees_a_change_without_asking_again() {
    let mut world = World::new();
    let files = [("a.yaml", mk_config_map(&world.namespace, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let mut child = world.lasting(&["status", "-w"]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (line, heard) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|said| line.send(said)));
    let until = |wanted: &str| {
        let began = Instant::now();
        let mut seen = Vec::new();
        while began.elapsed() < PATIENCE {
            let Ok(said) = heard.recv_timeout(Duration::from_secs(1)) else { continue };
            seen.push(said);
            if seen.last().is_some_and(|said| said.contains(wanted)) {
                return;
            }
        }
        panic!("{wanted} was not shown: {seen:?}");
    };
    until("flux-system/apps");
    world.ok(&["suspend", "apps", "--reason", "a word with the neighbours"]);
    until("a word with the neighbours");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Lines of the log that have all of these words.
fn lines(world: &World, words: &[&str]) -> usize {
    let all = |line: &&str| words.iter().all(|word| line.contains(word));
    world.log().lines().filter(all).count()
}

#[test]
fn a_failure_is_told_once_whatever_the_retries_and_so_is_its_end() {
    let mut world = World::new();
    let failed = ["ERROR", "Kustomization/flux-system/apps: "];
    let files = [("a.yaml", "kind: [\n".to_owned())];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    let change = |text: &str, subject: &str| {
        repo.write("apps/apps/a.yaml", text);
        repo.commit(subject);
        repo.push("main");
    };
    world.start();
    world.eventually("it is told", |world| lines(world, &failed) > 0);
    // It is tried again each second anyway.
    for _ in 0..3 {
        assert!(!world.run(&["reconcile", "apps"]).status.success());
    }
    assert_eq!(lines(&world, &failed), 1, "{}", world.log());
    change(&mk_config_map(&world.namespace, "a", "1"), "mended");
    assert!(world.reconcile(), "{}", world.log());
    // The same words after a success are news.
    change("kind: [\n", "broken again");
    assert!(!world.reconcile());
    assert_eq!(lines(&world, &failed), 2, "{}", world.log());
    change(&mk_config_map(&world.namespace, "a", "1"), "mended again");
    assert!(world.reconcile(), "{}", world.log());
    let healthy = ["Kustomization/flux-system/apps: healthy again"];
    assert_eq!(lines(&world, &healthy), 1, "nothing had to be written: {}", world.log());
}

#[test]
fn deletions_that_are_held_are_told_once_and_not_by_each_run_that_judges_them() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let claim = format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  namespace: {ns}\n\
         spec:\n  accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    );
    let files = [("a.yaml", mk_config_map(&ns, "a", "0")), ("claim.yaml", claim)];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    repo.remove("apps/apps/claim.yaml");
    for value in ["1", "2", "3"] {
        repo.write("apps/apps/a.yaml", &mk_config_map(&ns, "a", value));
        repo.commit(value);
        repo.push("main");
        world.reconcile();
        world.eventually("it is applied", |world| {
            world.get("configmap", "a").is_some_and(|map| map["data"]["key"] == value)
        });
    }
    let held = ["WARN", "Kustomization/flux-system/apps: held: deleting"];
    world.eventually("the last run has judged them", |world| {
        world.item("Kustomization/flux-system/apps")["running"] == false
    });
    assert_eq!(lines(&world, &held), 1, "{}", world.log());
}
