//! Which hosts are public, where they lead, and what is known of each.

use super::up::Ground;
use super::{Course, EdgeView, lock};
use crate::config::EdgeSettings;
use crate::edge::{
    Facts, Present, Records, Route, Rules, State, Target, Zoned, found, present, within,
};
use crate::pipeline::Failure;
use crate::pipeline::kustomization::Run;
use serde_json::json;
use std::collections::BTreeSet;

/// Every public host.
pub(super) fn public(settings: &EdgeSettings, present: &Present) -> BTreeSet<String> {
    settings.hosts.iter().chain(&present.hosts).cloned().collect()
}

/// A rule for each host.
pub(super) fn routes(
    target: &Target,
    hosts: &BTreeSet<String>,
    settings: &EdgeSettings,
) -> Vec<Route> {
    let origin = |host: &str| {
        let mut origin = json!({});
        let exact = !host.starts_with("*.");
        if exact {
            origin["httpHostHeader"] = json!(host);
        }
        if target.tls {
            match exact {
                true => origin["originServerName"] = json!(host),
                false => origin["matchSNItoHost"] = json!(true),
            }
            if !settings.ingress.verify {
                origin["noTLSVerify"] = json!(true);
            }
        }
        origin
    };
    let rule = |host: &String| Route {
        host: host.clone(),
        service: target.url.clone(),
        origin: origin(host),
    };
    hosts.iter().map(rule).collect()
}

impl Run<'_> {
    /// Hosts that were discovered, of which some may be kept though they are not there just now.
    pub(super) fn present(&self, ground: &Ground, zones: &[Zoned], state: &State) -> Present {
        let memory = lock(&self.edge.memory);
        let found = found(&ground.settings, zones, &ground.facts);
        // What is named, or discovered no more, is the configuration's word.
        let known = match ground.settings.discover {
            Some(_) => state.discovered.iter().filter(|host| !ground.settings.hosts.contains(host)),
            None => return Present::default(),
        };
        let known = known.filter(|host| zones.iter().any(|zone| within(host, &zone.name)));
        let known = known.cloned().collect();
        let there = ground.facts.published.iter().map(|published| published.host.clone()).collect();
        present(found, &there, &known, &memory.missed, memory.complete)
    }

    /// Notes them for the next run.
    pub(super) async fn keep_present(
        &self,
        present: &Present,
        state: &mut State,
    ) -> Result<(), Failure> {
        {
            let mut memory = lock(&self.edge.memory);
            memory.missed = present.missed(memory.complete);
        }
        if state.discovered == present.hosts {
            return Ok(());
        }
        state.discovered.clone_from(&present.hosts);
        self.pipeline.keep_edge_state(state).await
    }

    /// Says of hosts that are kept why they are.
    pub(super) fn tell_absent(&self, present: &Present, course: &mut Course) {
        for host in &present.absent {
            course.view.host(host).problem =
                "ingress: no Ingress or HTTPRoute has this host any more; it is withdrawn if two \
                 runs miss it while all that is in Git is rendered"
                    .to_owned();
        }
    }
}

/// What is known of each host. Where no routes are managed, whoever manages them knows what they
/// lead to.
pub(super) fn tell_hosts(
    view: &mut EdgeView,
    settings: &EdgeSettings,
    facts: &Facts,
    rules: &Rules,
    records: &Records,
) {
    for line in &mut view.hosts {
        let conflict = records.conflict(&line.host);
        line.routed = rules.host(&line.host);
        line.named = settings.dns && conflict.is_none() && !records.pending(&line.host);
        if let Some(conflict) = conflict {
            line.problem.clone_from(&conflict.cause);
        } else if settings.routes && !facts.serves(&line.host) {
            line.problem = "ingress: no Ingress or HTTPRoute has this host yet".to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConnectorBy, ConnectorSettings, IngressBy, IngressSettings};
    use crate::edge::{Conflict, Published};
    use std::time::Duration;

    fn settings(routes: bool, dns: bool) -> EdgeSettings {
        EdgeSettings {
            url: "https://api".into(),
            account: None,
            zones: vec!["x".into()],
            tunnel: "home".into(),
            adopt: false,
            hosts: Vec::new(),
            discover: None,
            ingress: IngressSettings {
                controller: IngressBy::Auto,
                class: None,
                service: None,
                scheme: None,
                verify: true,
            },
            connector: ConnectorSettings {
                by: ConnectorBy::Gitopsd,
                replicas: 2,
                image: "c:1".into(),
            },
            routes,
            dns,
            interval: Duration::from_secs(600),
        }
    }

    /// Host, route, record and what is wrong, of each.
    fn told(settings: &EdgeSettings, hosts: &[&str], records: &Records) -> Vec<String> {
        let published = |host: &str| Published {
            host: host.into(),
            object: "Ingress/a/b".into(),
            labels: Default::default(),
        };
        let facts = Facts { published: vec![published("a.x")], ..Facts::default() };
        let route = Route { host: "a.x".into(), service: "http://t".into(), origin: json!({}) };
        let mut view = EdgeView::default();
        for host in hosts {
            view.host(host);
        }
        tell_hosts(&mut view, settings, &facts, &Rules::of(&[route]), records);
        let line = |line: &crate::pipeline::EdgeHost| {
            format!("{} {} {} {}", line.host, line.routed, line.named, line.problem)
        };
        view.hosts.iter().map(line).collect()
    }

    #[test]
    fn a_record_that_is_refused_or_still_to_be_made_or_moved_is_none() {
        let zone = || Zoned { id: "z".into(), name: "x".into() };
        let body = |host: &str| json!({"name": host});
        let managed = settings(true, true);
        let refused = "DNS record a.x: Cloudflare refuses: no (code 1)".to_owned();
        for (records, named, problem) in [
            (Records::default(), true, ""),
            (Records { create: vec![(zone(), body("a.x"))], ..Records::default() }, false, ""),
            (
                Records { update: vec![(zone(), "1".into(), body("a.x"))], ..Records::default() },
                false,
                "",
            ),
            (Records { create: vec![(zone(), body("b.x"))], ..Records::default() }, true, ""),
            (
                Records {
                    conflicts: vec![Conflict::refused("a.x", refused.clone())],
                    ..Records::default()
                },
                false,
                refused.as_str(),
            ),
            (
                Records { conflicts: vec![Conflict::outside("a.x")], ..Records::default() },
                false,
                "a.x lies in none of the zones",
            ),
        ] {
            let expected = format!("a.x true {named} {problem}");
            assert_eq!(told(&managed, &["a.x"], &records), [expected]);
        }
    }

    #[test]
    fn a_host_without_an_ingress_is_told_where_its_route_is_ours() {
        let none = Records::default();
        let missing = "ingress: no Ingress or HTTPRoute has this host yet";
        assert_eq!(
            told(&settings(true, true), &["a.x", "b.x"], &none),
            ["a.x true true ".to_owned(), format!("b.x false true {missing}")]
        );
        assert_eq!(told(&settings(false, false), &["b.x"], &none), ["b.x false false "]);
    }

    #[test]
    fn a_route_says_what_the_controller_and_its_certificate_are_asked_for() {
        let origins = |tls: bool, verify: bool| {
            let target = Target {
                service: ("a".into(), "b".into()),
                url: "u".into(),
                tls,
                default: None,
                warnings: Vec::new(),
            };
            let mut settings = settings(true, true);
            settings.ingress.verify = verify;
            let hosts: BTreeSet<String> = ["*.x".to_owned(), "a.x".to_owned()].into();
            let routes = routes(&target, &hosts, &settings);
            routes.into_iter().map(|route| route.origin).collect::<Vec<_>>()
        };
        assert_eq!(origins(false, true), [json!({}), json!({"httpHostHeader": "a.x"})]);
        assert_eq!(
            origins(true, true),
            [
                json!({"matchSNItoHost": true}),
                json!({"httpHostHeader": "a.x", "originServerName": "a.x"})
            ]
        );
        assert_eq!(
            origins(true, false),
            [
                json!({"matchSNItoHost": true, "noTLSVerify": true}),
                json!({"httpHostHeader": "a.x", "originServerName": "a.x", "noTLSVerify": true})
            ]
        );
    }
}
