//! What image automation costs: figures are printed, and bounds are generous.

use super::{Setting, Stage};
use crate::bed::RegistryServer;
use crate::world::World;
use std::fs;
use std::time::{Duration, Instant};

/// Repositories of the idle figure, their interval, and how long they are watched.
const MANY: usize = 50;
const INTERVAL: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);

/// Tags of the large repository.
const TAGS: usize = 5000;

/// MiB of one line of `/proc/PID/status`.
fn memory(pid: u32, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel says so");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
    kib.expect("a number") / 1024.0
}

/// Processor time that a process has used; the kernel counts in hundredths of a second.
fn processor(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes that a process has caused to be written to a disk.
fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

#[test]
fn fifty_repositories_in_which_nothing_happens_cost_a_request_each_and_no_write() {
    let mut world = World::new();
    let registry = RegistryServer::plain();
    let mut objects = Vec::new();
    for n in 0..MANY {
        registry.push(&format!("games/app{n}"), "a-1", "x");
        objects.push(format!(
            "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nmetadata:\n  \
             name: app{n}\n  namespace: flux-system\nspec:\n  image: {}\n  interval: {}s\n  \
             insecure: true\n",
            registry.image(&format!("games/app{n}")),
            INTERVAL.as_secs()
        ));
        let policy = super::mk_policy(&format!("a{n}"), "asc");
        objects.push(
            policy
                .replace("{name: app}", &format!("{{name: app{n}}}"))
                .replace(&format!("'^a{n}-"), "'^a-"),
        );
    }
    let _config = world.entry(&[("clusters/my-cluster/all.yaml", objects.join("---\n"))]);
    world.start();
    world.settled();
    // What follows a start by a second or two.
    std::thread::sleep(Duration::from_secs(5));
    let lists = || registry.count("/tags/list");
    let (requests, bytes, used) = (lists(), written(world.pid()), processor(world.pid()));
    let marked = world.cluster().mark();
    std::thread::sleep(WATCHED);
    let (requests, bytes) = (lists() - requests, written(world.pid()) - bytes);
    let used = processor(world.pid()) - used;
    let asked = world.cluster().audit_of(&world.user, marked).len();
    let rounds = WATCHED.as_secs_f64() / INTERVAL.as_secs_f64();
    println!(
        "{MANY} repositories in {WATCHED:?}, scanned every {INTERVAL:?}: {:.2} requests each and \
         interval, {bytes} bytes written, {used:?} of processor time ({:.2} ms for a scan), {asked} \
         requests to the API server, {:.1} MiB resident",
        requests as f64 / MANY as f64 / rounds,
        used.as_secs_f64() * 1000.0 / requests.max(1) as f64,
        memory(world.pid(), "VmRSS:"),
    );
    let most = (rounds as usize + 1) * MANY;
    assert!((MANY..=most).contains(&requests), "{requests} requests");
    assert_eq!((bytes, asked), (0, 0), "nothing is written, and the API server is not asked");
    assert!(used < WATCHED / 4, "{used:?}");
}

#[test]
fn five_thousand_tags_are_chosen_from_in_little_memory() {
    let stage = Stage::new(&Setting::default());
    let before = memory(stage.world.pid(), "VmHWM:");
    let tags: Vec<String> = (2..TAGS + 2).map(|n| format!("a-{n}")).collect();
    stage.registry.push_many("games/app", &tags, "x");
    let began = Instant::now();
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    let took = began.elapsed();
    stage.arrived("a", &(TAGS + 1).to_string());
    let shown = stage.world.json(&["images", "a"]);
    assert_eq!(shown[0]["tags"], TAGS + 1, "all of them are known");
    let peak = memory(stage.world.pid(), "VmHWM:");
    println!(
        "{TAGS} tags: scanned, chosen, committed and deployed in {took:?}; highest resident memory \
         {peak:.1} MiB, {before:.1} MiB before, {:.1} MiB now",
        memory(stage.world.pid(), "VmRSS:")
    );
    assert!(peak < 150.0 && peak - before < 60.0, "{before:.1} MiB, then {peak:.1} MiB");
}
