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
