//! Looks at objects that Ready depends on, after the run that applied them.

use super::{Pipeline, lock};
use crate::flux::HealthCheckExpr;
use crate::observe::Status;
use crate::plan::Owner;
use crate::render::ObjectId;

impl Pipeline {
    /// The Kustomizations whose Ready depends on an object.
    pub fn depends(&self, id: &ObjectId) -> Vec<Owner> {
        let memory = lock(&self.memory);
        let depends = memory.iter().filter(|(_, memory)| memory.targets.contains_key(id));
        depends.map(|(owner, _)| owner.clone()).collect()
    }

    /// The state of objects, by one GET each; `None` where there was no answer. What Ready depends
    /// on no longer is left out.
    pub async fn look(
        &self,
        owner: &Owner,
        ids: Vec<ObjectId>,
        expressions: &[HealthCheckExpr],
    ) -> Vec<(ObjectId, Option<Status>)> {
        let connection = self.connection();
        let mut seen = Vec::new();
        for id in ids {
            let version = {
                let memory = lock(&self.memory);
                memory.get(owner).and_then(|memory| memory.targets.get(&id).cloned())
            };
            let Some(version) = version else { continue };
            let verdict = match &connection {
                Some(found) => found.observer.verdict(&id, &version, expressions).await.ok(),
                None => None,
            };
            seen.push((id, verdict.map(|verdict| verdict.status)));
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
