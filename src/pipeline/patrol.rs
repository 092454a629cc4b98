//! The comparison that nothing gave cause for, some objects at a time.

use super::{Pipeline, lock};
use crate::plan::Owner;
use crate::render::ObjectId;

impl Pipeline {
    /// Begins a comparison of the objects that are `concerned`. Answers whose they are.
    pub fn round(&self, concerned: impl Fn(&ObjectId) -> bool) -> Vec<Owner> {
        let mut owners = Vec::new();
        for (owner, memory) in lock(&self.memory).iter_mut() {
            let some = memory.objects.keys().filter(|id| concerned(id)).cloned();
            memory.uncompared.extend(some);
            if !memory.uncompared.is_empty() {
                owners.push(owner.clone());
            }
        }
        owners
    }

    /// Lets the next run of an owner compare some more of its objects. Answers how many.
    pub fn compare_some(&self, owner: &Owner, most: usize) -> usize {
        lock(&self.memory).get_mut(owner).map_or(0, |memory| memory.compare_some(most))
    }
}
