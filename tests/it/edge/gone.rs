//! Withdrawal: by the verb, by taking the section away, in the safe order.

use super::{Edge, HOST, plan_of};
use std::fs;

/// Writes of a withdrawal, by what they are about.
fn order(calls: &[String]) -> Vec<&'static str> {
    let writes = calls.iter().filter(|call| !call.starts_with("GET "));
    writes
        .map(|call| match call.as_str() {
            call if call.contains("dns_records") => "record",
            call if call.ends_with("/configurations") => "routes",
            call if call.ends_with("/connections") => "connections",
            call if call.contains("cfd_tunnel") => "tunnel",
            _ => "other",
        })
        .collect()
}

/// Looks whether a plan takes all away, and what is looked for first before what it leads to.
fn in_safe_order(plan: &str, tunnel: &str) {
    let at = |what: &str| plan.find(what).unwrap_or_else(|| panic!("no {what} in {plan}"));
    let places = [
        at(&format!("- Record/{HOST}")),
        at(&format!("- Route/{HOST}")),
        at("- Deployment/gitopsd-edge/cloudflared"),
        at(&format!("- Tunnel/{tunnel}")),
    ];
    assert!(places.is_sorted(), "{plan}");
}

#[test]
fn down_shows_its_plan_takes_everything_away_and_stays_down_until_up() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.cloud.record("CNAME", "mail.muppit.au", "mail.example", None);
    edge.world.start();
    edge.says("reachable through 4");
    let tunnel = edge.tunnel();
    // Nobody is there to be asked: nothing is done.
    let calls = edge.cloud.calls().len();
    in_safe_order(&plan_of(&edge, &["edge", "down"]), &tunnel);
    assert!(edge.cloud.calls()[calls..].iter().all(|call| call.starts_with("GET ")));

    // Pods that end connect once more: that is waited for, and no failure.
    edge.cloud.linger(1);
    let errors = |edge: &Edge| edge.world.log().matches("ERROR").count();
    let (calls, before) = (edge.cloud.calls().len(), errors(&edge));
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.says("taken down by");
    let done = edge.cloud.calls().split_off(calls);
    let last = ["connections", "tunnel"];
    assert_eq!(order(&done), [&["record", "routes"][..], &last, &last].concat());
    assert_eq!(errors(&edge), before, "{}", edge.world.log());
    assert_eq!(edge.cloud.tunnels(), []);
    let left: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    assert_eq!(left, ["mail.muppit.au"], "theirs");
    edge.world.eventually("the namespace is gone", |world| {
        world.cluster().get("", "namespace", "gitopsd-edge").is_none()
    });
    assert_eq!(edge.world.run(&["edge"]).status.code(), Some(0), "it is as somebody wants it");
    let refused = edge.world.run(&["edge", "rotate"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("taken down by") && said.contains("gitopsd edge up"), "{said}");

    // It stays so over a restart, which asks nobody.
    edge.world.stop();
    let calls = edge.cloud.calls().len();
    edge.world.start();
    edge.says("taken down by");
    edge.world.settled();
    assert_eq!(edge.cloud.calls().len(), calls);
    edge.cloud.connect(4);
    edge.world.ok(&["edge", "up"]);
    edge.says("reachable through 4");
    assert_eq!(edge.tunnel(), tunnel);

    // With the section goes what was said of it: one that is written later comes up.
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.says("taken down by");
    edge.world.stop();
    edge.world.drop_in("");
    edge.world.start();
    edge.world.eventually("nothing is known of it any more", |world| {
        let state = fs::read_to_string(world.path("state/state.json")).unwrap_or_default();
        world.status()["edge"].is_null() && !state.contains("edge_")
    });
    edge.world.stop();
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n"));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
}

#[test]
fn up_right_after_down_waits_until_what_was_taken_down_is_gone() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    // As slow as a namespace can be.
    let finalizers = |edge: &Edge, list: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
        let arguments = ["patch", "namespace", "gitopsd-edge", "--type=merge", "-p", &patch];
        edge.world.cluster().kubectl_ok(&arguments);
    };
    finalizers(&edge, r#"["test.invalid/stay"]"#);
    edge.world.ok(&["edge", "down", "--yes"]);
    edge.cloud.connect(4);
    // Whoever looks knows it from the record, also a daemon that has been started since.
    edge.world.stop();
    edge.world.start();
    edge.says("taken down by");
    let mut verb = edge.world.lasting(&["edge", "up"]);
    edge.says("waits until Namespace/gitopsd-edge, which was taken down, is gone");
    assert!(verb.try_wait().expect("our child").is_none(), "it is followed until it is up");
    finalizers(&edge, "null");
    assert!(verb.wait().expect("our child").success());
    edge.says("reachable through 4");
    let failed = edge.world.log().lines().filter(|line| line.contains("somebody else")).count();
    assert_eq!(failed, 0, "{}", edge.world.log());
}

#[test]
fn taking_the_section_away_withdraws_with_the_token_that_is_still_there() {
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    let tunnel = edge.tunnel();
    // The file was named in the section: now nobody knows it, which is seen before a reload.
    edge.world.drop_in("");
    let none = "there is no API token of Cloudflare, and the edge is to be withdrawn";
    let plan = plan_of(&edge, &["diff", "edge"]);
    assert!(plan.contains("is not in force yet") && plan.contains(none), "{plan}");
    edge.world.stop();
    edge.world.start();
    edge.says(none);
    edge.world.eventually("the workloads are reconciled", |world| world.is_ready("flux-system"));
    assert_eq!(edge.cloud.records().len(), 1, "nothing was half withdrawn");
    for verb in [&["diff", "edge"][..], &["diff"]] {
        let plan = plan_of(&edge, verb);
        assert!(plan.contains(none) && !plan.contains("in force yet"), "it is to come: {plan}");
    }
    fs::create_dir_all(edge.world.path("credentials")).expect("ours");
    let token = edge.world.path("credentials/cloudflare-token");
    fs::copy(edge.world.path("cloudflare-token"), token).expect("ours");
    let calls = edge.cloud.calls().len();
    let plan = plan_of(&edge, &["diff", "edge"]);
    assert!(plan.contains("is not in force yet"), "{plan}");
    in_safe_order(&plan, &tunnel);
    assert!(edge.cloud.calls()[calls..].iter().all(|call| call.starts_with("GET ")));
    edge.world.stop();
    edge.world.start();
    edge.world.eventually("everything is withdrawn", |world| world.status()["edge"].is_null());
    let log = edge.world.log();
    let told = format!(
        "edge: not configured any more, and withdrawn now: 1 DNS record, 1 route, 3 cluster \
         objects, tunnel {tunnel}"
    );
    assert_eq!(log.matches(&told).count(), 1, "{log}");
    assert!(log.find(&told) < log.find(&format!("edge: Record/{HOST} deleted")), "{log}");
    assert_eq!((edge.cloud.tunnels(), edge.cloud.records()), (vec![], vec![]));
    edge.world
        .eventually("the connectors are gone", |_| edge.get("deployment", "cloudflared").is_none());
    // And it is over: nothing is asked any more.
    edge.world.settled();
    edge.world.stop();
    let calls = edge.cloud.calls().len();
    edge.world.start();
    edge.world.settled();
    assert!(edge.world.status()["edge"].is_null());
    assert_eq!(edge.cloud.calls().len(), calls);
}

#[test]
fn a_host_that_leaves_loses_its_record_before_its_route() {
    let mut edge = Edge::new("");
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}, www.muppit.au]\n"));
    edge.cloud.connect(4);
    edge.world.start();
    edge.says("reachable through 4");
    edge.world.stop();
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n"));
    let calls = edge.cloud.calls().len();
    edge.world.start();
    edge.world.eventually("its record is gone", |_| edge.cloud.records().len() == 1);
    edge.says("reachable through 4");
    assert_eq!(order(&edge.cloud.calls().split_off(calls)), ["record", "routes"]);
    assert_eq!(edge.cloud.rules(&edge.tunnel()).len(), 2);
}
