//! The plan that a run would execute, for `gitopsd diff`: nothing is written.

use super::kustomization::Run;
use super::note::foreseen;
use super::orders::Sorted;
use super::write::{explain, outage};
use super::{Connection, Failure, Job, Pipeline, lock};
use crate::plan::{Action, Claim, Coming, Guard, Judged, Owner, desired, label, stages, stale};
use crate::render::{Manifest, ObjectId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a run of one Kustomization would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// The Kustomization, `namespace/name`.
    pub kustomization: String,
    /// Revision that would be applied.
    pub revision: String,
    /// Objects that would be written, deleted, held or refused, in order.
    pub steps: Vec<PreviewStep>,
    /// Objects that are as Git says.
    pub unchanged: usize,
    /// Why there is no plan.
    pub failure: Option<Failure>,
}

/// One object of a preview.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviewStep {
    /// `create`, `configure`, `recreate`, `delete`, `hold`, `skip`, `defer` or `refuse`.
    pub verb: String,
    /// `Kind/namespace/name`.
    pub object: String,
    /// File in Git.
    pub file: Option<String>,
    /// Differences, masked; or the reason.
    pub lines: Vec<String>,
}

impl Pipeline {
    /// Plans without writing. What goes wrong is in the preview.
    pub async fn plan(&self, job: Job) -> Preview {
        let mut run = Run::new(self, &job);
        let mut preview = Preview {
            kustomization: run.owner.to_string(),
            revision: job.revision.id.clone(),
            steps: Vec::new(),
            unchanged: 0,
            failure: None,
        };
        if let Err(mut failure) = run.preview(&mut preview).await {
            run.mask(&mut failure);
            preview.failure = Some(failure);
        }
        preview
    }
}

impl Run<'_> {
    async fn preview(&mut self, preview: &mut Preview) -> Result<(), Failure> {
        let connection = self.connected()?;
        let request = self.request(false).await?;
        let (Sorted { plain, kept, orders }, _) = self.build(&request).await?;
        self.preview_objects(preview, &connection, plain, (&kept, orders.work.len())).await
    }

    /// The same for objects that are there already.
    pub(super) async fn preview_objects(
        &mut self,
        preview: &mut Preview,
        connection: &Connection,
        mut manifests: Vec<Manifest>,
        kept: (&BTreeSet<String>, usize),
    ) -> Result<(), Failure> {
        if let Err(error) = connection.applier.normalise(&mut manifests).await {
            return Err(self.unsorted(&manifests, &error));
        }
        let mut wanted = Vec::new();
        for manifest in &mut manifests {
            desired(manifest, &self.job.kustomization);
            let digest = self.digest(manifest);
            self.claimed.push((manifest.id.inventory(), digest.clone()));
            let claim = Claim { digest: Some(digest), origin: manifest.origin.clone() };
            wanted.push((manifest.id.clone(), claim));
            let claims = lock(&self.pipeline.claims);
            let labelled = claims.labelled(&manifest.id).unwrap_or(&self.owner).clone();
            drop(claims);
            label(manifest, &labelled);
        }
        // A run is refused as a whole, before any write.
        let conflicts = lock(&self.pipeline.claims).conflicts(&self.owner, &wanted);
        if !conflicts.is_empty() {
            return Err(self.contested(&conflicts));
        }
        let rendered: BTreeSet<ObjectId> = manifests.iter().map(|m| m.id.clone()).collect();
        let mut coming = Coming::default();
        for stage in stages(manifests) {
            let probes = connection.applier.probe(&stage).await;
            for (manifest, probe) in stage.into_iter().zip(probes) {
                let live = probe.live.clone();
                let mut step = self.judge(manifest, probe, self.job.kustomization.force).await?;
                coming.defer(&mut step);
                coming.add(&step);
                let reason = |text: String| vec![self.redactor.mask(&text)];
                let (verb, lines) = match &step.action {
                    Action::Unchanged => {
                        preview.unchanged += 1;
                        continue;
                    }
                    Action::Create => ("create", Vec::new()),
                    Action::Configure => (
                        "configure",
                        foreseen(&step, live.as_ref()).into_iter().flat_map(reason).collect(),
                    ),
                    Action::Recreate(fields) => {
                        ("recreate", reason(format!("immutable: {}", fields.join(", "))))
                    }
                    Action::Skip(why) => ("skip", reason((*why).to_owned())),
                    Action::Deferred(why) => ("defer", reason(why.clone())),
                    // It says nothing of the object: there is no plan.
                    Action::Refuse(refusal) if outage(refusal) => {
                        return Err(self.refusal(&step.manifest, refusal));
                    }
                    Action::Refuse(refusal) => ("refuse", reason(explain(refusal).0)),
                };
                preview.steps.push(PreviewStep {
                    verb: verb.to_owned(),
                    object: self.redactor.mask(&step.manifest.id.to_string()),
                    file: step.manifest.origin.as_ref().map(ToString::to_string),
                    lines,
                });
            }
        }
        self.preview_deletions(preview, &rendered, kept).await
    }

    async fn preview_deletions(
        &self,
        preview: &mut Preview,
        rendered: &BTreeSet<ObjectId>,
        (kept, orders): (&BTreeSet<String>, usize),
    ) -> Result<(), Failure> {
        if !self.job.kustomization.prune {
            return Ok(());
        }
        let inventory = self.inventory().await?;
        let unclaimed: Vec<ObjectId> = {
            let claims = lock(&self.pipeline.claims);
            stale(&inventory, rendered)
                .into_iter()
                .map(|entry| entry.id)
                .filter(|id| !kept.contains(&id.inventory()))
                .filter(|id| claims.other(&self.owner, id).is_none())
                .collect()
        };
        let occupied = self.occupied(&unclaimed).await?;
        let guard = Guard {
            before: inventory.len(),
            rendered: rendered.len(),
            orders,
            // What leaves the edge left the configuration: no accident of a render.
            removed: self.owner == Owner::edge(),
            confirmed: self.confirmed().await?,
            occupied,
        };
        let Judged { free, held, .. } = guard.judge(unclaimed);
        let mut add = |verb: &str, id: &ObjectId, lines: Vec<String>| {
            let (verb, object) = (verb.to_owned(), self.redactor.mask(&id.to_string()));
            preview.steps.push(PreviewStep { verb, object, file: None, lines });
        };
        free.iter().for_each(|id| add("delete", id, Vec::new()));
        if let Some(held) = held {
            let why = format!("{}; to delete: gitopsd confirm {}", held.reason, held.digest);
            held.ids.iter().for_each(|id| add("hold", id, vec![why.clone()]));
        }
        Ok(())
    }
}
