//! What came in place of what left, which the guard must not take for what was there.
//!
//! A render that gives most objects other names loses them as one that leaves them out does. But
//! the inventory has the new ones beside the old from before the first write, so that half of it
//! seems to stay. What a render adds while something has left is noted first, and does not count
//! until what left is gone, back or let go of: not after a kill, a failed run or a restart either.

use super::Failure;
use super::kustomization::{Run, Wanted};
use crate::plan::{Entry, Owner, stale, there_before};
use crate::render::ObjectId;
use std::collections::BTreeSet;

/// Key in the database of the inventory ids, one on a line.
fn key(owner: &Owner) -> String {
    format!("newcomers:{owner}")
}

/// The note that these objects of an owner came after those that are to go.
pub(super) fn came(owner: &Owner, ids: impl Iterator<Item = ObjectId>) -> (String, String) {
    (key(owner), Vec::from_iter(ids.map(|id| id.inventory())).join("\n"))
}

impl Wanted {
    /// The objects that are applied.
    pub(super) fn rendered(&self) -> BTreeSet<ObjectId> {
        self.manifests.iter().map(|manifest| manifest.id.clone()).collect()
    }

    /// What the inventory has and is neither rendered nor kept.
    pub(super) fn left(&self, inventory: &[Entry]) -> Vec<Entry> {
        let mut left = stale(inventory, &self.rendered());
        left.retain(|entry| !self.kept.contains(&entry.id.inventory()));
        left
    }
}

impl Run<'_> {
    /// How many objects of the inventory count as having been there.
    pub(super) async fn before(
        &self,
        inventory: &[Entry],
        wanted: &Wanted,
    ) -> Result<usize, Failure> {
        Ok(there_before(inventory, &wanted.rendered(), &self.newcomers().await?))
    }

    /// Notes what this render is going to add to an inventory of which it loses something: what
    /// others lose before it is pruned may be most in the end.
    pub(super) async fn note_newcomers(
        &self,
        inventory: &[Entry],
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        if wanted.left(inventory).is_empty() {
            return Ok(());
        }
        let known: BTreeSet<String> = inventory.iter().map(|entry| entry.id.inventory()).collect();
        let mut noted = self.newcomers().await?;
        noted.retain(|id| known.contains(id));
        let rendered = wanted.manifests.iter().map(|manifest| manifest.id.inventory());
        noted.extend(rendered.filter(|id| !known.contains(id)));
        let (key, text) = (key(&self.owner), Vec::from_iter(noted).join("\n"));
        self.database(move |history| history.set_meta(&key, &text)).await
    }

    /// Nothing that left waits any more: all that is there counts.
    pub(super) async fn settled(&self) -> Result<(), Failure> {
        let key = key(&self.owner);
        self.database(move |history| history.drop_meta(&key)).await
    }

    async fn newcomers(&self) -> Result<BTreeSet<String>, Failure> {
        let key = key(&self.owner);
        let noted = self.database(move |history| history.meta(&key)).await?.unwrap_or_default();
        Ok(noted.lines().map(str::to_owned).collect())
    }
}
