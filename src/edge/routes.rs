//! Pure: what a tunnel's configuration must be, given the one that is there.
//!
//! Rules are tried in their order, and the first that fits is taken. So others' rules for a path of
//! one of our hosts stand first, then our hosts, then all other rules of others in their order, with
//! our wildcards among them: after every host that is narrower, before the first that is wider. At
//! the end stands a rule for everything else: theirs if they have one, else 404. What stands beside
//! the rules is kept.
//!
//! In a tunnel that is ours, a rule is ours when it has no path and its host is one that is wanted or
//! that we have written: whatever it leads to, it is drift. In one that was adopted it must lead
//! where we have written it to: one that its owner has pointed elsewhere since is his, and so is one
//! that nobody remembers, unless it is to the letter what we would write. There others' rules stay;
//! in a tunnel that is ours there should be none, and any is named and nothing is written until
//! somebody has decided: they are never dropped silently.

use super::deed::Deed;
use super::rules::Rules;
use super::wire::Configuration;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What answers when no rule fits.
const NOBODY: &str = "http_status:404";

/// One public host and where its requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host.
    pub host: String,
    /// URL of the ingress controller's Service.
    pub service: String,
    /// How it is spoken to.
    pub origin: Value,
}

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// The whole configuration; `None` when it is as it should be.
    pub body: Option<Value>,
    /// What changes.
    pub deeds: Vec<Deed>,
}

/// Plans. `ours` are the rules that we have written before.
///
/// # Errors
/// Rules of others that stand in the way, a sentence each.
pub fn route(
    found: &Configuration,
    wanted: &[Route],
    ours: &Rules,
    adopted: bool,
) -> Result<Routes, Vec<String>> {
    let rules = rules(found);
    let by_host: BTreeMap<&str, &Route> = wanted.iter().map(|r| (r.host.as_str(), r)).collect();
    let (mut own, mut paths, mut others, mut rest) = (BTreeMap::new(), vec![], vec![], None);
    let mut refused = Vec::new();
    for rule in rules {
        let host = text(rule, "hostname");
        if host.is_empty() && text(rule, "path").is_empty() {
            rest = Some(rule);
        } else if mine(rule, ours, &by_host, adopted) {
            own.insert(host, rule);
        } else if !adopted {
            refused.push(format!("a rule for {} that gitopsd has not written", describe(rule)));
        } else if let (Some(route), true) = (by_host.get(host), text(rule, "path").is_empty()) {
            refused.push(theirs(rule, route));
        } else if by_host.contains_key(host) && !host.starts_with('*') {
            paths.push(rule);
        } else {
            others.push(rule);
        }
    }
    if let Some(rule) = rest
        && !adopted
        && text(rule, "service") != NOBODY
    {
        refused.push(format!("a rule for everything to {}", text(rule, "service")));
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let rest = rest.cloned().unwrap_or_else(|| json!({"service": NOBODY}));
    let mut after: Vec<Value> = paths.into_iter().cloned().collect();
    after.extend(arranged(&by_host, &others));
    after.push(rest);
    if same(found, &after) {
        return Ok(Routes::default());
    }
    Ok(Routes { deeds: deeds(&own, &by_host), body: Some(with(found, after)) })
}

/// Which of these rules stand in a configuration as we would write them, to the letter.
pub fn standing(found: &Configuration, wanted: &[Route]) -> Rules {
    let is = |route: &&Route| rules(found).any(|rule| plain(rule) == plain(&rule_of(route)));
    Rules::of(&wanted.iter().filter(is).cloned().collect::<Vec<_>>())
}

/// Plans the removal of all of ours.
///
/// # Errors
/// Rules in our own tunnel that we have not written, a sentence each: it goes only without them.
pub fn withdraw_routes(
    found: &Configuration,
    ours: &Rules,
    adopted: bool,
) -> Result<Routes, Vec<String>> {
    let mine = |rule: &&Value| text(rule, "path").is_empty() && noted(rule, ours, adopted);
    let (gone, mut after): (Vec<&Value>, Vec<&Value>) = rules(found).partition(mine);
    let last = |rule: &Value| text(rule, "hostname").is_empty() && text(rule, "path").is_empty();
    let strange = |rule: &&&Value| !last(rule) || text(rule, "service") != NOBODY;
    let others = after.iter().filter(strange).filter(|_| !adopted);
    let others: Vec<String> = others
        .map(|rule| format!("a rule for {} that gitopsd has not written", describe(rule)))
        .collect();
    if !others.is_empty() {
        return Err(others);
    }
    if gone.is_empty() {
        return Ok(Routes::default());
    }
    let nobody = json!({"service": NOBODY});
    if !after.last().is_some_and(|rule| last(rule)) {
        after.push(&nobody);
    }
    let deed =
        |rule: &Value| Deed::new("delete", "Route", text(rule, "hostname"), text(rule, "service"));
    let deeds = gone.into_iter().map(deed).collect();
    Ok(Routes { deeds, body: Some(with(found, after.into_iter().cloned().collect())) })
}

fn rules(found: &Configuration) -> impl Iterator<Item = &Value> {
    let rules = found.config.as_ref().and_then(|config| config.get("ingress"));
    rules.and_then(Value::as_array).into_iter().flatten()
}

fn mine(rule: &Value, ours: &Rules, wanted: &BTreeMap<&str, &Route>, adopted: bool) -> bool {
    let host = text(rule, "hostname");
    if !text(rule, "path").is_empty() || host.is_empty() {
        return false;
    }
    let exact = wanted.get(host).is_some_and(|route| plain(rule) == plain(&rule_of(route)));
    exact || noted(rule, ours, adopted) || (!adopted && wanted.contains_key(host))
}

/// Whether a rule for a host is one that we have written.
fn noted(rule: &Value, ours: &Rules, adopted: bool) -> bool {
    let (host, service) = (text(rule, "hostname"), text(rule, "service"));
    if adopted { ours.rule(host, service) } else { ours.host(host) }
}

/// Ours among others' rules, in an order in which none takes what a narrower one is for.
fn arranged(wanted: &BTreeMap<&str, &Route>, others: &[&Value]) -> Vec<Value> {
    let (mut wild, exact): (Vec<&Route>, Vec<&Route>) =
        wanted.values().copied().partition(|route| route.host.starts_with('*'));
    // The longer is the narrower, where both fit a host at all.
    wild.sort_by_key(|route| Reverse(route.host.len()));
    let wider = |rule: &&Value, host: &str| {
        text(rule, "path").is_empty() && covers(text(rule, "hostname"), host)
    };
    let place = |route: &Route| others.iter().position(|rule| wider(rule, &route.host));
    let mut all: Vec<Value> = exact.into_iter().map(rule_of).collect();
    for (at, other) in others.iter().enumerate() {
        all.extend(wild.iter().filter(|route| place(route) == Some(at)).map(|r| rule_of(r)));
        all.push((*other).clone());
    }
    all.extend(wild.iter().filter(|route| place(route).is_none()).map(|route| rule_of(route)));
    all
}

/// Whether a wildcard fits all that another host, or wildcard, is for.
fn covers(wild: &str, host: &str) -> bool {
    wild.strip_prefix('*').is_some_and(|end| host.trim_start_matches('*').ends_with(end))
}

fn text<'a>(rule: &'a Value, key: &str) -> &'a str {
    rule.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn describe(rule: &Value) -> String {
    let host = Some(text(rule, "hostname")).filter(|host| !host.is_empty()).unwrap_or("*");
    format!("{host}{} to {}", text(rule, "path"), text(rule, "service"))
}

/// A rule of somebody else's for a host that is wanted. Where it leads is not all of it: what else
/// it says, such as who is let in, is not to be lost either.
fn theirs(rule: &Value, route: &Route) -> String {
    let told = format!("a rule of somebody else's for {}", describe(rule));
    match rule.get("originRequest") {
        Some(origin) if text(rule, "service") == route.service => {
            format!("{told} with originRequest {origin}")
        }
        None if text(rule, "service") == route.service => format!("{told} without originRequest"),
        _ => told,
    }
}

fn rule_of(route: &Route) -> Value {
    let mut rule = json!({"hostname": route.host, "service": route.service});
    if route.origin.as_object().is_some_and(|origin| !origin.is_empty()) {
        rule["originRequest"] = route.origin.clone();
    }
    rule
}

fn with(found: &Configuration, rules: Vec<Value>) -> Value {
    let mut config = match &found.config {
        Some(Value::Object(config)) => config.clone(),
        _ => Map::new(),
    };
    config.insert("ingress".to_owned(), Value::Array(rules));
    Value::Object(config)
}

/// Whether the rules that are there mean the same as these.
fn same(found: &Configuration, after: &[Value]) -> bool {
    rules(found).map(plain).collect::<Vec<_>>() == after.iter().map(plain).collect::<Vec<_>>()
}

/// What a rule says: what is absent is as good as empty, and the order of an object's keys means
/// nothing.
fn plain(rule: &Value) -> ([&str; 3], BTreeMap<&String, &Value>) {
    let origin = rule.get("originRequest").and_then(Value::as_object);
    let fields = ["hostname", "path", "service"].map(|key| text(rule, key));
    (fields, origin.into_iter().flatten().collect())
}

fn deeds(own: &BTreeMap<&str, &Value>, wanted: &BTreeMap<&str, &Route>) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = Vec::new();
    for (host, rule) in own.iter().filter(|(host, _)| !wanted.contains_key(*host)) {
        deeds.push(Deed::new("delete", "Route", host, text(rule, "service")));
    }
    for (host, route) in wanted {
        match own.get(host) {
            None => {
                deeds.push(Deed::new("create", "Route", host, &format!("to {}", route.service)))
            }
            Some(rule) if text(rule, "service") != route.service => {
                let line = format!("{} -> {}", text(rule, "service"), route.service);
                deeds.push(Deed::new("configure", "Route", host, &line));
            }
            Some(rule) => {
                let empty = json!({});
                let before = rule.get("originRequest").unwrap_or(&empty);
                if *before != route.origin {
                    let line = format!("originRequest: {before} -> {}", route.origin);
                    deeds.push(Deed::new("configure", "Route", host, &line));
                }
            }
        }
    }
    if deeds.is_empty() {
        deeds.push(Deed::new("configure", "Route", "*", "the order of the rules"));
    }
    deeds
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAEFIK: &str = "http://traefik.kube-system.svc.cluster.local:80";

    fn wanted(hosts: &[&str]) -> Vec<Route> {
        let route = |host: &&str| Route {
            host: (*host).to_owned(),
            service: TRAEFIK.to_owned(),
            origin: json!({"httpHostHeader": host}),
        };
        hosts.iter().map(route).collect()
    }

    fn found(rules: Value) -> Configuration {
        let config = Some(json!({"ingress": rules, "warp-routing": {"enabled": true}}));
        Configuration { version: 3, config }
    }

    fn ours(hosts: &[&str]) -> Rules {
        Rules::of(&wanted(hosts))
    }

    fn hosts(routes: &Routes) -> Vec<String> {
        let rules = routes.body.as_ref().and_then(|body| body["ingress"].as_array().cloned());
        rules.unwrap_or_default().iter().map(describe).collect()
    }

    #[test]
    fn an_empty_configuration_gets_all_hosts_and_a_404_at_its_end() {
        let routes = route(&Configuration::default(), &wanted(&["b.x", "a.x"]), &ours(&[]), false);
        let routes = routes.expect("nothing stands in the way");
        assert_eq!(
            routes.body,
            Some(json!({"ingress": [
                {"hostname": "a.x", "service": TRAEFIK, "originRequest": {"httpHostHeader": "a.x"}},
                {"hostname": "b.x", "service": TRAEFIK, "originRequest": {"httpHostHeader": "b.x"}},
                {"service": "http_status:404"},
            ]}))
        );
        assert_eq!(routes.deeds.len(), 2);
        let again = Configuration { version: 1, config: routes.body };
        let again = route(&again, &wanted(&["a.x", "b.x"]), &ours(&[]), false);
        assert_eq!(again, Ok(Routes::default()), "written once, it is as it should be");
    }

    #[test]
    fn a_host_that_left_goes_and_what_stands_beside_the_rules_stays() {
        let before = found(json!([{"hostname": "old.x", "service": TRAEFIK, "originRequest": {}},
            {"service": "http_status:404"}]));
        let routes = route(&before, &wanted(&["a.x"]), &ours(&["old.x"]), false).expect("ours");
        assert_eq!(hosts(&routes), [&format!("a.x to {TRAEFIK}"), "* to http_status:404"]);
        assert_eq!(routes.body.expect("a change")["warp-routing"], json!({"enabled": true}));
        let deeds: Vec<String> =
            routes.deeds.iter().map(|d| format!("{} {}", d.verb, d.object())).collect();
        assert_eq!(deeds, ["delete Route/old.x", "create Route/a.x"]);
    }

    #[test]
    fn in_our_tunnel_a_rule_by_hand_is_named_and_nothing_is_written() {
        let by_hand = found(json!([{"hostname": "grafana.x", "service": "http://10.0.0.2:3000"},
            {"hostname": "a.x", "path": "/api", "service": "http://b"}, {"service": "http://c"}]));
        assert_eq!(
            route(&by_hand, &wanted(&["a.x"]), &ours(&["a.x"]), false),
            Err(vec![
                "a rule for grafana.x to http://10.0.0.2:3000 that gitopsd has not written".into(),
                "a rule for a.x/api to http://b that gitopsd has not written".into(),
                "a rule for everything to http://c".into(),
            ])
        );
    }

    #[test]
    fn in_an_adopted_tunnel_others_rules_stay_in_their_order_and_keep_their_meaning() {
        let before = found(json!([{"hostname": "*.x", "service": "http://wild"},
            {"hostname": "a.x", "path": "/api", "service": "http://b"},
            {"hostname": "old.x", "service": TRAEFIK}, {"service": "http://c"}]));
        let routes = route(&before, &wanted(&["a.x"]), &ours(&["old.x"]), true).expect("beside");
        assert_eq!(
            hosts(&routes),
            [
                "a.x/api to http://b",
                &format!("a.x to {TRAEFIK}"),
                "*.x to http://wild",
                "* to http://c"
            ]
        );
        let taken = found(json!([{"hostname": "a.x", "service": "http://theirs"}]));
        assert_eq!(
            route(&taken, &wanted(&["a.x"]), &ours(&[]), true),
            Err(vec!["a rule of somebody else's for a.x to http://theirs".into()])
        );
    }

    #[test]
    fn in_an_adopted_tunnel_a_rule_that_nobody_remembers_is_ours_only_to_the_letter() {
        let to_us =
            |origin: Value| json!({"hostname": "a.x", "service": TRAEFIK, "originRequest": origin});
        let guarded = json!({"access": {"required": true}});
        let before = found(json!([to_us(guarded.clone()), {"service": "http_status:404"}]));
        let told =
            format!("a rule of somebody else's for a.x to {TRAEFIK} with originRequest {guarded}");
        assert_eq!(route(&before, &wanted(&["a.x"]), &ours(&[]), true), Err(vec![told]));
        let bare = found(json!([{"hostname": "a.x", "service": TRAEFIK}]));
        let told = format!("a rule of somebody else's for a.x to {TRAEFIK} without originRequest");
        assert_eq!(route(&bare, &wanted(&["a.x"]), &ours(&[]), true), Err(vec![told]));
        assert_eq!(standing(&before, &wanted(&["a.x"])), ours(&[]));

        let same = found(json!([to_us(json!({"httpHostHeader": "a.x"})),
            {"service": "http_status:404"}]));
        let routes = route(&same, &wanted(&["a.x"]), &ours(&[]), true);
        assert_eq!(routes, Ok(Routes::default()));
        assert_eq!(standing(&same, &wanted(&["a.x", "b.x"])), ours(&["a.x"]));
        // What we have written is drift, and in our own tunnel all of it is.
        for (rules, adopted) in [(ours(&["a.x"]), true), (ours(&[]), false)] {
            let routes = route(&before, &wanted(&["a.x"]), &rules, adopted).expect("ours");
            assert!(routes.body.is_some(), "{adopted}");
        }
    }

    #[test]
    fn in_an_adopted_tunnel_a_rule_that_its_owner_pointed_elsewhere_is_his() {
        let bent = found(json!([{"hostname": "a.x", "service": "http://theirs"},
            {"hostname": "old.x", "service": "http://theirs"},
            {"hostname": "older.x", "service": TRAEFIK}, {"service": "http_status:404"}]));
        let noted = ours(&["a.x", "old.x", "older.x"]);
        assert_eq!(
            route(&bent, &wanted(&["a.x"]), &noted, true),
            Err(vec!["a rule of somebody else's for a.x to http://theirs".into()])
        );
        let routes = route(&bent, &wanted(&["b.x"]), &noted, true).expect("beside");
        let left = ["a.x to http://theirs", "old.x to http://theirs", "* to http_status:404"];
        assert_eq!(hosts(&routes)[1..], left);
        let routes = withdraw_routes(&bent, &noted, true).expect("adopted");
        assert_eq!(hosts(&routes), left);
        // In our own it is drift, which is undone.
        let routes = route(&bent, &wanted(&["a.x"]), &noted, false).expect("ours");
        assert_eq!(hosts(&routes), [&format!("a.x to {TRAEFIK}"), "* to http_status:404"]);
    }

    #[test]
    fn a_wildcard_stands_after_what_is_narrower_and_before_what_is_wider() {
        let before = found(json!([{"hostname": "b.x", "service": "http://b"},
            {"path": "/healthz", "service": "http://h"},
            {"hostname": "*.x", "path": "/api", "service": "http://api"},
            {"hostname": "c.lab.x", "service": "http://c"},
            {"hostname": "*.y", "service": "http://y"}, {"hostname": "z.y", "service": "http://z"},
            {"service": "http://rest"}]));
        let all = wanted(&["*.x", "*.lab.x", "a.x", "*.home.y"]);
        let routes = route(&before, &all, &ours(&[]), true).expect("beside");
        let (own, mut order) = (format!(" to {TRAEFIK}"), hosts(&routes));
        order.iter_mut().for_each(|line| *line = line.replace(&own, " (ours)"));
        assert_eq!(
            order,
            [
                "a.x (ours)",
                "b.x to http://b",
                "*/healthz to http://h",
                "*.x/api to http://api",
                "c.lab.x to http://c",
                "*.home.y (ours)",
                "*.y to http://y",
                "z.y to http://z",
                "*.lab.x (ours)",
                "*.x (ours)",
                "* to http://rest",
            ]
        );
        let again = Configuration { version: 4, config: routes.body };
        assert_eq!(route(&again, &all, &ours(&[]), true), Ok(Routes::default()));
        let alone = route(&found(json!([])), &wanted(&["*.x", "a.x"]), &ours(&[]), false);
        assert_eq!(
            hosts(&alone.expect("ours")),
            [&format!("a.x{own}"), &format!("*.x{own}"), "* to http_status:404"]
        );
    }

    #[test]
    fn a_withdrawal_leaves_others_rules_and_a_last_one() {
        let before = found(json!([{"hostname": "a.x", "service": TRAEFIK},
            {"hostname": "b.x", "service": "http://theirs"}, {"service": "http_status:404"}]));
        let routes = withdraw_routes(&before, &ours(&["a.x"]), true).expect("adopted");
        assert_eq!(hosts(&routes), ["b.x to http://theirs", "* to http_status:404"]);
        assert_eq!(
            withdraw_routes(&before, &ours(&["a.x"]), false),
            Err(vec!["a rule for b.x to http://theirs that gitopsd has not written".into()])
        );
        let routes = withdraw_routes(&before, &ours(&["a.x", "b.x"]), false).expect("all ours");
        assert_eq!(hosts(&routes), ["* to http_status:404"]);
        let empty = withdraw_routes(&Configuration::default(), &ours(&[]), false);
        assert_eq!(empty, Ok(Routes::default()));
    }
}
