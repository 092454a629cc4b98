//! The render of one run: built, sorted, its errors as failures, its warnings told once.

use super::kustomization::Run;
use super::orders::{Sorted, sort};
use super::write::STOPPING;
use super::{Failure, Retry, Step, lock};
use crate::logging::Message;
use crate::render::{Manifest, RenderError, Rendered, Request, Warning, WarningKind};
use std::collections::BTreeSet;
use std::future::Future;

impl Run<'_> {
    /// Builds and sorts.
    pub(super) async fn build(&mut self, request: &Request) -> Result<(Sorted, String), Failure> {
        self.enter(Step::Render);
        let rendered = self.unless_stopped(self.pipeline.renderer.render(request)).await?;
        let Rendered { manifests, digest, warnings, redactor, .. } = rendered;
        self.named_after_secrets(&manifests);
        self.redactor.merge(&redactor);
        for warning in warnings {
            self.warn(&warning);
        }
        let manifests: Vec<Manifest> =
            manifests.iter().cloned().map(|manifest| self.guarded(manifest)).collect();
        self.note_names(&manifests);
        let mut sorted = sort(&manifests, &self.job.revision.id);
        for problem in &mut sorted.orders.problems {
            // It may cite a value that a variable has brought.
            problem.message = self.redactor.mask(&problem.message);
        }
        Ok((sorted, self.with_spec(&digest)))
    }

    /// The renderer's answer, for as long as nobody stops the run: bases from elsewhere may take a
    /// minute, and what is dropped leaves nothing behind.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, RenderError>>,
    ) -> Result<T, Failure> {
        let mut cancel = self.job.cancel.clone();
        let stopped = async {
            if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
                // Nobody can stop it any more.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            result = work => result.map_err(|error| self.render_failure(error)),
            () = stopped => {
                let cause = "it was stopped while it was rendered";
                Err(Failure::new(Step::Render, STOPPING, cause).retry(Retry::Soon))
            }
        }
    }

    /// An error of the renderer as a failure: the first problem in full, the others counted.
    fn render_failure(&self, error: RenderError) -> Failure {
        let step = match error {
            RenderError::Sealed { .. } => Step::Open,
            _ => Step::Render,
        };
        let mut failure = Failure::new(step, "BuildFailed", error.to_string());
        if let RenderError::PathNotFound { .. } = error {
            failure.reason = "ArtifactFailed".to_owned();
            if self.job.root {
                // The host names it, not Git.
                let hint = "correct root.path in the configuration (/etc/gitopsd), or root.ref";
                return self.at_revision(failure.hint(Some(hint.to_owned())));
            }
        }
        if let [only] = error.problems() {
            let line = only.line.map(|line| format!(":{line}")).unwrap_or_default();
            failure.file = only.file.as_ref().map(|file| format!("{file}{line}"));
            failure.cause.clone_from(&only.message);
        }
        if error.retry() {
            failure.retry = Retry::Soon;
        }
        self.at_revision(failure.hint(error.hint()))
    }

    /// Warns of names that hold a substituted value of a Secret: what is shown is masked, but a
    /// name is what an object is known by in the cluster. One warning, with the first.
    fn named_after_secrets(&mut self, manifests: &[Manifest]) {
        let masked = |manifest: &Manifest| {
            let name = manifest.id.to_string();
            Some(self.redactor.mask(&name)).filter(|masked| *masked != name)
        };
        let mut named = manifests.iter().filter_map(|m| Some((m, masked(m)?)));
        let Some((manifest, name)) = named.next() else { return };
        let others = match named.count() {
            0 => String::new(),
            more => format!(" (and so do {more} more)"),
        };
        let place = manifest.origin.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
        self.warnings.push(format!(
            "{place}the name of {name} holds a value of a Secret{others}, and names can be read \
             in the cluster: take the name from elsewhere"
        ));
    }

    /// Substitution may have brought a secret value into any object.
    fn guarded(&self, mut manifest: Manifest) -> Manifest {
        if self.job.kustomization.post_build.is_some() {
            manifest.guard(&self.redactor);
        }
        manifest
    }

    /// Keeps a warning for `status`, and tells the journal when it is new.
    fn warn(&mut self, warning: &Warning) {
        let text = warning.to_string();
        let masked = self.redactor.mask(&text);
        let news = {
            let mut memory = lock(&self.pipeline.memory);
            memory.entry(self.owner.clone()).or_default().told_warnings.insert(masked.clone())
        };
        if news {
            let key = self.job.kustomization.key().to_string();
            let id = match warning.kind {
                WarningKind::Mac => Message::MacWrong.id(),
                WarningKind::PlaintextSecret => Message::PlaintextSecret.id(),
                WarningKind::OldCopy => Message::OldCopy.id(),
            };
            tracing::warn!(
                message_id = id,
                gitopsd_kustomization = key,
                gitopsd_source = %self.job.kustomization.source,
                gitopsd_revision = self.job.revision.id,
                "{key}: {masked}"
            );
        }
        if warning.kind == WarningKind::OldCopy {
            self.old_copies.insert(text.clone());
        }
        self.warnings.push(text);
    }

    /// Where all else is as it was, the server of a base may be away, or back.
    pub(super) fn copies(&mut self, old: &[Warning]) {
        let before = {
            let memory = lock(&self.pipeline.memory);
            memory.get(&self.owner).map(|memory| memory.old_copies.clone()).unwrap_or_default()
        };
        self.warnings.retain(|warning| !before.contains(warning));
        for warning in old {
            self.warn(warning);
        }
        let mask = |text: &String| self.redactor.mask(text);
        let now: BTreeSet<String> = self.old_copies.iter().map(mask).collect();
        if now != before
            && let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner)
        {
            memory.warn(self.warnings.iter().map(mask).collect());
            memory.old_copies = now;
        }
    }
}
