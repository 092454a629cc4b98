//! Zones and accounts as they are configured, and names that are not ours to keep.

use super::{Edge, HOST};
use serde_json::json;

/// The id of the stand-in's zone.
const ZONE: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[test]
fn a_zone_is_known_by_its_id_the_account_is_compared_and_names_are_made_where_that_is_asked_for() {
    const OUTSIDE: &str = "www.elsewhere.example";
    let mut edge = Edge::new("");
    edge.cloud.connect(4);
    let home = format!("  tunnel: home\n  hosts: [{HOST}]\n");
    edge.configure_by("zones: [muppit.au]\n    account: Lab", &home);
    edge.world.start();
    edge.says("tunnel: zone muppit.au belongs to account Home (aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)");
    let hint = edge.view()["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("edge.cloudflare.account"), "{hint}");
    assert_eq!(edge.cloud.tunnels(), []);

    // Somebody else keeps the names.
    let by_id = format!("zones: [{ZONE}]\n    account: Home");
    edge.configure_by(&by_id, &format!("{home}  dns: off\n"));
    edge.world.ok(&["reload"]);
    edge.says("reachable through 4");
    assert_eq!((edge.cloud.records(), edge.cloud.rules(&edge.tunnel()).len()), (vec![], 2));
    let host = json!({"host": HOST, "routed": true, "named": false, "problem": ""});
    assert_eq!(edge.view()["hosts"], json!([host]));

    // What a zone is called is told by the provider alone: a host beside it is met by the run.
    let both = format!("  tunnel: home\n  hosts: [{HOST}, {OUTSIDE}]\n");
    edge.configure_by(&by_id, &both);
    edge.world.ok(&["reload"]);
    edge.says(&format!("dns: {OUTSIDE} lies in none of the zones"));
    assert_eq!(edge.world.run(&["edge"]).status.code(), Some(1), "it is not reachable");
    let names: Vec<String> = edge.cloud.records().into_iter().map(|r| r.name).collect();
    assert_eq!(names, [HOST], "the other has its record");
    let named = |at: usize| edge.view()["hosts"][at]["named"].clone();
    assert_eq!([named(0), named(1)], [json!(true), json!(false)]);
    let plan = edge.world.run(&["diff", "edge"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains(&format!("Record/{OUTSIDE}")), "{plan}");
}
