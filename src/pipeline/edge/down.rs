//! Takes the edge away: records, routes, connectors, tunnel, in that order.
//!
//! So no name is left that leads to nothing, and no tunnel is deleted under a connector. Whatever is
//! cut short is gone on with by the next run, from what the note says and the marks tell; where the
//! note is lost, the tunnel is looked for by its name first. What is not ours stays: a tunnel that
//! was adopted with its other rules, records without our mark. Rules of others in a tunnel of ours
//! hold up the whole of it, before anything is taken away.

use super::hosts::{public, routes};
use super::provider::{Cloud, Marked, broken};
use super::up::chosen;
use super::view::Link;
use super::{Course, EdgeView, LEAVING, Wanted, lock};
use crate::edge::{
    Choice, Cloudflare, CloudflareError, Deed, Records, Routes, Rules, State, Stored, Trouble,
    Zoned, comment, standing, withdraw_records, withdraw_routes,
};
use crate::pipeline::kustomization::Run;
use crate::pipeline::{Ask, Failure, Retry, Step};
use crate::plan::Guard;
use std::sync::Arc;

/// What a withdrawal would do.
#[derive(Default)]
pub(super) struct End {
    /// At the provider, before the objects in the cluster.
    pub(super) first: Vec<Deed>,
    /// At the provider, after them.
    pub(super) last: Vec<Deed>,
    /// Why nothing of it would be done.
    pub(super) refused: Option<Failure>,
}

/// A tunnel outlives its last connection: pods take up to half a minute to end, and connect again
/// until then. That is waited for, and no failure.
fn draining(tunnel: &str) -> Failure {
    let cause = format!("waits until {tunnel} has no connection any more");
    let hint = "if it stays so, somebody else runs a connector of this tunnel".to_owned();
    Failure::new(Step::Prune, LEAVING, cause).hint(Some(hint)).retry(Retry::Soon)
}

impl Run<'_> {
    /// One run.
    pub(super) async fn down(&mut self, course: &mut Course, ask: &Ask) -> Result<(), Failure> {
        let mut state = self.pipeline.edge_state().await?;
        if self.edge.parts.settings.is_none() {
            // With the section goes what somebody has said of it: a later one comes up.
            state.down = None;
            self.foretell(course).await?;
        }
        if state.unsure {
            self.find_again(&mut state, course).await?;
            state.unsure = false;
            self.pipeline.keep_edge_state(&state).await?;
        }
        if state.stands() {
            self.drop_provided(&mut state, course, ask).await?;
        } else {
            self.drop_objects(ask).await?;
        }
        {
            let mut memory = lock(&self.edge.memory);
            (memory.token, memory.objects) = (None, Vec::new());
        }
        let message = match &state.down {
            Some(by) => format!("taken down by {by}; to bring it up: gitopsd edge up"),
            None => "withdrawn, as the configuration has none any more".to_owned(),
        };
        course.view = EdgeView { ready: true, message, ..EdgeView::default() };
        course.withdrawn = self.held.is_empty();
        if state.down.is_none() && course.withdrawn && !state.stands() {
            self.pipeline.drop_edge_state().await?;
        }
        Ok(())
    }

    /// What stands at the provider, and with it what stands in the cluster.
    async fn drop_provided(
        &mut self,
        state: &mut State,
        course: &mut Course,
        ask: &Ask,
    ) -> Result<(), Failure> {
        let cloud = self.known_cloud(state, course)?;
        let stored = state.tunnel.clone();
        if let Some(stored) = &stored {
            // Nothing is taken away before it is sure that all of it may be.
            self.look_end(&cloud, state, stored, course).await?;
        }
        let (records, unread) = self.all_records(&cloud.client, state, course).await?;
        self.drop_records(&cloud, &records, &Wanted::nothing(), course).await?;
        if let Some(stored) = &stored {
            self.drop_routes(&cloud, state, stored, course).await?;
        }
        self.drop_objects(ask).await?;
        if let Some(stored) = &stored {
            self.drop_tunnel(&cloud, stored, course).await?;
        }
        let passing = self.clear_left(&cloud.client, state, &Wanted::nothing()).await?;
        // Nobody may ever give the right to what is not configured any more.
        let given_up = self.edge.parts.settings.is_none() && passing.is_none();
        let zones = if given_up { Vec::new() } else { unread };
        let news = stored.is_some()
            || (passing.is_none() && !state.left.is_empty())
            || (given_up && !self.warnings.is_empty());
        let State { url, account, former, left, down, .. } = std::mem::take(state);
        // Of the rest the provider has said no: it is told, and nothing is to come of it.
        let left = if passing.is_some() { left } else { Vec::new() };
        *state = State { url, account, former, left, down, zones, ..State::default() };
        if let Some(stored) = stored.filter(|stored| !stored.adopted || !state.zones.is_empty()) {
            state.remember(stored.id);
        }
        if news {
            // Told once, as nobody may look at the status of what is gone.
            self.warnings.iter().for_each(|warning| tracing::warn!("edge: {warning}"));
        }
        self.pipeline.keep_edge_state(state).await?;
        match passing {
            Some(CloudflareError::Busy { what }) => Err(draining(&what)),
            Some(error) => {
                let failed = self.asked(course, &cloud.client, Link::Tunnel, Err(error)).await;
                failed.map_err(|failure| failure.retry(Retry::Soon))
            }
            None => Ok(()),
        }
    }

    /// Looks for what the configuration speaks of, as nobody remembers what was made.
    async fn find_again(&mut self, state: &mut State, course: &mut Course) -> Result<(), Failure> {
        let Some(settings) = self.edge.parts.settings.clone() else { return Ok(()) };
        let cloud = self.look_zones(&settings, course).await?;
        let choice = self.look_tunnel(&settings, state, &cloud, course).await?;
        if let Choice::Refuse(cause, hint) = choice {
            return Err(broken(course, Link::Tunnel, cause, Some(hint)));
        }
        state.url.clone_from(&settings.url);
        state.account = Some(cloud.account.clone());
        state.zones.clone_from(&cloud.zones);
        let Some(tunnel) = chosen(&choice) else { return Ok(()) };
        let (id, name) = (tunnel.id.clone(), tunnel.name.clone());
        state.take(&cloud.account, Stored { id, name, adopted: settings.adopt });
        // What would be written now is all that is sure to be ours.
        let ground = self.ground(settings, course).await;
        let ground = ground.map_err(|failure| failure.retry(Retry::Soon))?;
        match &ground.target {
            Ok(_) if ground.settings.adopt && !ground.settings.routes => Ok(()),
            Ok(target) => {
                let hosts = public(&ground.settings, &self.present(&ground, &cloud.zones, state));
                let wanted = routes(target, &hosts, &ground.settings);
                let ours = match ground.settings.adopt {
                    // In somebody's tunnel, only what stands there as it would be written.
                    true => {
                        let found = cloud.client.configuration(&cloud.account, &tunnel.id).await;
                        let found = self.asked(course, &cloud.client, Link::Route, found).await?;
                        standing(&found, &wanted)
                    }
                    false => Rules::of(&wanted),
                };
                state.rules.add(ours);
                Ok(())
            }
            Err(Trouble { cause, hint, wait: true }) if ground.settings.routes => {
                let failure = broken(course, Link::Ingress, cause.clone(), Some(hint.clone()));
                Err(failure.retry(Retry::Soon))
            }
            // Rules that are there hold up the withdrawal by themselves.
            Err(_) => Ok(()),
        }
    }

    /// The provider's side as it was noted.
    pub(super) fn known_cloud(&self, state: &State, course: &mut Course) -> Result<Cloud, Failure> {
        let client = self.edge.client(&state.url).map_err(|mut failure| {
            failure.cause = format!("{}, and the edge is to be withdrawn", failure.cause);
            course.view.broken(Link::Token, &failure.cause, failure.hint.clone());
            failure
        })?;
        let account = state.account.clone().unwrap_or_default();
        client.of_account(&account);
        Ok(Cloud { client, account, zones: state.zones.clone() })
    }

    /// Records of ours in all zones that were used, and the zones that could not be read.
    async fn all_records(
        &mut self,
        client: &Arc<Cloudflare>,
        state: &State,
        course: &mut Course,
    ) -> Result<(Records, Vec<Zoned>), Failure> {
        // Without the right to a zone that is configured nothing is forgotten: it is to be given.
        let settings = self.edge.parts.settings.as_ref();
        let said = settings.map_or(&[][..], |settings| &settings.zones);
        let (needed, before) = state.zones_by(said);
        let Marked { records, unread } = self.marked(client, (&needed, &before), course).await?;
        let mark = comment(&self.edge.parts.suffix);
        let tunnel = state.tunnel.as_ref().map_or("", |tunnel| tunnel.id.as_str());
        Ok((withdraw_records(&records, tunnel, &state.former, &mark), unread))
    }

    /// What of the tunnel's configuration would go.
    async fn look_end(
        &self,
        cloud: &Cloud,
        state: &State,
        stored: &Stored,
        course: &mut Course,
    ) -> Result<Routes, Failure> {
        if stored.adopted && state.rules.is_empty() {
            // Nothing of ours: whatever configures it is not asked.
            return Ok(Routes::default());
        }
        let tunnel = cloud.client.tunnel(&cloud.account, &stored.id).await;
        let tunnel = self.asked(course, &cloud.client, Link::Tunnel, tunnel).await?;
        if !tunnel.is_some_and(|tunnel| tunnel.lives()) {
            return Ok(Routes::default());
        }
        let found = cloud.client.configuration(&cloud.account, &stored.id).await;
        let found = self.asked(course, &cloud.client, Link::Route, found).await?;
        withdraw_routes(&found, &state.rules, stored.adopted).map_err(|foreign| {
            let cause = format!("tunnel {} has {}", stored.name, foreign.join(", and "));
            let hint = "delete it in Cloudflare's dashboard first: the tunnel goes as a whole";
            broken(course, Link::Route, cause, Some(hint.to_owned()))
        })
    }

    async fn drop_routes(
        &mut self,
        cloud: &Cloud,
        state: &mut State,
        stored: &Stored,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let routes = self.look_end(cloud, state, stored, course).await?;
        if let Some(body) = &routes.body {
            self.begin(&Wanted::nothing()).await?;
            let done = cloud.client.configure(&cloud.account, &stored.id, body).await;
            self.asked(course, &cloud.client, Link::Route, done).await?;
            for deed in &routes.deeds {
                self.did(deed).await?;
            }
        }
        state.rules = Rules::default();
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
            ..Guard::default()
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
        let suffix = &self.edge.parts.suffix;
        // By id and by name: one that somebody has made his own is not deleted.
        let ours = found.filter(|tunnel| tunnel.lives() && tunnel.name.ends_with(suffix));
        let Some(tunnel) = ours else { return Ok(()) };
        self.begin(&Wanted::nothing()).await?;
        let cleaned = client.clean_connections(account, &stored.id).await;
        self.asked(course, client, Link::Tunnel, cleaned).await?;
        match client.delete_tunnel(account, &stored.id).await {
            Err(CloudflareError::Busy { .. }) => {
                return Err(draining(&format!("tunnel {}", tunnel.name)));
            }
            done => self.asked(course, client, Link::Tunnel, done).await?,
        }
        self.did(&Deed::new("delete", "Tunnel", &tunnel.name, "")).await
    }

    /// What a withdrawal would do at the provider.
    pub(super) async fn foreseen_end(&mut self, course: &mut Course) -> Result<End, Failure> {
        let note = self.pipeline.edge_note().await?;
        let unsure = note.as_ref().is_none_or(|state| state.unsure);
        let mut state = note.unwrap_or_default();
        if unsure {
            self.find_again(&mut state, course).await?;
        }
        if !state.stands() {
            return Ok(End::default());
        }
        let cloud = self.known_cloud(&state, course)?;
        let (records, _) = self.all_records(&cloud.client, &state, course).await?;
        let mut end = End { first: records.deeds(), ..End::default() };
        if let Some(stored) = &state.tunnel {
            match self.look_end(&cloud, &state, stored, course).await {
                Ok(routes) => end.first.extend(routes.deeds),
                Err(refused) => end.refused = Some(refused),
            }
            if !stored.adopted {
                end.last.push(Deed::new("delete", "Tunnel", &stored.name, ""));
            }
        }
        end.last.extend(self.foreseen_left(&cloud.client, &state).await);
        Ok(end)
    }
}
