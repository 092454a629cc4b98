//! Variables of `postBuild`: read once, and again when a watch says that they have changed.
//!
//! A ConfigMap or Secret of `substituteFrom` may be anybody's, so each has a watch of its own. As
//! long as that is in force, what was read last is good: a pass that changes nothing asks for
//! nothing. Values are kept as plaintext that cannot be printed, and wiped when they are dropped.

use super::inputs::{Data, decoded, read};
use super::{Connection, Failure, Pipeline, Retry, Step, lock};
use crate::flux::Kustomization;
use crate::observe::{Event, Seen};
use crate::plan::Owner;
use crate::render::{ObjectId, Redactor, Variables};
use crate::secrets::Plaintext;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One ConfigMap or Secret as it was read.
#[derive(Clone)]
pub(super) struct Read {
    /// Its resourceVersion; empty when it was not there.
    version: String,
    data: Option<Arc<Data>>,
    /// It is being read: a notice in the meantime makes what comes of that old.
    pending: bool,
    /// The Kustomizations that use it.
    users: BTreeSet<Owner>,
}

/// What was read, by object.
pub(super) type Values = HashMap<ObjectId, Read>;

impl Pipeline {
    /// Variables of `postBuild`: `substituteFrom` in order, then the inline ones. Values of
    /// Secrets are added to the redactor.
    pub(super) async fn variables(
        &self,
        kustomization: &Kustomization,
        redactor: &mut Redactor,
    ) -> Result<Variables, Failure> {
        let mut variables = Variables::default();
        let Some(post_build) = &kustomization.post_build else { return Ok(variables) };
        let wrong = |cause: String| {
            Failure::new(Step::Substitute, "BuildFailed", cause).object(kustomization.key())
        };
        for from in &post_build.substitute_from {
            let place = format!("{} {}/{}", from.kind, kustomization.namespace, from.name);
            let connection = self.connection().ok_or_else(|| {
                wrong(format!("{place} cannot be read: the API server is not reachable"))
                    .retry(Retry::Soon)
            })?;
            if !matches!(from.kind.as_str(), "Secret" | "ConfigMap") {
                let kind = &from.kind;
                return Err(wrong(format!(
                    "substituteFrom: {kind:?} is not a ConfigMap or Secret"
                )));
            }
            let id = ObjectId {
                namespace: kustomization.namespace.clone(),
                name: from.name.clone(),
                group: String::new(),
                kind: from.kind.clone(),
            };
            let Some(data) = self.values(&connection, id, Owner::of(kustomization)).await? else {
                if from.optional {
                    continue;
                }
                return Err(wrong(format!("{place} does not exist"))
                    .hint(Some("create it, or set optional: true".into())));
            };
            for (key, value) in data.iter() {
                if from.kind == "Secret" {
                    redactor.add(value.expose());
                }
                let text = String::from_utf8_lossy(value.expose()).into_owned();
                variables.insert(key, &text).map_err(|e| wrong(format!("{place}: {e}")))?;
            }
        }
        for (key, value) in &post_build.substitute {
            let inserted = variables.insert(key, value);
            inserted.map_err(|e| wrong(format!("postBuild.substitute: {e}")))?;
        }
        Ok(variables)
    }

    /// One ConfigMap or Secret, `None` when it is not there.
    async fn values(
        &self,
        connection: &Connection,
        id: ObjectId,
        user: Owner,
    ) -> Result<Option<Arc<Data>>, Failure> {
        let failed =
            |error| super::write::cluster_failure(Step::Open, &error).object(id.to_string());
        let resource = connection.cluster.resource("v1", &id.kind).await.map_err(failed)?;
        let Some(resource) = resource else { return Ok(None) };
        if connection.observer.watches_one(&resource, &id.namespace, &id.name)
            && let Some(known) = lock(&self.values).get_mut(&id).filter(|known| !known.pending)
        {
            known.users.insert(user);
            return Ok(known.data.clone());
        }
        connection.observer.watch_one(&resource, &id.namespace, &id.name);
        let mut users = lock(&self.values).remove(&id).map(|known| known.users).unwrap_or_default();
        users.insert(user);
        let mut news = Read { version: String::new(), data: None, pending: true, users };
        lock(&self.values).insert(id.clone(), news.clone());
        let found = read(connection, &id.kind, &id.namespace, &id.name).await?;
        let data = found.as_ref().map(|object| Arc::new(content(&id.kind, object)));
        news.version = found.as_ref().map(version).unwrap_or_default();
        (news.data, news.pending) = (data.clone(), false);
        if let Some(known) = lock(&self.values).get_mut(&id) {
            known.users.append(&mut news.users);
            news.users = std::mem::take(&mut known.users);
            *known = news;
        }
        Ok(data)
    }

    /// A watch saw an object: who has to read its values again.
    pub fn values_seen(&self, seen: &Seen) -> Vec<Owner> {
        let mut values = lock(&self.values);
        let now = match seen.event {
            Event::Deleted => String::new(),
            _ => version(&seen.metadata),
        };
        if values.get(&seen.id).is_none_or(|known| !known.pending && known.version == now) {
            return Vec::new();
        }
        let gone = values.remove(&seen.id);
        gone.map(|known| Vec::from_iter(known.users)).unwrap_or_default()
    }
}

fn version(object: &Value) -> String {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

fn content(kind: &str, object: &Value) -> Data {
    if kind == "Secret" {
        return decoded(object);
    }
    let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
    let texts = data.filter_map(|(key, value)| {
        Some((key.clone(), Plaintext::new(value.as_str()?.as_bytes().to_vec())))
    });
    texts.collect::<BTreeMap<String, Plaintext>>()
}
