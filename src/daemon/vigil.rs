//! The loop's side of health after the run: events in, looks out, runs asked for.

use super::Daemon;
use crate::flux::Key;
use crate::graph::{Event, Item, Phase, Ready, Sight};
use crate::history::Trigger;
use crate::observe::Status;
use crate::plan::Owner;
use crate::render::ObjectId;

impl Daemon {
    /// An event spoke of an object.
    pub(super) fn touched(&mut self, id: &ObjectId) {
        let now = self.now();
        for owner in self.pipeline.depends(id) {
            if owner == Owner::edge() {
                self.edge.touched();
                continue;
            }
            let key = owner.key();
            if self.graph.item(&key).is_some_and(Item::active) {
                self.vigil.touch(&key, id, now);
            }
        }
    }

    /// Starts the looks that are due.
    pub(super) fn watch_over(&mut self) {
        let graph = &self.graph;
        let busy = |key: &Key| {
            graph.item(key).is_some_and(|item| matches!(item.phase, Phase::Running { .. }))
        };
        for (key, ids) in self.vigil.due(self.now(), busy) {
            match self.graph.kustomization(&key) {
                Some(kustomization) => self.workers.look(kustomization.clone(), ids),
                None => self.vigil.forget(&key),
            }
        }
    }

    /// Takes in what a look showed.
    pub(super) fn looked(&mut self, key: &Key, seen: &[(ObjectId, Option<Status>)]) {
        let Some(item) = self.graph.item(key) else {
            return self.vigil.forget(key);
        };
        let ready = item.condition.status == Ready::True;
        let ill = item.condition.reason == "HealthCheckFailed";
        let sight = |status: Option<Status>| match status {
            None => Sight::Unseen,
            Some(Status::Current) => Sight::Well,
            Some(Status::Failed) => Sight::Failed,
            Some(_) => Sight::UnderWay,
        };
        let sights: Vec<(ObjectId, Sight)> =
            seen.iter().map(|(id, status)| (id.clone(), sight(*status))).collect();
        let news = self.vigil.looked(key, &sights, ready, self.now());
        // Where something else is wrong a run will come for that.
        if news && (ready || ill) {
            let owner = Owner::at(key);
            self.pipeline.unwell(&owner);
            self.handle(Event::Request(key.clone(), Trigger::Health, 0));
        }
    }
}
