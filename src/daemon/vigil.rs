//! The loop's side of health after the run: events in, looks out, runs asked for.

use super::Daemon;
use crate::flux::Key;
use crate::graph::{Event, Item, Phase, Ready, Sight, Time};
use crate::history::Trigger;
use crate::observe::{Seen, Status};
use crate::plan::Owner;
use crate::render::ObjectId;

impl Daemon {
    /// A watch spoke of an object.
    pub(super) fn touched(&mut self, seen: &Seen) {
        let now = self.now();
        for owner in self.pipeline.depends(seen) {
            if owner == Owner::edge() {
                self.edge.touched();
                continue;
            }
            let key = owner.key();
            if self.graph.item(&key).is_some_and(Item::active) {
                self.vigil.touch(&key, &seen.id, now);
            }
        }
    }

    /// Starts the looks that are due.
    pub(super) fn watch_over(&mut self) {
        let graph = &self.graph;
        let busy = |key: &Key| {
            graph.item(key).is_some_and(|item| matches!(item.phase, Phase::Running { .. }))
        };
        for look in self.vigil.due(self.now(), busy) {
            match self.graph.kustomization(&look.key) {
                Some(kustomization) => self.workers.look(kustomization.clone(), look),
                None => self.vigil.forget(&look.key),
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
            Some(Status::InProgress) => Sight::UnderWay,
            Some(Status::Terminating | Status::NotFound | Status::Unknown) => Sight::Missing,
        };
        let sights: Vec<(ObjectId, Sight)> =
            seen.iter().map(|(id, status)| (id.clone(), sight(*status))).collect();
        let timeout = self.graph.kustomization(key).map(|kustomization| kustomization.timeout);
        let timeout = timeout.unwrap_or_default().as_millis();
        let timeout = Time::try_from(timeout).unwrap_or(Time::MAX / 2);
        let news = self.vigil.looked(key, &sights, (ready, timeout), self.now());
        // Where something else is wrong a run will come for that.
        if news && (ready || ill) {
            let owner = Owner::at(key);
            self.pipeline.unwell(&owner);
            self.handle(Event::Request(key.clone(), Trigger::Health, 0));
        }
    }
}
