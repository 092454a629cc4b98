//! Asks one Git remote, and hands out the files of the revision in force.

use super::{Failure, Pipeline, Retry, Revision, Step, lock};
use crate::flux::{GitRepository, Key};
use crate::source::{Poll, Remote, Snapshot, Source, SourceError, Tree};
use std::sync::Arc;

/// One source's mirror and the revision in force.
pub(super) struct Mirror {
    source: Arc<Source>,
    current: Option<Snapshot>,
}

impl Pipeline {
    /// True once a source's mirror was opened.
    pub fn opened(&self, key: &Key) -> bool {
        lock(&self.sources).contains_key(key)
    }

    /// Opens the mirror and finds the last good revision on disk, without any network.
    pub async fn restore(&self, source: &GitRepository) -> Result<Option<Revision>, Failure> {
        let mirror = self.mirror(source).await?;
        let last = blocking(source, move || mirror.last()).await?;
        Ok(last.map(|snapshot| self.keep(source, snapshot)))
    }

    /// Asks the remote. `None` when nothing has moved; on any error the last good revision stays.
    pub async fn poll(&self, source: &GitRepository) -> Result<Option<Revision>, Failure> {
        let credential = self.credential(source).await?;
        let mirror = self.mirror(source).await?;
        let remote = Remote {
            url: source.url.clone(),
            reference: source.reference.clone(),
            credential,
            timeout: source.timeout,
            ignore: source.ignore.clone(),
        };
        let polled = blocking(source, move || mirror.poll(&remote)).await;
        if polled.is_err() {
            self.doubt(source);
        }
        match polled? {
            Poll::Unchanged => Ok(None),
            Poll::New(snapshot) => Ok(Some(self.keep(source, snapshot))),
        }
    }

    /// The files of the revision in force.
    pub fn tree(&self, key: &Key) -> Option<Tree> {
        lock(&self.sources).get(key)?.current.as_ref().map(|snapshot| snapshot.tree.clone())
    }

    /// Lets go of a source that left Git; its mirror is removed.
    pub async fn forget_source(&self, key: &Key) {
        lock(&self.sources).remove(key);
        lock(&self.credentials).remove(key);
        let dir = self.settings.mirrors.join(directory(key));
        // A mirror that cannot be removed costs disk only; the next start tries again.
        let _ = tokio::fs::remove_dir_all(dir).await;
    }

    pub(super) async fn mirror(&self, source: &GitRepository) -> Result<Arc<Source>, Failure> {
        let key = source.key();
        if let Some(mirror) = lock(&self.sources).get(&key) {
            return Ok(mirror.source.clone());
        }
        let dir = self.settings.mirrors.join(directory(&key));
        let runtime = self.settings.runtime.clone();
        let opened = Arc::new(blocking(source, move || Source::open(&dir, &runtime)).await?);
        let mirror = Mirror { source: opened.clone(), current: None };
        lock(&self.sources).insert(key, mirror);
        Ok(opened)
    }

    fn keep(&self, source: &GitRepository, snapshot: Snapshot) -> Revision {
        let revision = Revision {
            id: snapshot.revision.to_string(),
            author: snapshot.author.clone(),
            subject: snapshot.subject.clone(),
            time: snapshot.time,
        };
        if let Some(mirror) = lock(&self.sources).get_mut(&source.key()) {
            mirror.current = Some(snapshot);
        }
        revision
    }
}

/// Directory of a source below the mirrors; names of Kubernetes objects have no underscore.
fn directory(key: &Key) -> String {
    format!("{}_{}", key.namespace, key.name)
}

pub(super) async fn blocking<T: Send + 'static>(
    source: &GitRepository,
    call: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, Failure> {
    let error = match tokio::task::spawn_blocking(call).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => {
            let cause = "the fetching thread ended unexpectedly";
            return Err(Failure::new(Step::Fetch, "GitOperationFailed", cause).retry(Retry::Soon));
        }
    };
    let reason = match &error {
        SourceError::AuthenticationFailed { .. } => "AuthenticationFailed",
        _ => "GitOperationFailed",
    };
    let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
    Err(Failure::new(Step::Fetch, reason, error.to_string())
        .object(source.key())
        .hint(error.hint())
        .retry(retry))
}
