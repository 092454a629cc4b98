//! Brings the edge to where it should be.
//!
//! The order: what is in the cluster, then records of hosts that left, routes, and new records last,
//! once a connector is connected: no name ever leads nowhere by our doing. The provider being away
//! keeps nothing of the cluster's side from being healed.

use super::hosts::{public, routes, tell_hosts};
use super::provider::{Cloud, broken};
use super::view::Link;
use super::{Course, EdgeTask, LEAVING, Wanted, facts, lock};
use crate::config::{ConnectorBy, EdgeSettings, IngressBy};
use crate::edge::{
    CONNECTOR, Choice, Connector, Facts, NAMESPACE, Records, SECRET, State, Target, Trouble,
    choose, manifests, traefik,
};
use crate::observe::Status;
use crate::pipeline::kustomization::Run;
use crate::pipeline::write::cluster_failure;
use crate::pipeline::{Ask, Connection, Failure, Retry, Step};
use crate::plan::{Guard, Owner, owned, stale};
use crate::render::{Manifest, ObjectId};
use crate::secrets::Plaintext;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a run knows before it asks the provider.
pub(super) struct Ground {
    pub(super) settings: EdgeSettings,
    pub(super) connection: Arc<Connection>,
    pub(super) facts: Facts,
    pub(super) target: Result<Target, Trouble>,
}

impl Run<'_> {
    /// One run.
    pub(super) async fn up(
        &mut self,
        task: &EdgeTask,
        course: &mut Course,
        ask: &Ask,
    ) -> Result<(), Failure> {
        let Some(settings) = self.edge.parts.settings.clone() else { return Ok(()) };
        let mut state = self.pipeline.edge_state().await?;
        if state.down.is_some() {
            // What was cut short goes on; where nothing is left, nobody is asked.
            return self.down(course, ask).await;
        }
        self.verify = lock(&self.pipeline.memory)
            .get_mut(&self.owner)
            .is_some_and(|memory| std::mem::take(&mut memory.verify));
        if *task == EdgeTask::Heal {
            let known = lock(&self.edge.memory).token.is_some();
            if known && self.heal_known(ask).await? {
                return Ok(());
            }
        }
        let ground = self.ground(settings, course).await?;
        let cloud = self.cloud(task, &ground, &mut state, course).await;
        let (cloud, tunnel, token) = match cloud {
            Ok(found) => found,
            Err(failure) => {
                let healed = self.without_provider(&ground, &state, ask).await;
                // What is on its way out takes its time; the provider is what fails.
                return Err(healed
                    .err()
                    .filter(|other| other.reason != LEAVING)
                    .unwrap_or(failure));
            }
        };
        let objects = self.edge_objects(&ground, &tunnel.id, token.as_ref());
        self.keep_token(&tunnel.id, token);
        let wanted = self.write_edge(objects, ask).await?;
        self.enter(Step::Apply);
        let present = self.present(&ground, &cloud.zones, &state);
        let hosts = public(&ground.settings, &present);
        self.keep_present(&present, &mut state).await?;
        course.view.hosts.clear();
        for host in &hosts {
            course.view.host(host);
        }
        course.view.tunnel = Some(tunnel.name.clone());
        course.view.tunnel_id = Some(tunnel.id.clone());
        course.view.adopted = ground.settings.adopt;
        let mut records = Records::default();
        if ground.settings.dns {
            let (found, unread) = self.look_records(&cloud, &state, &hosts, course).await?;
            records = found;
            self.drop_records(&cloud, &records, &wanted, course).await?;
            let zones = [cloud.zones.clone(), unread].concat();
            if state.zones != zones {
                state.zones = zones;
                self.pipeline.keep_edge_state(&state).await?;
            }
        }
        let mut blocked = None;
        if let (true, Ok(target)) = (ground.settings.routes, &ground.target) {
            let routes = routes(target, &hosts, &ground.settings);
            let made = self.make_routes(&cloud, &mut state, &routes, &wanted, course).await;
            match made {
                // Hosts that have their route keep it, and their names.
                Err(failure) if failure.object.as_deref() == Some("route") => {
                    blocked = Some(failure)
                }
                made => made?,
            }
        }
        course.view.connections = match tunnel.connected() {
            0 => {
                let found = cloud.client.connections(&cloud.account, &tunnel.id).await;
                self.asked(course, &cloud.client, Link::Tunnel, found).await?
            }
            connected => connected,
        };
        let led = !ground.settings.routes || (ground.target.is_ok() && blocked.is_none());
        if course.view.connections > 0 && led {
            self.make_records(&cloud, &mut records, &wanted, course).await?;
            // No name of ours points there any more. What cannot be cleared is told by a warning.
            let _ = self.clear_left(&cloud.client, &mut state, &wanted).await?;
        }
        let Ground { settings, facts, .. } = &ground;
        tell_hosts(&mut course.view, settings, facts, &state.rules, &records);
        self.tell_absent(&present, course);
        self.verdict(&ground, blocked, &records, course).await
    }

    /// What the cluster says, before the provider is asked.
    pub(super) async fn ground(
        &mut self,
        settings: EdgeSettings,
        course: &mut Course,
    ) -> Result<Ground, Failure> {
        self.enter(Step::Plan);
        course.view.warnings.clear();
        let connection = self.connected()?;
        if connection.stranger {
            let cause = "this is not the cluster that the history was made on";
            let hint = "confirm it with: gitopsd confirm cluster".to_owned();
            return Err(broken(course, Link::Ingress, cause, Some(hint)));
        }
        let facts = facts::facts(&connection.cluster, &settings).await;
        let facts = facts.map_err(|error| cluster_failure(Step::Plan, &error))?;
        let ours = settings.connector.by == ConnectorBy::Gitopsd;
        if let (true, [other, ..]) = (ours, facts.connectors.as_slice()) {
            let cause = format!(
                "the repository brings a connector, {other}, and gitopsd is to run another, \
                 Deployment/{NAMESPACE}/{CONNECTOR}"
            );
            let hint = "write edge.connector: repository (with edge.tunnel.adopt: true), or take \
                        the other one out of Git";
            return Err(broken(course, Link::Connector, cause, Some(hint.to_owned())));
        }
        let target = choose(&settings, &facts);
        if let Ok(target) = &target {
            course.view.ingress = Some(target.url.clone());
            course.view.warnings.extend(target.warnings.iter().cloned());
        }
        course.view.warnings.extend(facts.advice().map(str::to_owned));
        Ok(Ground { settings, connection, facts, target })
    }

    /// Zones, tunnel and the connectors' token.
    async fn cloud(
        &mut self,
        task: &EdgeTask,
        ground: &Ground,
        state: &mut State,
        course: &mut Course,
    ) -> Result<(Cloud, crate::edge::Tunnel, Option<Plaintext>), Failure> {
        let settings = &ground.settings;
        let cloud = self.look_zones(settings, course).await?;
        let choice = self.look_tunnel(settings, state, &cloud, course).await?;
        // The objects that will be: the same ids, whatever the token is.
        let begin =
            self.edge_objects_wanted(self.edge_objects(ground, "", Some(&Plaintext::default())));
        let tunnel = self.make_tunnel(choice, (settings, state), &cloud, &begin, course).await?;
        if *task == EdgeTask::Rotate {
            self.rotate(ground, &cloud, &tunnel, &begin, course).await?;
        }
        let token = self.look_token(settings, &cloud, &tunnel, course).await?;
        Ok((cloud, tunnel, token))
    }

    async fn rotate(
        &mut self,
        ground: &Ground,
        cloud: &Cloud,
        tunnel: &crate::edge::Tunnel,
        begin: &Wanted,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let by_us = ground.settings.connector.by == ConnectorBy::Gitopsd;
        if ground.settings.adopt || !by_us {
            let cause = "the tunnel's secret is somebody else's";
            let hint = "rotate it in Cloudflare's dashboard".to_owned();
            return Err(broken(course, Link::Tunnel, cause, Some(hint)));
        }
        self.begin(begin).await?;
        let secret = super::provider::fresh_secret()?;
        self.redactor.add(secret.expose());
        let done = cloud.client.rotate_tunnel(&cloud.account, &tunnel.id, &secret).await;
        self.asked(course, &cloud.client, Link::Tunnel, done).await?;
        let deed = crate::edge::Deed::new("configure", "Tunnel", &tunnel.name, "a new secret");
        self.did(&deed).await
    }

    /// The objects that stand in the cluster.
    pub(super) fn edge_objects(
        &self,
        ground: &Ground,
        tunnel: &str,
        token: Option<&Plaintext>,
    ) -> Vec<Manifest> {
        let Ground { settings, facts, .. } = ground;
        let mut objects = Vec::new();
        if let (ConnectorBy::Gitopsd, Some(token)) = (settings.connector.by, token) {
            let mark = self.keyed(&String::from_utf8_lossy(token.expose()));
            objects.extend(manifests(&Connector {
                image: &settings.connector.image,
                replicas: settings.connector.replicas,
                tunnel,
                token,
                mark: &mark,
            }));
        }
        if settings.ingress.controller == IngressBy::Traefik
            && facts.helm
            && facts.tuned_by.is_none()
        {
            objects.push(traefik(crate::edge::default_class(facts), &facts.ranges));
        }
        objects
    }

    fn keep_token(&self, tunnel: &str, token: Option<Plaintext>) {
        lock(&self.edge.memory).token = token.map(|token| (tunnel.to_owned(), token));
    }

    /// Applies, and takes away what is wanted no longer.
    pub(super) async fn write_edge(
        &mut self,
        objects: Vec<Manifest>,
        ask: &Ask,
    ) -> Result<Wanted, Failure> {
        lock(&self.edge.memory).objects.clone_from(&objects);
        let manifests = self.finish(objects).await?;
        let wanted = self.edge_objects_wanted(manifests);
        let written = self.write(&wanted).await?;
        if let Some(first) = written.going.first() {
            return Err(self.leaving(first).await?);
        }
        self.refused(&wanted, &written)?;
        let rendered: BTreeSet<ObjectId> =
            wanted.manifests.iter().map(|manifest| manifest.id.clone()).collect();
        let inventory = self.inventory().await?;
        let gone = stale(&inventory, &rendered);
        if !gone.is_empty() {
            self.enter(Step::Prune);
            let guard = Guard {
                before: inventory.len(),
                rendered: rendered.len(),
                // Somebody has changed the configuration: no accident of a render.
                removed: true,
                confirmed: lock(&self.pipeline.confirmed).clone(),
                ..Guard::default()
            };
            self.delete(gone, guard, &wanted, ask).await?;
        }
        let depends = rendered.iter().filter(|id| id.kind == "Deployment");
        let targets = depends.map(|id| (id.clone(), "apps/v1".to_owned())).collect();
        lock(&self.pipeline.memory).entry(self.owner.clone()).or_default().targets = targets;
        self.remember_ready(&wanted);
        Ok(wanted)
    }

    /// What was taken away is not gone yet, such as a namespace that is still being emptied.
    async fn leaving(&self, id: &ObjectId) -> Result<Failure, Failure> {
        let whose = match self.taken_down(id).await? {
            true => "which was taken down",
            false => "which somebody else deletes",
        };
        let cause = format!("waits until {id}, {whose}, is gone");
        let hint = "if it stays, look at its metadata.finalizers".to_owned();
        Ok(Failure::new(Step::Apply, LEAVING, cause).hint(Some(hint)).retry(Retry::Soon))
    }

    /// Writes what is known from the last run. False when nothing is.
    async fn heal_known(&mut self, ask: &Ask) -> Result<bool, Failure> {
        let objects = lock(&self.edge.memory).objects.clone();
        if objects.is_empty() {
            return Ok(false);
        }
        self.enter(Step::Plan);
        self.write_edge(objects, ask).await?;
        Ok(true)
    }

    /// Keeps the cluster's side right while the provider does not answer.
    async fn without_provider(
        &mut self,
        ground: &Ground,
        state: &State,
        ask: &Ask,
    ) -> Result<(), Failure> {
        if self.heal_known(ask).await? {
            return Ok(());
        }
        let Some(stored) = &state.tunnel else { return Ok(()) };
        let Some(token) = self.live_token(&ground.connection, &stored.id).await? else {
            return Ok(());
        };
        self.redactor.add(token.expose());
        let objects = self.edge_objects(ground, &stored.id, Some(&token));
        self.keep_token(&stored.id, Some(token));
        self.write_edge(objects, ask).await.map(|_| ())
    }

    /// The token that stands in our Secret.
    pub(super) async fn live_token(
        &self,
        connection: &Connection,
        tunnel: &str,
    ) -> Result<Option<Plaintext>, Failure> {
        let failed = |error| cluster_failure(Step::Plan, &error);
        let secrets = connection.cluster.resource("v1", "Secret").await.map_err(failed)?;
        let Some(secrets) = secrets else { return Ok(None) };
        let live = connection.cluster.get(&secrets, NAMESPACE, SECRET).await.map_err(failed)?;
        let Some(live) = live.filter(|live| owned(live, &Owner::edge())) else { return Ok(None) };
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str);
        if text("/metadata/annotations/gitopsd.io~1tunnel") != Some(tunnel) {
            return Ok(None);
        }
        let token = text("/data/token").and_then(|text| STANDARD.decode(text).ok());
        Ok(token.map(Plaintext::new))
    }

    /// Says whether it works, or which link is broken.
    async fn verdict(
        &mut self,
        ground: &Ground,
        blocked: Option<Failure>,
        records: &Records,
        course: &mut Course,
    ) -> Result<(), Failure> {
        if let Some(failure) = blocked {
            // Said already where it was found; what came after has not mended it.
            course.view.broken(Link::Route, &failure.cause, failure.hint.clone());
            return Err(failure);
        }
        if let (true, Err(trouble)) = (ground.settings.routes, &ground.target) {
            let Trouble { cause, hint, wait } = trouble.clone();
            let failure = broken(course, Link::Ingress, cause, Some(hint));
            course.waits |= wait;
            // What a cold start has not brought yet is no failure.
            return if wait { Ok(()) } else { Err(failure) };
        }
        if course.view.connections == 0 {
            course.waits = true;
            let (link, cause, hint) = self.disconnected(ground).await?;
            course.view.broken(link, &cause, hint);
            return Ok(());
        }
        if let Some(conflict) = records.conflicts.first() {
            let more = records.conflicts.len() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let cause = format!("{}{more}", conflict.cause);
            return Err(broken(course, Link::Dns, cause, Some(conflict.hint.to_owned())));
        }
        if let Ok(target) = &ground.target {
            let answers = facts::answers(&ground.connection.cluster, &target.service).await;
            if !answers.map_err(|error| cluster_failure(Step::Observe, &error))? {
                let (namespace, name) = &target.service;
                let cause = format!("Service {namespace}/{name} has no pod that is ready");
                let hint = format!("see kubectl -n {namespace} get pods");
                course.view.broken(Link::Service, &cause, Some(hint));
                course.waits = true;
                return Ok(());
            }
        }
        course.view.reachable();
        Ok(())
    }

    /// Why no connector is connected.
    async fn disconnected(
        &self,
        ground: &Ground,
    ) -> Result<(Link, String, Option<String>), Failure> {
        if ground.settings.connector.by == ConnectorBy::Repository {
            return Ok(match ground.facts.connectors.first() {
                None => (
                    Link::Connector,
                    "the repository has brought none yet".to_owned(),
                    Some("see whether its Kustomization is ready".to_owned()),
                ),
                Some(name) => (
                    Link::Connector,
                    format!("{name} has no connection to this tunnel"),
                    Some("see its log, and whether its token is of this tunnel".to_owned()),
                ),
            });
        }
        let id = ObjectId {
            namespace: NAMESPACE.to_owned(),
            name: CONNECTOR.to_owned(),
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
        };
        let observer = &ground.connection.observer;
        let verdict = observer.verdict(&id, "apps/v1", &[]).await;
        let verdict = verdict.map_err(|error| cluster_failure(Step::Observe, &error))?;
        if verdict.status == Status::Current {
            let cause = "the connectors run, and none has a connection yet".to_owned();
            let hint = format!("if it stays so: kubectl -n {NAMESPACE} logs deploy/{CONNECTOR}");
            return Ok((Link::Connector, cause, Some(hint)));
        }
        // The verdict stands without a cause, should the server not tell one just now.
        let cause = observer.cause_of(&id, "apps/v1").await.ok().flatten();
        Ok(match cause {
            Some(cause) => (Link::Pod, cause.sentence, cause.hint),
            None => (Link::Pod, verdict.message, None),
        })
    }
}

/// What a choice of a tunnel means for a plan.
pub(super) fn chosen(choice: &Choice) -> Option<&crate::edge::Tunnel> {
    match choice {
        Choice::Use(tunnel) | Choice::Rename(tunnel, _) => Some(tunnel),
        Choice::Create(_) | Choice::Refuse(..) => None,
    }
}
