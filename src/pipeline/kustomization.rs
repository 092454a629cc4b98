//! The steps of one run, in their order.

use super::edge::Edge;
use super::handed::HandedOn;
use super::memory::Memory;
use super::orders::Sorted;
use super::write::{STOPPING, Written};
use super::{
    Answer, Ask, Connection, Failure, Job, Outcome, Pipeline, Question, Report, Retry, Step,
    WorkOrders, lock,
};
use crate::apply::ApplyError;
use crate::flux::{Kustomization, Object};
use crate::history::{Rank, RunId, Trigger};
use crate::logging::Message;
use crate::plan::{Claim, Conflict, Held, Owner, desired, label};
use crate::render::{Manifest, ObjectId, Redactor, Request};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// One run under way.
pub(super) struct Run<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// The edge in force, or one that is only planned.
    pub(super) edge: &'a Edge,
    pub(super) job: &'a Job,
    pub(super) owner: Owner,
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) warnings: Vec<String>,
    /// Those of copies that may be old.
    pub(super) old_copies: BTreeSet<String>,
    pub(super) redactor: Redactor,
    /// The row in the history, once there was something to write.
    pub(super) record: Option<RunId>,
    pub(super) started_ms: i64,
    pub(super) timings: Vec<(Step, u64)>,
    pub(super) changes: usize,
    pub(super) objects: Option<usize>,
    pub(super) prune_pending: bool,
    observed: bool,
    /// What waits of the prune is known.
    pub(super) judged: bool,
    /// Deletions that wait for a confirmation.
    pub(super) held: Vec<Held>,
    /// Inventory id → digest of the claim, to be known again after a restart.
    pub(super) claimed: Vec<(String, String)>,
    /// Compares every object, whatever is remembered of it.
    pub(super) verify: bool,
    step: (Step, Instant),
}

/// The loop does not answer any more.
fn stopping() -> Failure {
    Failure::new(Step::Wait, "Progressing", "the daemon is stopping").retry(Retry::Soon)
}

/// A render, ready for the cluster.
pub(super) struct Wanted {
    pub(super) manifests: Vec<Manifest>,
    /// In which of them a secret is handed on.
    pub(super) handed: HandedOn,
    pub(super) kept: BTreeSet<String>,
    pub(super) orders: WorkOrders,
    pub(super) answer: Answer,
    pub(super) input: String,
}

impl Pipeline {
    /// Makes one run. Never fails: what went wrong is in the report.
    pub async fn reconcile(&self, job: Job, ask: &Ask) -> Report {
        self.first_connection().await;
        let mut run = Run::new(self, &job);
        let result = run.steps(ask).await;
        run.close(result).await
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, job: &'a Job) -> Self {
        Run {
            pipeline,
            edge: &pipeline.edge,
            job,
            owner: Owner::of(&job.kustomization),
            connection: pipeline.connection(),
            warnings: Vec::new(),
            old_copies: BTreeSet::new(),
            redactor: Redactor::default(),
            record: None,
            started_ms: super::record::now_ms(),
            timings: Vec::new(),
            changes: 0,
            objects: None,
            prune_pending: false,
            observed: false,
            judged: false,
            held: Vec::new(),
            claimed: Vec::new(),
            verify: false,
            step: (Step::Wait, Instant::now()),
        }
    }

    /// Ends the step before and begins the next.
    pub(super) fn enter(&mut self, step: Step) {
        let (before, since) = std::mem::replace(&mut self.step, (step, Instant::now()));
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Plan and apply take turns, stage by stage: one figure for each tells more.
        match self.timings.iter_mut().find(|(step, _)| *step == before) {
            Some((_, sum)) => *sum = sum.saturating_add(micros),
            None => self.timings.push((before, micros)),
        }
    }

    async fn steps(&mut self, ask: &Ask) -> Result<Outcome, Failure> {
        let permit = self.pipeline.workers.acquire().await;
        self.going_on()?;
        self.verify = {
            let mut memory = lock(&self.pipeline.memory);
            // It is declared again: what was told of its end is over.
            if memory.get(&self.owner).is_some_and(|memory| memory.ended) {
                memory.remove(&self.owner);
            }
            let memory = memory.get_mut(&self.owner);
            memory.is_some_and(|memory| std::mem::take(&mut memory.verify))
        };
        self.enter(Step::Open);
        let mut request = self.request(true).await?;
        let (input, old) = self.unless_stopped(self.pipeline.renderer.digest(&request)).await?;
        let input = self.with_spec(&input);
        if self.quiet(&input) {
            self.copies(&old);
            self.tell(self.remembered(), ask).await?;
            return Ok(Outcome::Ready(self.applied()));
        }
        if self.job.kustomization.decryption.as_ref().is_some_and(|d| d.secret_ref.is_some()) {
            request = self.request(false).await?;
        }
        // The bases have just been asked for.
        request.copy_age = Duration::MAX;
        let wanted = match self.render(&request, ask).await? {
            Ok(wanted) => wanted,
            Err(adopted) => return Ok(Outcome::Adopted(adopted)),
        };
        let written = self.write(&wanted).await?;
        // Nothing is deleted on the word of a render that was not applied whole.
        self.refused(&wanted, &written)?;
        self.handed_on(&wanted.handed).await?;
        self.prune(&wanted, ask).await?;
        drop(permit);
        if self.found_nothing(&wanted) {
            return Ok(Outcome::Ready(self.applied()));
        }
        self.enter(Step::Observe);
        self.observed = true;
        match self.observe(&wanted, &written, ask).await {
            Ok(false) => self.note_images(&wanted, true).await?,
            Ok(true) => return Ok(Outcome::Cancelled),
            Err(failure) => {
                self.note_images(&wanted, false).await?;
                return Err(self.blame_image(&wanted, failure).await);
            }
        }
        self.remember_ready(&wanted);
        Ok(Outcome::Ready(self.applied()))
    }

    fn applied(&self) -> String {
        format!("Applied revision: {}", self.job.revision.id)
    }

    /// The Kustomization as the renderer wants it.
    pub(super) async fn request(&mut self, remembered: bool) -> Result<Request, Failure> {
        let kustomization = self.job.kustomization.clone();
        let Some(source_root) = self.job.tree.clone() else {
            let cause = "the files of the source are not at hand";
            return Err(Failure::new(Step::Fetch, "ArtifactFailed", cause).retry(Retry::Soon));
        };
        let keyring = self.pipeline.keyring(&kustomization, &self.job.url, remembered).await?;
        let variables = self.pipeline.variables(&kustomization, &mut self.redactor).await?;
        let copy_age = match self.job.trigger {
            Trigger::Request { .. } => Duration::ZERO,
            // What the cluster or time gave cause for waits for nobody's server.
            _ if self.job.trigger.rank() == Rank::Noticed
                && self.job.trigger != Trigger::Interval =>
            {
                Duration::MAX
            }
            _ => kustomization.interval,
        };
        Ok(Request { kustomization, source_root, keyring, variables, copy_age })
    }

    /// Nothing has to be done on these inputs. A run that is owed is never quiet: deletions or
    /// labels of formerly shared objects wait for it, whatever a run in between has remembered.
    fn quiet(&mut self, input: &str) -> bool {
        if self.verify || !self.job.trigger.may_be_quiet() {
            return false;
        }
        let memory = lock(&self.pipeline.memory);
        let Some(memory) = memory.get(&self.owner).filter(|memory| memory.quiet(input)) else {
            return false;
        };
        self.objects = Some(memory.objects.len());
        self.warnings.clone_from(&memory.warnings);
        self.held.clone_from(&memory.held);
        self.judged = true;
        true
    }

    /// A comparison of some objects that were as they should be: Ready is as it was, and what it
    /// depends on is watched.
    fn found_nothing(&self, wanted: &Wanted) -> bool {
        let memory = lock(&self.pipeline.memory);
        self.job.trigger == Trigger::Verify
            && !self.verify
            && self.changes == 0
            && memory.get(&self.owner).is_some_and(|memory| memory.quiet(&wanted.input))
    }

    fn remembered(&self) -> WorkOrders {
        let memory = lock(&self.pipeline.memory);
        memory.get(&self.owner).map(|m| m.orders_at(&self.job.revision.id)).unwrap_or_default()
    }

    /// Builds, sorts, finishes and claims. The inner error is the repository's own statement of
    /// the entry, where it differs from the host's stand-in.
    pub(super) async fn render(
        &mut self,
        request: &Request,
        ask: &Ask,
    ) -> Result<Result<Wanted, Box<Kustomization>>, Failure> {
        let (sorted, input) = self.build(request).await?;
        if let Some(adopted) = self.adopted(&sorted.orders) {
            return Ok(Err(adopted));
        }
        let Sorted { plain, orders, kept } = sorted;
        self.keep_policies(&orders).await?;
        let manifests = match self.finish(plain).await {
            Ok(manifests) => manifests,
            Err(failure) if failure.reason == "OwnershipConflict" => {
                // What it declares is known, and what it was refused is claimed in a way that
                // keeps others from deleting it; what it owns stays as it was.
                self.tell(orders, ask).await?;
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        // Without a connection nothing is written, and no namespace is known.
        let handed = match self.connection.is_some() {
            true => self.hand_on(&manifests).await?,
            false => HandedOn::new(),
        };
        let mut answer = self.tell(orders.clone(), ask).await?;
        if let Some(stated) = answer.entry.take() {
            return Ok(Err(stated));
        }
        Ok(Ok(Wanted { manifests, handed, kept, orders, answer, input }))
    }

    /// Fields of the spec that rendering does not read, such as `wait` or `prune`, are inputs too.
    pub(super) fn with_spec(&self, digest: &str) -> String {
        self.keyed(&format!("{digest} {:?}", self.job.kustomization))
    }

    /// Finishes the manifests, and claims them before anything is written.
    pub(super) async fn finish(
        &mut self,
        mut manifests: Vec<Manifest>,
    ) -> Result<Vec<Manifest>, Failure> {
        if let Some(connection) = &self.connection {
            // What is refused is said by its probe, with the same words.
            if let Err(error) = connection.applier.normalise(&mut manifests).await {
                return Err(self.unsorted(&manifests, &error));
            }
        }
        let mut wanted: BTreeMap<ObjectId, Claim> = BTreeMap::new();
        for manifest in &mut manifests {
            self.warnings.extend(desired(manifest, &self.job.kustomization));
            let claim =
                Claim { digest: Some(self.digest(manifest)), origin: manifest.origin.clone() };
            if let Some(twice) = wanted.insert(manifest.id.clone(), claim) {
                let also = twice.origin.map(|o| format!(", also in {o}")).unwrap_or_default();
                let cause = format!("is declared twice in one Kustomization{also}");
                return Err(self.failure(Step::Plan, "BuildFailed", cause, manifest));
            }
        }
        let mut claims = lock(&self.pipeline.claims);
        self.claimed = wanted
            .iter()
            .filter_map(|(id, claim)| Some((id.inventory(), claim.digest.clone()?)))
            .collect();
        match claims.claim(&self.owner, wanted) {
            Ok(waits) => lock(&self.pipeline.heirs).extend(waits),
            Err(conflicts) => return Err(self.contested(&conflicts)),
        }
        for manifest in &mut manifests {
            let labelled = claims.labelled(&manifest.id).unwrap_or(&self.owner).clone();
            label(manifest, &labelled);
        }
        Ok(manifests)
    }

    /// Others want different things of the same objects.
    pub(super) fn contested(&self, conflicts: &[Conflict]) -> Failure {
        let (first, others) = conflicts.split_at(conflicts.len().min(1));
        let told = first.iter().map(Conflict::cause).chain(others.iter().map(ToString::to_string));
        let told = told.collect::<Vec<String>>().join("; ");
        let mut failure = Failure::new(Step::Plan, "OwnershipConflict", told);
        if let [first] = first {
            let file = first.origin.as_ref().map(ToString::to_string);
            failure = failure.object(&first.id).file(file);
        }
        self.at_revision(failure)
    }

    /// A failure to learn the scope of a manifest's kind.
    pub(super) fn unsorted(&self, manifests: &[Manifest], error: &ApplyError) -> Failure {
        let manifest = manifests.iter().find(|manifest| manifest.id == *error.id());
        let file = manifest.and_then(|m| m.origin.as_ref()).map(ToString::to_string);
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        let failure = Failure::new(Step::Plan, "ReconciliationFailed", error.cause())
            .object(error.id())
            .file(file)
            .hint(error.hint());
        self.at_revision(failure.retry(retry))
    }

    /// Tells the graph what the render declares and learns whether pruning is safe.
    async fn tell(&self, orders: WorkOrders, ask: &Ask) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        let question = Question::Rendered { key: self.job.kustomization.key(), orders, answer };
        ask.questions.send(question).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }

    /// Uses up a confirmation: when this returns, no later deletion is covered by it.
    pub(super) async fn uses(&self, digest: String, ask: &Ask) -> Result<(), Failure> {
        let (done, stored) = oneshot::channel();
        let question = Question::Uses { digest, done };
        ask.questions.send(question).await.map_err(|_| stopping())?;
        stored.await.map_err(|_| stopping())?.map_err(|cause| {
            let cause = format!("the confirmation could not be used up first: {cause}");
            self.at_revision(Failure::new(Step::Record, "RecordFailed", cause).retry(Retry::Soon))
        })
    }

    /// The repository's own Kustomization of the entry, when the root does not run as it yet.
    fn adopted(&self, orders: &WorkOrders) -> Option<Box<Kustomization>> {
        if !self.job.root {
            return None;
        }
        let own = &self.job.kustomization;
        let path = |k: &Kustomization| k.path.trim_matches(['.', '/']).to_owned();
        orders.work.iter().find_map(|order| match &order.object {
            Object::Kustomization(stated)
                if stated.key() == own.key() && path(stated) == path(own) && **stated != *own =>
            {
                Some(stated.clone())
            }
            _ => None,
        })
    }

    /// Keyed digest of a manifest.
    pub(super) fn digest(&self, manifest: &Manifest) -> String {
        self.keyed(&manifest.body().to_string())
    }

    pub(super) fn keyed(&self, text: &str) -> String {
        // Invariant: HMAC takes keys of any length.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.pipeline.settings.digest_key)
            .expect("any key length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A failure that names the object, its file and the revision.
    pub(super) fn failure(
        &self,
        step: Step,
        reason: &str,
        cause: String,
        manifest: &Manifest,
    ) -> Failure {
        let failure = Failure::new(step, reason, self.redactor.mask(&cause))
            .object(&manifest.id)
            .file(manifest.origin.as_ref().map(ToString::to_string));
        self.at_revision(failure)
    }

    pub(super) fn at_revision(&self, mut failure: Failure) -> Failure {
        failure.revision = Some(self.job.revision.id.clone());
        failure
    }

    /// What was refused ends the run as failed, after everything else was applied.
    pub(super) fn refused(&self, wanted: &Wanted, written: &Written) -> Result<(), Failure> {
        if let Some(problem) = wanted.orders.problems.first() {
            let mut failure = Failure::new(Step::Plan, "BuildFailed", problem.message.clone())
                .object(&problem.object)
                .file(problem.origin.clone());
            let others = wanted.orders.problems.len() - 1;
            if others > 0 {
                failure.cause = format!("{} ({others} more in status)", failure.cause);
            }
            return Err(self.at_revision(failure));
        }
        let Some(first) = written.refusals.first() else { return Ok(()) };
        let mut failure = first.clone();
        // What may pass is tried again soon, whatever else is wrong.
        if written.refusals.iter().any(|refusal| refusal.retry == Retry::Soon) {
            failure.retry = Retry::Soon;
        }
        if let [_, others @ ..] = written.refusals.as_slice()
            && !others.is_empty()
        {
            let named: Vec<&str> =
                others.iter().take(5).filter_map(|other| other.object.as_deref()).collect();
            let cause =
                format!("{} (and {} more: {})", failure.cause, others.len(), named.join(", "));
            failure.cause = cause;
        }
        Err(failure)
    }

    pub(super) fn remember_ready(&self, wanted: &Wanted) {
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.input.clone_from(&wanted.input);
        memory.orders = wanted.orders.clone();
        memory.ready = !self.prune_pending;
        memory.warn(self.warnings.iter().map(|w| self.redactor.mask(w)).collect());
        memory.old_copies = self.old_copies.iter().map(|w| self.redactor.mask(w)).collect();
        if self.judged {
            memory.held.clone_from(&self.held);
        }
    }

    async fn close(mut self, result: Result<Outcome, Failure>) -> Report {
        self.enter(Step::Record);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(failure) if failure.reason == STOPPING => Outcome::Cancelled,
            Err(mut failure) => {
                self.mask(&mut failure);
                Outcome::Failed(failure)
            }
        };
        if !matches!(outcome, Outcome::Ready(_))
            && let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner)
        {
            memory.ready = false;
            memory.verify |= self.verify;
            memory.look_at([].iter());
            if matches!(outcome, Outcome::Failed(_)) {
                memory.waited = None;
            }
        }
        let outcome = match self.finish_record(&outcome).await {
            Ok(()) => outcome,
            Err(failure) => Outcome::Failed(failure),
        };
        self.log(&outcome);
        let warnings = self.warnings.iter().map(|w| self.redactor.mask(w)).collect();
        Report {
            outcome,
            revision: self.job.revision.clone(),
            objects: self.objects,
            warnings,
            others: self.others(),
            prune_pending: self.prune_pending,
            judged: self.judged,
            observed: self.observed,
            held: self.held,
            changes: self.changes,
        }
    }

    /// Takes secret values out of what is told of a failure. A variable may have become a part of
    /// a name.
    pub(super) fn mask(&self, failure: &mut Failure) {
        failure.cause = self.shown(&failure.cause);
        failure.object = failure.object.take().map(|object| self.shown(&object));
        failure.hint = failure.hint.take().map(|hint| self.shown(&hint));
    }

    /// Who else writes the objects, as the last looks at them showed.
    fn others(&self) -> BTreeMap<String, Vec<String>> {
        let memory = lock(&self.pipeline.memory);
        let objects = memory.get(&self.owner).into_iter().flat_map(|memory| &memory.objects);
        let shared = objects.filter(|(_, known)| !known.others.is_empty());
        shared.map(|(id, known)| (self.shown(&id.to_string()), known.others.clone())).collect()
    }

    /// The run's name in the history; none while nothing had to be written.
    pub(super) fn run_id(&self) -> String {
        self.record.map(|run| run.to_string()).unwrap_or_default()
    }

    /// Whether the journal is to be told: of a failure, unless it is the one that it was told last,
    /// and of its end, whatever brought that run about.
    fn is_news(&self, outcome: &Outcome) -> bool {
        let mut memory = lock(&self.pipeline.memory);
        match outcome {
            Outcome::Ready(_) => memory.get_mut(&self.owner).is_some_and(Memory::recovers),
            // The loop has said why, once and not for each Kustomization at each try.
            Outcome::Failed(failure) if failure.step == Step::Plan && self.connection.is_none() => {
                false
            }
            Outcome::Failed(failure) => {
                // At another revision it is: somebody may have tried to mend it.
                let told = format!("{} {failure}", self.job.revision.id);
                memory.entry(self.owner.clone()).or_default().fails(&told)
            }
            Outcome::Cancelled | Outcome::Adopted(_) => false,
        }
    }

    fn log(&self, outcome: &Outcome) {
        let news = self.is_news(outcome);
        let key = self.job.kustomization.key().to_string();
        let revision = &self.job.revision.id;
        let run = self.run_id();
        let millis: u64 = self.timings.iter().map(|(_, micros)| micros).sum::<u64>() / 1000;
        match outcome {
            Outcome::Ready(message) if self.changes > 0 => tracing::info!(
                message_id = Message::RunSucceeded.id(),
                gitopsd_kustomization = key,
                gitopsd_source = %self.job.kustomization.source,
                gitopsd_revision = revision,
                gitopsd_run = run,
                "{key}: {message}, {} {} in {millis} ms",
                self.changes,
                if self.changes == 1 { "change" } else { "changes" }
            ),
            Outcome::Ready(message) if news => tracing::info!(
                message_id = Message::HealthPassed.id(),
                gitopsd_kustomization = key,
                gitopsd_source = %self.job.kustomization.source,
                gitopsd_revision = revision,
                "{key}: healthy again: {message}"
            ),
            Outcome::Failed(failure) if !news => {
                tracing::debug!(gitopsd_kustomization = key, "{key}: {failure}")
            }
            Outcome::Failed(failure) => tracing::error!(
                message_id = failed(failure).id(),
                gitopsd_kustomization = key,
                gitopsd_source = %self.job.kustomization.source,
                gitopsd_revision = revision,
                gitopsd_run = run,
                gitopsd_object = failure.object.clone().unwrap_or_default(),
                "{key}: {failure}"
            ),
            _ => tracing::debug!(
                gitopsd_kustomization = key,
                gitopsd_revision = revision,
                "{key}: nothing changed in {millis} ms"
            ),
        }
    }
}

/// What kind of event a failed run is.
fn failed(failure: &Failure) -> Message {
    match failure.step {
        // With another reason it is the cluster that did not hand out a value or a key.
        Step::Open if failure.reason == "BuildFailed" => Message::SealedFailed,
        Step::Observe => Message::HealthFailed,
        _ if failure.reason == "OwnershipConflict" => Message::ClaimRefused,
        _ => Message::RunFailed,
    }
}
