//! Pure: what one Kustomization's last run learned, so that the next costs only the change.

use super::WorkOrders;
use super::turned::Turned;
use crate::plan::{Contest, Fight, Gate, Held};
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is known of one applied object.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Keyed digest of the manifest as applied.
    pub digest: String,
    /// Drift gate of the answer to our apply.
    pub gate: Gate,
    /// API version it was applied with.
    pub api_version: String,
    /// The latest resourceVersion at which the gate was this one; 0 when not known.
    pub version: u64,
    /// What was left out of the manifest, for `status`.
    pub notices: Vec<String>,
    /// Who else writes it, as of the last look.
    pub others: Vec<String>,
    /// It is left alone by a mark in Git or on it: Ready does not wait for it.
    pub skipped: bool,
}

/// An object that is to be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moved {
    /// The latest resourceVersion at which it was seen; 0 when it cannot be told.
    version: u64,
    /// Its gate there, `None` for a deletion; `None` as a whole when no watch has seen it.
    gate: Option<Option<Gate>>,
}

/// The heals of one object, and the keyed digest of the manifest that they restored.
#[derive(Clone, Debug, Default)]
pub struct Dispute {
    /// Keyed digest of that manifest.
    pub digest: String,
    /// The heals.
    pub contest: Contest,
}

/// What is known of one Kustomization.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Digest of the inputs of the last render that was applied whole.
    pub input: String,
    /// Work orders of that render.
    pub orders: WorkOrders,
    /// Objects as applied.
    pub objects: BTreeMap<ObjectId, Known>,
    /// Objects whose gate moved since.
    pub nominated: BTreeMap<ObjectId, Moved>,
    /// What Ready depends on in the cluster, with the API version to ask in.
    pub targets: BTreeMap<ObjectId, String>,
    /// Objects that were healed lately.
    pub contests: BTreeMap<ObjectId, Dispute>,
    /// The fights among them as the database has them.
    pub stored: BTreeMap<ObjectId, (String, Fight)>,
    /// Objects whose write was refused for real.
    pub turned: BTreeMap<ObjectId, Turned>,
    /// Objects that end by themselves, by inventory id: the claim that made them, and their uid.
    pub made: BTreeMap<String, (String, String)>,
    /// Those of them that have ended and are gone.
    pub vanished: BTreeSet<ObjectId>,
    /// Those that were deleted before they had ended.
    pub unfinished: BTreeSet<ObjectId>,
    /// Objects that the comparison under way has not come to yet.
    pub uncompared: BTreeSet<ObjectId>,
    /// Every object is to be compared by the next run.
    pub verify: bool,
    /// True when the last run ended ready: applied, pruned and healthy.
    pub ready: bool,
    /// Notices of the last run.
    pub warnings: Vec<String>,
    /// Those of them that are about copies of bases which may be old.
    pub old_copies: BTreeSet<String>,
    /// Notices that the journal was told, until a run is ready without them.
    pub told_warnings: BTreeSet<String>,
    /// Deletions that the last run left waiting.
    pub held: Vec<Held>,
    /// The failure that the history has, so that a retry with the same end writes nothing.
    pub last_failure: Option<String>,
    /// The failure that the journal was told last, until a run succeeds.
    pub told: Option<String>,
    /// It has left Git and is being ended.
    pub ended: bool,
    /// How long health was waited for on these inputs, by runs that left off to heal an edit.
    pub waited: Option<(String, Duration)>,
    /// Objects that the run in hand looks at for the first time.
    pub pending: BTreeSet<ObjectId>,
}

impl Memory {
    /// True when a run on the same inputs would find nothing to do.
    pub fn quiet(&self, input: &str) -> bool {
        self.ready && !self.verify && self.input == input && self.nominated.is_empty()
    }

    /// True when an object needs no look: same manifest, gate unmoved.
    pub fn unchanged(&self, id: &ObjectId, digest: &str) -> bool {
        !self.nominated.contains_key(id)
            && self.objects.get(id).is_some_and(|known| known.digest == digest)
    }

    /// Takes in what a watch saw; `None` for a deletion, version 0 when it cannot be told. True
    /// when the object is to be judged by a dry-run. What is older than our own look is no news.
    pub fn see(&mut self, id: &ObjectId, gate: Option<Gate>, version: u64) -> bool {
        let Some(known) = self.objects.get_mut(id) else {
            // Whoever is looking at it now will know whether it has seen this.
            let pending = self.pending.contains(id);
            return pending && self.moved(id, gate, version);
        };
        if version != 0 && version <= known.version {
            return false;
        }
        if gate != Some(known.gate) {
            // What was seen while a run judges it is for another run to judge, if not explained by
            // this one's own writes. Its status moves nothing more.
            return self.moved(id, gate, version);
        }
        known.version = known.version.max(version);
        false
    }

    fn moved(&mut self, id: &ObjectId, gate: Option<Gate>, version: u64) -> bool {
        let moved = self.nominated.entry(id.clone()).or_default();
        let news = moved.gate != Some(gate);
        *moved = Moved { version: moved.version.max(version), gate: Some(gate) };
        news
    }

    /// A run looks at these objects: what a watch sees of them before their look is over is kept.
    pub fn look_at<'a>(&mut self, ids: impl Iterator<Item = &'a ObjectId>) {
        self.pending = ids.filter(|id| !self.objects.contains_key(*id)).cloned().collect();
    }

    /// The resourceVersion at which an object was seen last, by a watch or by ourselves. Its status
    /// moves that as well.
    pub fn seen_at(&self, id: &ObjectId) -> Option<u64> {
        self.objects.get(id).map(|known| known.version)
    }

    /// Nothing that was seen counts any more: resourceVersions may even have fallen.
    pub fn doubt(&mut self) {
        self.verify = true;
        self.nominated.clear();
        self.uncompared.clear();
        self.objects.values_mut().for_each(|known| known.version = 0);
    }

    /// Nominates the next of the objects that are to be compared. Answers how many.
    pub fn compare_some(&mut self, most: usize) -> usize {
        let mut some = 0;
        while some < most
            && let Some(id) = self.uncompared.pop_first()
        {
            if self.objects.contains_key(&id) {
                self.nominate(&id);
                some += 1;
            }
        }
        some
    }

    /// Takes in what we applied or read ourselves; an edit that a watch saw later stays.
    pub fn know(&mut self, id: &ObjectId, known: Known) {
        let explains =
            |moved: &Moved| moved.version <= known.version || moved.gate == Some(Some(known.gate));
        if self.nominated.get(id).is_some_and(explains) {
            self.nominated.remove(id);
        }
        self.vanished.remove(id);
        self.unfinished.remove(id);
        self.objects.insert(id.clone(), known);
    }

    /// Keeps an object nominated that cannot be judged to the end yet.
    pub fn nominate(&mut self, id: &ObjectId) {
        self.nominated.entry(id.clone()).or_default();
    }

    /// True when a heal of an object has to wait, and its manifest is still the one that is fought
    /// over: it is not even looked at.
    pub fn waits(&self, id: &ObjectId, digest: &str, now: u64) -> bool {
        let same = |dispute: &Dispute| dispute.digest == digest;
        self.patience(id, now) > 0 && self.contests.get(id).is_some_and(same)
    }

    /// How many milliseconds the next heal of an object has to wait.
    pub fn patience(&self, id: &ObjectId, now: u64) -> u64 {
        self.contests.get(id).map_or(0, |dispute| dispute.contest.wait(now))
    }

    /// The fights that are not over, each with the digest of the manifest.
    pub fn fought(&self, now: u64) -> BTreeMap<ObjectId, (String, Fight)> {
        let fights = self.contests.iter().filter_map(|(id, Dispute { digest, contest })| {
            Some((id.clone(), (digest.clone(), contest.fight(now)?.clone())))
        });
        fights.collect()
    }

    /// The shortest wait of the contested objects that have moved again; `None` when there are
    /// none.
    pub fn contested(&self, now: u64) -> Option<u64> {
        let fought = |id: &&ObjectId| {
            self.contests.get(id).is_some_and(|dispute| dispute.contest.fight(now).is_some())
        };
        self.nominated.keys().filter(fought).map(|id| self.patience(id, now)).min()
    }

    /// It is being ended: nothing is known of its objects any more, but what was told of its end is.
    pub fn end(&mut self) {
        let before = std::mem::take(self);
        self.ended = true;
        if before.ended {
            self.held = before.held;
            (self.told, self.last_failure) = (before.told, before.last_failure);
        }
    }

    /// True when a failure is news to the journal: another one than it was told last.
    pub fn fails(&mut self, failure: &str) -> bool {
        let news = self.told.as_deref() != Some(failure);
        if news {
            self.told = Some(failure.to_owned());
        }
        news
    }

    /// True when a failure that the journal was told of is over. Should it come back in the same
    /// words, it is another one, for the history too.
    pub fn recovers(&mut self) -> bool {
        self.last_failure = None;
        self.told.take().is_some()
    }

    /// True when deletions that wait are news to the journal. They are known by their digest until
    /// a run succeeds without them.
    pub fn holds(&mut self, held: &Held) -> bool {
        let news = self.held.iter().all(|known| known.digest != held.digest);
        if news {
            self.held.push(held.clone());
        }
        news
    }

    /// Keeps the notices of a run; those that it is without are news when they come back.
    pub fn warn(&mut self, warnings: Vec<String>) {
        self.told_warnings.retain(|told| warnings.contains(told));
        self.warnings = warnings;
    }

    /// Work orders of the last render, for a revision that did not change them.
    pub fn orders_at(&self, revision: &str) -> WorkOrders {
        WorkOrders { revision: revision.to_owned(), ..self.orders.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id() -> ObjectId {
        ObjectId {
            namespace: "n".into(),
            name: "x".into(),
            group: String::new(),
            kind: "ConfigMap".into(),
        }
    }

    fn gate(n: u64) -> Gate {
        Gate::of(&json!({"metadata": {"uid": "u", "generation": n}}))
    }

    fn known(n: u64, version: u64) -> Known {
        Known {
            digest: "d".into(),
            gate: gate(n),
            api_version: "v1".into(),
            version,
            notices: vec![],
            others: vec![],
            skipped: false,
        }
    }

    fn memory() -> Memory {
        let objects = [(id(), known(1, 5))].into();
        Memory { input: "i".into(), objects, ready: true, ..Memory::default() }
    }

    #[test]
    fn a_moved_gate_is_news_once_and_ends_the_quiet() {
        let mut memory = memory();
        assert!(memory.quiet("i") && memory.unchanged(&id(), "d"));
        assert!(!memory.see(&id(), Some(gate(1)), 6), "an unmoved gate is no news");
        assert!(!memory.see(&id(), Some(gate(0)), 4), "nor is what we have seen since");
        assert!(memory.see(&id(), None, 0), "a deletion is");
        assert!(memory.see(&id(), Some(gate(2)), 7), "and so is what comes after it");
        assert!(!memory.see(&id(), Some(gate(2)), 7), "told once");
        assert!(!memory.see(&id(), Some(gate(2)), 8), "its status moves, as nobody has judged it");
        assert!(memory.see(&id(), Some(gate(3)), 9) && memory.see(&id(), None, 10));
        assert!(!memory.quiet("i") && !memory.unchanged(&id(), "d"));
    }

    #[test]
    fn what_is_seen_during_the_first_look_at_an_object_is_judged_after_it() {
        let mut memory = Memory::default();
        assert!(!memory.see(&id(), Some(gate(1)), 3), "nobody has it yet");
        memory.look_at([id()].iter());
        assert!(memory.see(&id(), Some(gate(2)), 6), "edited after the look at 5");
        memory.know(&id(), known(1, 5));
        assert!(!memory.unchanged(&id(), "d"));
        // Our own write, told before its answer is read.
        let mut memory = Memory::default();
        memory.look_at([id()].iter());
        assert!(memory.see(&id(), Some(gate(1)), 5));
        memory.know(&id(), known(1, 5));
        assert!(memory.unchanged(&id(), "d"));
    }

    #[test]
    fn the_latest_sight_of_an_object_is_known_as_long_as_its_gate_has_not_moved() {
        let mut memory = memory();
        assert_eq!(memory.seen_at(&id()), Some(5), "as we have applied it");
        memory.see(&id(), Some(gate(1)), 8);
        assert_eq!(memory.seen_at(&id()), Some(8), "its status has moved");
        memory.see(&id(), Some(gate(1)), 7);
        memory.see(&id(), Some(gate(2)), 9);
        assert_eq!(memory.seen_at(&id()), Some(8), "9 is still to be judged");
        memory.doubt();
        assert_eq!(memory.seen_at(&id()), Some(0), "nothing that was seen counts");
        assert_eq!(memory.seen_at(&ObjectId { name: "y".into(), ..id() }), None);
    }

    #[test]
    fn an_edit_is_news_also_where_one_before_it_was_not_judged_to_the_end() {
        let mut memory = memory();
        assert!(memory.see(&id(), Some(gate(2)), 7), "somebody edits");
        // The heal is version 8, and a status is written before its answer is read.
        assert!(memory.see(&id(), Some(gate(3)), 9));
        memory.know(&id(), known(3, 8));
        assert!(memory.quiet("i"), "the gate at 9 is the one that the heal has left");
        assert!(memory.see(&id(), Some(gate(4)), 10), "the next edit");
        assert!(!memory.see(&id(), Some(gate(4)), 10), "the same once more");
    }

    #[test]
    fn an_edit_seen_after_our_own_look_is_not_lost() {
        let mut memory = memory();
        assert!(memory.see(&id(), Some(gate(2)), 9));
        memory.know(&id(), known(1, 8));
        assert!(!memory.quiet("i"), "the edit at 9 is newer than our look at 8");
        memory.know(&id(), known(2, 9));
        assert!(memory.quiet("i"));
    }

    #[test]
    fn a_comparison_takes_some_objects_at_a_time_and_each_once() {
        let mut memory = memory();
        let other = ObjectId { name: "y".into(), ..id() };
        memory.objects.insert(other.clone(), known(1, 5));
        memory.uncompared = [id(), other.clone(), ObjectId { name: "gone".into(), ..id() }].into();
        assert_eq!(memory.compare_some(1), 1);
        assert!(!memory.unchanged(&id(), "d") && memory.unchanged(&other, "d"));
        memory.know(&id(), known(1, 5));
        assert!(memory.quiet("i"), "as it should be");
        assert_eq!(memory.compare_some(5), 1);
        assert_eq!(memory.compare_some(5), 0);
    }

    #[test]
    fn a_failure_is_news_once_and_again_after_a_success_or_in_other_words() {
        let mut memory = memory();
        assert!(!memory.recovers(), "nothing was told");
        assert_eq!(["a", "a", "b", "a"].map(|text| memory.fails(text)), [true, false, true, true]);
        memory.last_failure = Some("a".into());
        assert!(memory.recovers() && !memory.recovers(), "its end is told once");
        assert_eq!(memory.last_failure, None);
        assert!(memory.fails("a"));
    }

    #[test]
    fn what_was_told_of_an_end_is_known_until_it_is_over() {
        let held = || Held { digest: "a".into(), ids: vec![id()], reason: "it holds data".into() };
        let mut memory = memory();
        assert!(memory.fails("x") && memory.holds(&held()));
        memory.end();
        assert!(memory.objects.is_empty() && memory.fails("x") && memory.holds(&held()));
        memory.end();
        assert!(!memory.fails("x") && !memory.holds(&held()), "the end is tried again");
    }

    #[test]
    fn deletions_that_wait_are_news_once_for_each_digest() {
        let mut memory = memory();
        let held = |digest: &str| Held {
            digest: digest.into(),
            ids: vec![id()],
            reason: "it holds data".into(),
        };
        assert!(memory.holds(&held("a")) && !memory.holds(&held("a")), "the next run");
        assert!(memory.holds(&held("b")));
        // A run succeeded, and nothing waits any more.
        memory.held.clear();
        assert!(memory.holds(&held("a")));
    }

    #[test]
    fn a_contested_object_waits_for_its_pause_or_a_new_manifest() {
        let mut memory = memory();
        let field = [("data.key".to_owned(), None)];
        let dispute = memory.contests.entry(id()).or_default();
        dispute.digest = "d".into();
        for at in [0, 1000, 2000] {
            assert_eq!(dispute.contest.wait(at), 0);
            assert_eq!(dispute.contest.fight(at), None);
            dispute.contest.heal(&field, at);
        }
        assert_eq!(memory.fought(3000).len(), 1);
        assert!(memory.waits(&id(), "d", 3000) && !memory.waits(&id(), "new", 3000));
        assert_eq!(memory.contested(3000), None, "it has not moved again");
        memory.see(&id(), Some(gate(2)), 9);
        assert_eq!(memory.contested(3000), Some(59_000));
        assert_eq!(memory.contested(62_000), Some(0));
        assert!(!memory.waits(&id(), "d", 62_000));
    }
}
