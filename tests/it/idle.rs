//! Nothing happens, and nothing is done.

use crate::world::{App, World, mk_config_map};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Objects, and how long nothing is to happen.
const OBJECTS: usize = 300;
const MINUTE: Duration = Duration::from_secs(60);

/// Bytes that a process has caused to be written to a disk.
fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

/// Every file below a directory, with its length and its time of change.
fn files(dir: &Path, into: &mut BTreeMap<String, (u64, SystemTime)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        if data.is_dir() {
            files(&entry.path(), into);
        } else {
            let time = data.modified().unwrap();
            into.insert(entry.path().display().to_string(), (data.len(), time));
        }
    }
}

#[test]
fn a_minute_with_300_objects_costs_no_write_anywhere_and_no_request() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("m{number}.yaml")).collect();
    let maps: Vec<(&str, String)> = names
        .iter()
        .map(|name| (name.as_str(), mk_config_map(&ns, name.trim_end_matches(".yaml"), "1")))
        .collect();
    world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &maps }]);
    world.start();
    world.settled();
    // What follows a run by a second or two, such as the search for what no record knows.
    std::thread::sleep(Duration::from_secs(5));
    let state = |world: &World| {
        let mut found = BTreeMap::new();
        files(&world.path("state"), &mut found);
        found
    };
    let (mark, rows) = (world.cluster().mark(), world.cluster().writes());
    let (disk, bytes) = (state(&world), written(world.pid()));
    std::thread::sleep(MINUTE);
    let requests = world.cluster().audit(mark);
    println!("requests in {MINUTE:?}: {}", requests.len());
    assert_eq!(requests, Vec::<serde_json::Value>::new(), "a watch is renewed every 290 s");
    assert_eq!(world.cluster().writes(), rows, "rows in the datastore");
    assert_eq!(written(world.pid()), bytes, "bytes to a disk");
    assert_eq!(state(&world), disk, "files in the state directory");
}
