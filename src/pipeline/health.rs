//! Waits for health: the cluster's objects by watches, Flux objects by the graph.

use super::kustomization::{Run, Wanted};
use super::write::Written;
use super::{Ask, Connection, Failure, FluxHealth, Pipeline, Step, lock};
use crate::flux::is_flux_group;
use crate::history::Trigger;
use crate::observe::{Outcome as Ended, Wanted as Target};
use crate::plan::Owner;
use crate::render::ObjectId;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a run that was asked for because something is not well waits for it: what is under
/// way has had its time before.
const GRACE: Duration = Duration::from_secs(5);

/// What a wait that was given up counts at the least: edits without end are no way to wait without
/// end.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// A run that waits for health, for as long as this lives.
struct Observing<'a>(&'a Pipeline, &'a Owner);

impl<'a> Observing<'a> {
    fn begin(pipeline: &'a Pipeline, owner: &'a Owner) -> Self {
        lock(&pipeline.observing).insert(owner.clone());
        Observing(pipeline, owner)
    }
}

impl Drop for Observing<'_> {
    fn drop(&mut self) {
        lock(&self.0.observing).remove(self.1);
    }
}

impl Run<'_> {
    /// Waits until everything that Ready depends on is healthy. True when something else comes first: a
    /// newer revision, or an edit that is to be healed.
    pub(super) async fn observe(
        &mut self,
        wanted: &Wanted,
        written: &Written,
        ask: &Ask,
    ) -> Result<bool, Failure> {
        let (targets, flux) = self.targets(wanted, written);
        lock(&self.pipeline.memory).entry(self.owner.clone()).or_default().targets =
            targets.iter().map(|t| (t.id.clone(), t.api_version.clone())).collect();
        if targets.is_empty() && flux.is_empty() {
            self.waited(None);
            return Ok(false);
        }
        let connection = self.connected()?;
        let timeout = match self.job.trigger {
            Trigger::Health => self.job.kustomization.timeout.min(GRACE),
            _ => self.job.kustomization.timeout,
        };
        // Whoever edits something again and again gives nothing more time. Everything is looked at
        // all the same, and then to the end.
        let (begun, before) = (Instant::now(), self.waited_before(&wanted.input));
        let left = timeout.saturating_sub(before);
        let deadline = begun + left.max(timeout.min(GRACE));
        let _observing = (!left.is_zero()).then(|| Observing::begin(self.pipeline, &self.owner));
        if !left.is_zero() && self.is_edited() {
            // Somebody has edited what was applied a moment ago: that is healed first.
            self.waited(Some((wanted.input.clone(), before + GIVEN_UP)));
            return Ok(true);
        }
        let mut cancel = self.job.cancel.clone();
        let both = async {
            self.healthy(&connection, targets, deadline, timeout).await?;
            self.flux_healthy(flux, ask.flux.clone(), deadline, timeout).await
        };
        let ended = tokio::select! {
            biased;
            result = both => result.map(|()| false),
            _ = cancel.wait_for(|cancelled| *cancelled) => Ok(true),
        };
        let goes_on = matches!(ended, Ok(true)) && self.is_edited();
        self.waited(
            goes_on.then(|| (wanted.input.clone(), before + begun.elapsed().max(GIVEN_UP))),
        );
        ended
    }

    /// Whether a watch has seen something that the next run is to judge at once.
    fn is_edited(&self) -> bool {
        self.pipeline.nominated(&self.owner) == Some(0)
    }

    /// How long runs before this one have waited on the same inputs, each for a part of the time.
    fn waited_before(&self, input: &str) -> Duration {
        let memory = lock(&self.pipeline.memory);
        let waited = memory.get(&self.owner).and_then(|memory| memory.waited.as_ref());
        waited.filter(|(of, _)| of == input).map(|(_, waited)| *waited).unwrap_or_default()
    }

    fn waited(&self, waited: Option<(String, Duration)>) {
        if let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner) {
            memory.waited = waited;
        }
    }

    /// What Ready depends on: everything applied with `wait`, else the listed checks.
    fn targets(&self, wanted: &Wanted, written: &Written) -> (Vec<Target>, Vec<String>) {
        let kustomization = &self.job.kustomization;
        let mut flux: Vec<String> = Vec::new();
        let mut targets = Vec::new();
        let all = lock(&self.pipeline.memory);
        let memory = all.get(&self.owner);
        let vanished = memory.map(|memory| memory.vanished.clone()).unwrap_or_default();
        let objects = || memory.into_iter().flat_map(|memory| &memory.objects);
        // Flux waits for what it has applied, not for what it leaves alone at all.
        let skipped: BTreeSet<ObjectId> =
            objects().filter(|(_, known)| known.skipped).map(|(id, _)| id.clone()).collect();
        if kustomization.wait {
            for manifest in &wanted.manifests {
                let id = &manifest.id;
                if skipped.contains(id) || written.left_out.contains(id) || vanished.contains(id) {
                    continue;
                }
                targets.push(Target {
                    id: manifest.id.clone(),
                    api_version: manifest.api_version.clone(),
                    object: written.answers.get(&manifest.id).cloned(),
                });
            }
            let own = kustomization.key();
            let orders = wanted.orders.work.iter().map(|order| order.object.key());
            flux.extend(orders.filter(|key| *key != own).map(|key| key.to_string()));
            return (targets, flux);
        }
        for check in &kustomization.health_checks {
            let group = check.api_version.split_once('/').map_or("", |(group, _)| group);
            if is_flux_group(group) {
                let namespace = if check.namespace.is_empty() {
                    &kustomization.namespace
                } else {
                    &check.namespace
                };
                flux.push(format!("{}/{namespace}/{}", check.kind, check.name));
                continue;
            }
            let id = ObjectId {
                namespace: check.namespace.clone(),
                name: check.name.clone(),
                group: group.to_owned(),
                kind: check.kind.clone(),
            };
            if vanished.contains(&id) {
                continue;
            }
            let object = written.answers.get(&id).cloned();
            targets.push(Target { id, api_version: check.api_version.clone(), object });
        }
        (targets, flux)
    }

    async fn healthy(
        &self,
        connection: &Connection,
        targets: Vec<Target>,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), Failure> {
        if targets.is_empty() {
            return Ok(());
        }
        let exprs = &self.job.kustomization.health_check_exprs;
        let versions: HashMap<ObjectId, String> =
            targets.iter().map(|t| (t.id.clone(), t.api_version.clone())).collect();
        let report = connection.observer.health(targets, exprs, deadline, |_, _| {}).await;
        if report.outcome == Ended::Healthy {
            return Ok(());
        }
        let blamed: Vec<_> = report.unhealthy().collect();
        let Some((id, verdict)) = blamed.first() else { return Ok(()) };
        let others = match blamed.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let how = match report.outcome {
            Ended::Failed => "failed".to_owned(),
            _ if self.job.trigger == Trigger::Health => "not healthy".to_owned(),
            _ => format!("not healthy after {}", crate::flux::format_duration(timeout)),
        };
        let version = versions.get(id).map(String::as_str).unwrap_or_default();
        // The verdict stands without a cause, should the server not tell one just now.
        let cause = connection.observer.cause_of(id, version).await.ok().flatten();
        let said = cause.as_ref().map_or(&verdict.message, |cause| &cause.sentence);
        let sentence = format!("{how}: {said}{others}");
        let failure =
            Failure::new(Step::Observe, "HealthCheckFailed", self.redactor.mask(&sentence))
                .object(id)
                .hint(cause.as_ref().and_then(|cause| cause.hint.clone()));
        Err(self.at_revision(failure))
    }

    async fn flux_healthy(
        &self,
        wanted: Vec<String>,
        mut states: watch::Receiver<Arc<HashMap<String, FluxHealth>>>,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), Failure> {
        loop {
            let waiting = {
                let known = states.borrow_and_update();
                wanted.iter().find_map(|key| match known.get(key) {
                    Some(state) if state.ready => None,
                    Some(state) => Some((key.clone(), state.message.clone())),
                    None => Some((key.clone(), "does not exist".to_owned())),
                })
            };
            let Some((key, message)) = waiting else { return Ok(()) };
            let changed = tokio::time::timeout_at(deadline, states.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                let waited = crate::flux::format_duration(timeout);
                let cause = format!("not ready after {waited}: {message}");
                let failure = Failure::new(Step::Observe, "HealthCheckFailed", cause).object(key);
                return Err(self.at_revision(failure));
            }
        }
    }
}
