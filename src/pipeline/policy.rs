//! What becomes of a Kustomization's objects when it leaves Git, stored while it is still there.
//!
//! Whoever declares it writes this down with the render that declares it, before any of its
//! objects is applied: a Kustomization that left while nobody was looking cannot be asked any
//! more. In doubt its objects stay.

use super::departed::Departed;
use super::family::{Family, Standing};
use super::kustomization::Run;
use super::orders::{deletes, keeps};
use super::{Failure, Order, Pipeline, WorkOrders, lock};
use crate::flux::{Kustomization, Object};
use crate::history::{History, HistoryError};
use crate::plan::Owner;
use serde_json::json;
use std::collections::BTreeSet;

/// The two policies.
const DELETE: &str = "delete";
const ORPHAN: &str = "orphan";

/// Key in the database.
fn key(owner: &Owner) -> String {
    format!("policy:{owner}")
}

/// The note that an owner's objects go with it.
pub(super) fn goes(owner: &Owner) -> (String, String) {
    (key(owner), DELETE.to_owned())
}

impl Run<'_> {
    /// Stores which children a render declares, and their policies; what is known already is no
    /// write.
    pub(super) async fn keep_policies(&self, orders: &WorkOrders) -> Result<(), Failure> {
        self.keep_children(orders).await?;
        let inherited = lock(&self.pipeline.policies).get(&key(&self.owner)).cloned();
        let spared = inherited.as_deref() == Some(ORPHAN);
        let mut news: Vec<(String, String)> =
            orders.work.iter().filter_map(|order| self.policy_of(order, spared)).collect();
        {
            let known = lock(&self.pipeline.policies);
            news.retain(|(key, policy)| known.get(key) != Some(policy));
        }
        if news.is_empty() {
            return Ok(());
        }
        let stored = news.clone();
        self.database(move |history| history.set_metas(&stored)).await?;
        lock(&self.pipeline.policies).extend(news);
        Ok(())
    }

    /// Stores which children a render declares. What it cannot read it may declare still.
    async fn keep_children(&self, orders: &WorkOrders) -> Result<(), Failure> {
        let child = |order: &Order| match &order.object {
            Object::Kustomization(child) => Some(Owner::of(child).to_string()),
            _ => None,
        };
        let children: Vec<String> = orders.work.iter().filter_map(child).collect();
        let (parent, whole) = (self.owner.to_string(), orders.problems.is_empty());
        self.database(move |history| history.declare(&parent, &children, whole)).await
    }

    /// Spares everybody that this one declared, as it is let go of itself: of those that never
    /// came to the graph, because it was suspended since the start, nobody else could say so.
    pub(super) async fn spare_children(&self) -> Result<(), Failure> {
        let owner = self.owner.clone();
        let spared = self
            .database(move |history| {
                let spared = Family::new(&history.parents()?).descendants(&owner);
                let stored: Vec<(String, String)> =
                    spared.iter().map(|child| (key(child), ORPHAN.to_owned())).collect();
                history.set_metas(&stored).map(|()| stored)
            })
            .await?;
        lock(&self.pipeline.policies).extend(spared);
        Ok(())
    }

    /// A child goes with its objects only if both it and this parent say so: later nobody can
    /// tell which of the two left. A parent that is `spared` itself spares its children.
    fn policy_of(&self, order: &Order, spared: bool) -> Option<(String, String)> {
        let Object::Kustomization(child) = &order.object else { return None };
        let parent = &self.job.kustomization;
        let goes = deletes(child)
            && !keeps(&order.object, &order.manifest)
            && parent.prune
            // The root is the host's: it never leaves.
            && (self.job.root || deletes(parent))
            && !spared;
        let policy = if goes { DELETE } else { ORPHAN };
        Some((key(&Owner::of(child)), policy.to_owned()))
    }

    /// Forgets the policy of one that has gone whole, and who declared it.
    pub(super) async fn drop_policy(&self) -> Result<(), Failure> {
        if !self.held.is_empty() {
            return Ok(());
        }
        let (owner, key) = (self.owner.to_string(), key(&self.owner));
        lock(&self.pipeline.policies).remove(&key);
        self.database(move |history| {
            history.undeclare(&owner)?;
            history.drop_meta(&key)
        })
        .await
    }
}

impl Pipeline {
    /// Kustomizations of the inventory that left Git while nobody was looking, as far as the
    /// record knows them: all that are not in force, are not being ended, and that nobody who is
    /// silent may declare.
    pub async fn departed(&self, standing: Standing) -> Result<Departed, Failure> {
        self.database(move |history| {
            let owners = history.owners()?;
            let known = owners.iter().filter_map(|owner| Owner::parse(owner));
            // It never was in Git.
            let known: BTreeSet<Owner> = known.filter(|owner| *owner != Owner::edge()).collect();
            let family = Family::new(&history.parents()?);
            let mut gone = Vec::new();
            for owner in &known {
                let stands = standing.declared.contains(owner)
                    || standing.ending.contains(owner)
                    || family.may_stand(owner, &standing);
                if !stands {
                    gone.extend(stand_in(history, owner)?);
                }
            }
            Ok(Departed { gone, known, family, standing })
        })
        .await
    }
}

/// A Kustomization that is known by its inventory only. `None` when nothing is known of its end:
/// its objects stay, and stay in the inventory.
fn stand_in(history: &History, owner: &Owner) -> Result<Option<Kustomization>, HistoryError> {
    let policy = history.meta(&key(owner))?;
    Ok(policy.and_then(|policy| former(owner, policy == DELETE)))
}

/// A Kustomization that Git does not declare, for ending it.
pub fn former(owner: &Owner, prune: bool) -> Option<Kustomization> {
    let text = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"namespace": owner.namespace, "name": owner.name},
        "spec": {"interval": "1h", "prune": prune,
            "sourceRef": {"kind": "GitRepository", "name": owner.name}},
    });
    match Object::read(&text) {
        Some(Ok(Object::Kustomization(kustomization))) => Some(*kustomization),
        // An owner label that is no valid name: nothing of ours is called so.
        _ => None,
    }
}
