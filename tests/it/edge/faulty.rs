//! Tokens that are wrong, a provider that is away, and a daemon that dies between any two calls.

use super::{Edge, HOST};
use crate::bed::cloudflare::{Cloudflare, Grant, Mishap};
use crate::world::PATIENCE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn a_wrong_token_and_a_missing_permission_are_told_apart_and_named() {
    let mut edge = Edge::new("");
    edge.token("no-such-token");
    edge.world.start();
    edge.says("token: the API token is refused");
    edge.world.eventually("the workloads are reconciled", |world| world.is_ready("flux-system"));
    assert_eq!(edge.cloud.tunnels(), []);

    use Grant::*;
    for (grants, named) in [
        (&[TunnelRead, TunnelEdit, DnsRead, DnsEdit][..], "Zone / Zone / Read"),
        (&[ZoneRead, TunnelRead, DnsRead, DnsEdit], "Account / Cloudflare Tunnel / Edit"),
        (&[ZoneRead, TunnelRead, TunnelEdit], "Zone / DNS / Edit"),
        (&[ZoneRead, TunnelRead, TunnelEdit, DnsRead], "Zone / DNS / Edit"),
    ] {
        edge.cloud.grant("narrow", grants);
        edge.token("narrow");
        let output = edge.world.run(&["check", "--online"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("give the token the permission {named}")), "{said}");
    }
    // A token that is the account's own is no user's, and one all the same.
    edge.cloud.grant_of_account("narrow", &[ZoneRead, TunnelRead, TunnelEdit, DnsRead]);
    let output = edge.world.run(&["check", "--online"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("ok    API token: active"), "{said}");
    assert!(said.contains("give the token the permission Zone / DNS / Edit"), "{said}");
    // The same in the daemon, which is not asked to start anew: it may read records, not make them.
    edge.cloud.connect(4);
    edge.world.stop();
    edge.world.start();
    edge.says("token: the API token may not change DNS records");
    let hint = edge.view()["hint"].clone();
    assert!(hint.as_str().unwrap_or_default().contains("Zone / DNS / Edit"), "{hint}");
    edge.cloud.grant_of_account("narrow", &[ZoneRead, TunnelRead, TunnelEdit, DnsRead, DnsEdit]);
    edge.world.ok(&["edge", "reconcile"]);
    edge.says("reachable through 4");
    let output = edge.world.run(&["check", "--online"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for what in ["records", "tunnels"] {
        assert!(said.contains(&format!("{what} can be read and changed")), "{said}");
    }
}

#[test]
fn an_outage_of_the_provider_holds_up_no_workload_and_is_told_once() {
    let mut edge = Edge::new("");
    edge.cloud.outage(Some(Mishap::Reset));
    edge.world.start();
    edge.world.eventually("the workloads are reconciled", |world| world.is_ready("flux-system"));
    edge.says("uplink:");
    // In other words, and still nobody is reached.
    let first = edge.message();
    edge.cloud.outage(Some(Mishap::Torn));
    edge.world.eventually("it is told otherwise", |_| {
        let message = edge.message();
        message != first && message.starts_with("uplink:")
    });
    let tried = |edge: &Edge| edge.cloud.calls().len();
    edge.world.eventually("it was tried several times", |_| tried(&edge) >= 3);
    let lines = edge.world.log().lines().filter(|line| line.contains("edge:")).count();
    assert_eq!(lines, 1, "{}", edge.world.log());
    edge.cloud.outage(None);
    edge.cloud.connect(4);
    edge.says("reachable through 4");

    // With the provider away again, the cluster's side is healed all the same, also by a daemon
    // that has been started meanwhile.
    edge.world.stop();
    edge.cloud.outage(Some(Mishap::Status(502, 0)));
    let shape = edge.cloud.shape();
    let cluster = edge.world.cluster();
    cluster.kubectl_ok(&["-n", "gitopsd-edge", "delete", "deployment", "cloudflared"]);
    edge.world.start();
    edge.world
        .eventually("the Deployment is back", |_| edge.get("deployment", "cloudflared").is_some());
    edge.says("uplink: Cloudflare answered HTTP status 502");
    let secret = edge.secret();
    cluster_deletes_the_secret(&edge);
    edge.world.eventually("the Secret is back", |_| edge.secret() == secret);
    assert_eq!(edge.cloud.shape(), shape);
}

fn cluster_deletes_the_secret(edge: &Edge) {
    let delete = ["-n", "gitopsd-edge", "delete", "secret", "cloudflared-token"];
    edge.world.cluster().kubectl_ok(&delete);
}

/// A provider without anything of ours, and a daemon that knows nothing.
fn afresh(edge: &mut Edge) {
    edge.world.kill();
    let _ = std::fs::remove_dir_all(edge.world.path("state"));
    edge.cloud = Cloudflare::start();
    edge.cloud.connect(2);
    edge.cloud.record("CNAME", "mail.muppit.au", "mail.example", Some("mine"));
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}, www.muppit.au]\n"));
}

/// One tunnel, one record for each host, and theirs.
fn whole(edge: &Edge) {
    edge.tunnel();
    let mut names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    names.sort();
    assert_eq!(names, [HOST, "mail.muppit.au", "www.muppit.au"], "none twice, none lost");
    assert_eq!(edge.cloud.rules(&edge.tunnel()).len(), 3);
}

#[test]
fn killed_at_any_call_the_next_start_goes_on_and_nothing_is_there_twice() {
    let mut edge = Edge::new("");
    afresh(&mut edge);
    edge.world.start();
    edge.says("reachable through 2");
    whole(&edge);
    let calls = edge.cloud.calls();
    println!("{} calls from nothing: {calls:#?}", calls.len());
    for call in 1..=calls.len() {
        // The provider has done it, and the answer never came.
        afresh(&mut edge);
        edge.cloud.inject(call, Mishap::Held);
        edge.world.start();
        assert!(edge.cloud.wait_held(PATIENCE), "call {call} was not made");
        edge.world.kill();
        edge.cloud.release();
        edge.world.start();
        edge.says("reachable through 2");
        whole(&edge);
    }

    // The way back.
    let shape = edge.cloud.shape();
    let before = edge.cloud.calls().len();
    edge.world.ok(&["edge", "down", "--yes"]);
    let down = edge.cloud.calls().split_off(before);
    println!("{} calls of a withdrawal: {down:#?}", down.len());
    let writes = down.iter().filter(|call| !call.starts_with("GET ")).count();
    for write in 1..=writes {
        edge.cloud.connect(2);
        edge.world.ok(&["edge", "up"]);
        edge.cloud.connect(2);
        edge.says("reachable through 2");
        assert_eq!(edge.cloud.shape(), shape);
        // The plan is asked for by the verb, and its calls come first.
        let since = edge.cloud.calls().len();
        let number = nth_write(&down, write);
        edge.cloud.inject(since + number, Mishap::Held);
        let mut verb = edge.world.lasting(&["edge", "down", "--yes"]);
        assert!(edge.cloud.wait_held(PATIENCE), "write {write} was not made");
        edge.world.kill();
        edge.cloud.release();
        verb.wait().expect("it ends without a daemon");
        edge.world.start();
        edge.says("taken down by");
        assert_eq!(edge.cloud.tunnels(), []);
        let names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["mail.muppit.au"]);
        edge.world.eventually("the connectors are gone", |_| {
            edge.get("deployment", "cloudflared").is_none()
        });
    }
}

/// Where the so-many-th writing call stands, counted from 1.
fn nth_write(calls: &[String], nth: usize) -> usize {
    let writes = calls.iter().enumerate().filter(|(_, call)| !call.starts_with("GET "));
    writes.map(|(at, _)| at + 1).nth(nth - 1).expect("there are so many")
}

/// What a call may meet. Of the last two nothing passes by itself.
const FAULTS: [Mishap; 6] = [
    Mishap::Torn,
    Mishap::Status(503, 0),
    Mishap::Reset,
    Mishap::Limited(1),
    Mishap::Status(401, 1000),
    Mishap::Status(403, 10000),
];

/// Waits until the edge says something. What only a person mends has been mended: somebody says so.
fn comes_right(edge: &Edge, text: &str) {
    edge.world.eventually(&format!("the edge says {text:?}"), |world| {
        if edge.message().starts_with("token:") {
            world.run(&["edge", "reconcile"]);
        }
        let view = edge.view();
        view["running"] == false && view["message"].as_str().is_some_and(|m| m.contains(text))
    });
}

#[test]
fn a_fault_at_any_call_costs_another_try_and_nothing_else() {
    let mut edge = Edge::new("");
    afresh(&mut edge);
    edge.world.start();
    edge.says("reachable through 2");
    let calls = edge.cloud.calls();
    let fault = |number: usize| FAULTS[number % FAULTS.len()].clone();
    // A different one at each, and at each that writes another two.
    let mut cases: Vec<_> = (1..=calls.len()).map(|call| (call, fault(call))).collect();
    let writes = calls.iter().filter(|call| !call.starts_with("GET ")).count();
    let writes: Vec<usize> = (1..=writes).map(|nth| nth_write(&calls, nth)).collect();
    cases.extend(
        writes.iter().flat_map(|call| [(*call, fault(call + 2)), (*call, fault(call + 4))]),
    );
    // Done and never answered, which takes as long as a call may: the tunnel, and a record.
    cases.extend([writes[0], writes[writes.len() - 1]].map(|call| (call, Mishap::Silence)));
    for (call, fault) in cases {
        afresh(&mut edge);
        edge.cloud.inject(call, fault);
        edge.world.start();
        comes_right(&edge, "reachable through 2");
        whole(&edge);
    }
    assert!(edge.world.reconcile(), "the daemon is as alive as ever");
}

#[test]
fn a_fault_in_a_rotation_or_a_withdrawal_costs_another_try_and_nothing_else() {
    let mut edge = Edge::new("");
    afresh(&mut edge);
    edge.world.start();
    edge.says("reachable through 2");
    let tunnel = edge.tunnel();
    for fault in [Mishap::Torn, Mishap::Reset, Mishap::Status(403, 10000)] {
        let (before, done) = (edge.cloud.connector_token(&tunnel), fault == Mishap::Torn);
        edge.cloud.inject_next("PATCH", "", fault);
        edge.world.run(&["edge", "rotate"]);
        comes_right(&edge, "reachable through 2");
        let after = edge.cloud.connector_token(&tunnel);
        assert_eq!(before != after, done);
        edge.world.eventually("the connectors have the token that counts", |_| {
            edge.secret() == STANDARD.encode(&after)
        });
    }

    for (number, fault) in FAULTS.into_iter().enumerate() {
        let (_, tunnel) = edge.cloud.tunnels().remove(0);
        let record = edge.cloud.records().into_iter().find(|record| record.name == HOST);
        let record = record.expect("it was made").id;
        let writes = [
            ("DELETE", record.as_str()),
            ("PUT", "/configurations"),
            ("DELETE", "/connections"),
            ("DELETE", tunnel.as_str()),
        ];
        let (method, end) = writes[number % writes.len()];
        edge.cloud.inject_next(method, end, fault);
        edge.world.run(&["edge", "down", "--yes"]);
        comes_right(&edge, "taken down by");
        assert_eq!(edge.cloud.tunnels(), []);
        let names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["mail.muppit.au"]);
        edge.cloud.connect(2);
        edge.world.ok(&["edge", "up"]);
        edge.says("reachable through 2");
        whole(&edge);
    }
}
