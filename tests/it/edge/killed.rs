//! A daemon that dies in the middle of a rotation, or of a change of names and zones.

use super::{Edge, HOST};
use crate::bed::cloudflare::Mishap;
use crate::world::PATIENCE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Zones, tunnel and hosts, before and after.
const SIDES: [(&str, &str, &[&str]); 2] = [
    ("muppit.au", "home", &[HOST]),
    ("muppit.au, reids.net.au", "lab", &[HOST, "blaster.reids.net.au"]),
];

/// Where the writing calls stand, counted from 1.
fn writes(calls: &[String]) -> Vec<usize> {
    let writes = calls.iter().enumerate().filter(|(_, call)| !call.starts_with("GET "));
    writes.map(|(at, _)| at + 1).collect()
}

#[test]
fn killed_in_a_rotation_the_connectors_get_the_token_that_counts() {
    let mut edge = Edge::new("");
    edge.cloud.connect(2);
    edge.world.start();
    edge.says("reachable through 2");
    let (tunnel, shape) = (edge.tunnel(), edge.cloud.shape());
    let since = edge.cloud.calls().len();
    edge.world.ok(&["edge", "rotate"]);
    let rotation = edge.cloud.calls().split_off(since);
    println!("{} calls of a rotation: {rotation:#?}", rotation.len());
    // From the new secret on: nobody has heard of it, or of the token that came of it, and so on.
    for number in writes(&rotation)[0]..=rotation.len() {
        let before = edge.cloud.connector_token(&tunnel);
        let since = edge.cloud.calls().len();
        edge.cloud.inject(since + number, Mishap::Held);
        let mut verb = edge.world.lasting(&["edge", "rotate"]);
        assert!(edge.cloud.wait_held(PATIENCE), "call {number} was not made");
        edge.world.kill();
        edge.cloud.release();
        verb.wait().expect("it ends without a daemon");
        let rotated = edge.cloud.calls()[since..].iter().any(|call| call.starts_with("PATCH "));
        edge.world.start();
        edge.says("reachable through 2");
        let after = edge.cloud.connector_token(&tunnel);
        assert_eq!(before != after, rotated, "call {number}");
        edge.world.eventually("the connectors have the token that counts", |_| {
            edge.secret() == STANDARD.encode(&after)
        });
        assert_eq!(edge.cloud.shape(), shape);
    }
}

/// Goes to a side; with a number the daemon dies at that call. Gives the calls that were made.
fn change(edge: &mut Edge, side: usize, cut: Option<usize>) -> Vec<String> {
    let (zones, tunnel, hosts) = SIDES[side];
    let (_, id) = edge.cloud.tunnels().remove(0);
    edge.world.stop();
    edge.configure_in(zones, &format!("  tunnel: {tunnel}\n  hosts: [{}]\n", hosts.join(", ")));
    let since = edge.cloud.calls().len();
    if let Some(number) = cut {
        edge.cloud.inject(since + number, Mishap::Held);
        edge.world.start();
        assert!(edge.cloud.wait_held(PATIENCE), "call {number} to side {side} was not made");
        edge.world.kill();
        edge.cloud.release();
    }
    edge.world.start();
    edge.says("reachable through 2");
    let tunnels = edge.cloud.tunnels();
    assert_eq!(tunnels.len(), 1, "{cut:?} to side {side}: {tunnels:?}");
    assert!(tunnels[0].0.starts_with(&format!("{tunnel}-")), "{tunnels:?}");
    assert_eq!(tunnels[0].1, id, "it is the same tunnel");
    let mut names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    names.sort();
    assert_eq!(names, hosts, "{cut:?} to side {side}");
    assert_eq!(edge.cloud.rules(&tunnels[0].0).len(), hosts.len() + 1);
    edge.cloud.calls().split_off(since)
}

#[test]
fn killed_in_a_change_of_names_and_zones_the_next_start_finishes_it() {
    let mut edge = Edge::new("");
    edge.cloud.zone("reids.net.au");
    edge.cloud.connect(2);
    edge.world.start();
    edge.says("reachable through 2");
    let ways = [1, 0].map(|side| (side, writes(&change(&mut edge, side, None))));
    println!("writes of each way: {ways:?}");
    let most = ways.iter().map(|(_, writes)| writes.len()).max().unwrap_or_default();
    for nth in 0..most {
        for (side, writes) in &ways {
            change(&mut edge, *side, writes.get(nth).copied());
        }
    }
}
