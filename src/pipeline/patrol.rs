//! The comparison that nothing gave cause for, some objects at a time.

use super::{Pipeline, lock};
use crate::plan::Owner;

impl Pipeline {
    /// Begins a comparison of every object. Answers whose they are.
    pub fn round(&self) -> Vec<Owner> {
        let mut memory = lock(&self.memory);
        memory.values_mut().for_each(|memory| {
            memory.uncompared = memory.objects.keys().cloned().collect();
        });
        memory.keys().cloned().collect()
    }

    /// Lets the next run of an owner compare some more of its objects. Answers how many.
    pub fn compare_some(&self, owner: &Owner, most: usize) -> usize {
        lock(&self.memory).get_mut(owner).map_or(0, |memory| memory.compare_some(most))
    }
}
