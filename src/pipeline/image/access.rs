//! Who may use a repository, and with what a registry is asked.
//!
//! A policy in another namespace may use a repository only where that one's `accessFrom` admits its
//! namespace. What labels a namespace has is known by the cluster alone: without an answer nobody
//! is admitted.

use crate::flux::{ImagePolicy, ImageRepository};
use crate::pipeline::inputs::read;
use crate::pipeline::{Connection, Failure, Pipeline, Retry, Step};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Pipeline {
    /// Whether a policy may use its repository.
    pub(super) async fn admitted(
        &self,
        policy: &ImagePolicy,
        repository: &ImageRepository,
    ) -> Result<(), Failure> {
        if policy.namespace == repository.namespace {
            return Ok(());
        }
        let denied = |cause: String| {
            let hint = format!(
                "name its labels in spec.accessFrom.namespaceSelectors of {}, or move the policy \
                 there",
                repository.key()
            );
            Failure::new(Step::Choose, "AccessDenied", cause).hint(Some(hint))
        };
        let key = repository.key();
        let Some(access) = &repository.access_from else {
            return Err(denied(format!("{key} is for policies of its own namespace only")));
        };
        let connection = self.connected(Step::Choose, "AccessDenied").await?;
        let namespace = read(&connection, "Namespace", "", &policy.namespace).await?;
        let Some(namespace) = namespace else {
            let cause = format!("namespace {} does not exist", policy.namespace);
            return Err(denied(cause));
        };
        match access.admits(&labels(&namespace)) {
            true => Ok(()),
            false => Err(denied(format!("{key} does not admit namespace {}", policy.namespace))),
        }
    }

    /// The connection, or a failure that passes.
    pub(super) async fn connected(
        &self,
        step: Step,
        reason: &str,
    ) -> Result<Arc<Connection>, Failure> {
        self.first_connection().await;
        self.connection().ok_or_else(|| {
            let cause = "the API server is not reachable";
            Failure::new(step, reason, cause).retry(Retry::Soon)
        })
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let strings = labels.into_iter().flatten();
    strings.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
