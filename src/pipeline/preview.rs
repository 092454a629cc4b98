//! The plan that a run would execute, for `gitopsd diff`: nothing is written.

use super::kustomization::{Run, Wanted};
use super::note::foreseen;
use super::orders::{Sorted, set_aside_namespaces};
use super::write::{cluster_failure, explain, outage};
use super::{Answer, Connection, Failure, Job, Pipeline, Step, lock};
use crate::plan::{Action, Claim, Coming, Guard, Judged, Owner, desired, label, stages};
use crate::render::ObjectId;
use serde::{Deserialize, Serialize};

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
    /// Why there is no plan, or none beyond the steps.
    pub failure: Option<Failure>,
    /// What else is to be known of the plan, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// Plans without writing, with what the graph says to such a run. What goes wrong is in the
    /// preview.
    pub async fn plan(&self, job: Job, answer: Answer) -> Preview {
        let mut run = Run::new(self, &job);
        let mut preview = Preview {
            kustomization: run.owner.to_string(),
            revision: job.revision.id.clone(),
            steps: Vec::new(),
            unchanged: 0,
            failure: None,
            notes: Vec::new(),
        };
        if let Err(mut failure) = run.preview(&mut preview, answer).await {
            run.mask(&mut failure);
            preview.failure = Some(failure);
        }
        preview
    }
}

impl Run<'_> {
    async fn preview(&mut self, preview: &mut Preview, answer: Answer) -> Result<(), Failure> {
        let connection = self.connected()?;
        let request = self.request(false).await?;
        let (Sorted { plain, kept, orders }, input) = self.build(&request).await?;
        let handed = Default::default();
        let mut wanted = Wanted { manifests: plain, handed, kept, orders, answer, input };
        // A run tells the graph of its own before it is answered.
        let own = set_aside_namespaces(&wanted.orders.set_aside);
        wanted.answer.set_aside_namespaces.extend(own);
        self.preview_objects(preview, &connection, wanted).await
    }

    /// The same for objects that are there already.
    pub(super) async fn preview_objects(
        &mut self,
        preview: &mut Preview,
        connection: &Connection,
        mut wanted: Wanted,
    ) -> Result<(), Failure> {
        if let Err(error) = connection.applier.normalise(&mut wanted.manifests).await {
            return Err(self.unsorted(&wanted.manifests, &error));
        }
        let mut claimed = Vec::new();
        for manifest in &mut wanted.manifests {
            desired(manifest, &self.job.kustomization);
            let digest = self.digest(manifest);
            self.claimed.push((manifest.id.inventory(), digest.clone()));
            let claim = Claim { digest: Some(digest), origin: manifest.origin.clone() };
            claimed.push((manifest.id.clone(), claim));
            let claims = lock(&self.pipeline.claims);
            let labelled = claims.labelled(&manifest.id).unwrap_or(&self.owner).clone();
            drop(claims);
            label(manifest, &labelled);
        }
        // A run is refused as a whole, before any write.
        let conflicts = lock(&self.pipeline.claims).conflicts(&self.owner, &claimed);
        if !conflicts.is_empty() {
            return Err(self.contested(&conflicts));
        }
        let mut coming = self.preview_namespaces(preview, connection, &wanted).await?;
        for stage in stages(wanted.manifests.clone()) {
            let probes = connection.applier.probe(&stage).await;
            for (manifest, probe) in stage.into_iter().zip(probes) {
                let live = probe.live.clone();
                let digest = self.digest(&manifest);
                let mut step = self.judge(manifest, probe, self.forces()).await?;
                coming.defer(&mut step);
                coming.add(&step);
                self.spare(&mut step, &digest, live.as_ref());
                let reason = |text: String| vec![self.redactor.mask(&text)];
                let (verb, lines) = match &step.action {
                    Action::Unchanged => {
                        preview.unchanged += 1;
                        continue;
                    }
                    Action::Create | Action::Configure if step.blind => (
                        if live.is_some() { "configure" } else { "create" },
                        step.notices.last().cloned().into_iter().flat_map(reason).collect(),
                    ),
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
                    Action::Refuse(refusal) => {
                        ("refuse", reason(explain(&step.manifest.id, refusal).0))
                    }
                };
                preview.steps.push(PreviewStep {
                    verb: verb.to_owned(),
                    object: self.redactor.mask(&step.manifest.id.to_string()),
                    file: step.manifest.origin.as_ref().map(ToString::to_string),
                    lines,
                });
            }
        }
        self.preview_deletions(preview, &wanted).await
    }

    async fn preview_deletions(
        &self,
        preview: &mut Preview,
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        if !self.job.kustomization.prune {
            return Ok(());
        }
        let inventory = self.inventory().await?;
        let unclaimed: Vec<ObjectId> = {
            let claims = lock(&self.pipeline.claims);
            let left = wanted.left(&inventory).into_iter().map(|entry| entry.id);
            left.filter(|id| claims.other(&self.owner, id).is_none()).collect()
        };
        let mut add = |verb: &str, id: &ObjectId, lines: Vec<String>| {
            let (verb, object) = (verb.to_owned(), self.shown(&id.to_string()));
            preview.steps.push(PreviewStep { verb, object, file: None, lines });
        };
        if let Some(why) = self.unpruned(wanted.answer.may_prune, unclaimed.len()) {
            unclaimed.iter().for_each(|id| add("hold", id, vec![why.clone()]));
            return Ok(());
        }
        let occupied = self.occupied(&unclaimed).await?;
        let guard = Guard {
            before: self.before(&inventory, wanted).await?,
            rendered: wanted.rendered().len(),
            orders: wanted.orders.work.len(),
            // What leaves the edge left the configuration: no accident of a render.
            removed: self.owner == Owner::edge(),
            confirmed: self.confirmed().await?,
            occupied,
        };
        let Judged { free, held, .. } = guard.judge(unclaimed);
        free.iter().for_each(|id| add("delete", id, Vec::new()));
        if let Some(held) = held {
            let reason = self.shown(&held.reason);
            let why = format!("{reason}; to delete: gitopsd confirm {}", held.digest);
            held.ids.iter().for_each(|id| add("hold", id, vec![why.clone()]));
        }
        Ok(())
    }

    /// Shows the namespaces that a run makes before anything else, and takes them for coming.
    async fn preview_namespaces(
        &self,
        preview: &mut Preview,
        connection: &Connection,
        wanted: &Wanted,
    ) -> Result<Coming, Failure> {
        let mut coming = Coming::default();
        for namespace in wanted.orphaned_namespaces() {
            let lacks = connection.applier.lacks_namespace(&namespace).await;
            if lacks.map_err(|error| cluster_failure(Step::Plan, &error))? {
                let why = "declared by manifests of Flux alone, which are set aside";
                preview.steps.push(PreviewStep {
                    verb: "create".to_owned(),
                    object: self.redactor.mask(&format!("Namespace/{namespace}")),
                    file: None,
                    lines: vec![why.to_owned()],
                });
                coming.expect(namespace);
            }
        }
        Ok(coming)
    }
}
