//! What a run says of the images that it applied: noted for `images`, named where they fail.

use super::running::{chosen_by, images};
use crate::pipeline::kustomization::{Run, Wanted};
use crate::pipeline::{Failure, Step, lock, record};

impl Run<'_> {
    /// Notes which images of which policies are applied now, and whether all is well with them.
    pub(in crate::pipeline) async fn note_images(
        &self,
        wanted: &Wanted,
        healthy: bool,
    ) -> Result<(), Failure> {
        let (applied, known) = {
            let memory = lock(&self.pipeline.images);
            if memory.known.is_empty() {
                return Ok(());
            }
            let found = images(&wanted.manifests).into_keys();
            let pairs = found.flat_map(|image| {
                let policies = chosen_by(&image, &memory.known);
                policies.into_iter().map(move |policy| (policy, image.clone()))
            });
            let known: Vec<String> = memory.known.keys().cloned().collect();
            (pairs.collect::<Vec<_>>(), known)
        };
        let (owner, now_ms) = (self.owner.to_string(), record::now_ms());
        self.database(move |history| history.deployed(&owner, &applied, &known, healthy, now_ms))
            .await
    }

    /// Adds to a failure of health which policy chose the image of the object that failed, and
    /// the last one with which it was healthy.
    pub(in crate::pipeline) async fn blame_image(
        &self,
        wanted: &Wanted,
        failure: Failure,
    ) -> Failure {
        if failure.step != Step::Observe {
            return failure;
        }
        let chosen = {
            let memory = lock(&self.pipeline.images);
            let found = images(&wanted.manifests).into_iter();
            let failed = |ids: &std::collections::BTreeSet<crate::render::ObjectId>| {
                ids.iter().any(|id| failure.object.as_deref() == Some(&id.to_string()))
            };
            let mut pairs = found.filter(|(_, ids)| failed(ids)).flat_map(|(image, _)| {
                let policies = chosen_by(&image, &memory.known);
                policies.into_iter().map(move |policy| (policy, image.clone()))
            });
            pairs.next()
        };
        let Some((policy, image)) = chosen else { return failure };
        let owner = self.owner.to_string();
        let rows = self.database(|history| history.running()).await.unwrap_or_default();
        let row = rows.into_iter().find(|row| row.policy == policy && row.owner == owner);
        let healthy = row.and_then(|row| row.healthy).filter(|healthy| *healthy != image);
        let last = match healthy {
            Some(healthy) => format!("the last healthy one is {healthy}"),
            None => "none of its images was healthy here yet".to_owned(),
        };
        let hint = format!(
            "{image} was chosen by ImagePolicy {policy}, {last}: push a tag that works, or suspend \
             the automation and revert its commit"
        );
        let hint = match &failure.hint {
            Some(more) => format!("{hint}; {more}"),
            None => hint,
        };
        failure.hint(Some(hint))
    }
}
