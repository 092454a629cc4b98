//! Carries out one step of a plan, and remembers what came of it.

use super::kustomization::{Run, Wanted};
use super::memory::{Known, Memory};
use super::write::Written;
use super::{Connection, Failure, Step, lock};
use crate::apply::ApplyError;
use crate::plan::{self, Action, Gate};
use crate::render::ObjectId;
use serde_json::Value;

impl Run<'_> {
    /// Leaves an object alone.
    pub(super) async fn leave(
        &mut self,
        step: &plan::Step,
        (digest, why): (&str, &'static str),
        live: Option<&Value>,
        written: &mut Written,
    ) -> Result<(), Failure> {
        let id = &step.manifest.id;
        match live {
            _ if why == plan::GOING => {
                self.look_again(id);
                written.refusals.push(self.going(&step.manifest).await?);
                written.going.push(id.clone());
            }
            _ if why == plan::VANISHED => self.vanished(step, digest, live),
            // Its gate is watched, so that the end of an opt-out on the live copy is seen.
            Some(live) => self.know(step, digest, live, Gate::of(live)),
            None => {
                self.forget_object(id);
                written.left_out.insert(id.clone());
            }
        }
        Ok(())
    }

    /// Writes an object. What the server refuses is kept beside what it accepts; only a server that
    /// is away is an error.
    pub(super) async fn carry_out(
        &mut self,
        (connection, wanted): (&Connection, &Wanted),
        mut step: plan::Step,
        digest: &str,
        live: Option<&Value>,
        written: &mut Written,
    ) -> Result<(), Failure> {
        if let Some(failure) = self.turned_down(&step, digest) {
            written.refusals.push(failure);
            return Ok(());
        }
        self.going_on()?;
        self.begin(wanted).await?;
        self.enter(Step::Apply);
        let mut applied = connection.applier.apply(&step).await;
        if let Err(error) = &applied
            && let Some(fields) = self.forced(&step, live, error)
        {
            // Whoever stops begins no deletion: the time to end it in is over with the write.
            self.going_on()?;
            step.action = Action::Recreate(fields);
            applied = connection.applier.apply(&step).await;
        }
        match applied {
            Ok(applied) => {
                self.note(&step, digest, live, &applied).await?;
                self.know(&step, digest, &applied.object, applied.gate);
                self.warnings.extend(applied.warnings);
                written.definitions |= step.manifest.id.kind == "CustomResourceDefinition";
                written.answers.insert(step.manifest.id.clone(), applied.object);
            }
            Err(error) => {
                if matches!(error, ApplyError::StillThere { .. } | ApplyError::NotRemade { .. }) {
                    self.note_deletion(&step.manifest).await?;
                }
                let mut failure = self.apply_failure(&step.manifest, &error);
                if error.outage() {
                    return Err(failure);
                }
                self.turned(&step, digest, &error, &mut failure).await?;
                written.refusals.push(failure);
            }
        }
        Ok(())
    }

    pub(super) fn know(&self, step: &plan::Step, digest: &str, live: &Value, gate: Gate) {
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str);
        let version = text("/metadata/resourceVersion").and_then(|text| text.parse().ok());
        let manifest = &step.manifest;
        let known = Known {
            digest: digest.to_owned(),
            gate,
            api_version: manifest.api_version.clone(),
            version: version.unwrap_or_default(),
            notices: step.notices.clone(),
            others: plan::others(live),
            skipped: matches!(step.action, Action::Skip(_)),
        };
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.know(&manifest.id, known);
        // What is left alone was not made by this manifest.
        let made = !matches!(step.action, Action::Skip(why) if why != plan::VANISHED);
        if made && plan::finite(manifest) {
            self.made(memory, &manifest.id, text("/metadata/uid").unwrap_or_default());
        }
    }

    /// Remembers by which claim a finite object was made.
    fn made(&self, memory: &mut Memory, id: &ObjectId, uid: &str) {
        let id = id.inventory();
        if let Some((_, claim)) = self.claimed.iter().find(|(claimed, _)| *claimed == id) {
            memory.made.insert(id, (claim.clone(), uid.to_owned()));
        }
    }

    /// It has ended and is gone, or goes: that is how Git wants it, until the manifest changes.
    fn vanished(&self, step: &plan::Step, digest: &str, live: Option<&Value>) {
        let left = live.unwrap_or(&Value::Null);
        self.know(step, digest, left, Gate::of(left));
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        if live.is_none() {
            memory.nominated.remove(&step.manifest.id);
        }
        memory.vanished.insert(step.manifest.id.clone());
    }

    fn look_again(&self, id: &ObjectId) {
        let mut memory = lock(&self.pipeline.memory);
        memory.entry(self.owner.clone()).or_default().nominate(id);
    }

    pub(super) fn forget_object(&self, id: &ObjectId) {
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        memory.nominated.remove(id);
        memory.objects.remove(id);
    }
}
