//! Tells of each change: a row of the history, a line of the journal, and when a heal has become a
//! fight with another writer.

use super::kustomization::Run;
use super::memory::Dispute;
use super::{Failure, lock};
use crate::apply::Applied;
use crate::history::{Change, Trigger, Verb};
use crate::logging::Message;
use crate::plan::{self, Action, differences, regained, taken, writer};
use crate::render::Manifest;
use serde_json::Value;

/// A line of a change, and the field that it is about with its other writer.
struct Line {
    text: String,
    field: String,
    writer: Option<String>,
}

/// What a heal of an object that was gone is counted as.
const WHOLE: &str = "the object as a whole";

impl Run<'_> {
    /// Notes one step that was carried out. `live` is the object as it was before.
    pub(super) async fn note(
        &mut self,
        step: &plan::Step,
        digest: &str,
        live: Option<&Value>,
        applied: &Applied,
    ) -> Result<(), Failure> {
        let version = live.and_then(|live| live.pointer("/metadata/resourceVersion"));
        if version.and_then(Value::as_str) == Some(&applied.resource_version) {
            // The server found nothing to write.
            return Ok(());
        }
        let healed = self.healed(step, digest);
        let verb = match &step.action {
            _ if healed => Verb::Healed,
            Action::Create => Verb::Created,
            Action::Recreate(_) => Verb::Recreated,
            _ => Verb::Configured,
        };
        let lines = lines(step, live, Some(&applied.object));
        let told: Vec<String> = lines
            .iter()
            .map(|line| match &line.writer {
                Some(writer) if healed => format!("{} (by {writer})", line.text),
                _ => line.text.clone(),
            })
            .collect();
        let told = match live {
            None if healed => "it was gone, and is made again".to_owned(),
            _ => self.redactor.mask(&told.join("\n")),
        };
        self.changes += 1;
        if healed {
            self.heal((step, digest), &lines, &told);
        } else {
            self.journal(step, verb);
            if let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner) {
                // A new manifest ends a fight.
                memory.contests.remove(&step.manifest.id);
            }
        }
        self.change(Change {
            object: self.redactor.mask(&step.manifest.id.to_string()),
            id: self.redactor.mask(&step.manifest.id.inventory()),
            verb,
            diff: told,
            origin: step.manifest.origin.as_ref().map(ToString::to_string),
        })
        .await
    }

    /// Notes an object that was deleted to be created again and is not gone yet, so that the next
    /// run knows whose deletion it waits for.
    pub(super) async fn note_deletion(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        self.changes += 1;
        self.change(Change {
            object: self.shown(&manifest.id.to_string()),
            id: self.shown(&manifest.id.inventory()),
            verb: Verb::Deleted,
            diff: "to be created again".to_owned(),
            origin: manifest.origin.as_ref().map(ToString::to_string),
        })
        .await
    }

    /// One line of the journal: what was done to which object, and the file that asked for it.
    fn journal(&self, step: &plan::Step, verb: Verb) {
        let key = self.job.kustomization.key().to_string();
        let id = self.redactor.mask(&step.manifest.id.to_string());
        let origin = step.manifest.origin.as_ref().map(|origin| format!(" ({origin})"));
        tracing::info!(
            message_id = Message::Applied.id(),
            gitopsd_kustomization = key,
            gitopsd_source = %self.job.kustomization.source,
            gitopsd_revision = self.job.revision.id,
            gitopsd_object = id,
            gitopsd_run = self.run_id(),
            gitopsd_action = verb.as_str(),
            "{key}: {id} {}{}",
            verb.as_str(),
            origin.unwrap_or_default()
        );
    }

    /// True when the object was as this manifest wants it before, or a watch brought us here.
    fn healed(&self, step: &plan::Step, digest: &str) -> bool {
        let memory = lock(&self.pipeline.memory);
        let Some(memory) = memory.get(&self.owner) else { return false };
        let id = &step.manifest.id;
        match memory.objects.get(id) {
            Some(known) => known.digest == digest,
            // A fight of an earlier process goes on.
            None => {
                let fought = |dispute: &Dispute| dispute.digest == digest;
                self.job.trigger == Trigger::Drift || memory.contests.get(id).is_some_and(fought)
            }
        }
    }

    fn heal(&self, (step, digest): (&plan::Step, &str), lines: &[Line], told: &str) {
        let id = &step.manifest.id;
        let key = self.job.kustomization.key().to_string();
        let now = self.pipeline.steady_ms();
        let mut fields: Vec<(String, Option<String>)> =
            lines.iter().map(|line| (line.field.clone(), line.writer.clone())).collect();
        if step.action == Action::Create || fields.is_empty() {
            fields.push((WHOLE.to_owned(), None));
        }
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        let dispute = memory.contests.entry(id.clone()).or_default();
        digest.clone_into(&mut dispute.digest);
        let news = dispute.contest.heal(&fields, now);
        let fight = dispute.contest.fight(now).map(ToString::to_string);
        let id = self.redactor.mask(&id.to_string());
        tracing::info!(
            message_id = Message::Healed.id(),
            gitopsd_kustomization = key,
            gitopsd_revision = self.job.revision.id,
            gitopsd_object = id,
            gitopsd_run = self.run_id(),
            gitopsd_action = Verb::Healed.as_str(),
            "{key}: {id} healed: {}",
            told.replace('\n', "; ")
        );
        if let Some(fight) = fight.filter(|_| news) {
            tracing::warn!(
                message_id = Message::Conflict.id(),
                gitopsd_kustomization = key,
                gitopsd_revision = self.job.revision.id,
                gitopsd_object = id,
                "{key}: {id}: {}",
                self.redactor.mask(&fight)
            );
        }
    }

    /// What `status` is to say of single objects: fields left out of manifests, and fights.
    pub(super) fn notices(&mut self) {
        let now = self.pipeline.steady_ms();
        let mut memory = lock(&self.pipeline.memory);
        let memory = memory.entry(self.owner.clone()).or_default();
        let left_out = memory.objects.values().flat_map(|known| known.notices.iter().cloned());
        self.warnings.extend(left_out);
        memory.contests.retain(|_, dispute| !dispute.contest.over(now));
        for (id, dispute) in &memory.contests {
            if let Some(fight) = dispute.contest.fight(now) {
                self.warnings.push(format!("{id}: {fight}"));
            }
        }
    }
}

/// What an apply is going to change, for a plan that is only shown.
pub(super) fn foreseen(step: &plan::Step, live: Option<&Value>) -> Vec<String> {
    lines(step, live, None).into_iter().map(|line| line.text).collect()
}

/// The changes of one object. Taking fields over shows in the answer only, and a field that is
/// merely held again does not show at all.
fn lines(step: &plan::Step, live: Option<&Value>, answer: Option<&Value>) -> Vec<Line> {
    let Some(live) = live else { return Vec::new() };
    let masked = step.manifest.sensitive;
    let found = match answer {
        Some(answer) => {
            let mut found = differences(live, answer, masked);
            // What a controller wrote between our look and our apply is none of ours: the look
            // foresaw all that the apply sets, and taking over only removes.
            let foreseen = |path: &str| step.differences.iter().any(|d| d.path == path);
            found.retain(|difference| {
                step.blind || difference.after.is_none() || foreseen(&difference.path)
            });
            found
        }
        None => step.differences.clone(),
    };
    let mut lines: Vec<Line> = found
        .into_iter()
        .map(|difference| Line {
            text: difference.to_string(),
            writer: writer(live, &difference),
            field: difference.path,
        })
        .collect();
    if !lines.is_empty() || step.action != Action::Configure {
        return lines;
    }
    let taken = if step.take_over { taken(live) } else { Vec::new() };
    if !taken.is_empty() {
        let (text, field) =
            (format!("fields taken over from {}", taken.join(", ")), "managedFields");
        let writer = Some(taken.join(", "));
        lines.push(Line { text, field: field.to_owned(), writer });
    } else if let Some(answer) = answer {
        let text = |field: &str| format!("= {field}: held again, its value is as in Git");
        let again = regained(live, answer).into_iter();
        lines.extend(again.map(|field| Line { text: text(&field), field, writer: None }));
    } else {
        let (text, field) = ("fields held again, their values are as in Git", "managedFields");
        lines.push(Line { text: text.to_owned(), field: field.to_owned(), writer: None });
    }
    lines
}
