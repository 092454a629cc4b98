//! Deletes what left Git: only what is ours, only when it is sure that nobody else wants it.

use super::kustomization::{Run, Wanted};
use super::write::cluster_failure;
use super::{Ask, Failure, Retry, Step, lock};
use crate::apply::Pruned;
use crate::history::{Change, Verb};
use crate::logging::Message;
use crate::plan::{Entry, Guard, Held, Judged, Owner, delete_order, may_hold};
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

impl Run<'_> {
    /// Deletes the objects of the inventory that the render no longer names.
    pub(super) async fn prune(&mut self, wanted: &Wanted, ask: &Ask) -> Result<(), Failure> {
        self.enter(Step::Prune);
        let inventory = self.inventory().await?;
        self.keep_names(&inventory);
        let gone = wanted.left(&inventory);
        if gone.is_empty() {
            self.judged = true;
            return self.settled().await;
        }
        if !self.job.kustomization.prune {
            // As in Flux: what is not pruned is let go of.
            let ids: Vec<ObjectId> = gone.into_iter().map(|entry| entry.id).collect();
            let left = self.hand_over(ids).await?;
            self.release(&left).await?;
            self.judged = true;
            return self.settled().await;
        }
        if let Some(why) = self.unpruned(wanted.answer.may_prune, gone.len()) {
            // What waits for a word goes on waiting, and a word that was given counts on; but
            // none that was given for another cluster.
            self.judged = self.stranger();
            // In a stranger nothing comes of another run before somebody confirms it.
            self.prune_pending = !self.stranger();
            self.warnings.push(why);
            return Ok(());
        }
        let guard = Guard {
            before: self.before(&inventory, wanted).await?,
            rendered: wanted.rendered().len(),
            orders: wanted.orders.work.len(),
            removed: false,
            confirmed: self.confirmed().await?,
            ..Guard::default()
        };
        self.delete(gone, guard, wanted, ask).await?;
        match self.held.is_empty() {
            true => self.settled().await,
            false => Ok(()),
        }
    }

    /// Why nothing that left Git is deleted for now.
    pub(super) fn unpruned(&self, may_prune: bool, gone: usize) -> Option<String> {
        if self.stranger() {
            let why = "nothing is pruned: this is not the cluster that the history was made on; \
                       confirm it with: gitopsd confirm cluster";
            return Some(why.to_owned());
        }
        (!may_prune).then(|| {
            let revision = &self.job.revision.id;
            let wait = if gone == 1 { "deletion waits" } else { "deletions wait" };
            format!(
                "{gone} {wait} until the other Kustomizations of this source have rendered \
                 {revision}"
            )
        })
    }

    /// Digests of delete sets that a person has confirmed, on the host or in Git. What stands in
    /// Git stays there: it counts until it was used.
    pub(super) async fn confirmed(&self) -> Result<Vec<String>, Failure> {
        let mut all = lock(&self.pipeline.confirmed).clone();
        if !self.job.confirmed.is_empty() {
            let (owner, said) = (self.owner.clone(), self.job.confirmed.clone());
            let fresh = self.database(move |history| {
                let mut fresh = Vec::new();
                for digest in said {
                    if history.meta(&spent(&owner, &digest))?.is_none() {
                        fresh.push(digest);
                    }
                }
                Ok(fresh)
            });
            all.extend(fresh.await?);
        }
        Ok(all)
    }

    /// Uses a confirmation up, wherever it was given.
    async fn use_up(&self, digest: String, ask: &Ask) -> Result<(), Failure> {
        if lock(&self.pipeline.confirmed).contains(&digest) {
            return self.uses(digest, ask).await;
        }
        let key = spent(&self.owner, &digest);
        self.database(move |history| history.set_meta(&key, "used")).await
    }

    /// Deletes stale entries through the guard, in reverse order of applying.
    pub(super) async fn delete(
        &mut self,
        gone: Vec<Entry>,
        mut guard: Guard,
        wanted: &Wanted,
        ask: &Ask,
    ) -> Result<(), Failure> {
        let entries: BTreeMap<ObjectId, Entry> =
            gone.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let unclaimed = self.hand_over(entries.keys().cloned().collect()).await?;
        let connection = self.connected()?;
        guard.occupied = self.occupied(&unclaimed).await?;
        let Judged { mut free, held, used } = guard.judge(unclaimed);
        if let Some(held) = held {
            self.hold(held);
        }
        if let Some(digest) = used {
            // One confirmation covers one deletion, also one that is cut short: what is left of
            // the set is asked about again, and so is the same set another time.
            self.going_on()?;
            self.use_up(digest, ask).await?;
        }
        self.judged = true;
        delete_order(&mut free);
        let mut failures: Vec<Failure> = Vec::new();
        for id in free {
            let Some(entry) = entries.get(&id) else { continue };
            self.going_on()?;
            self.begin(wanted).await?;
            match connection.applier.prune(entry, &self.owner).await {
                Ok(outcome) => self.pruned(&id, outcome).await?,
                Err(error) => {
                    let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
                    let failure = Failure::new(Step::Prune, "PruneFailed", error.cause())
                        .object(&id)
                        .hint(error.hint())
                        .retry(retry);
                    failures.push(self.at_revision(failure));
                }
            }
        }
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Definitions and namespaces that have something in them which is not this owner's.
    pub(super) async fn occupied(
        &self,
        ids: &[ObjectId],
    ) -> Result<BTreeMap<ObjectId, Vec<String>>, Failure> {
        let connection = self.connected()?;
        let going: BTreeSet<ObjectId> = ids.iter().cloned().collect();
        let mut occupied = BTreeMap::new();
        for id in ids.iter().filter(|id| may_hold(id)) {
            let found = connection.applier.occupied(id, &self.owner, &going).await;
            let inside = found.map_err(|error| cluster_failure(Step::Prune, &error).object(id))?;
            if !inside.is_empty() {
                occupied.insert(id.clone(), inside);
            }
        }
        Ok(occupied)
    }

    /// Leaves what others claim too to them; answers what nobody else does.
    ///
    /// Shared objects carry the labels of their first owner. When that one lets go, the next has
    /// to write its own: its memory is made to look again, and the loop is told to run it.
    pub(super) async fn hand_over(&self, ids: Vec<ObjectId>) -> Result<Vec<ObjectId>, Failure> {
        let mut heirs: Vec<(ObjectId, Owner)> = Vec::new();
        let mut left = Vec::new();
        {
            let claims = lock(&self.pipeline.claims);
            for id in ids {
                match claims.other(&self.owner, &id) {
                    Some(heir) => heirs.push((id, heir.clone())),
                    None => left.push(id),
                }
            }
        }
        let owners: BTreeSet<Owner> = heirs.iter().map(|(_, heir)| heir.clone()).collect();
        self.bequeath(heirs).await?;
        let mut memory = lock(&self.pipeline.memory);
        for heir in &owners {
            if let Some(memory) = memory.get_mut(heir) {
                memory.input.clear();
            }
        }
        lock(&self.pipeline.heirs).extend(owners);
        Ok(left)
    }

    async fn pruned(&mut self, id: &ObjectId, outcome: Pruned) -> Result<(), Failure> {
        let (verb, why) = match outcome {
            Pruned::Deleted => (Some(Verb::Deleted), String::new()),
            Pruned::Gone => (None, String::new()),
            Pruned::Kept(mark) => (Some(Verb::Skipped), format!("kept: {mark}")),
            Pruned::NotOurs => (Some(Verb::Skipped), "kept: it is not ours any more".to_owned()),
        };
        if let Some(verb) = verb {
            self.changes += 1;
            let object = self.shown(&id.to_string());
            if outcome == Pruned::Deleted {
                let key = self.job.kustomization.key().to_string();
                let left = if self.owner == Owner::edge() { "the configuration" } else { "Git" };
                tracing::info!(
                    message_id = Message::Pruned.id(),
                    gitopsd_kustomization = key,
                    gitopsd_revision = self.job.revision.id,
                    gitopsd_source = %self.job.kustomization.source,
                    gitopsd_object = object,
                    gitopsd_run = self.run_id(),
                    gitopsd_action = Verb::Deleted.as_str(),
                    "{key}: {object} deleted, it left {left}"
                );
            }
            let change =
                Change { object, id: self.shown(&id.inventory()), verb, diff: why, origin: None };
            self.change(change).await?;
        }
        let id = std::slice::from_ref(id);
        match outcome {
            // It keeps our labels, and a mark that is taken off later is no word to delete it.
            Pruned::Kept(_) => self.release(id).await,
            Pruned::NotOurs => self.let_go(id).await,
            Pruned::Deleted | Pruned::Gone => {
                self.hands_no_more(&id[0]).await?;
                self.let_go(id).await
            }
        }
    }

    /// Tells of deletions that wait, once; `status` lists them from the report.
    fn hold(&mut self, Held { digest, ids, reason }: Held) {
        // The digest is that of the names as they are.
        let ids = ids.iter().map(|id| self.shown_id(id)).collect();
        let held = Held { digest, ids, reason: self.shown(&reason) };
        let news = lock(&self.pipeline.memory).entry(self.owner.clone()).or_default().holds(&held);
        if news {
            self.tell_held(&held);
        }
        self.held.push(held);
    }

    fn tell_held(&self, held: &Held) {
        let names: Vec<String> = held.ids.iter().take(5).map(ToString::to_string).collect();
        let more = held.ids.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let key = self.job.kustomization.key().to_string();
        let message = format!(
            "held: deleting {}{more}: {}; to delete: gitopsd confirm {}",
            names.join(", "),
            held.reason,
            held.digest
        );
        tracing::warn!(
            message_id = Message::PruneHeld.id(),
            gitopsd_kustomization = key,
            gitopsd_revision = self.job.revision.id,
            gitopsd_digest = held.digest,
            "{key}: {message}"
        );
    }
}

/// Key in the database of a confirmation in Git that was used.
fn spent(owner: &Owner, digest: &str) -> String {
    format!("confirmed:{owner}:{digest}")
}
