//! The plan that a run of the edge would execute, for `gitopsd diff` and before `edge down`.
//!
//! It is made of the configuration in force or of one that is not yet, as a reload carries out at
//! once what has changed. Before a section that was removed is withdrawn, where nobody can be asked,
//! the journal is told what goes.

use super::down::End;
use super::hosts::{public, routes};
use super::provider::{Cloud, broken};
use super::up::{Ground, chosen};
use super::view::Link;
use super::{Course, Edge, edge_job, lock};
use crate::config::{ConnectorBy, EdgeSettings};
use crate::edge::{Choice, Deed, State, Stored, Trouble};
use crate::history::Trigger;
use crate::pipeline::kustomization::Run;
use crate::pipeline::{Failure, Pipeline, Preview, PreviewStep, Retry, Step};
use crate::plan::{Owner, delete_order};
use crate::render::ObjectId;
use crate::secrets::Plaintext;
use std::time::Duration;

/// Time of a plan, below what the socket has for an answer: a provider that is slow does not cost
/// the plans that are shown beside it.
const PATIENCE: Duration = Duration::from_secs(40);

impl Pipeline {
    /// Plans the next run without writing: with a section that brings the edge to where it should
    /// be, without one the withdrawal of what is left. What goes wrong is in the preview.
    pub async fn edge_plan(&self) -> Preview {
        self.edge_planned(&self.edge, false).await
    }

    /// The same with settings and a token that are not in force.
    pub async fn edge_plan_with(
        &self,
        settings: Option<EdgeSettings>,
        token: Option<Plaintext>,
    ) -> Preview {
        self.edge_planned(&self.edge.aside(settings, token), false).await
    }

    /// The same for the withdrawal that somebody asks for.
    pub async fn edge_plan_down(&self) -> Preview {
        self.edge_planned(&self.edge, true).await
    }

    async fn edge_planned(&self, edge: &Edge, down: bool) -> Preview {
        let job = edge_job(Trigger::Interval);
        let mut run = Run::new(self, &job);
        run.edge = edge;
        let mut preview = Preview {
            kustomization: Owner::edge().to_string(),
            revision: job.revision.id.clone(),
            steps: Vec::new(),
            unchanged: 0,
            failure: None,
            notes: Vec::new(),
        };
        let mut course = Course::default();
        let settings = edge.parts.settings.clone().filter(|_| !down);
        let plan = async {
            match settings {
                Some(settings) => run.plan_up(settings, &mut preview, &mut course).await,
                None => run.plan_down(&mut preview, &mut course).await,
            }
        };
        let done = tokio::time::timeout(PATIENCE, plan).await.unwrap_or_else(|_| {
            let cause = format!("the plan was not through within {} s", PATIENCE.as_secs());
            Err(Failure::new(Step::Plan, "EdgeFailed", cause).retry(Retry::Soon))
        });
        if let Err(mut failure) = done {
            failure.cause = run.redactor.mask(&failure.cause);
            preview.failure = Some(failure);
        }
        preview
    }
}

fn shown(deed: &Deed) -> PreviewStep {
    PreviewStep {
        verb: deed.verb.to_owned(),
        object: deed.object(),
        file: None,
        lines: deed.lines.clone(),
    }
}

impl Run<'_> {
    async fn plan_up(
        &mut self,
        settings: EdgeSettings,
        preview: &mut Preview,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let mut state = self.pipeline.edge_state().await?;
        if state.down.is_some() {
            // As somebody wants it; what was cut short goes on.
            return self.plan_down(preview, course).await;
        }
        let ground = self.ground(settings, course).await?;
        let cloud = self.look_zones(&ground.settings, course).await?;
        let choice = self.look_tunnel(&ground.settings, &mut state, &cloud, course).await?;
        match &choice {
            Choice::Create(name) => {
                preview.steps.push(shown(&Deed::new("create", "Tunnel", name, "")));
            }
            Choice::Rename(tunnel, name) => {
                let line = format!("was {}", tunnel.name);
                preview.steps.push(shown(&Deed::new("configure", "Tunnel", name, &line)));
            }
            Choice::Refuse(cause, hint) => {
                return Err(broken(course, Link::Tunnel, cause.clone(), Some(hint.clone())));
            }
            Choice::Use(_) => {}
        }
        let tunnel = chosen(&choice).cloned();
        let token = match &tunnel {
            Some(tunnel) => self.look_token(&ground.settings, &cloud, tunnel, course).await?,
            None => (ground.settings.connector.by == ConnectorBy::Gitopsd)
                .then(|| Plaintext::new(b"the token of the tunnel to be".to_vec())),
        };
        if let Some(tunnel) = &tunnel {
            let adopted = ground.settings.adopt;
            let stored = Stored { id: tunnel.id.clone(), name: tunnel.name.clone(), adopted };
            state.take(&cloud.account, stored);
        }
        let id = tunnel.as_ref().map_or("", |tunnel| tunnel.id.as_str());
        let objects = self.edge_objects(&ground, id, token.as_ref());
        let connection = ground.connection.clone();
        let wanted = self.edge_objects_wanted(objects);
        self.preview_objects(preview, &connection, wanted).await?;
        self.plan_provider(preview, &ground, &cloud, &state, course).await?;
        match &ground.target {
            Err(Trouble { cause, wait: true, .. }) if ground.settings.routes => {
                preview.notes.push(format!("routes stay as they are for now: {cause}"));
                Ok(())
            }
            Err(Trouble { cause, hint, .. }) if ground.settings.routes => {
                Err(broken(course, Link::Ingress, cause.clone(), Some(hint.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Routes and records. Those of a tunnel that is still to be made all are.
    async fn plan_provider(
        &mut self,
        preview: &mut Preview,
        ground: &Ground,
        cloud: &Cloud,
        state: &State,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let hosts = public(&ground.settings, &self.present(ground, &cloud.zones, state));
        let Some(stored) = &state.tunnel else {
            for host in &hosts {
                if let (true, Ok(target)) = (ground.settings.routes, &ground.target) {
                    let line = format!("to {}", target.url);
                    preview.steps.push(shown(&Deed::new("create", "Route", host, &line)));
                }
                if ground.settings.dns {
                    let line = "once a connector is connected";
                    preview.steps.push(shown(&Deed::new("create", "Record", host, line)));
                }
            }
            return Ok(());
        };
        if let (true, Ok(target)) = (ground.settings.routes, &ground.target) {
            let wanted = routes(target, &hosts, &ground.settings);
            let (found, _) = self.look_routes(cloud, stored, &wanted, &state.rules, course).await?;
            preview.steps.extend(found.deeds.iter().map(shown));
        }
        if ground.settings.dns {
            let (records, _) = self.look_records(cloud, state, &hosts, course).await?;
            preview.steps.extend(records.deeds().iter().map(shown));
            preview.steps.extend(records.conflicts.iter().map(|conflict| PreviewStep {
                verb: "refuse".to_owned(),
                object: format!("Record/{}", conflict.host),
                file: None,
                lines: vec![conflict.cause.clone()],
            }));
        }
        preview.steps.extend(self.foreseen_left(&cloud.client, state).await.iter().map(shown));
        Ok(())
    }

    async fn plan_down(
        &mut self,
        preview: &mut Preview,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let End { first, last, refused } = self.foreseen_end(course).await?;
        preview.steps.extend(first.iter().map(shown));
        let ids = self.last_objects().await?;
        preview.steps.extend(ids.iter().map(|id| PreviewStep {
            verb: "delete".to_owned(),
            object: id.to_string(),
            file: None,
            lines: Vec::new(),
        }));
        preview.steps.extend(last.iter().map(shown));
        refused.map_or(Ok(()), Err)
    }

    /// What a withdrawal deletes in the cluster, in that order.
    async fn last_objects(&self) -> Result<Vec<ObjectId>, Failure> {
        let inventory = self.inventory().await?;
        let mut ids: Vec<ObjectId> = inventory.into_iter().map(|entry| entry.id).collect();
        {
            let claims = lock(&self.pipeline.claims);
            ids.retain(|id| claims.other(&self.owner, id).is_none());
        }
        delete_order(&mut ids);
        Ok(ids)
    }

    /// Tells the journal what goes with a section that was removed, before anything does.
    pub(super) async fn foretell(&mut self, course: &mut Course) -> Result<(), Failure> {
        let warned = self.warnings.len();
        let End { first, last, refused } = self.foreseen_end(course).await?;
        // The run comes to the same.
        self.warnings.truncate(warned);
        let deeds: Vec<Deed> = first.into_iter().chain(last).collect();
        let told = summary(&deeds, self.last_objects().await?.len());
        let before = std::mem::replace(&mut lock(&self.edge.memory).foretold, told.clone());
        if refused.is_none() && !told.is_empty() && told != before {
            tracing::info!(
                gitopsd_kustomization = self.owner.to_string(),
                "edge: not configured any more, and withdrawn now: {told}"
            );
        }
        Ok(())
    }
}

/// What a withdrawal takes away, counted; empty when that is nothing.
fn summary(deeds: &[Deed], objects: usize) -> String {
    let of = |kind: &str| deeds.iter().filter(|deed| deed.kind == kind).count();
    let counts =
        [(of("Record"), "DNS record"), (of("Route"), "route"), (objects, "cluster object")];
    let counts = counts.into_iter().filter(|(n, _)| *n > 0);
    let counts = counts.map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
    let tunnels = deeds.iter().filter(|deed| deed.kind == "Tunnel");
    let tunnels = tunnels.map(|deed| format!("tunnel {}", deed.name));
    counts.chain(tunnels).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawal_is_told_in_numbers_and_nothing_is_not_told() {
        let deed = |kind, name| Deed::new("delete", kind, name, "");
        let deeds = [
            deed("Record", "a.b"),
            deed("Route", "a.b"),
            deed("Route", "c.b"),
            deed("Tunnel", "home-3fa9"),
        ];
        let told = "1 DNS record, 2 routes, 3 cluster objects, tunnel home-3fa9";
        assert_eq!(summary(&deeds, 3), told);
        assert_eq!(summary(&deeds[..1], 1), "1 DNS record, 1 cluster object");
        assert_eq!(summary(&[], 0), "");
    }
}
