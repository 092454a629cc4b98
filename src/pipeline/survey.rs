//! Looks for objects that are ours by every sign and yet in no inventory of ours.
//!
//! They are there when the database was lost, or when the cluster's own datastore is older than
//! our records: a power cut may have cost it its last commits, and what was pruned is back. Those
//! whose Kustomization is in force re-enter its inventory, where the next run finds them stale and
//! the guard judges them. All others wait for a confirmation.
//!
//! One list of metadata for each kind that the server has, once for each connection.

use super::record::{inventories, lost, unrecorded};
use super::{Failure, Pipeline, Retry, Step, lock};
use crate::cluster::{ClusterError, Resource, Select};
use crate::history::Entry as Row;
use crate::plan::{Entry, Owner, owned};
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Lists under way at once: a survey is never urgent.
const AT_ONCE: usize = 4;

/// What a survey found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Objects in no inventory, by the owner that their labels name.
    pub found: BTreeMap<Owner, Vec<Entry>>,
    /// Groups and kinds that could not be looked at, with the reason.
    pub blind: Vec<String>,
}

impl Pipeline {
    /// Lists every kind. Nothing is looked for in a cluster that others share with us, or that is
    /// not the one the history was made on.
    pub async fn survey(&self) -> Result<Survey, Failure> {
        let mut survey = Survey::default();
        let Some(connection) = self.connection() else { return Ok(survey) };
        if connection.shared || connection.stranger {
            return Ok(survey);
        }
        let failed = |error: ClusterError| {
            Failure::new(Step::Observe, "SurveyFailed", error.to_string()).retry(Retry::Soon)
        };
        let before = self.known_objects().await?;
        let all = connection.cluster.everything().await.map_err(failed)?;
        survey.blind.extend(all.failed);
        // Boxed one by one: a closure over references would not be Send for every lifetime.
        let mut lists: Vec<BoxFuture<'_, (&Resource, Result<Vec<Value>, ClusterError>)>> =
            Vec::new();
        for resource in &all.resources {
            let cluster = &connection.cluster;
            let list = async move {
                let select = Select { labels: Owner::NAME_LABEL, ..Select::default() };
                let found = cluster.list_metadata(resource, select).await;
                (resource, found.map(|list| list.items))
            };
            lists.push(list.boxed());
        }
        let mut lists = futures::stream::iter(lists).buffer_unordered(AT_ONCE);
        while let Some((resource, found)) = lists.next().await {
            match found {
                Ok(items) => items.iter().for_each(|item| take(&mut survey, resource, item)),
                // Its kind is gone, or cannot be listed after all.
                Err(ClusterError::NotFound { .. }) if resource.group.is_empty() => {}
                Err(error) if error.outage() => return Err(failed(error)),
                Err(error) => survey.blind.push(format!("{}: {error}", resource.kind)),
            }
        }
        drop(lists);
        // What a run wrote or deleted meanwhile is in the inventory after, or was before.
        let known = &before | &self.known_objects().await?;
        let claims = lock(&self.claims);
        for (_, entries) in survey.found.iter_mut() {
            entries.retain(|entry| !known.contains(&entry.id) && !claims.wanted(&entry.id));
        }
        drop(claims);
        survey.found.retain(|_, entries| !entries.is_empty());
        Ok(survey)
    }

    /// Every object of every inventory.
    async fn known_objects(&self) -> Result<BTreeSet<ObjectId>, Failure> {
        let history = self.history.clone();
        let known = tokio::task::spawn_blocking(move || inventories(&history)).await;
        let known = known.map_err(|_| lost())?.map_err(|error| unrecorded(&error))?;
        Ok(known.into_iter().flat_map(|(_, ids)| ids).map(|(id, _)| id).collect())
    }

    /// Enters objects into an owner's inventory, as if it had applied them.
    pub async fn enter(&self, owner: &Owner, entries: &[Entry]) -> Result<(), Failure> {
        let rows: Vec<Row> = entries
            .iter()
            .map(|entry| Row { id: entry.id.inventory(), version: entry.version.clone() })
            .collect();
        let (history, name) = (self.history.clone(), owner.to_string());
        let stored = tokio::task::spawn_blocking(move || history.enter(&name, &rows)).await;
        stored.map_err(|_| lost())?.map_err(|error| unrecorded(&error))
    }
}

/// Takes an object in, if it is ours by labels, Apply entry and the lack of a controller.
fn take(survey: &mut Survey, resource: &Resource, item: &Value) {
    let Some(owner) = Owner::on(item) else { return };
    let going = item.pointer("/metadata/deletionTimestamp").is_some();
    if going || !owned(item, &owner) {
        return;
    }
    let entry = Entry { id: ObjectId::of(item), version: resource.version.clone() };
    survey.found.entry(owner).or_default().push(entry);
}
