//! Which effects are cut, and whether so many of them were reached that the rest does not matter.
//!
//! Effects are counted in a run that ends in peace and cut in later ones, which may have fewer of a
//! name: a mirror that was made anew has fewer packs to flush, the database another page more or
//! less. A cut that is not reached is told with how many effects of its name that run had instead,
//! and tried once more at the end. One that should have been reached by that number fails at once.
//! What is left the second time may be a quarter of a way at most: a way takes a run more or less,
//! with its writes to the database, as triggers happen to fall together.

use super::{Bench, tell};
use crate::bed::effects::{self, Fate, Kinds};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of so many cuts on a way, one need not be reached.
const ONE_OF: usize = 4;

/// How often it is told how far the cuts are.
const TOLD: usize = 40;

/// The way to a side, as it was counted.
pub(super) struct Way {
    /// The side that it leads to.
    pub(super) number: usize,
    /// Its effects.
    pub(super) kinds: Kinds,
    /// Where it is cut.
    pub(super) cuts: Vec<Fate>,
}

/// A cut that was not reached.
struct Missed {
    number: usize,
    fate: Fate,
    /// How many effects of that name there were.
    had: usize,
}

impl Bench {
    /// Cuts at the effects that are named, then at as many others as are asked for.
    pub(super) fn cut(&mut self) {
        let named = self.scenario.cuts.clone();
        for (number, fate) in &named {
            let reached = self.survives(*number, fate);
            assert!(reached.is_ok(), "{}: there is no such effect", self.place);
        }
        let Some(sample) = sample() else { return };
        let numbers: BTreeSet<usize> = named.iter().map(|(number, _)| *number).collect();
        let ways = self.learn(&numbers.into_iter().rev().collect::<Vec<_>>(), sample);
        let cuts = in_turn(&ways);
        let all = named.len() + cuts.len();
        let again = self.make(cuts).into_iter().map(|missed| (missed.number, missed.fate));
        let left = self.make(again.collect());
        tell_all(self.scenario.name, &ways, all - left.len(), &left);
        for Way { number, cuts, .. } in &ways {
            let missed = left.iter().filter(|missed| missed.number == *number).count();
            let most = (cuts.len() / ONE_OF).max(1);
            let name = self.scenario.name;
            // A name that drifts away would hide what comes after it.
            assert!(
                missed <= most,
                "{name}: {missed} of {} not reached: {}",
                cuts.len(),
                names(&left)
            );
        }
    }

    /// Counts the effects of each way, and chooses where to cut.
    pub(super) fn learn(&mut self, ways: &[usize], sample: usize) -> Vec<Way> {
        self.rest();
        let mut learnt = Vec::new();
        for number in ways {
            self.place = format!("counting side {number}");
            let before = self.seen();
            let (effects, _) = self.go(*number, &Fate::Count);
            self.recovers(*number, &before);
            let (kinds, cuts) = (Kinds::of(&effects.all), chosen(&effects.all, sample));
            learnt.push(Way { number: *number, kinds, cuts });
        }
        learnt
    }

    /// Has everything that was recorded so far brought from the log of the database into it. The
    /// first orderly stop does that, with a write for every page that there is: a way that is
    /// counted with it would have effects that it never has again. Killed once more, the daemon
    /// has left what it leaves before every other way.
    fn rest(&mut self) {
        self.place = "at rest before the counting".to_owned();
        for orderly in [true, false] {
            self.world.start();
            self.settled(self.at);
            match orderly {
                true => assert_eq!(self.world.stop(), Some(0), "{}", self.world.log()),
                false => self.world.kill(),
            }
        }
    }

    /// Makes these cuts, each from where its way begins. Those that were not reached come back.
    fn make(&mut self, cuts: Vec<(usize, Fate)>) -> Vec<Missed> {
        let (mut missed, all) = (Vec::new(), cuts.len());
        for (done, (number, fate)) in (1..).zip(cuts) {
            if self.at == number && self.scenario.cuts.iter().any(|(other, _)| *other != number) {
                self.away(1 - number);
            }
            if let Err(had) = self.survives(number, &fate) {
                let nth = fate.point().map_or(0, |at| at.nth);
                assert!(had < nth, "{}: none of {had} was cut", self.place);
                missed.push(Missed { number, fate, had });
            }
            if done % TOLD == 0 {
                tell(&format!("{}: {done} of {all}", self.scenario.name));
            }
        }
        missed
    }

    /// One cut and what follows. An effect that is not reached is an error: how many of its name
    /// there were.
    pub(super) fn survives(&mut self, number: usize, fate: &Fate) -> Result<(), usize> {
        self.place = format!("{}, side {number}, {fate:?}", self.scenario.name);
        let before = self.seen();
        let (effects, code) = self.go(number, fate);
        self.place = format!("{}: {:?}", self.place, effects.all.last());
        assert!(effects.cut || code.is_none(), "{}: {code:?}", self.place);
        self.recovers(number, &before);
        if effects.cut {
            return Ok(());
        }
        let asked = fate.point().map(|at| at.effect.as_str());
        let had = effects::points(&effects.all);
        Err(had.iter().filter(|at| Some(at.effect.as_str()) == asked).count())
    }
}

/// The first cut of each way, then the second of each, and so on.
fn in_turn(ways: &[Way]) -> Vec<(usize, Fate)> {
    let most = ways.iter().map(|way| way.cuts.len()).max().unwrap_or(0);
    let round = |nth: usize| {
        ways.iter().filter_map(move |way| Some((way.number, way.cuts.get(nth)?.clone())))
    };
    (0..most).flat_map(round).collect()
}

/// Tells how many effects each way has, and how many cuts were survived.
fn tell_all(name: &str, ways: &[Way], survived: usize, left: &[Missed]) {
    static TOTAL: AtomicUsize = AtomicUsize::new(0);
    let total = TOTAL.fetch_add(survived, Ordering::Relaxed) + survived;
    tell(&format!(
        "{name}: N = {}; {survived} cuts survived, not reached: {}; {total} cuts so far",
        numbers(ways),
        names(left)
    ));
}

/// The effects of each way, by kind.
pub(super) fn numbers(ways: &[Way]) -> String {
    let told = |way: &Way| format!("{} {}", way.kinds, ["back", "there"][way.number]);
    ways.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// What was not reached, each name once.
fn names(left: &[Missed]) -> String {
    let mut names: BTreeMap<(usize, &str), (usize, usize)> = BTreeMap::new();
    for Missed { number, fate, had } in left {
        let name = fate.point().map_or("", |at| at.effect.as_str());
        let (missed, most) = names.entry((*number, name)).or_default();
        (*missed, *most) = (*missed + 1, (*most).max(*had));
    }
    let told = names.iter().map(|((number, name), (missed, had))| {
        format!("{missed} of `{name}` to side {number}, which came {had} times")
    });
    if left.is_empty() { "none".to_owned() } else { told.collect::<Vec<_>>().join(", ") }
}

/// How many effects are cut beside those that are named: None if none, `usize::MAX` for all.
pub(super) fn sample() -> Option<usize> {
    match std::env::var("GITOPSD_TEST_CUTS").as_deref() {
        Ok("all") => Some(usize::MAX),
        Ok(number) => Some(number.parse().expect("GITOPSD_TEST_CUTS is a number or `all`")),
        Err(_) => None,
    }
}

/// Where to cut: of all, every write is torn one time in five; of a few, spread over what matters,
/// the one before a flush one time in two.
fn chosen(all: &[String], sample: usize) -> Vec<Fate> {
    let written = |at: usize| {
        at > 0 && all[at - 1].split_once(' ').is_some_and(|(w, _)| w.ends_with("write"))
    };
    let points = effects::points(all);
    let kill = |at: usize| Fate::Kill(points[at - 1].clone());
    let tear = |at: usize| Fate::Tear(points[at - 1].clone());
    if sample == usize::MAX {
        let torn = |at: usize| at.is_multiple_of(5) && written(at);
        return (1..=all.len()).map(|at| if torn(at) { tear(at) } else { kill(at) }).collect();
    }
    let matter: Vec<usize> =
        (1..=all.len()).filter(|number| effects::matters(&all[number - 1])).collect();
    let picked: BTreeSet<usize> =
        (0..sample).map(|n| matter[(2 * n + 1) * matter.len() / (2 * sample)]).collect();
    let torn = |at: usize| at.is_multiple_of(2) && written(at - 1);
    picked.into_iter().map(|at| if torn(at) { tear(at - 1) } else { kill(at) }).collect()
}
