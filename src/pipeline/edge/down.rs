//! Takes the edge away: records, routes, connectors, tunnel, in that order.
//!
//! So no name is left that leads to nothing, and no tunnel is deleted under a connector. Whatever is
//! cut short is gone on with by the next run, from what the note says and the marks tell. What is not
//! ours stays: a tunnel that was adopted with its other rules, records without our mark.

use super::provider::{Cloud, broken};
use super::view::Link;
use super::{Course, EdgeView, Wanted, lock};
use crate::edge::{Deed, State, Stored, comment, withdraw_records, withdraw_routes};
use crate::pipeline::kustomization::Run;
use crate::pipeline::{Ask, Failure};
use crate::plan::Guard;
use std::collections::BTreeSet;

impl Run<'_> {
    /// One run.
    pub(super) async fn down(&mut self, course: &mut Course, ask: &Ask) -> Result<(), Failure> {
        let mut state = self.pipeline.edge_state().await?;
        if let Some(stored) = state.tunnel.clone() {
            let cloud = self.known_cloud(&state, course)?;
            self.redactor.add(cloud.client.token().expose().trim_ascii());
            self.drop_all_records(&cloud, &state, &stored, course).await?;
            self.drop_routes(&cloud, &mut state, &stored, course).await?;
            self.drop_objects(ask).await?;
            self.drop_tunnel(&cloud, &stored, course).await?;
            state = State { down: state.down, former: state.former, ..State::default() };
            if !stored.adopted {
                state.remember(stored.id);
            }
            self.pipeline.keep_edge_state(&state).await?;
        } else {
            self.drop_objects(ask).await?;
        }
        {
            let mut memory = lock(&self.pipeline.edge.memory);
            (memory.token, memory.objects) = (None, Vec::new());
        }
        let message = match &state.down {
            Some(by) => format!("taken down by {by}; to bring it up: gitopsd edge up"),
            None => "withdrawn, as the configuration has none any more".to_owned(),
        };
        course.view = EdgeView { ready: true, message, ..EdgeView::default() };
        course.withdrawn = self.held.is_empty();
        if state.down.is_none() && course.withdrawn {
            self.pipeline.drop_edge_state().await?;
        }
        Ok(())
    }

    /// The provider's side as it was noted.
    pub(super) fn known_cloud(&self, state: &State, course: &mut Course) -> Result<Cloud, Failure> {
        let client = self.pipeline.edge_client(&state.url).map_err(|mut failure| {
            failure.cause = format!("{}, and the edge is to be withdrawn", failure.cause);
            course.view.broken(Link::Token, &failure.cause, failure.hint.clone());
            failure
        })?;
        let account = state.account.clone().unwrap_or_default();
        Ok(Cloud { client, account, zones: state.zones.clone() })
    }

    async fn drop_all_records(
        &mut self,
        cloud: &Cloud,
        state: &State,
        stored: &Stored,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let marked = self.marked(cloud, &state.zones, course).await?;
        let mark = comment(&self.pipeline.edge.parts.suffix);
        let records = withdraw_records(&marked, &stored.id, &state.former, &mark);
        self.drop_records(cloud, &records, &Wanted::nothing(), course).await
    }

    async fn drop_routes(
        &mut self,
        cloud: &Cloud,
        state: &mut State,
        stored: &Stored,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let tunnel = cloud.client.tunnel(&cloud.account, &stored.id).await;
        let tunnel = self.asked(course, &cloud.client, Link::Tunnel, tunnel).await?;
        if !tunnel.is_some_and(|tunnel| tunnel.lives()) {
            return Ok(());
        }
        let found = cloud.client.configuration(&cloud.account, &stored.id).await;
        let found = self.asked(course, &cloud.client, Link::Route, found).await?;
        let routes = match withdraw_routes(&found, &state.hosts, stored.adopted) {
            Ok(routes) => routes,
            Err(foreign) => {
                let cause = format!("tunnel {} has {}", stored.name, foreign.join(", and "));
                let hint = "delete it in Cloudflare's dashboard first: the tunnel goes as a whole";
                return Err(broken(course, Link::Route, cause, Some(hint.to_owned())));
            }
        };
        if let Some(body) = &routes.body {
            self.begin(&Wanted::nothing()).await?;
            let done = cloud.client.configure(&cloud.account, &stored.id, body).await;
            self.asked(course, &cloud.client, Link::Route, done).await?;
            for deed in &routes.deeds {
                self.did(deed).await?;
            }
        }
        state.hosts.clear();
        self.pipeline.keep_edge_state(state).await
    }

    /// Everything of the edge in the cluster.
    async fn drop_objects(&mut self, ask: &Ask) -> Result<(), Failure> {
        let inventory = self.inventory().await?;
        lock(&self.pipeline.claims).drop_owner(&self.owner);
        lock(&self.pipeline.memory).remove(&self.owner);
        if inventory.is_empty() {
            return Ok(());
        }
        let guard = Guard {
            before: inventory.len(),
            rendered: 0,
            removed: true,
            confirmed: lock(&self.pipeline.confirmed).clone(),
            occupied: Default::default(),
        };
        self.delete(inventory, guard, &Wanted::nothing(), ask).await
    }

    async fn drop_tunnel(
        &mut self,
        cloud: &Cloud,
        stored: &Stored,
        course: &mut Course,
    ) -> Result<(), Failure> {
        if stored.adopted {
            return Ok(());
        }
        let (client, account) = (&cloud.client, &cloud.account);
        let found = client.tunnel(account, &stored.id).await;
        let found = self.asked(course, client, Link::Tunnel, found).await?;
        let suffix = &self.pipeline.edge.parts.suffix;
        // By id and by name: one that somebody has made his own is not deleted.
        let ours = found.filter(|tunnel| tunnel.lives() && tunnel.name.ends_with(suffix));
        let Some(tunnel) = ours else { return Ok(()) };
        self.begin(&Wanted::nothing()).await?;
        let cleaned = client.clean_connections(account, &stored.id).await;
        self.asked(course, client, Link::Tunnel, cleaned).await?;
        match client.delete_tunnel(account, &stored.id).await {
            // A connector that is on its way out has come back once more.
            Err(error @ crate::edge::CloudflareError::Refused { .. }) => {
                course.waits = true;
                return Err(broken(course, Link::Tunnel, error.to_string(), None)
                    .retry(crate::pipeline::Retry::Soon));
            }
            done => self.asked(course, client, Link::Tunnel, done).await?,
        }
        self.did(&Deed::new("delete", "Tunnel", &tunnel.name, "")).await
    }

    /// What a withdrawal would do, in its order.
    pub(super) async fn foreseen_end(
        &mut self,
        course: &mut Course,
    ) -> Result<(Vec<Deed>, Vec<Deed>), Failure> {
        let state = self.pipeline.edge_state().await?;
        let Some(stored) = state.tunnel.clone() else { return Ok((Vec::new(), Vec::new())) };
        let cloud = self.known_cloud(&state, course)?;
        let marked = self.marked(&cloud, &state.zones, course).await?;
        let mark = comment(&self.pipeline.edge.parts.suffix);
        let records = withdraw_records(&marked, &stored.id, &state.former, &mark);
        let mut first = records.deeds();
        let found = cloud.client.configuration(&cloud.account, &stored.id).await;
        let found = self.asked(course, &cloud.client, Link::Route, found).await?;
        let none = BTreeSet::new();
        let ours = if state.hosts.is_empty() { &none } else { &state.hosts };
        if let Ok(routes) = withdraw_routes(&found, ours, stored.adopted) {
            first.extend(routes.deeds);
        }
        let last = if stored.adopted {
            Vec::new()
        } else {
            vec![Deed::new("delete", "Tunnel", &stored.name, "")]
        };
        Ok((first, last))
    }
}
