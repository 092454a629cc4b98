//! Objects that an admission webhook judges only for real: no dry-run says what would become of
//! them, so each look that is owed is a write.

use super::kustomization::Run;
use super::turned::{Asked, Turned};
use super::{Failure, Pipeline, Retry, lock};
use crate::apply::ApplyError;
use crate::flux::Key;
use crate::history::Trigger;
use crate::plan::{self, Action, Gate, Owner};
use serde_json::Value;

impl Pipeline {
    /// A person wants to know: what was refused for real is asked about at once.
    pub fn asks_again(&self, kustomization: &Key) {
        if let Some(memory) = lock(&self.memory).get_mut(&Owner::at(kustomization)) {
            memory.turned.clear();
        }
    }
}

impl Run<'_> {
    /// What cannot be asked about is left alone as long as it is what this manifest made of it, and
    /// nobody has touched it since.
    pub(super) fn spare(&self, step: &mut plan::Step, digest: &str, live: Option<&Value>) {
        let Some(live) = live.filter(|_| step.blind && step.action == Action::Configure) else {
            return;
        };
        let memory = lock(&self.pipeline.memory);
        let known = memory.get(&self.owner).and_then(|m| m.objects.get(&step.manifest.id));
        if known.is_some_and(|known| known.digest == digest && known.gate == Gate::of(live)) {
            step.action = Action::Unchanged;
        }
    }

    /// The refusal that such an object met a short while ago, while it stands.
    pub(super) fn turned_down(&self, step: &plan::Step, digest: &str) -> Option<Failure> {
        // Requests that come together with something else go by `asks_again`.
        if !step.blind || matches!(self.job.trigger, Trigger::Request { .. }) {
            return None;
        }
        let (asked, now) = (self.asking(step, digest), self.pipeline.steady_ms());
        let memory = lock(&self.pipeline.memory);
        let turned = memory.get(&self.owner)?.turned.get(&step.manifest.id)?;
        turned.stands(&asked, self.job.kustomization.retry_interval, now).cloned()
    }

    fn asking(&self, step: &plan::Step, digest: &str) -> Asked {
        Asked {
            digest: digest.to_owned(),
            uid: step.uid.clone(),
            revision: self.job.revision.id.clone(),
            force: self.forces(),
        }
    }

    /// The immutable fields that the write of such an object was refused for, where it is to be
    /// deleted and created again for that: a dry-run would have told before.
    pub(super) fn forced(
        &self,
        step: &plan::Step,
        live: Option<&Value>,
        refused: &ApplyError,
    ) -> Option<Vec<String>> {
        let ApplyError::Refused { refusal, .. } = refused else { return None };
        let live = live.filter(|_| step.blind)?;
        plan::recreated(&step.manifest, live, self.forces(), refusal)
    }

    /// Remembers that the write of such an object was refused: its pace is its own from now on. Any
    /// other end of it, and whatever comes after a deletion of ours, is tried again as ever.
    pub(super) async fn turned(
        &self,
        step: &plan::Step,
        digest: &str,
        error: &ApplyError,
        failure: &mut Failure,
    ) -> Result<(), Failure> {
        let id = &step.manifest.id;
        let refused = step.blind && matches!(error, ApplyError::Refused { .. });
        if !refused || self.taken_down(id).await? {
            return Ok(());
        }
        failure.retry = Retry::Interval;
        let (asked, now) = (self.asking(step, digest), self.pipeline.steady_ms());
        let turned = Turned::new(asked, failure.clone(), now);
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.turned.insert(id.clone(), turned);
        Ok(())
    }
}
