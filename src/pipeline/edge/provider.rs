//! Between a run and the provider's API: what is found there, what is done, and what goes wrong.
//!
//! `look_*` only read, and are what a plan and a run have in common; `make_*` write, one change after
//! the other, each recorded. Before the first of them the run is begun.

use super::view::Link;
use super::{Course, EDGE_OFFLINE, Wanted, lock};
use crate::config::{ConnectorBy, EdgeSettings};
use crate::edge::{
    Choice, Cloudflare, CloudflareError, Conflict, Deed, Named, Record, Records, Route, Routes,
    Rules, State, Stored, Tunnel, Wish, Zoned, comment, point, route, select, within,
};
use crate::history::{Change, Verb};
use crate::logging::Message;
use crate::pipeline::kustomization::Run;
use crate::pipeline::{Failure, Retry, Step};
use crate::secrets::Plaintext;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Re-plans of a configuration that somebody else changes at the same time.
const TRIES: usize = 3;

/// What is found at the provider before anything is changed.
pub(super) struct Cloud {
    pub(super) client: Arc<Cloudflare>,
    pub(super) account: String,
    pub(super) zones: Vec<Zoned>,
}

/// A tunnel's secret: 32 random bytes in base64. Nobody keeps it.
pub(super) fn fresh_secret() -> Result<Plaintext, Failure> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut bytes[..]).map_err(|error| {
        Failure::new(Step::Plan, "EdgeFailed", format!("no random numbers: {error}"))
    })?;
    Ok(Plaintext::new(STANDARD.encode(&bytes[..]).into_bytes()))
}

/// The provider says the same of a token that may not and of one that is none.
pub(super) async fn told_apart(client: &Cloudflare, error: CloudflareError) -> CloudflareError {
    if !matches!(error, CloudflareError::Denied { .. }) {
        return error;
    }
    match client.verify().await {
        Err(invalid @ CloudflareError::Token { .. }) => invalid,
        _ => error,
    }
}

/// Records with our mark.
pub(super) struct Marked {
    pub(super) records: Vec<(Zoned, Record)>,
    /// Zones that were used before and cannot be read any more.
    pub(super) unread: Vec<Zoned>,
}

impl Run<'_> {
    /// An answer of the provider, or the failure that its error is, with the link that is broken.
    pub(super) async fn asked<T>(
        &self,
        course: &mut Course,
        client: &Cloudflare,
        link: Link,
        answer: Result<T, CloudflareError>,
    ) -> Result<T, Failure> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => told_apart(client, error).await,
        };
        let link = match &error {
            CloudflareError::Token { .. } | CloudflareError::Denied { .. } => Link::Token,
            CloudflareError::Net(_)
            | CloudflareError::Limited { .. }
            | CloudflareError::Server { .. } => Link::Uplink,
            _ => link,
        };
        course.pause = course.pause.max(error.pause());
        // What it called account and zones may be another by now: the next run looks again.
        lock(&self.edge.memory).zones = None;
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        let mut failure = broken(course, link, error.to_string(), error.hint()).retry(retry);
        if error.offline() {
            failure.reason = EDGE_OFFLINE.to_owned();
        }
        Err(failure)
    }

    /// Account and zones, looked up once.
    pub(super) async fn look_zones(
        &self,
        settings: &EdgeSettings,
        course: &mut Course,
    ) -> Result<Cloud, Failure> {
        let client = match self.edge.client(&settings.url) {
            Ok(client) => client,
            Err(failure) => {
                course.view.broken(Link::Token, &failure.cause, failure.hint.clone());
                return Err(failure);
            }
        };
        let known = lock(&self.edge.memory).zones.clone();
        if let Some((account, zones)) = known {
            return Ok(Cloud { client, account, zones });
        }
        if let Some(account) = &settings.account {
            client.of_account(account);
        }
        let (mut zones, mut accounts) = (Vec::new(), BTreeSet::new());
        for said in &settings.zones {
            let found = client.zone(said).await;
            let zone = self.asked(course, &client, Link::Dns, found).await?;
            let fits =
                |account: &String| *account == zone.account.id || *account == zone.account.name;
            if let Some(account) = settings.account.as_ref().filter(|account| !fits(account)) {
                let cause = format!(
                    "zone {} belongs to account {} ({}), not to {account}",
                    zone.name, zone.account.name, zone.account.id
                );
                let hint = "correct edge.cloudflare.account, or leave it out".to_owned();
                return Err(broken(course, Link::Tunnel, cause, Some(hint)));
            }
            accounts.insert(zone.account.id);
            zones.push(Zoned { id: zone.id, name: zone.name });
        }
        let [account] = accounts.into_iter().collect::<Vec<_>>().try_into().map_err(
            |accounts: Vec<String>| {
                let cause = format!("the zones belong to {} accounts", accounts.len());
                let hint = "a tunnel has one: name zones of a single account".to_owned();
                broken(course, Link::Tunnel, cause, Some(hint))
            },
        )?;
        lock(&self.edge.memory).zones = Some((account.clone(), zones.clone()));
        Ok(Cloud { client, account, zones })
    }

    /// Which tunnel is used, or is to be made.
    pub(super) async fn look_tunnel(
        &self,
        settings: &EdgeSettings,
        state: &mut State,
        cloud: &Cloud,
        course: &mut Course,
    ) -> Result<Choice, Failure> {
        let suffix = &self.edge.parts.suffix;
        let EdgeSettings { tunnel: name, adopt, routes, .. } = settings;
        let wish = Wish { name, suffix, adopt: *adopt, routes: *routes };
        let known = state.tunnel.clone().filter(|_| state.account.as_ref() == Some(&cloud.account));
        let stored = match &known {
            Some(known) => {
                let found = cloud.client.tunnel(&cloud.account, &known.id).await;
                self.asked(course, &cloud.client, Link::Tunnel, found).await?
            }
            None => None,
        };
        let found = stored.as_ref().is_some_and(Tunnel::lives);
        let same = known.as_ref().is_some_and(|known| !settings.adopt || known.name == wish.name);
        let named = if found && same {
            Vec::new()
        } else {
            let found = cloud.client.tunnels(&cloud.account, &wish.full()).await;
            self.asked(course, &cloud.client, Link::Tunnel, found).await?
        };
        if !settings.adopt {
            let gone = named.iter().filter(|tunnel| !tunnel.lives());
            gone.for_each(|tunnel| state.remember(tunnel.id.clone()));
        }
        Ok(select(wish, known.as_ref(), stored, &named))
    }

    /// Makes, renames or takes the tunnel, and notes it.
    pub(super) async fn make_tunnel(
        &mut self,
        choice: Choice,
        (settings, state): (&EdgeSettings, &mut State),
        cloud: &Cloud,
        begin: &Wanted,
        course: &mut Course,
    ) -> Result<Tunnel, Failure> {
        let Cloud { client, account, .. } = cloud;
        let tunnel = match choice {
            Choice::Use(tunnel) => tunnel,
            Choice::Rename(mut tunnel, name) => {
                self.begin(begin).await?;
                let done = client.rename_tunnel(account, &tunnel.id, &name).await;
                self.asked(course, client, Link::Tunnel, done).await?;
                self.did(&Deed::new("configure", "Tunnel", &name, &format!("was {}", tunnel.name)))
                    .await?;
                tunnel.name = name;
                tunnel
            }
            Choice::Create(name) => {
                self.begin(begin).await?;
                let secret = fresh_secret()?;
                self.redactor.add(secret.expose());
                let made = client.create_tunnel(account, &name, &secret).await;
                let tunnel = self.asked(course, client, Link::Tunnel, made).await?;
                self.did(&Deed::new("create", "Tunnel", &name, "")).await?;
                tunnel
            }
            Choice::Refuse(cause, hint) => {
                return Err(broken(course, Link::Tunnel, cause, Some(hint)));
            }
        };
        let name = if settings.adopt { settings.tunnel.clone() } else { tunnel.name.clone() };
        state.url.clone_from(&settings.url);
        let stored = Stored { id: tunnel.id.clone(), name, adopted: settings.adopt };
        state.take(account, stored);
        self.pipeline.keep_edge_state(state).await?;
        Ok(tunnel)
    }

    /// What the connectors run with; `None` when the repository brings them.
    pub(super) async fn look_token(
        &mut self,
        settings: &EdgeSettings,
        cloud: &Cloud,
        tunnel: &Tunnel,
        course: &mut Course,
    ) -> Result<Option<Plaintext>, Failure> {
        if settings.connector.by == ConnectorBy::Repository {
            return Ok(None);
        }
        let found = cloud.client.connector_token(&cloud.account, &tunnel.id).await;
        let token = self.asked(course, &cloud.client, Link::Token, found).await?;
        self.redactor.add(token.expose());
        Ok(Some(token))
    }

    /// What the tunnel's configuration lacks, and the version that this was seen at.
    pub(super) async fn look_routes(
        &self,
        cloud: &Cloud,
        stored: &Stored,
        wanted: &[Route],
        ours: &Rules,
        course: &mut Course,
    ) -> Result<(Routes, i64), Failure> {
        let found = cloud.client.configuration(&cloud.account, &stored.id).await;
        let found = self.asked(course, &cloud.client, Link::Route, found).await?;
        match route(&found, wanted, ours, stored.adopted) {
            Ok(routes) => Ok((routes, found.version)),
            Err(foreign) => {
                let cause = format!("tunnel {} has {}", stored.name, foreign.join(", and "));
                let hint = if stored.adopted {
                    "take the host from edge.hosts, or delete that rule in Cloudflare's dashboard"
                } else {
                    "delete it in Cloudflare's dashboard, or name its host in edge.hosts; nothing \
                     is written until then"
                };
                Err(broken(course, Link::Route, cause, Some(hint.to_owned())))
            }
        }
    }

    /// Writes the tunnel's configuration, and sees to it that it is what was written.
    pub(super) async fn make_routes(
        &mut self,
        cloud: &Cloud,
        state: &mut State,
        wanted: &[Route],
        begin: &Wanted,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let Some(stored) = state.tunnel.clone() else { return Ok(()) };
        let (after, mut ours) = (Rules::of(wanted), state.rules.clone());
        let (mut routes, mut seen) =
            self.look_routes(cloud, &stored, wanted, &ours, course).await?;
        let mut tries = 0;
        while let Some(body) = routes.body.take() {
            if tries == TRIES {
                self.note_rules(state, ours).await?;
                let cause =
                    format!("somebody else keeps changing the configuration of {}", stored.name);
                return Err(broken(course, Link::Route, cause, None).retry(Retry::Soon));
            }
            tries += 1;
            self.begin(begin).await?;
            // Both old and new are ours, wherever this is cut short.
            let mut both = ours.clone();
            both.add(after.clone());
            self.note_rules(state, both).await?;
            // There is no precondition: another look just before is all there is.
            let looked = self.look_routes(cloud, &stored, wanted, &ours, course).await;
            if looked.is_err() {
                // Nothing was written: what somebody has made there meanwhile is his.
                self.note_rules(state, ours.clone()).await?;
            }
            let (again, version) = looked?;
            if version != seen {
                (routes, seen) = (again, version);
                continue;
            }
            let done = cloud.client.configure(&cloud.account, &stored.id, &body).await;
            self.asked(course, &cloud.client, Link::Route, done).await?;
            for deed in &routes.deeds {
                self.did(deed).await?;
            }
            ours.clone_from(&state.rules);
            (routes, seen) = self.look_routes(cloud, &stored, wanted, &ours, course).await?;
        }
        self.note_rules(state, after).await
    }

    async fn note_rules(&self, state: &mut State, rules: Rules) -> Result<(), Failure> {
        state.rules = rules;
        self.pipeline.keep_edge_state(state).await
    }

    /// Records with our mark in all zones, those that left the configuration included. One of these
    /// that cannot be read any more is named, and keeps nothing else from being done.
    pub(super) async fn marked(
        &mut self,
        client: &Cloudflare,
        (zones, before): (&[Zoned], &[Zoned]),
        course: &mut Course,
    ) -> Result<Marked, Failure> {
        let mark = comment(&self.edge.parts.suffix);
        let mut marked = Marked { records: Vec::new(), unread: Vec::new() };
        let before = before.iter().filter(|zone| !zones.contains(zone));
        for (zone, needed) in zones.iter().map(|z| (z, true)).chain(before.map(|z| (z, false))) {
            let found = match client.records_marked(&zone.id, &mark).await {
                // With a zone that is not there any more its records went.
                Err(CloudflareError::Gone { .. }) if !needed => continue,
                Err(error) if !needed => Err(told_apart(client, error).await),
                found => found,
            };
            if let (false, Err(error)) = (needed, &found)
                && error.of_this_alone()
            {
                self.warnings.push(format!(
                    "zone {} was used before and cannot be read any more: {error}; give the token \
                     the right again, or delete there the records with the comment {mark:?}",
                    zone.name
                ));
                marked.unread.push(zone.clone());
                continue;
            }
            let found = self.asked(course, client, Link::Dns, found).await?;
            let ours = |record: &Record| record.comment.as_deref() == Some(mark.as_str());
            let found = found.into_iter().filter(ours).map(|record| (zone.clone(), record));
            marked.records.extend(found);
        }
        Ok(marked)
    }

    /// What DNS lacks, and the zones that could not be read.
    pub(super) async fn look_records(
        &mut self,
        cloud: &Cloud,
        state: &State,
        hosts: &BTreeSet<String>,
        course: &mut Course,
    ) -> Result<(Records, Vec<Zoned>), Failure> {
        let Some(stored) = &state.tunnel else { return Ok(Default::default()) };
        let zones = (cloud.zones.as_slice(), state.zones.as_slice());
        let Marked { records: marked, unread } = self.marked(&cloud.client, zones, course).await?;
        let (mut wanted, mut named, mut outside) = (Vec::new(), Vec::new(), Vec::new());
        for host in hosts {
            let inside = cloud.zones.iter().filter(|zone| within(host, &zone.name));
            let Some(zone) = inside.max_by_key(|zone| zone.name.len()).cloned() else {
                outside.push(Conflict::outside(host));
                continue;
            };
            if !marked.iter().any(|(_, record)| record.name == *host) {
                let found = cloud.client.records_named(&zone.id, host).await;
                let found = self.asked(course, &cloud.client, Link::Dns, found).await?;
                named.extend(found.into_iter().map(|record| (zone.clone(), record)));
            }
            wanted.push(Named { host: host.clone(), zone });
        }
        let mark = comment(&self.edge.parts.suffix);
        let mut records = point(&wanted, &marked, &named, (&stored.id, &state.former), &mark);
        records.conflicts.extend(outside);
        Ok((records, unread))
    }

    /// Deletes records of hosts that are not public any more.
    pub(super) async fn drop_records(
        &mut self,
        cloud: &Cloud,
        records: &Records,
        begin: &Wanted,
        course: &mut Course,
    ) -> Result<(), Failure> {
        for (zone, record) in &records.delete {
            self.begin(begin).await?;
            let done = cloud.client.delete_record(&zone.id, &record.id).await;
            self.asked(course, &cloud.client, Link::Dns, done).await?;
            let line = format!("CNAME {}", record.content);
            self.did(&Deed::new("delete", "Record", &record.name, &line)).await?;
        }
        Ok(())
    }

    /// Makes and moves records. One that somebody else has made meanwhile costs its host alone.
    pub(super) async fn make_records(
        &mut self,
        cloud: &Cloud,
        records: &mut Records,
        begin: &Wanted,
        course: &mut Course,
    ) -> Result<(), Failure> {
        for (zone, body) in std::mem::take(&mut records.create) {
            self.begin(begin).await?;
            let host = body["name"].as_str().unwrap_or_default().to_owned();
            match cloud.client.create_record(&zone.id, &body).await {
                Err(error @ CloudflareError::Refused { .. }) => {
                    records.conflicts.push(Conflict::refused(&host, error.to_string()));
                    continue;
                }
                done => self.asked(course, &cloud.client, Link::Dns, done).await?,
            };
            let line = format!("CNAME {}", body["content"].as_str().unwrap_or_default());
            self.did(&Deed::new("create", "Record", &host, &line)).await?;
        }
        for (zone, id, body) in std::mem::take(&mut records.update) {
            self.begin(begin).await?;
            let done = cloud.client.update_record(&zone.id, &id, &body).await;
            self.asked(course, &cloud.client, Link::Dns, done).await?;
            let host = body["name"].as_str().unwrap_or_default();
            let line = format!("CNAME {}", body["content"].as_str().unwrap_or_default());
            self.did(&Deed::new("configure", "Record", host, &line)).await?;
        }
        Ok(())
    }

    /// Records one change at the provider.
    pub(super) async fn did(&mut self, deed: &Deed) -> Result<(), Failure> {
        self.changes += 1;
        let verb = match deed.verb {
            "create" => Verb::Created,
            "delete" => Verb::Deleted,
            _ => Verb::Configured,
        };
        let lines = self.redactor.mask(&deed.lines.join("\n"));
        let told = if lines.is_empty() { String::new() } else { format!(": {lines}") };
        tracing::info!(
            message_id = Message::Applied.id(),
            gitopsd_kustomization = self.owner.to_string(),
            gitopsd_object = deed.object(),
            gitopsd_run = self.run_id(),
            gitopsd_action = verb.as_str(),
            "edge: {} {}{told}",
            deed.object(),
            verb.as_str()
        );
        let (object, id) = (deed.object(), deed.id());
        self.change(Change { object, id, verb, diff: lines, origin: None }).await
    }
}

/// A failure of a link, which the view tells too.
pub(super) fn broken(
    course: &mut Course,
    link: Link,
    cause: impl Into<String>,
    hint: Option<String>,
) -> Failure {
    let cause = cause.into();
    course.view.broken(link, &cause, hint.clone());
    Failure::new(Step::Plan, "EdgeFailed", cause).object(link).hint(hint)
}
