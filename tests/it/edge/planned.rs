//! What a plan shows of a section that is written or changed, before a reload carries it out.

use super::{Edge, HOST, nginx, plan_of};

#[test]
fn a_section_is_planned_from_the_disk_before_a_reload_carries_it_out() {
    let mut edge = Edge::new("");
    edge.world.drop_in("");
    edge.world.start();
    edge.world.settled();
    let nothing = edge.world.run(&["diff", "edge"]);
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert_eq!(nothing.status.code(), Some(1), "{said}");
    assert!(said.contains("no edge is configured"), "{said}");
    assert_eq!(edge.world.run(&["diff"]).status.code(), Some(0), "it has no part in everything");

    // Written, and not in force yet.
    edge.configure(&format!("  tunnel: home\n  hosts: [{HOST}]\n"));
    for verb in [&["diff", "edge"][..], &["diff"]] {
        let plan = plan_of(&edge, verb);
        let (route, record) = (format!("+ Route/{HOST}"), format!("+ Record/{HOST}"));
        let parts =
            ["is not in force yet", "+ Tunnel/home-", "Deployment/gitopsd-edge/cloudflared"];
        for part in parts.into_iter().chain([route.as_str(), &record]) {
            assert!(plan.contains(part), "{verb:?} has no {part}: {plan}");
        }
    }
    assert_eq!((edge.cloud.tunnels(), edge.cloud.records()), (vec![], vec![]));
    edge.world.ok(&["reload"]);
    edge.cloud.connect(4);
    edge.says("reachable through 4");
    let plan = edge.world.ok(&["diff"]);
    assert!(plan.contains("Host/edge") && !plan.contains("in force yet"), "{plan}");

    // Switched to the controller that the repository brings.
    edge.world.cluster().apply(&nginx());
    edge.configure(&format!(
        "  tunnel: home\n  hosts: [{HOST}]\n  ingress: {{controller: repository, class: nginx}}\n"
    ));
    let tunnel = edge.tunnel();
    let (calls, before) = (edge.cloud.calls().len(), edge.cloud.rules(&tunnel));
    let plan = plan_of(&edge, &["diff", "edge"]);
    let switched = "-> http://controller.ingress-nginx.svc.cluster.local:80";
    assert!(plan.contains("is not in force yet") && plan.contains(switched), "{plan}");
    assert!(plan.contains(&format!("~ Route/{HOST}")), "{plan}");
    assert!(edge.cloud.calls()[calls..].iter().all(|call| call.starts_with("GET ")));
    assert_eq!(edge.cloud.rules(&tunnel), before);
    edge.world.ok(&["reload"]);
    edge.world.eventually("it is switched", |_| edge.cloud.rules(&tunnel)[0].contains(switched));

    // One that names what is not there says so, and what is in force stays.
    edge.configure(&format!(
        "  tunnel: home\n  hosts: [{HOST}]\n  ingress: {{controller: repository, class: own}}\n"
    ));
    let plan = edge.world.run(&["diff", "edge"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("routes stay as they are for now: there is no IngressClass"), "{plan}");
}
