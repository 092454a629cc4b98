//! The plan that a run of the edge would execute, for `gitopsd diff edge` and before `edge down`.

use super::down::End;
use super::hosts::{public, routes};
use super::provider::Cloud;
use super::up::{Ground, chosen};
use super::{Course, edge_job, lock};
use crate::config::ConnectorBy;
use crate::edge::{Choice, Deed, State, Stored};
use crate::history::Trigger;
use crate::pipeline::kustomization::Run;
use crate::pipeline::{Failure, Pipeline, Preview, PreviewStep};
use crate::plan::{Owner, delete_order};
use crate::render::ObjectId;
use crate::secrets::Plaintext;
use std::collections::BTreeSet;

impl Pipeline {
    /// Plans without writing, the bringing up or, with `down`, the withdrawal. What goes wrong is in
    /// the preview.
    pub async fn edge_plan(&self, down: bool) -> Preview {
        let job = edge_job(Trigger::Interval);
        let mut run = Run::new(self, &job);
        let mut preview = Preview {
            kustomization: Owner::edge().to_string(),
            revision: job.revision.id.clone(),
            steps: Vec::new(),
            unchanged: 0,
            failure: None,
        };
        let mut course = Course::default();
        let done = match down {
            true => run.plan_down(&mut preview, &mut course).await,
            false => run.plan_up(&mut preview, &mut course).await,
        };
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
    async fn plan_up(&mut self, preview: &mut Preview, course: &mut Course) -> Result<(), Failure> {
        let Some(settings) = self.pipeline.edge.parts.settings.clone() else { return Ok(()) };
        let mut state = self.pipeline.edge_state().await?;
        if state.down.is_some() {
            // As somebody wants it.
            return Ok(());
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
                let link = super::view::Link::Tunnel;
                let hint = Some(hint.clone());
                return Err(super::provider::broken(course, link, cause.clone(), hint));
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
        self.preview_objects(preview, &connection, objects, (&BTreeSet::new(), 0)).await?;
        self.plan_provider(preview, &ground, &cloud, &state, course).await
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
                object: format!("Record/{}", conflict.split(' ').next().unwrap_or_default()),
                file: None,
                lines: vec![conflict.clone()],
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
        let inventory = self.inventory().await?;
        let mut ids: Vec<ObjectId> = inventory.into_iter().map(|entry| entry.id).collect();
        {
            let claims = lock(&self.pipeline.claims);
            ids.retain(|id| claims.other(&self.owner, id).is_none());
        }
        delete_order(&mut ids);
        preview.steps.extend(ids.iter().map(|id| PreviewStep {
            verb: "delete".to_owned(),
            object: id.to_string(),
            file: None,
            lines: Vec::new(),
        }));
        preview.steps.extend(last.iter().map(shown));
        refused.map_or(Ok(()), Err)
    }
}
