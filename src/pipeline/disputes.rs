//! Fights over objects, kept over a restart: a daemon that starts anew must not begin another round
//! of heals against whoever writes the same fields.
//!
//! Only what has become a fight is stored, once after each run that changed it; heals that may have
//! been accidents are forgotten with the process. The clock of a fight is steady, that of the
//! database is the wall's: a wall clock that was set back cannot make a pause longer than it was.

use super::kustomization::Run;
use super::memory::{Dispute, Memory};
use super::record::now_ms;
use super::{Pipeline, lock};
use crate::history::{History, HistoryError};
use crate::plan::{Contest, Fight, Owner};
use crate::render::ObjectId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// One fight as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Keyed digest of the manifest that is fought over.
    digest: String,
    /// Field → manager, masked.
    fields: BTreeMap<String, Option<String>>,
    pause_ms: u64,
    /// When the last heal was, Unix milliseconds.
    last_ms: i64,
}

/// Start of the keys in the database of one owner's fights, which end with an inventory id.
fn keys(owner: &Owner) -> String {
    format!("contest:{owner}:")
}

/// Takes up the fights of an earlier process; `now` is the steady clock. One that cannot be read is
/// left out: it costs three heals.
pub(super) fn restore(history: &History, now: u64) -> Result<HashMap<Owner, Memory>, HistoryError> {
    let mut all: HashMap<Owner, Memory> = HashMap::new();
    for (key, value) in history.metas("contest:")? {
        let parts = key.strip_prefix("contest:").and_then(|key| key.split_once(':'));
        let Some((owner, id)) = parts else { continue };
        let (owner, id) = (Owner::parse(owner), ObjectId::parse_inventory(id));
        let (Some(owner), Some(id)) = (owner, id) else { continue };
        let Ok(stored) = serde_json::from_str::<Stored>(&value) else { continue };
        let age = u64::try_from(now_ms().saturating_sub(stored.last_ms)).unwrap_or(0);
        let Stored { digest, fields, pause_ms: pause, .. } = stored;
        let fight = Fight { fields, pause, last: now.saturating_sub(age) };
        let memory = all.entry(owner).or_default();
        memory.stored.insert(id.clone(), (digest.clone(), fight.clone()));
        memory.contests.insert(id, Dispute { digest, contest: Contest::of(fight) });
    }
    Ok(all)
}

impl Run<'_> {
    /// Stores what this run has changed of the fights; mostly nothing, which is no write.
    pub(super) async fn keep_disputes(&self) {
        let now = self.pipeline.steady_ms();
        let (fought, put, gone) = {
            let memory = lock(&self.pipeline.memory);
            let Some(memory) = memory.get(&self.owner) else { return };
            let fought = memory.fought(now);
            let put: Vec<(String, String)> = fought
                .iter()
                .filter(|(id, fight)| memory.stored.get(id) != Some(fight))
                .filter_map(|(id, fight)| Some((self.dispute(id), self.written(fight, now)?)))
                .collect();
            let gone = memory.stored.keys().filter(|id| !fought.contains_key(id));
            let gone: Vec<String> = gone.map(|id| self.dispute(id)).collect();
            (fought, put, gone)
        };
        if put.is_empty() && gone.is_empty() {
            return;
        }
        let stored = self.database(move |history| {
            history.set_metas(&put)?;
            gone.iter().try_for_each(|key| history.drop_meta(key))
        });
        if let Err(failure) = stored.await {
            // The next run tries again; without it a restart forgets the fight.
            tracing::debug!("a contested object could not be noted: {failure}");
            return;
        }
        if let Some(memory) = lock(&self.pipeline.memory).get_mut(&self.owner) {
            memory.stored = fought;
        }
    }

    /// Forgets the fights of one that has ended.
    pub(super) async fn drop_disputes(&self) -> Result<(), super::Failure> {
        let keys = keys(&self.owner);
        self.database(move |history| history.drop_metas(&keys)).await
    }

    fn dispute(&self, id: &ObjectId) -> String {
        format!("{}{}", keys(&self.owner), id.inventory())
    }

    fn written(&self, (digest, fight): &(String, Fight), now: u64) -> Option<String> {
        let age = i64::try_from(now.saturating_sub(fight.last)).unwrap_or(i64::MAX);
        let fields = fight.fields.iter();
        let stored = Stored {
            digest: digest.clone(),
            fields: fields.map(|(field, by)| (self.redactor.mask(field), by.clone())).collect(),
            pause_ms: fight.pause,
            last_ms: now_ms().saturating_sub(age),
        };
        serde_json::to_string(&stored).ok()
    }
}

/// How long the steady clock has run when the process starts: longer than a fight is remembered,
/// so that its last heal has a time on it.
const BEFORE: u64 = 3 * 60 * 60 * 1000;

impl Pipeline {
    /// Milliseconds of a steady clock.
    pub(super) fn steady_ms(&self) -> u64 {
        steady_ms(self.since)
    }
}

/// The same for a process that began then.
pub(super) fn steady_ms(since: std::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(BEFORE)
}
