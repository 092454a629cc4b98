//! Writes history on a blocking thread: the loop never waits for a disk.

use super::kustomization::{Run, Wanted};
use super::{Failure, Outcome, Pipeline, Retry, Step, lock};
use crate::history::{
    Applied, Change, Entry as Row, Finish, History, HistoryError, ObjectDigest, Origin, RunId,
    Start, Verb, Verdict,
};
use crate::plan::{Entry, Owner};
use crate::render::ObjectId;
use crate::source::public_url;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An owner, and what it owns with the digest of its last claim.
type Known = (Owner, Vec<(ObjectId, Option<String>)>);

/// Every owner with its inventory.
pub(super) fn inventories(history: &History) -> Result<Vec<Known>, HistoryError> {
    let mut known = Vec::new();
    for owner in history.owners()? {
        let rows = history.object_digests(&owner)?;
        let ids = rows
            .into_iter()
            .filter_map(|row| Some((ObjectId::parse_inventory(&row.id)?, row.digest)))
            .collect();
        if let Some(owner) = Owner::parse(&owner) {
            known.push((owner, ids));
        }
    }
    Ok(known)
}

/// A row of an inventory as the database has it.
pub(super) fn row(entry: &Entry) -> Row {
    Row { id: entry.id.inventory(), version: entry.version.clone() }
}

impl Pipeline {
    /// Runs one call on the database, on a thread that may block.
    pub(super) async fn database<T: Send + 'static>(
        &self,
        call: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, Failure> {
        let history = self.history.clone();
        let failed = |cause: String| Failure::new(Step::Record, "RecordFailed", cause);
        match tokio::task::spawn_blocking(move || call(&history)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
                Err(failed(error.to_string()).hint(error.hint()).retry(retry))
            }
            Err(_) => {
                let cause = "the database thread ended unexpectedly".to_owned();
                Err(failed(cause).retry(Retry::Soon))
            }
        }
    }

    /// The inventory of an owner as stored.
    pub(super) async fn inventory(&self, owner: &Owner) -> Result<Vec<Entry>, Failure> {
        let owner = owner.to_string();
        let rows = self.database(move |history| history.inventory(&owner)).await?;
        let entries = rows.into_iter().filter_map(|row| {
            Some(Entry { id: ObjectId::parse_inventory(&row.id)?, version: row.version })
        });
        Ok(entries.collect())
    }
}

/// Meta key of the uid of `kube-system`.
pub(super) const CLUSTER: &str = "cluster";

/// What is said of a run that was stopped.
const CUT_SHORT: &str = "stopped before its end: something newer is there, an edit to be healed first, a suspend, or the \
     daemon was stopped";

impl Run<'_> {
    /// Runs one call on the database.
    pub(super) async fn database<T: Send + 'static>(
        &self,
        call: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.pipeline.database(call).await.map_err(|failure| self.at_revision(failure))
    }

    /// Stores the run and the union of old and new inventory, before the first write.
    pub(super) async fn begin(&mut self, wanted: &Wanted) -> Result<RunId, Failure> {
        if let Some(run) = self.record {
            return Ok(run);
        }
        let start = Start {
            owner: self.owner.to_string(),
            trigger: self.job.trigger.clone(),
            revision: self.job.revision.id.clone(),
            author: self.job.revision.author.clone(),
            subject: self.redactor.mask(&self.job.revision.subject),
            started_ms: self.started_ms,
        };
        let union: Vec<Row> =
            wanted.manifests.iter().map(|manifest| row(&Entry::of(manifest))).collect();
        let url = public_url(&self.job.url);
        let parts =
            self.job.kustomization.path.split('/').filter(|part| !matches!(*part, "" | "."));
        let path = parts.collect::<Vec<_>>().join("/");
        let begun = move |history: &History| {
            let run = history.begin(&start, &union)?;
            let origin = Origin { url: &url, path: &path };
            // A link that only tells where a run came from keeps nothing from being deployed.
            if start.trigger.brings()
                && let Err(error) = history.brings(run, &origin)
            {
                tracing::warn!("run {run} is not linked to the image commits it brings: {error}");
            }
            Ok(run)
        };
        let run = self.database(begun).await?;
        self.record = Some(run);
        Ok(run)
    }

    /// Takes everything that is wanted into the inventory, also what is in the cluster already
    /// and needs no write, after a move from Flux or the loss of the database: its later removal
    /// from Git must find it.
    pub(super) async fn adopt(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let inventory = self.inventory().await?;
        // Where nothing has left Git, nothing waits any more, whatever becomes of the run.
        self.judged |= wanted.left(&inventory).is_empty();
        let known: BTreeSet<&ObjectId> = inventory.iter().map(|entry| &entry.id).collect();
        if wanted.manifests.iter().all(|manifest| known.contains(&manifest.id)) {
            return Ok(());
        }
        self.note_newcomers(&inventory, wanted).await?;
        self.begin(wanted).await.map(|_| ())
    }

    /// The inventory as stored.
    pub(super) async fn inventory(&self) -> Result<Vec<Entry>, Failure> {
        let found = self.pipeline.inventory(&self.owner).await;
        found.map_err(|failure| self.at_revision(failure))
    }

    /// Whether this very claim has made its object before, in this process or an earlier one: then
    /// its uid is on record.
    pub(super) async fn made_before(&self, id: &ObjectId) -> Result<bool, Failure> {
        let id = id.inventory();
        let Some((_, claim)) = self.claimed.iter().find(|(claimed, _)| *claimed == id) else {
            return Ok(false);
        };
        let made = lock(&self.pipeline.memory)
            .get(&self.owner)
            .and_then(|memory| memory.made.get(&id).cloned());
        if made.is_some_and(|(by, _)| by == *claim) {
            return Ok(true);
        }
        let owner = self.owner.to_string();
        let rows = self.database(move |history| history.object_digests(&owner)).await?;
        let same = |row: &ObjectDigest| row.id == id && row.digest.as_deref() == Some(claim);
        Ok(rows.iter().any(|row| same(row) && row.uid.is_some()))
    }

    /// Whether the last that the record knows of an object, or of the namespace it lies in, is that
    /// gitopsd deleted it. What others have made and deleted since is not in the record.
    pub(super) async fn taken_down(&self, id: &ObjectId) -> Result<bool, Failure> {
        let namespace = ObjectId {
            namespace: String::new(),
            name: id.namespace.clone(),
            group: String::new(),
            kind: "Namespace".to_owned(),
        };
        let inside = (!id.namespace.is_empty()).then_some(&namespace);
        for id in std::iter::once(id).chain(inside) {
            let id = self.shown(&id.inventory());
            let last = self.database(move |history| history.last_verb(&id)).await?;
            if last == Some(Verb::Deleted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds a change to the run.
    pub(super) async fn change(&self, change: Change) -> Result<(), Failure> {
        let Some(run) = self.record else { return Ok(()) };
        self.database(move |history| history.change(run, &change)).await
    }

    /// Hands entries to their heirs, before this owner forgets them.
    pub(super) async fn bequeath(&self, heirs: Vec<(ObjectId, Owner)>) -> Result<(), Failure> {
        if heirs.is_empty() {
            return Ok(());
        }
        let owner = self.owner.to_string();
        let heirs: Vec<(String, String)> =
            heirs.into_iter().map(|(id, heir)| (id.inventory(), heir.to_string())).collect();
        self.database(move |history| history.hand_over(&owner, &heirs)).await
    }

    /// Lets go of entries whose objects are to stay.
    pub(super) async fn release(&self, ids: &[ObjectId]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let owner = self.owner.to_string();
        let ids: Vec<String> = ids.iter().map(ObjectId::inventory).collect();
        self.database(move |history| history.release(&owner, &ids)).await
    }

    /// Drops entries whose deletion is confirmed, or that are another's.
    pub(super) async fn let_go(&self, ids: &[ObjectId]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let owner = self.owner.to_string();
        let ids: BTreeSet<String> = ids.iter().map(ObjectId::inventory).collect();
        self.database(move |history| history.forget(&owner, &Vec::from_iter(ids))).await
    }

    /// Closes the run, if one was begun. A first failure is recorded too, once.
    pub(super) async fn finish_record(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        let (verdict, message) = match outcome {
            Outcome::Ready(message) => (Verdict::Succeeded, message.clone()),
            Outcome::Failed(failure) => (Verdict::Failed, failure.to_string()),
            Outcome::Cancelled => (Verdict::Cancelled, CUT_SHORT.to_owned()),
            Outcome::Adopted(_) => return Ok(()),
        };
        self.keep_disputes().await;
        let message = self.shown(&message);
        if self.record.is_none() && !self.worth_recording(verdict, &message) {
            return Ok(());
        }
        let run = match self.record {
            Some(run) => run,
            None => self.begin(&Wanted::nothing()).await?,
        };
        let finish = Finish {
            verdict,
            message,
            steps: self.timings.iter().map(|(step, us)| (step.to_string(), *us)).collect(),
            finished_ms: now_ms(),
        };
        let applied = (verdict == Verdict::Succeeded).then(|| Applied {
            revision: self.job.revision.id.clone(),
            digest: lock(&self.pipeline.memory)
                .get(&self.owner)
                .map(|memory| memory.input.clone())
                .unwrap_or_default(),
        });
        let owner = self.owner.to_string();
        let claims = std::mem::take(&mut self.claimed).into_iter();
        let made = lock(&self.pipeline.memory).get(&self.owner).map(|m| m.made.clone());
        let made = made.unwrap_or_default();
        let uid = |id: &str, claim: &str| {
            made.get(id).filter(|(by, _)| by == claim).map(|(_, uid)| uid.clone())
        };
        let claims: Vec<ObjectDigest> = claims
            .map(|(id, digest)| ObjectDigest { uid: uid(&id, &digest), id, digest: Some(digest) })
            .collect();
        let claimed = verdict != Verdict::Failed || self.changes > 0;
        self.database(move |history| {
            if claimed {
                history.set_digests(&owner, &claims)?;
            }
            history.finish(run, &finish, applied.as_ref())
        })
        .await
    }

    /// A failure is recorded when it is new, not at every retry: idle costs no write.
    fn worth_recording(&self, verdict: Verdict, message: &str) -> bool {
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        if verdict == Verdict::Cancelled {
            // Whether it is well again is for the next to tell.
            return false;
        }
        if verdict != Verdict::Failed {
            let recovered = memory.last_failure.take().is_some();
            return recovered;
        }
        let told = format!("{} {message}", self.job.revision.id);
        let new = memory.last_failure.as_ref() != Some(&told);
        memory.last_failure = Some(told);
        new
    }
}

impl Wanted {
    /// No manifests at all, for a run that failed before it had any.
    pub(super) fn nothing() -> Self {
        Wanted {
            manifests: Vec::new(),
            handed: Default::default(),
            kept: BTreeSet::new(),
            orders: super::WorkOrders::default(),
            answer: super::Answer::default(),
            input: String::new(),
        }
    }
}
