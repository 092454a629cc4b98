//! Pure: health after the run: which objects to look at, and when a look calls for a run.
//!
//! A watch event on an object that Ready depends on leads to one look, however many events come
//! in a second. What has failed calls for a run at once. What is under way has as much time as its
//! Kustomization gives a rollout, up to ten minutes, for most of it is one; meanwhile it is asked,
//! now and then, whether it can get there at all. The run then finds the cause, and Ready says it.
//! What is well again has to stay so before another run says that: longer each time, so that an
//! object that comes and goes does not take Ready along.

use super::Time;
use crate::flux::Key;
use crate::render::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

/// Events of one second lead to one look.
const COALESCE: Time = 1000;

/// First and longest pause after a look that got no answer for an object; it doubles.
const AGAIN: Time = 5000;
const LAST_AGAIN: Time = 5 * 60 * 1000;

/// How long an object may be under way before it is asked why, and one that is missing before a
/// run says so.
const PATIENCE: Time = 10_000;

/// Longest that a rollout may be under way whatever its Kustomization gives it: what a Deployment has
/// by default (`progressDeadlineSeconds`).
const ROLLOUT: Time = 600_000;

/// Longest time between two such questions.
const SELDOM: Time = 60_000;

/// How long everything has to be well before a run says so, by the number of recoveries in
/// [`LATELY`].
const CALM: [Time; 6] = [0, 10_000, 30_000, 60_000, 120_000, 300_000];

/// Recoveries older than this are forgotten.
const LATELY: Time = 10 * 60 * 1000;

/// What a look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It works.
    Well,
    /// It is on its way.
    UnderWay,
    /// It is gone or going, or cannot be judged.
    Missing,
    /// It has failed, or will not get there.
    Failed,
    /// There was no answer.
    Unseen,
}

/// A look that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The Kustomization.
    pub key: Key,
    /// The objects.
    pub ids: Vec<ObjectId>,
    /// Whether to ask as well if what is under way can get there.
    pub why: bool,
}

/// What is watched over, by Kustomization.
#[derive(Clone, Debug, Default)]
pub struct Vigil {
    watched: BTreeMap<Key, Watch>,
}

#[derive(Clone, Debug, Default)]
struct Watch {
    /// Objects that an event spoke of, and those that were not well at the last look.
    ids: BTreeSet<ObjectId>,
    /// When to look, and whether a look is under way.
    due: Option<Time>,
    looking: bool,
    /// Looks in a row without an answer for an object.
    unseen: u32,
    /// Since when each that is not well is so, and since when all are.
    ill: BTreeMap<ObjectId, Time>,
    calm: Option<Time>,
    /// When to ask for the cause next.
    why: Option<Time>,
    recovered: Vec<Time>,
}

impl Vigil {
    /// An event spoke of an object that a Kustomization's Ready depends on.
    pub fn touch(&mut self, key: &Key, id: &ObjectId, now: Time) {
        let watch = self.watched.entry(key.clone()).or_default();
        watch.ids.insert(id.clone());
        let due = now + COALESCE;
        watch.due = Some(watch.due.map_or(due, |before| before.min(due)));
    }

    /// A run has just looked at everything.
    pub fn ran(&mut self, key: &Key, now: Time) {
        let Some(watch) = self.watched.get_mut(key) else { return };
        // An event may have come since the run looked: what is due stays due.
        (watch.calm, watch.why) = (None, None);
        watch.ill.clear();
        watch.recovered.retain(|at| now.saturating_sub(*at) < LATELY);
        if watch.recovered.is_empty() && watch.due.is_none() && !watch.looking {
            self.watched.remove(key);
        }
    }

    /// A Kustomization is gone.
    pub fn forget(&mut self, key: &Key) {
        self.watched.remove(key);
    }

    /// What is to be looked at now. `busy` is true for what a run is looking at.
    pub fn due(&mut self, now: Time, busy: impl Fn(&Key) -> bool) -> Vec<Look> {
        let mut looks = Vec::new();
        for (key, watch) in &mut self.watched {
            if watch.due.is_none_or(|due| due > now) {
                continue;
            }
            if busy(key) || watch.looking {
                watch.due = Some(now + COALESCE);
                continue;
            }
            (watch.due, watch.looking) = (None, true);
            let (key, ids) = (key.clone(), watch.ids.iter().cloned().collect());
            looks.push(Look { key, ids, why: watch.why.is_some_and(|at| at <= now) });
        }
        looks
    }

    /// When the next look is due.
    pub fn wake(&self) -> Option<Time> {
        self.watched.values().filter_map(|watch| watch.due).min()
    }

    /// Takes in what a look showed, with whether the Kustomization is ready, and how long it gives a
    /// rollout. True when a run is to find out more.
    pub fn looked(
        &mut self,
        key: &Key,
        sights: &[(ObjectId, Sight)],
        (ready, timeout): (bool, Time),
        now: Time,
    ) -> bool {
        let Some(watch) = self.watched.get_mut(key) else { return false };
        watch.looking = false;
        for (id, sight) in sights {
            if *sight == Sight::Well && watch.due.is_none() {
                watch.ids.remove(id);
            }
        }
        let soon = |watch: &mut Watch, at: Time| {
            watch.due = Some(watch.due.map_or(at, |before| before.min(at)));
        };
        let (sights, unseen): (Vec<_>, Vec<_>) =
            sights.iter().partition(|(_, sight)| *sight != Sight::Unseen);
        if unseen.is_empty() {
            watch.unseen = 0;
        } else {
            soon(watch, now + (AGAIN << watch.unseen.min(8)).min(LAST_AGAIN));
            watch.unseen = watch.unseen.saturating_add(1);
        }
        if sights.is_empty() {
            return false;
        }
        // What was seen counts: one object that nobody can read must not mute all others.
        if sights.iter().all(|(_, sight)| *sight == Sight::Well) {
            watch.why = None;
            watch.ill.clear();
            if ready {
                return false;
            }
            let calm = *watch.calm.get_or_insert(now);
            watch.recovered.retain(|at| now.saturating_sub(*at) < LATELY);
            let long = CALM[watch.recovered.len().min(CALM.len() - 1)];
            if now < calm + long {
                // All of them again, so that nothing that fails meanwhile is missed.
                watch.ids.extend(sights.iter().map(|(id, _)| id.clone()));
                soon(watch, calm + long);
                return false;
            }
            watch.calm = None;
            watch.recovered.push(now);
            return true;
        }
        watch.calm = None;
        // One rollout after the other is not one that takes as long as all of them.
        let mut limit = Time::MAX;
        for (id, sight) in &sights {
            let patience = match sight {
                Sight::Well => {
                    watch.ill.remove(id);
                    continue;
                }
                Sight::Unseen => continue,
                Sight::Failed => 0,
                Sight::Missing => PATIENCE,
                Sight::UnderWay => timeout.clamp(PATIENCE, ROLLOUT),
            };
            limit = limit.min(*watch.ill.entry(id.clone()).or_insert(now) + patience);
        }
        if !ready {
            // It was said already; the next event tells more.
            return false;
        }
        if now >= limit {
            return true;
        }
        let first = watch.ill.values().min().map_or(now, |first| *first);
        let why = match watch.why {
            Some(at) if at > now => at,
            _ => now + (now - first).clamp(PATIENCE, SELDOM),
        };
        watch.why = Some(why);
        soon(watch, why.min(limit));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    fn key() -> Key {
        Key::new(Kind::Kustomization, "flux-system", "apps")
    }

    fn id(name: &str) -> ObjectId {
        ObjectId {
            namespace: "n".into(),
            name: name.into(),
            group: "apps".into(),
            kind: "Deployment".into(),
        }
    }

    /// What the Kustomization gives a rollout.
    const TIMEOUT: Time = 60_000;

    fn look(vigil: &mut Vigil, now: Time, sight: Sight, ready: bool) -> bool {
        let due = vigil.due(now, |_| false);
        let looked_at: Vec<_> = due.into_iter().map(|look| (look.key, look.ids)).collect();
        assert_eq!(looked_at, [(key(), vec![id("web")])], "at {now}");
        vigil.looked(&key(), &[(id("web"), sight)], (ready, TIMEOUT), now)
    }

    #[test]
    fn many_events_lead_to_one_look_and_a_rollout_to_no_run() {
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        vigil.touch(&key(), &id("web"), 900);
        assert_eq!(vigil.wake(), Some(1000));
        assert_eq!(vigil.due(999, |_| false), []);
        assert!(!look(&mut vigil, 1000, Sight::UnderWay, true));
        assert_eq!(vigil.wake(), Some(11_000));
        assert!(!look(&mut vigil, 11_000, Sight::Well, true), "it has rolled out");
        assert_eq!(vigil.wake(), None);
    }

    #[test]
    fn what_failed_calls_for_a_run_at_once_and_what_is_missing_after_a_while() {
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        assert!(look(&mut vigil, 1000, Sight::Failed, true));
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        assert!(!look(&mut vigil, 1000, Sight::Missing, true));
        assert!(look(&mut vigil, 11_000, Sight::Missing, true));
    }

    #[test]
    fn a_slow_rollout_has_the_time_that_git_gives_it_and_is_asked_whether_it_can_succeed() {
        let mut vigil = Vigil::default();
        let mut asked = Vec::new();
        vigil.touch(&key(), &id("web"), 0);
        let run = loop {
            let now = vigil.wake().expect("it is looked at to the end");
            let due = vigil.due(now, |_| false);
            asked.extend(due[0].why.then_some(now));
            if now == 15_000 {
                assert!(!due[0].why, "an event alone asks nothing");
            }
            if vigil.looked(&key(), &[(id("web"), Sight::UnderWay)], (true, TIMEOUT), now) {
                break now;
            }
            if now == 11_000 {
                vigil.touch(&key(), &id("web"), 14_000);
            }
        };
        assert_eq!((asked, run), (vec![11_000, 21_000, 41_000], 61_000));
        vigil.ran(&key(), run);
        assert_eq!(vigil.wake(), None);
    }

    #[test]
    fn rollouts_that_overlap_have_each_their_own_time() {
        let mut vigil = Vigil::default();
        let mut see = |now, sights: &[(&str, Sight)]| {
            sights.iter().for_each(|(name, _)| vigil.touch(&key(), &id(name), now - COALESCE));
            assert_eq!(vigil.due(now, |_| false).len(), 1, "at {now}");
            let sights: Vec<_> = sights.iter().map(|(name, sight)| (id(name), *sight)).collect();
            vigil.looked(&key(), &sights, (true, TIMEOUT), now)
        };
        use Sight::{Missing, UnderWay, Well};
        assert!(!see(1000, &[("a", UnderWay)]));
        assert!(!see(50_000, &[("a", UnderWay), ("b", UnderWay)]));
        assert!(!see(55_000, &[("a", Well), ("b", UnderWay)]));
        assert!(!see(109_000, &[("b", UnderWay)]), "59 of its 60 seconds");
        assert!(!see(109_500, &[("b", Well), ("c", Missing)]));
        assert!(see(119_500, &[("c", Missing)]));
    }

    #[test]
    fn without_an_answer_nothing_is_said_and_one_look_is_under_way_at_a_time() {
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        assert_eq!(vigil.due(1000, |_| false).len(), 1);
        vigil.touch(&key(), &id("web"), 1100);
        assert_eq!(vigil.due(2100, |_| false), [], "one is under way");
        let unseen = [(id("web"), Sight::Unseen)];
        assert!(!vigil.looked(&key(), &unseen, (false, TIMEOUT), 2200));
        assert_eq!(vigil.wake(), Some(3100));
        assert!(look(&mut vigil, 3100, Sight::Well, false));
    }

    #[test]
    fn an_object_that_cannot_be_read_mutes_no_other_and_is_asked_ever_less_often() {
        let mut vigil = Vigil::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        vigil.touch(&key(), &id("web"), now);
        vigil.touch(&key(), &id("secret"), now);
        for _ in 0..9 {
            now = vigil.wake().unwrap();
            let due = vigil.due(now, |_| false);
            let sight = |id: &ObjectId| (id.clone(), Sight::Unseen);
            let sights: Vec<_> = due[0].ids.iter().map(sight).collect();
            assert!(!vigil.looked(&key(), &sights, (true, TIMEOUT), now));
            pauses.push((vigil.wake().unwrap() - now) / 1000);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        now = vigil.wake().unwrap();
        vigil.due(now, |_| false);
        let sights = [(id("secret"), Sight::Unseen), (id("web"), Sight::Failed)];
        let news = vigil.looked(&key(), &sights, (true, TIMEOUT), now);
        assert!(news, "web has failed, whatever secret is");
    }

    #[test]
    fn a_run_in_progress_looks_for_itself() {
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        assert_eq!(vigil.due(1000, |_| true), []);
        assert_eq!(vigil.wake(), Some(2000));
        vigil.ran(&key(), 1500);
        assert_eq!(vigil.wake(), Some(2000), "an event may have come after its look");
        assert!(!look(&mut vigil, 2000, Sight::Well, true));
        vigil.ran(&key(), 2500);
        assert_eq!((vigil.wake(), vigil.watched.len()), (None, 0));
    }

    #[test]
    fn the_first_recovery_is_said_at_once_and_later_ones_have_to_last() {
        let mut vigil = Vigil::default();
        vigil.touch(&key(), &id("web"), 0);
        assert!(look(&mut vigil, 1000, Sight::Well, false));
        vigil.ran(&key(), 1100);

        vigil.touch(&key(), &id("web"), 20_000);
        assert!(!look(&mut vigil, 21_000, Sight::Well, false), "calm begins");
        assert!(!look(&mut vigil, 31_000, Sight::UnderWay, false), "and is over");
        vigil.touch(&key(), &id("web"), 40_000);
        assert!(!look(&mut vigil, 41_000, Sight::Well, false));
        assert!(look(&mut vigil, 51_000, Sight::Well, false), "ten seconds later");
        vigil.ran(&key(), 51_000 + LATELY);
        assert_eq!(vigil.watched.len(), 0, "forgotten");
    }
}
