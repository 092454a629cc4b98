//! Which hosts are public, where they lead, and what is known of each.

use super::up::Ground;
use super::{Course, lock};
use crate::config::EdgeSettings;
use crate::edge::{Present, Records, Route, State, Target, Zoned, found, present, within};
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
        let memory = lock(&self.pipeline.edge.memory);
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
            let mut memory = lock(&self.pipeline.edge.memory);
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

    /// What is known of each host.
    pub(super) fn tell_hosts(
        &self,
        ground: &Ground,
        state: &State,
        records: &Records,
        course: &mut Course,
    ) {
        let facts = &ground.facts;
        let waits: BTreeSet<&str> = records
            .create
            .iter()
            .map(|(_, body)| body["name"].as_str().unwrap_or_default())
            .collect();
        for line in &mut course.view.hosts {
            let conflict =
                records.conflicts.iter().find(|text| text.split(' ').any(|w| w == line.host));
            line.routed = state.rules.host(&line.host);
            line.named = ground.settings.dns
                && conflict.is_none()
                && line.problem.is_empty()
                && !waits.contains(line.host.as_str());
            let served = facts.published.iter().any(|published| {
                published.host == line.host
                    || published.host.strip_prefix('*').is_some_and(|end| line.host.ends_with(end))
                    || line.host.strip_prefix('*').is_some_and(|end| published.host.ends_with(end))
            });
            if let Some(conflict) = conflict {
                line.problem.clone_from(conflict);
            } else if !served && line.problem.is_empty() {
                line.problem = "ingress: no Ingress or HTTPRoute has this host yet".to_owned();
            }
        }
    }
}
