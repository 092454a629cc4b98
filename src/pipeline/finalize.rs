//! Ends a Kustomization that left Git: deletes what it owned, as its policy says.

use super::kustomization::{Run, Wanted};
use super::orders::deletes;
use super::write::STOPPING;
use super::{Ask, Ended, Failure, Job, Outcome, Pipeline, Step, lock};
use crate::plan::{Guard, Owner};
use crate::render::ObjectId;
use std::collections::BTreeSet;

impl Pipeline {
    /// Deletes or lets go of everything a removed Kustomization owned.
    ///
    /// Removing it from Git is intent, so the guard holds only what takes data with it. What is
    /// held or fails stays in the inventory, for a confirmation or the next start.
    pub async fn finalize(&self, mut job: Job, orphan: bool, ask: &Ask) -> Ended {
        job.tree = None;
        let mut run = Run::new(self, &job);
        let mut result = run.end(orphan, ask).await;
        if let Err(failure) = &mut result {
            run.mask(failure);
        }
        let outcome = match &result {
            Ok(()) => Outcome::Ready("left Git".to_owned()),
            Err(failure) if failure.reason == STOPPING => Outcome::Cancelled,
            Err(failure) => Outcome::Failed(failure.clone()),
        };
        let result = run.finish_record(&outcome).await.and(result);
        if result.is_ok() && run.held.is_empty() && !run.stranger() {
            run.keep_names(&[]);
        }
        let Run { changes, held, .. } = run;
        Ended { failure: result.err(), changes, held }
    }
}

impl Run<'_> {
    async fn end(&mut self, orphan: bool, ask: &Ask) -> Result<(), Failure> {
        let inventory = self.inventory().await?;
        let owner = Owner::of(&self.job.kustomization);
        let waits = {
            let mut claims = lock(&self.pipeline.claims);
            claims.drop_owner(&owner);
            claims.refused()
        };
        lock(&self.pipeline.heirs).extend(waits);
        lock(&self.pipeline.memory).entry(owner.clone()).or_default().end();
        self.drop_disputes().await?;
        self.pipeline.use_values(&owner, &BTreeSet::new());
        lock(&self.pipeline.keyrings).remove(&self.job.kustomization.key());
        if orphan || !deletes(&self.job.kustomization) {
            let ids: Vec<ObjectId> = inventory.into_iter().map(|entry| entry.id).collect();
            let left = self.hand_over(ids).await?;
            self.release(&left).await?;
            self.spare_children().await?;
            return self.over().await;
        }
        self.connected()?;
        if inventory.is_empty() {
            return self.over().await;
        }
        if let Some(why) = self.unpruned(true, inventory.len()) {
            return Err(Failure::new(Step::Prune, "PruneFailed", why));
        }
        let guard = Guard {
            before: inventory.len(),
            rendered: 0,
            removed: true,
            confirmed: lock(&self.pipeline.confirmed).clone(),
            ..Guard::default()
        };
        self.delete(inventory, guard, &Wanted::nothing(), ask).await?;
        match self.held.is_empty() {
            true => self.over().await,
            false => self.drop_policy().await,
        }
    }

    /// Nothing is left: should it come back, nothing is known of it.
    async fn over(&self) -> Result<(), Failure> {
        lock(&self.pipeline.memory).remove(&self.owner);
        self.settled().await?;
        self.drop_policy().await
    }
}
