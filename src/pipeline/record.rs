//! Writes history on a blocking thread: the loop never waits for a disk.

use super::finalize::deletes;
use super::kustomization::{Run, Wanted};
use super::{Failure, Outcome, Retry, Step, lock};
use crate::flux::{Kustomization, Object};
use crate::history::{
    Applied, Change, Entry as Row, Finish, History, HistoryError, ObjectDigest, RunId, Start,
    Verdict,
};
use crate::plan::{Entry, Owner};
use crate::render::ObjectId;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An owner, and what it owns with the digest of its last claim.
type Known = (Owner, Vec<(ObjectId, Option<String>)>);

/// Every owner with its inventory; an unreadable database says nothing, and was
/// reported when it was opened.
pub(super) fn inventories(history: &History) -> Vec<Known> {
    let owners = history.owners().unwrap_or_default();
    let known = owners.into_iter().filter_map(|owner| {
        let rows = history.object_digests(&owner).ok()?;
        let ids = rows
            .into_iter()
            .filter_map(|row| Some((ObjectId::parse_inventory(&row.id)?, row.digest)))
            .collect();
        let (namespace, name) = owner.split_once('/')?;
        Some((Owner { namespace: namespace.to_owned(), name: name.to_owned() }, ids))
    });
    known.collect()
}

/// Meta key of the uid of `kube-system`.
pub(super) const CLUSTER: &str = "cluster";

/// Meta key of what happens to an owner's objects when it leaves Git.
fn policy_key(owner: &Owner) -> String {
    format!("policy:{owner}")
}

/// A Kustomization that is known by its inventory only, with the policy stored at its last write.
/// `None` when its objects are to stay.
pub(super) fn departed(history: &History, owner: &Owner) -> Option<Kustomization> {
    let policy = history.meta(&policy_key(owner)).ok()??;
    let stand_in = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"namespace": owner.namespace, "name": owner.name},
        "spec": {"interval": "1h", "prune": policy == "delete",
            "sourceRef": {"kind": "GitRepository", "name": owner.name}},
    });
    match Object::read(&stand_in) {
        Some(Ok(Object::Kustomization(kustomization))) => Some(*kustomization),
        _ => None,
    }
}

impl Run<'_> {
    /// Runs one call on the database.
    async fn database<T: Send + 'static>(
        &self,
        call: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, Failure> {
        let history = self.pipeline.history.clone();
        let done = tokio::task::spawn_blocking(move || call(&history)).await;
        let error = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = "the database thread ended unexpectedly";
                return Err(Failure::new(Step::Record, "RecordFailed", cause).retry(Retry::Soon));
            }
        };
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        let failure = Failure::new(Step::Record, "RecordFailed", error.to_string());
        Err(self.at_revision(failure.hint(error.hint()).retry(retry)))
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
        let union: Vec<Row> = wanted
            .manifests
            .iter()
            .map(|manifest| {
                let entry = Entry::of(manifest);
                Row { id: entry.id.inventory(), version: entry.version }
            })
            .collect();
        let key = policy_key(&self.owner);
        let policy = if deletes(&self.job.kustomization) { "delete" } else { "orphan" };
        let begun = self.database(move |history| {
            if history.meta(&key)?.as_deref() != Some(policy) {
                history.set_meta(&key, policy)?;
            }
            history.begin(&start, &union)
        });
        let run = begun.await?;
        self.record = Some(run);
        Ok(run)
    }

    /// Takes everything that is wanted into the inventory, also what is in the cluster already
    /// and needs no write, after a move from Flux or the loss of the database: its later removal
    /// from Git must find it.
    pub(super) async fn adopt(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let known: BTreeSet<ObjectId> =
            self.inventory().await?.into_iter().map(|entry| entry.id).collect();
        if wanted.manifests.iter().all(|manifest| known.contains(&manifest.id)) {
            return Ok(());
        }
        self.begin(wanted).await.map(|_| ())
    }

    /// The inventory as stored.
    pub(super) async fn inventory(&self) -> Result<Vec<Entry>, Failure> {
        let owner = self.owner.to_string();
        let rows = self.database(move |history| history.inventory(&owner)).await?;
        let entries = rows.into_iter().filter_map(|row| {
            Some(Entry { id: ObjectId::parse_inventory(&row.id)?, version: row.version })
        });
        Ok(entries.collect())
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

    /// Adds a change to the run.
    pub(super) async fn change(&self, change: Change) -> Result<(), Failure> {
        let Some(run) = self.record else { return Ok(()) };
        self.database(move |history| history.change(run, &change)).await
    }

    /// Drops entries whose deletion is confirmed, or that another owner has.
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
            Outcome::Cancelled => (Verdict::Cancelled, "something newer is there".to_owned()),
            Outcome::Adopted(_) => return Ok(()),
        };
        let message = self.redactor.mask(&message);
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
        if verdict != Verdict::Failed {
            let recovered = memory.last_failure.take().is_some();
            return recovered && verdict == Verdict::Succeeded;
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
            kept: BTreeSet::new(),
            orders: super::WorkOrders::default(),
            answer: super::Answer::default(),
            input: String::new(),
        }
    }
}
