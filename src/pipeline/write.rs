//! Plan and apply, one stage after the other.

use super::kustomization::{Run, Wanted};
use super::orders::orphaned_namespaces;
use super::{Connection, Failure, Retry, Step, lock};
use crate::apply::ApplyError;
use crate::cluster::ClusterError;
use crate::history::Trigger;
use crate::plan::{self, Action, Gate, Probe, Refusal, RefusalKind, decide, stages};
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
    /// Of these, objects that are on their way out and are made again once they are gone.
    pub(super) going: Vec<ObjectId>,
    /// Objects that are not there and are not made, by a mark in Git.
    pub(super) left_out: BTreeSet<ObjectId>,
    /// Definitions were written: kinds may be new.
    pub(super) definitions: bool,
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
        for namespace in wanted.orphaned_namespaces() {
            let made = connection.applier.ensure_namespace(&namespace).await;
            made.map_err(|e| cluster_failure(Step::Apply, &e))?;
        }
        self.adopt(wanted).await?;
        let mut written = Written::default();
        for stage in stages(wanted.manifests.clone()) {
            self.stage(&connection, wanted, stage, &mut written).await?;
        }
        self.forget_dropped(wanted);
        self.notices();
        if let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner) {
            memory.look_at([].iter());
        }
        Ok(written)
    }

    /// Ends the run between two objects when the daemon is stopping.
    pub(super) fn going_on(&self) -> Result<(), Failure> {
        match *self.pipeline.stopping.borrow() {
            true => Err(stopped()),
            false => Ok(()),
        }
    }

    /// What only looks or waits, for as long as the daemon is not stopping.
    async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut stopping = self.pipeline.stopping.subscribe();
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = stopping.wait_for(|stopping| *stopping) => Err(stopped()),
        }
    }

    /// Whether this is not the cluster that the history was made on, and nobody has confirmed it
    /// yet: nothing is deleted in it.
    pub(super) fn stranger(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.stranger)
    }

    /// Whether objects may be deleted to be created again because the Kustomization says so.
    pub(super) fn forces(&self) -> bool {
        self.job.kustomization.force && !self.stranger()
    }

    pub(super) fn connected(&self) -> Result<Arc<Connection>, Failure> {
        self.connection.clone().ok_or_else(|| {
            let why = lock(&self.pipeline.away).clone();
            // It says itself what to do, which depends on what it is.
            let why = if why.is_empty() { "none yet".to_owned() } else { why };
            let cause = format!("no connection to the API server: {why}");
            self.at_revision(
                Failure::new(Step::Plan, "ReconciliationFailed", cause).retry(Retry::Soon),
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
        // Before the first look: whatever somebody does after it is told then.
        lock(&self.pipeline.memory)
            .entry(self.owner.clone())
            .or_default()
            .look_at(ids.iter().map(|(id, _)| id));
        self.watch(connection, &ids).await?;
        let (quiet, looked_at): (Vec<Manifest>, Vec<Manifest>) =
            stage.into_iter().partition(|manifest| self.is_quiet(manifest));
        drop(quiet);
        let probes = self.unless_stopping(connection.applier.probe(&looked_at)).await?;
        let force = self.forces();
        let mut probed: Vec<(Manifest, Probe)> = looked_at.into_iter().zip(probes).collect();
        // What cannot be asked about comes last: should it fail, everything else is in place. But for
        // webhooks, which must not refuse what has still to be applied.
        probed.sort_by_key(|(manifest, probe)| (plan::late(&manifest.id), probe.blind()));
        for (manifest, probe) in probed {
            let live = probe.live.clone();
            let digest = self.digest(&manifest);
            let mut step = self.judge(manifest, probe, force).await?;
            self.spare(&mut step, &digest, live.as_ref());
            let live = live.as_ref();
            match &step.action {
                Action::Unchanged => {
                    if let Some(live) = live {
                        self.know(&step, &digest, live, Gate::of(live));
                        written.answers.insert(step.manifest.id.clone(), live.clone());
                    }
                }
                Action::Skip(why) => self.leave(&step, (&digest, why), live, written).await?,
                Action::Deferred(_) => self.forget_object(&step.manifest.id),
                Action::Refuse(refusal) => {
                    let failure = self.refusal(&step.manifest, refusal);
                    if outage(refusal) {
                        return Err(failure);
                    }
                    written.refusals.push(failure);
                }
                Action::Create | Action::Configure | Action::Recreate(_) => {
                    self.carry_out((connection, wanted), step, &digest, live, written).await?;
                    self.enter(Step::Plan);
                }
            }
        }
        if std::mem::take(&mut written.definitions) {
            connection.cluster.forget();
        }
        let early = ids.iter().filter(|(id, _)| plan::early(id));
        let answers: Vec<Value> =
            early.filter_map(|(id, _)| written.answers.get(id).cloned()).collect();
        let waits = self.unless_stopping(connection.applier.wait_current(&answers)).await?;
        waits.map_err(|error| {
            let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
            let failure = Failure::new(Step::Apply, "ReconciliationFailed", error.to_string());
            self.at_revision(failure.hint(error.hint()).retry(retry))
        })
    }

    /// Decides, and leaves alone what has ended by itself.
    pub(super) async fn judge(
        &self,
        manifest: Manifest,
        probe: Probe,
        force: bool,
    ) -> Result<plan::Step, Failure> {
        let ended = probe.live.as_ref().is_some_and(plan::ended);
        let mut step = decide(manifest, probe, force);
        let id = &step.manifest.id;
        if plan::vanishes(&step, ended)
            && !self.stranger()
            && !self.cut_short(id)
            && self.made_before(id).await?
        {
            step.action = Action::Skip(plan::VANISHED);
        }
        Ok(step)
    }

    /// Somebody deleted it while it was at work.
    fn cut_short(&self, id: &ObjectId) -> bool {
        let memory = lock(&self.pipeline.memory);
        memory.get(&self.owner).is_some_and(|memory| memory.unfinished.contains(id))
    }

    /// No look is needed: same manifest as applied, and no watch has seen its gate move; or it is
    /// contested, and its pause is not over.
    fn is_quiet(&self, manifest: &Manifest) -> bool {
        let digest = self.digest(manifest);
        let mut memory = lock(&self.pipeline.memory);
        let Some(memory) = memory.get_mut(&self.owner) else { return false };
        if !self.verify && memory.waits(&manifest.id, &digest, self.pipeline.steady_ms()) {
            if !memory.objects.contains_key(&manifest.id) {
                // Since the start nobody has looked at it: that is done when its pause is over.
                memory.nominate(&manifest.id);
            }
            return true;
        }
        let all = self.verify
            || matches!(self.job.trigger, Trigger::Boot | Trigger::Retry | Trigger::Resume);
        !all && memory.unchanged(&manifest.id, &digest)
    }

    fn forget_dropped(&self, wanted: &Wanted) {
        let ids: BTreeSet<&ObjectId> =
            wanted.manifests.iter().map(|manifest| &manifest.id).collect();
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.objects.retain(|id, _| ids.contains(id));
        memory.nominated.retain(|id, _| ids.contains(id));
        memory.contests.retain(|id, _| ids.contains(id));
        memory.turned.retain(|id, _| ids.contains(id));
        memory.vanished.retain(|id| ids.contains(id));
        memory.unfinished.retain(|id| ids.contains(id));
        let kept: BTreeSet<String> = ids.iter().map(|id| id.inventory()).collect();
        memory.made.retain(|id, _| kept.contains(id));
    }

    /// Watches every kind that this Kustomization manages. A kind whose endpoint cannot be asked
    /// for fails the run: its drift would not be seen.
    async fn watch(
        &self,
        connection: &Connection,
        ids: &[(ObjectId, String)],
    ) -> Result<(), Failure> {
        let kinds: BTreeSet<(&str, &str)> =
            ids.iter().map(|(id, version)| (version.as_str(), id.kind.as_str())).collect();
        let mut begun = Vec::new();
        for (api_version, kind) in kinds {
            let resource = connection.cluster.resource(api_version, kind).await;
            let resource =
                resource.map_err(|error| self.at_revision(cluster_failure(Step::Apply, &error)))?;
            if let Some(resource) = resource
                && connection.observer.watch(&resource)
            {
                begun.push(resource);
            }
        }
        self.unless_stopping(connection.observer.listed(&begun)).await
    }

    /// An object on its way out is created again as soon as it is gone.
    pub(super) async fn going(&self, manifest: &Manifest) -> Result<Failure, Failure> {
        let why = match self.taken_down(&manifest.id).await? {
            true => "was deleted by gitopsd and is not gone yet",
            false => "is being deleted by somebody else",
        };
        let cause = format!("{why}; it is created again once it is gone");
        let hint = "if it stays, look at its metadata.finalizers".to_owned();
        let failure = self.failure(Step::Apply, "ReconciliationFailed", cause, manifest);
        Ok(failure.hint(Some(hint)).retry(Retry::Soon))
    }

    pub(super) fn refusal(&self, manifest: &Manifest, refusal: &Refusal) -> Failure {
        let (cause, hint) = explain(&manifest.id, refusal);
        let retry = match &refusal.kind {
            RefusalKind::Transient if refusal.status == 0 => Retry::Soon,
            _ if refusal.retry() => Retry::Soon,
            _ => Retry::Interval,
        };
        self.failure(Step::Plan, "ReconciliationFailed", cause, manifest).hint(hint).retry(retry)
    }

    pub(super) fn apply_failure(&self, manifest: &Manifest, error: &ApplyError) -> Failure {
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        self.failure(Step::Apply, "ReconciliationFailed", error.cause(), manifest)
            .hint(error.hint())
            .retry(retry)
    }
}

impl Wanted {
    /// Namespaces that are made first: only manifests of Flux, which are set aside, declare them.
    pub(super) fn orphaned_namespaces(&self) -> BTreeSet<String> {
        orphaned_namespaces(&self.manifests, &self.answer.set_aside_namespaces)
    }
}

fn stopped() -> Failure {
    let cause = "the daemon is stopping; the next start goes on";
    Failure::new(Step::Apply, STOPPING, cause).retry(Retry::Soon)
}

/// No answer at all: the server is away, and going on would only repeat it.
pub(super) fn outage(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Transient && refusal.status == 0
}

/// A refusal in words, and what to do.
pub(super) fn explain(id: &ObjectId, refusal: &Refusal) -> (String, Option<String>) {
    let message = &refusal.message;
    match &refusal.kind {
        RefusalKind::Immutable(fields) => (
            format!("{message} (immutable: {})", fields.join(", ")),
            Some(plan::by_hand(id).unwrap_or_else(|| {
                "set spec.force, or annotate the object with \
                 kustomize.toolkit.fluxcd.io/force: enabled, to have it deleted and created again"
                    .to_owned()
            })),
        ),
        RefusalKind::UnknownKind => (
            format!("the API server does not know this kind: {message}"),
            Some("put its CRD into a Kustomization that this one dependsOn".to_owned()),
        ),
        RefusalKind::MissingNamespace => (
            message.clone(),
            Some("declare the Namespace, in this Kustomization or one it dependsOn".to_owned()),
        ),
        RefusalKind::Webhook | RefusalKind::NoDryRun => (
            format!("an admission webhook says no: {message}"),
            Some("see that the webhook's own Deployment is ready".to_owned()),
        ),
        RefusalKind::Forbidden | RefusalKind::Invalid | RefusalKind::Transient => {
            (message.clone(), None)
        }
    }
}
