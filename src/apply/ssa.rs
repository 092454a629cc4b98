//! Does one step of a plan: create, configure, or delete and create again.

use super::managers::take_over;
use super::refusal::refusal;
use super::{Applier, ApplyError};
use crate::cluster::{Apply, ClusterError, Resource, TIMEOUT, When};
use crate::plan::{Action, Gate, MANAGER, Refusal, RefusalKind, Step, merges};
use crate::render::ObjectId;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long a deleted object may take to go, and how often that is looked at: at most 100 small
/// requests. Whoever stops the daemon waits for it; what takes longer is held by somebody, and made
/// again by a later run once it is gone.
pub(super) const GONE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);

/// Longest that the object in hand takes, where it is deleted and created again: the deletion, the
/// wait with a look at its very end, the creation.
pub const IN_HAND: Duration = Duration::from_secs(GONE.as_secs() + 3 * TIMEOUT.as_secs());

/// What came of an applied step.
#[derive(Clone)]
pub struct Applied {
    /// The object's uid.
    pub uid: String,
    /// Its resourceVersion after the apply.
    pub resource_version: String,
    /// Its drift gate after the apply.
    pub gate: Gate,
    /// The object as the server answered it.
    pub object: Value,
    /// What the server warned of, such as unknown fields.
    pub warnings: Vec<String>,
}

impl Applier {
    /// Does one step.
    ///
    /// A step that is no write, such as `Unchanged` or `Skip`, is an error: the caller sorts them
    /// out. [`ApplyError::Moved`] means that the live object is another one than the plan saw.
    pub async fn apply(&self, step: &Step) -> Result<Applied, ApplyError> {
        let id = &step.manifest.id;
        let refused = |refusal| ApplyError::refused(id, refusal);
        let write = matches!(step.action, Action::Create | Action::Configure | Action::Recreate(_));
        if !write {
            return Err(ApplyError::NotAWrite(id.clone()));
        }
        let resource = self.resource_of(&step.manifest).await.map_err(refused)?;
        match &step.action {
            Action::Configure => {
                if step.take_over {
                    self.take_over(&resource, step).await?;
                }
                let applied = self.write(&resource, step, step.uid.as_deref()).await?;
                if merges(&applied.object) || take_over(&applied.object).is_empty() {
                    return Ok(applied);
                }
                // The first apply after stripped `managedFields` leaves an entry of what was there
                // before; it is taken over at once.
                self.take_over(&resource, step).await?;
                self.write(&resource, step, step.uid.as_deref()).await
            }
            Action::Recreate(_) => {
                self.remove(&resource, step).await?;
                let not_remade = |why| ApplyError::NotRemade { id: id.clone(), why: Box::new(why) };
                self.write(&resource, step, None).await.map_err(not_remade)
            }
            _ => self.write(&resource, step, None).await,
        }
    }

    /// With a uid, the server refuses to write to any other object, or to create one.
    async fn write(
        &self,
        resource: &Resource,
        step: &Step,
        uid: Option<&str>,
    ) -> Result<Applied, ApplyError> {
        let id = &step.manifest.id;
        let how = Apply { dry_run: false, manager: MANAGER, sensitive: step.manifest.sensitive };
        let answer = match uid {
            None => self.cluster.apply(resource, step.manifest.body(), how).await,
            Some(uid) => {
                let mut body = step.manifest.body().clone();
                body["metadata"]["uid"] = json!(uid);
                self.cluster.apply(resource, &body, how).await
            }
        };
        let answer = answer.map_err(|error| match error {
            ClusterError::Conflict(why) => ApplyError::Moved { id: id.clone(), why },
            error => match refusal(&error) {
                // A new object of that name: the server takes our uid for an edit of its own.
                refusal if names_uid(&refusal) => moved(id, "another object has its name"),
                refusal => ApplyError::refused(id, refusal),
            },
        })?;
        let text = |pointer| answer.object.pointer(pointer).and_then(Value::as_str);
        Ok(Applied {
            uid: text("/metadata/uid").unwrap_or_default().to_owned(),
            resource_version: text("/metadata/resourceVersion").unwrap_or_default().to_owned(),
            gate: Gate::of(&answer.object),
            warnings: answer.warnings,
            object: answer.object,
        })
    }

    /// Merges the entries of older managers into ours; once more when the object moved meanwhile.
    ///
    /// A 422 may be such a move too: the annotation that is to be removed is gone, which the
    /// server notices before it compares the resourceVersion.
    async fn take_over(&self, resource: &Resource, step: &Step) -> Result<(), ApplyError> {
        let id = &step.manifest.id;
        let failed = |source| ApplyError::cluster(id, source);
        let mut last = None;
        for _ in 0..2 {
            let live = self.cluster.get(resource, &id.namespace, &id.name).await;
            let Some(live) = live.map_err(failed)? else {
                return Err(moved(id, "it is gone"));
            };
            same(id, step.uid.as_deref(), &live)?;
            let patch = take_over(&live);
            if patch.is_empty() {
                return Ok(());
            }
            match self.cluster.json_patch(resource, &live, &patch, MANAGER).await {
                Ok(_) => return Ok(()),
                Err(ClusterError::Conflict(why)) => last = Some(moved(id, &why)),
                Err(error @ ClusterError::Invalid { .. }) => {
                    last = Some(ApplyError::refused(id, refusal(&error)));
                }
                Err(error) => return Err(ApplyError::refused(id, refusal(&error))),
            }
        }
        // Invariant: the loop ends only after a refusal.
        Err(last.expect("a refusal"))
    }

    /// Deletes the object that the plan saw, and waits until its name is free.
    async fn remove(&self, resource: &Resource, step: &Step) -> Result<(), ApplyError> {
        let id = &step.manifest.id;
        let failed = |source| ApplyError::cluster(id, source);
        let Some(uid) = step.uid.as_deref() else {
            return Err(moved(id, "the plan names no uid"));
        };
        let when = When { uid: Some(uid), ..When::default() };
        match self.cluster.delete(resource, &id.namespace, &id.name, when).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(ClusterError::Conflict(why)) => return Err(moved(id, &why)),
            Err(source) => return Err(failed(source)),
        }
        let deadline = Instant::now() + GONE;
        loop {
            let live = self.cluster.get_metadata(resource, &id.namespace, &id.name).await;
            let live = match live {
                // The API server may restart while we wait; the deadline stands.
                Err(error) if error.retry() => None,
                other => match other.map_err(failed)? {
                    Some(live) if text(&live, "/metadata/uid") == uid => Some(live),
                    _ => return Ok(()),
                },
            };
            if Instant::now() >= deadline {
                let list = live.as_ref().and_then(|l| l.pointer("/metadata/finalizers"));
                let list = list.and_then(Value::as_array).into_iter().flatten();
                let finalizers = list.filter_map(|f| f.as_str().map(str::to_owned)).collect();
                return Err(ApplyError::StillThere { id: id.clone(), finalizers });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn names_uid(refusal: &Refusal) -> bool {
    matches!(&refusal.kind, RefusalKind::Immutable(fields) if fields == &["metadata.uid"])
}

fn moved(id: &ObjectId, why: &str) -> ApplyError {
    ApplyError::Moved { id: id.clone(), why: why.to_owned() }
}

fn same(id: &ObjectId, planned: Option<&str>, live: &Value) -> Result<(), ApplyError> {
    let found = text(live, "/metadata/uid");
    match planned {
        Some(planned) if planned != found => Err(moved(id, "another object has its name")),
        _ => Ok(()),
    }
}
