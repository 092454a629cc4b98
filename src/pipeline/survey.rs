//! Looks for objects that are ours by every sign and yet in no inventory of ours.
//!
//! They are there when the database was lost, or when the cluster's own datastore is older than
//! our records: a power cut may have cost it its last commits, and what was pruned is back. Those
//! whose Kustomization is in force re-enter its inventory, where the next run finds them stale and
//! the guard judges them. All others wait for a confirmation.
//!
//! One list of metadata for each kind that the server has: after the start, after an outage and
//! once a day. What belongs to Flux, is marked to be kept, or was let go of on purpose is no stray.

use super::family::{Family, Standing};
use super::newcomers::came;
use super::policy::goes;
use super::record::{inventories, row};
use super::{Failure, Pipeline, Retry, Step, lock};
use crate::cluster::{ClusterError, Resource, Select};
use crate::history::Entry as Row;
use crate::plan::{Entry, Owner, of_flux, opted_out, owned};
use crate::render::ObjectId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Lists under way at once: a survey is never urgent.
const AT_ONCE: usize = 4;

/// Owner and inventory id of an object that was let go of.
type LetGo = (String, String);

/// A kind, and its objects as far as they could be listed.
type Listed<'a> = (&'a Resource, Result<Vec<Value>, ClusterError>);

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
    ///
    /// Of an owner that is not in force, what its inventory has is shown along with what is found.
    /// What may belong to one that somebody silent declares is left alone.
    pub async fn survey(&self, standing: &Standing) -> Result<Survey, Failure> {
        let mut survey = Survey::default();
        let Some(connection) = self.connection() else { return Ok(survey) };
        if connection.shared || connection.stranger {
            return Ok(survey);
        }
        let failed = |error: ClusterError| {
            Failure::new(Step::Observe, "SurveyFailed", error.to_string()).retry(Retry::Soon)
        };
        let before = self.known_objects().await?;
        let let_go: Vec<LetGo> = self.database(|history| history.released()).await?;
        let all = connection.cluster.everything().await.map_err(failed)?;
        survey.blind.extend(all.failed);
        // Boxed one by one: a closure over references would not be Send for every lifetime.
        let mut lists: Vec<BoxFuture<'_, Listed<'_>>> = Vec::new();
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
        let mut labelled = BTreeSet::new();
        while let Some((resource, found)) = lists.next().await {
            match found {
                Ok(items) => items.iter().for_each(|item| {
                    let owner = Owner::on(item).map(|owner| owner.to_string());
                    labelled.extend(owner.map(|owner| (owner, ObjectId::of(item).inventory())));
                    take(&mut survey, resource, item);
                }),
                // Its kind is gone, or cannot be listed after all.
                Err(ClusterError::NotFound { .. }) => {}
                Err(error) if error.outage() => return Err(failed(error)),
                Err(error) => survey.blind.push(format!("{}: {error}", resource.kind)),
            }
        }
        drop(lists);
        // What a run wrote or deleted meanwhile is in the inventory after, or was before.
        let known = &before | &self.known_objects().await?;
        if survey.blind.is_empty() {
            // Gone, or another's by now.
            let over = let_go.into_iter().filter(|row| !labelled.contains(row)).collect::<Vec<_>>();
            self.database(move |history| history.unrelease(&over)).await?;
        }
        let released = self.database(|history| history.released()).await?;
        let released: BTreeSet<LetGo> = released.into_iter().collect();
        {
            let claims = lock(&self.claims);
            for (owner, entries) in survey.found.iter_mut() {
                entries.retain(|entry| {
                    let let_go = (owner.to_string(), entry.id.inventory());
                    !known.contains(&entry.id)
                        && !claims.wanted(&entry.id)
                        && !released.contains(&let_go)
                });
            }
        }
        let family = Family::new(&self.database(|history| history.parents()).await?);
        let in_force =
            |owner: &Owner| standing.declared.contains(owner) || standing.ending.contains(owner);
        survey.found.retain(|owner, entries| {
            !entries.is_empty() && (in_force(owner) || !family.may_stand(owner, standing))
        });
        for (owner, entries) in survey.found.iter_mut().filter(|(o, _)| !in_force(o)) {
            entries.extend(self.inventory(owner).await?);
        }
        // What somebody silent may declare was left out of what was found.
        let all = survey.blind.is_empty() && standing.silent.is_empty();
        if all && survey.found.is_empty() {
            self.database(|history| history.surveyed()).await?;
        }
        Ok(survey)
    }

    /// Every object of every inventory.
    async fn known_objects(&self) -> Result<BTreeSet<ObjectId>, Failure> {
        let known = self.database(inventories).await?;
        Ok(known.into_iter().flat_map(|(_, ids)| ids).map(|(id, _)| id).collect())
    }

    /// Enters objects into an owner's inventory, as if it had applied them. Of one that has `left`
    /// it is noted that they are to go, should the end be cut short.
    ///
    /// Of a new record, made in place of one that was lost, nobody knows what was held before: what
    /// the owner has beside them does not speak for them, so that the guard sees them alone.
    pub async fn enter(&self, owner: &Owner, entries: &[Entry], left: bool) -> Result<(), Failure> {
        let rows: Vec<Row> = entries.iter().map(row).collect();
        let name = owner.to_string();
        let mut notes = Vec::new();
        notes.extend(left.then(|| goes(owner)));
        if !left && self.database(|history| history.unsurveyed()).await? {
            let found: BTreeSet<&ObjectId> = entries.iter().map(|entry| &entry.id).collect();
            let beside = self.inventory(owner).await?.into_iter().map(|entry| entry.id);
            notes.push(came(owner, beside.filter(|id| !found.contains(id))));
        }
        self.database(move |history| history.enter(&name, &rows, &notes)).await
    }
}

/// Takes an object in, if it is ours by labels, Apply entry and the lack of a controller.
fn take(survey: &mut Survey, resource: &Resource, item: &Value) {
    let Some(owner) = Owner::on(item) else { return };
    let going = item.pointer("/metadata/deletionTimestamp").is_some();
    if going || !owned(item, &owner) || of_flux(item) || opted_out(item).is_some() {
        return;
    }
    let entry = Entry { id: ObjectId::of(item), version: resource.version.clone() };
    survey.found.entry(owner).or_default().push(entry);
}
