//! Waits between two stages until definitions, namespaces and classes can be used.

use super::{Applier, ApplyError};
use crate::cluster::ClusterError;
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Flux's fixed limit per stage, and how often an object is looked at: CRDs take 50 to 500 ms.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Objects waited for at once.
const AT_ONCE: usize = 8;

/// What an object of an early stage says of itself.
enum State {
    Current,
    Not(String),
    Never(String),
}

impl Applier {
    /// Waits until the applied objects of a stage can be used by the next one, at most a minute.
    ///
    /// Takes the answers to their apply; whatever is current there costs no request. After CRDs,
    /// discovery knows their kinds.
    pub async fn wait_current(&self, applied: &[Value]) -> Result<(), ApplyError> {
        let deadline = Instant::now() + LIMIT;
        // Boxed one by one: a closure over references would not be Send for every lifetime.
        let mut waits: Vec<BoxFuture<'_, Result<(), ApplyError>>> = Vec::new();
        for object in applied {
            waits.push(self.wait_one(object, deadline).boxed());
        }
        futures::stream::iter(waits).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn wait_one(&self, applied: &Value, deadline: Instant) -> Result<(), ApplyError> {
        let id = ObjectId::of(applied);
        let api_version = text(applied, "/apiVersion");
        let mut state = state(applied);
        loop {
            match state {
                State::Current => break,
                State::Never(why) => return Err(ApplyError::NotCurrent { id, why }),
                State::Not(why) if Instant::now() >= deadline => {
                    return Err(ApplyError::NotCurrent { id, why });
                }
                State::Not(_) => tokio::time::sleep(LOOK).await,
            }
            let found = async {
                let Some(resource) = self.cluster.resource(api_version, &id.kind).await? else {
                    return Ok(None);
                };
                self.cluster.get(&resource, &id.namespace, &id.name).await
            };
            state = match found.await {
                Ok(Some(object)) => self::state(&object),
                Ok(None) => State::Not("it is gone".to_owned()),
                Err(error) if error.retry() => State::Not(error.to_string()),
                Err(source) => return Err(ApplyError::Cluster { id, source }),
            };
        }
        if id.kind == "CustomResourceDefinition" {
            self.wait_served(&id, applied, deadline).await?;
        }
        Ok(())
    }

    /// An established CRD is served a moment later.
    async fn wait_served(
        &self,
        id: &ObjectId,
        crd: &Value,
        deadline: Instant,
    ) -> Result<(), ApplyError> {
        let (group, kind) = (text(crd, "/spec/group"), text(crd, "/spec/names/kind"));
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let served = versions.into_iter().flatten().filter(|v| v["served"] == Value::Bool(true));
        for version in served {
            let api_version = format!("{group}/{}", text(version, "/name"));
            loop {
                let why = match self.cluster.resource(&api_version, kind).await {
                    Ok(Some(_)) => break,
                    Ok(None) => format!("{api_version} {kind} is not served yet"),
                    Err(ClusterError::NotFound { message, .. }) => message,
                    Err(error) if error.retry() => error.to_string(),
                    Err(source) => return Err(ApplyError::Cluster { id: id.clone(), source }),
                };
                if Instant::now() >= deadline {
                    return Err(ApplyError::NotCurrent { id: id.clone(), why });
                }
                tokio::time::sleep(LOOK).await;
                self.cluster.forget();
            }
        }
        Ok(())
    }
}

/// Whether an object of an early stage can be used. Kinds without a state of their own can.
fn state(object: &Value) -> State {
    match text(object, "/kind") {
        "CustomResourceDefinition" => {
            let condition = |kind: &str| {
                let list = object.pointer("/status/conditions").and_then(Value::as_array);
                list.into_iter().flatten().find(|c| c["type"].as_str() == Some(kind)).cloned()
            };
            let is = |c: &Option<Value>, status: &str| {
                c.as_ref().is_some_and(|c| c["status"].as_str() == Some(status))
            };
            let names = condition("NamesAccepted");
            if is(&names, "False") {
                return State::Never(text(&names.unwrap_or_default(), "/message").to_owned());
            }
            if is(&condition("Established"), "True") {
                State::Current
            } else {
                State::Not("it is not established".to_owned())
            }
        }
        "Namespace" => match text(object, "/status/phase") {
            "Active" => State::Current,
            "Terminating" => State::Not("it is being deleted".to_owned()),
            _ => State::Not("it is not active".to_owned()),
        },
        _ => State::Current,
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn definitions_and_namespaces_are_judged_by_their_status() {
        let crd = |conditions: Value| {
            state(&json!({"kind": "CustomResourceDefinition",
                "status": {"conditions": conditions}}))
        };
        assert!(matches!(crd(json!([])), State::Not(_)));
        let established = json!([{"type": "NamesAccepted", "status": "True"},
            {"type": "Established", "status": "True"}]);
        assert!(matches!(crd(established), State::Current));
        let clash = json!([{"type": "NamesAccepted", "status": "False", "message": "in use"}]);
        assert!(matches!(crd(clash), State::Never(why) if why == "in use"));
        let namespace = json!({"kind": "Namespace", "status": {"phase": "Terminating"}});
        assert!(matches!(state(&namespace), State::Not(_)));
        assert!(matches!(state(&json!({"kind": "StorageClass"})), State::Current));
    }
}
