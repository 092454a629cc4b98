//! Looks at objects that Ready depends on, after the run that applied them.

use super::{Pipeline, lock, version};
use crate::flux::Kustomization;
use crate::observe::{Event, Seen, Status};
use crate::plan::Owner;
use crate::render::ObjectId;

impl Pipeline {
    /// The Kustomizations whose Ready depends on an object to which something has happened. A list
    /// that a watch begins anew with tells of every object: of one that is as it was seen last,
    /// that is no news.
    pub fn depends(&self, seen: &Seen) -> Vec<Owner> {
        let memory = lock(&self.memory);
        let known = memory.values().filter_map(|memory| memory.seen_at(&seen.id)).max();
        let news = seen.event != Event::Listed || known != Some(version(seen));
        let depends = memory.iter().filter(|(_, memory)| memory.targets.contains_key(&seen.id));
        depends.filter(|_| news).map(|(owner, _)| owner.clone()).collect()
    }

    /// The state of objects, by one GET each; `None` where there was no answer. What Ready depends
    /// on no longer is left out. With `why`, what is under way and cannot get there has failed: its
    /// container crashes again and again, for instance.
    pub async fn look(
        &self,
        kustomization: &Kustomization,
        ids: Vec<ObjectId>,
        why: bool,
    ) -> Vec<(ObjectId, Option<Status>)> {
        let (owner, expressions) = (Owner::of(kustomization), &kustomization.health_check_exprs);
        let connection = self.connection();
        let mut seen = Vec::new();
        for id in ids {
            let version = {
                let memory = lock(&self.memory);
                memory.get(&owner).and_then(|memory| memory.targets.get(&id).cloned())
            };
            let Some(version) = version else { continue };
            let verdict = match &connection {
                Some(found) => found.observer.verdict(&id, &version, expressions).await.ok(),
                None => None,
            };
            let mut status = verdict.map(|verdict| verdict.status);
            if let (true, Some(Status::InProgress), Some(found)) = (why, status, &connection)
                && found.observer.hopeless(&id, &version).await
            {
                status = Some(Status::Failed);
            }
            seen.push((id, status));
        }
        seen
    }

    /// The next run of an owner is to look at its health, whatever it remembers.
    pub fn unwell(&self, owner: &Owner) {
        if let Some(memory) = lock(&self.memory).get_mut(owner) {
            memory.ready = false;
        }
    }
}
