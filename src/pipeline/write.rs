//! Plan and apply, one stage after the other.

use super::kustomization::{Run, Wanted};
use super::memory::Known;
use super::orders::orphaned_namespaces;
use super::{Connection, Failure, Retry, Step, lock};
use crate::cluster::ClusterError;
use crate::history::{Change, Trigger, Verb};
use crate::plan::{self, Action, Gate, Refusal, RefusalKind, decide, stages};
use crate::render::{Manifest, ObjectId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What applying left behind for the steps after it.
#[derive(Default)]
pub(super) struct Written {
    /// Answers of the API server to what was written, for health.
    pub(super) answers: BTreeMap<ObjectId, Value>,
    /// Objects that the server refuses; the others were applied.
    pub(super) refusals: Vec<Failure>,
}

/// Reason of a run that ended because the daemon stops: no failure of anything.
pub(super) const STOPPING: &str = "Stopping";

/// A failure of the API server: tried again within seconds when it may pass.
pub(super) fn cluster_failure(step: Step, error: &ClusterError) -> Failure {
    let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
    Failure::new(step, "ReconciliationFailed", error.to_string()).hint(error.hint()).retry(retry)
}

impl Run<'_> {
    /// Goes through the stages. Everything that the server accepts is applied, also beside what it
    /// refuses; only a server that is away ends the run at once.
    pub(super) async fn write(&mut self, wanted: &Wanted) -> Result<Written, Failure> {
        self.enter(Step::Plan);
        let connection = self.connected()?;
        self.objects = Some(wanted.manifests.len());
        let needed = orphaned_namespaces(&wanted.manifests, &wanted.answer.set_aside_namespaces);
        for namespace in needed {
            let made = connection.applier.ensure_namespace(&namespace).await;
            made.map_err(|e| cluster_failure(Step::Apply, &e))?;
        }
        self.adopt(wanted).await?;
        let mut written = Written::default();
        for stage in stages(wanted.manifests.clone()) {
            self.stage(&connection, wanted, stage, &mut written).await?;
        }
        self.forget_dropped(wanted);
        Ok(written)
    }

    /// Ends the run between two objects when the daemon is stopping.
    pub(super) fn going_on(&self) -> Result<(), Failure> {
        if *self.pipeline.stopping.borrow() {
            let cause = "the daemon is stopping; the next start goes on";
            return Err(Failure::new(Step::Apply, STOPPING, cause).retry(Retry::Soon));
        }
        Ok(())
    }

    pub(super) fn connected(&self) -> Result<Arc<Connection>, Failure> {
        self.connection.clone().ok_or_else(|| {
            let cause = "the API server is not reachable";
            let hint = "systemctl status k3s; gitopsd goes on by itself once it answers";
            self.at_revision(
                Failure::new(Step::Plan, "ReconciliationFailed", cause)
                    .hint(Some(hint.to_owned()))
                    .retry(Retry::Soon),
            )
        })
    }

    async fn stage(
        &mut self,
        connection: &Connection,
        wanted: &Wanted,
        stage: Vec<Manifest>,
        written: &mut Written,
    ) -> Result<(), Failure> {
        self.enter(Step::Plan);
        let ids: Vec<(ObjectId, String)> =
            stage.iter().map(|m| (m.id.clone(), m.api_version.clone())).collect();
        let (quiet, looked_at): (Vec<Manifest>, Vec<Manifest>) =
            stage.into_iter().partition(|manifest| self.is_quiet(manifest));
        drop(quiet);
        let probes = connection.applier.probe(&looked_at).await;
        let force = self.job.kustomization.force && !connection.stranger;
        let mut wrote_definitions = false;
        for (manifest, probe) in looked_at.into_iter().zip(probes) {
            let live_gate = probe.live.as_ref().map(Gate::of);
            let live = probe.live.clone();
            let step = decide(manifest, probe, force);
            match &step.action {
                Action::Unchanged => {
                    if let (Some(gate), Some(live)) = (live_gate, live) {
                        self.know(&step.manifest, &live, gate);
                        written.answers.insert(step.manifest.id.clone(), live);
                    }
                }
                Action::Skip(why) => {
                    // Its gate is watched, so that the end of an opt-out on the live copy is seen.
                    match (live_gate, &live) {
                        (Some(gate), Some(live)) if *why != plan::GOING => {
                            self.know(&step.manifest, live, gate);
                        }
                        _ => self.forget_object(&step.manifest.id),
                    }
                    if *why == plan::GOING {
                        written.refusals.push(self.going(&step.manifest));
                    }
                }
                Action::Deferred(_) => self.forget_object(&step.manifest.id),
                Action::Refuse(refusal) => {
                    let failure = self.refusal(&step.manifest, refusal);
                    if outage(refusal) {
                        return Err(failure);
                    }
                    written.refusals.push(failure);
                }
                Action::Create | Action::Configure | Action::Recreate(_) => {
                    self.going_on()?;
                    self.begin(wanted).await?;
                    self.enter(Step::Apply);
                    match connection.applier.apply(&step).await {
                        Ok(applied) => {
                            self.note(&step).await?;
                            self.know(&step.manifest, &applied.object, applied.gate);
                            self.warnings.extend(applied.warnings);
                            wrote_definitions |=
                                step.manifest.id.kind == "CustomResourceDefinition";
                            written.answers.insert(step.manifest.id.clone(), applied.object);
                        }
                        Err(error) => {
                            let failure = self.apply_failure(&step.manifest, &error);
                            if failure.retry == Retry::Soon {
                                return Err(failure);
                            }
                            written.refusals.push(failure);
                        }
                    }
                    self.enter(Step::Plan);
                }
            }
        }
        if wrote_definitions {
            connection.cluster.forget();
        }
        self.watch(connection, &ids).await;
        let early = ids.iter().filter(|(id, _)| plan::early(id));
        let answers: Vec<Value> =
            early.filter_map(|(id, _)| written.answers.get(id).cloned()).collect();
        let waits = connection.applier.wait_current(&answers).await;
        waits.map_err(|error| {
            let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
            let failure = Failure::new(Step::Apply, "ReconciliationFailed", error.to_string());
            self.at_revision(failure.hint(error.hint()).retry(retry))
        })
    }

    /// No look is needed: same manifest as applied, and no watch has seen its gate move.
    fn is_quiet(&self, manifest: &Manifest) -> bool {
        if self.verify
            || matches!(self.job.trigger, Trigger::Boot | Trigger::Retry | Trigger::Resume)
        {
            return false;
        }
        let digest = self.digest(manifest);
        let memory = lock(&self.pipeline.memory);
        memory.get(&self.owner).is_some_and(|memory| memory.unchanged(&manifest.id, &digest))
    }

    fn know(&self, manifest: &Manifest, live: &Value, gate: Gate) {
        let version = live.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let known = Known {
            digest: self.digest(manifest),
            gate,
            api_version: manifest.api_version.clone(),
            version: version.and_then(|text| text.parse().ok()).unwrap_or_default(),
        };
        let mut memory = lock(&self.pipeline.memory);
        memory.entry(self.owner.clone()).or_default().know(&manifest.id, known);
    }

    fn forget_object(&self, id: &ObjectId) {
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.nominated.remove(id);
        memory.objects.remove(id);
    }

    fn forget_dropped(&self, wanted: &Wanted) {
        let ids: BTreeSet<&ObjectId> =
            wanted.manifests.iter().map(|manifest| &manifest.id).collect();
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.objects.retain(|id, _| ids.contains(id));
        memory.nominated.retain(|id, _| ids.contains(id));
    }

    /// Watches every kind that this Kustomization manages.
    async fn watch(&self, connection: &Connection, ids: &[(ObjectId, String)]) {
        let kinds: BTreeSet<(&str, &str)> =
            ids.iter().map(|(id, version)| (version.as_str(), id.kind.as_str())).collect();
        for (api_version, kind) in kinds {
            if let Ok(Some(resource)) = connection.cluster.resource(api_version, kind).await {
                connection.observer.watch(&resource);
            }
        }
    }

    /// Writes one change into the history and the journal.
    async fn note(&mut self, step: &plan::Step) -> Result<(), Failure> {
        let healed = self.job.trigger == Trigger::Drift;
        let verb = match &step.action {
            Action::Create if healed => Verb::Healed,
            Action::Create => Verb::Created,
            Action::Recreate(_) => Verb::Recreated,
            _ if healed => Verb::Healed,
            _ => Verb::Configured,
        };
        let lines: Vec<String> = step.differences.iter().map(ToString::to_string).collect();
        self.changes += 1;
        if verb == Verb::Healed {
            let mut memory = lock(&self.pipeline.memory);
            let memory = memory.entry(self.owner.clone()).or_default();
            memory.heal(&step.manifest.id, self.pipeline.steady_ms());
        }
        self.change(Change {
            object: step.manifest.id.to_string(),
            id: step.manifest.id.inventory(),
            verb,
            diff: self.redactor.mask(&lines.join("\n")),
            origin: step.manifest.origin.as_ref().map(ToString::to_string),
        })
        .await
    }

    /// An object on its way out is created again as soon as it is gone.
    fn going(&self, manifest: &Manifest) -> Failure {
        let cause = "is being deleted by somebody else; it is created again once it is gone";
        let hint = "if it stays, look at its metadata.finalizers".to_owned();
        self.failure(Step::Apply, "ReconciliationFailed", cause.to_owned(), manifest)
            .hint(Some(hint))
            .retry(Retry::Soon)
    }

    fn refusal(&self, manifest: &Manifest, refusal: &Refusal) -> Failure {
        let (cause, hint) = explain(refusal);
        let retry = match &refusal.kind {
            RefusalKind::Transient if refusal.status == 0 => Retry::Soon,
            _ if refusal.retry() => Retry::Soon,
            _ => Retry::Interval,
        };
        self.failure(Step::Plan, "ReconciliationFailed", cause, manifest).hint(hint).retry(retry)
    }

    fn apply_failure(&self, manifest: &Manifest, error: &crate::apply::ApplyError) -> Failure {
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        self.failure(Step::Apply, "ReconciliationFailed", error.to_string(), manifest)
            .hint(error.hint())
            .retry(retry)
    }
}

/// No answer at all: the server is away, and going on would only repeat it.
fn outage(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Transient && refusal.status == 0
}

/// A refusal in words, and what to do.
pub(super) fn explain(refusal: &Refusal) -> (String, Option<String>) {
    let message = &refusal.message;
    match &refusal.kind {
        RefusalKind::Immutable(fields) => (
            format!("{message} (immutable: {})", fields.join(", ")),
            Some(
                "set spec.force, or annotate the object with \
                 kustomize.toolkit.fluxcd.io/force: enabled, to have it deleted and created again"
                    .to_owned(),
            ),
        ),
        RefusalKind::UnknownKind => (
            format!("the API server does not know this kind: {message}"),
            Some("put its CRD into a Kustomization that this one dependsOn".to_owned()),
        ),
        RefusalKind::MissingNamespace => (
            message.clone(),
            Some("declare the Namespace, in this Kustomization or one it dependsOn".to_owned()),
        ),
        RefusalKind::Webhook => (
            format!("an admission webhook says no: {message}"),
            Some("see that the webhook's own Deployment is ready".to_owned()),
        ),
        RefusalKind::Forbidden | RefusalKind::Invalid | RefusalKind::Transient => {
            (message.clone(), None)
        }
    }
}
