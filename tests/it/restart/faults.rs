//! Full, broken and read-only disks under a running daemon.
//!
//! The disk of the state directory fails from effect k on. The daemon lives on with it or ends with
//! a sentence that names the cause; nothing in the cluster is lost on account of it. Once the disk
//! is well again the living daemon finishes by itself, and one that ended does with its next start.
//!
//! Each scenario names the effect from which its disk fails in every run of the tests: a fetch, the
//! record of a run, of a deletion that the API server has just taken, or of a word of somebody.
//! `GITOPSD_TEST_CUTS` asks for others as well, as it does for cuts.

use super::cuts::{Way, numbers, sample};
use super::scenarios::confirmed;
use super::{Bench, Scenario, Seen, Side, tell};
use crate::bed::effects::{self, Fate, Point};
use crate::world::{PATIENCE, World};
use std::fs;
use std::time::{Duration, Instant};

/// How long a daemon lives with a fault before the disk is well again: three retries.
pub(super) const LONG: Duration = Duration::from_secs(3);

/// Longest wait for the first refused call after an effect that need not be reached; a daemon that
/// makes none has nothing to do any more.
const TOUCHED: Duration = Duration::from_secs(6);

/// What a sentence about each fault names, cause or remedy.
const WORDS: [(&str, &str); 3] = [
    ("ENOSPC", "the disk of the state directory is full"),
    ("EIO", "journalctl -k -p warning"),
    ("EROFS", "journalctl -k -p warning"),
];

fn changing(world: &World, side: usize, round: usize) -> Side {
    let value = format!("{side} {round}");
    let maps = [("a", value.as_str()), ("b", "1"), ("c", "1"), ("d", "1")];
    Side::default().app(world, "app", "", &maps[..4 - side])
}

/// An object leaves a Kustomization and, if that is asked for, another Kustomization ends.
fn leaving(ends: bool) -> impl Fn(&World, usize, usize) -> Side {
    move |world: &World, side: usize, _: usize| {
        let maps = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        let declared = Side::default().app(world, "app", "", &maps[..4 - side]);
        let declared = declared.app(world, "base", "", &[("base", "1")]);
        match (ends, side) {
            (true, 0) => declared.app(world, "end", "", &[("e", "1"), ("f", "1")]),
            _ => declared,
        }
    }
}

impl Bench {
    /// One way with a fault; afterwards it is repaired, alive or by another start. Answers how many
    /// calls were refused, the first of them within so long.
    fn suffers(&mut self, number: usize, fate: &Fate, within: Duration) -> usize {
        let before = self.seen();
        self.round += 1;
        self.push(number);
        let (state, log) = (self.world.path("state"), self.world.path("effects"));
        let (fault, said) = (self.world.path("fault"), self.world.log().len());
        fs::write(&fault, "").expect("ours to write");
        self.world.start_under(effects::supervise(&state, &log, fate, &fault));
        let began = Instant::now();
        let (mut code, mut acted) = (None, false);
        while code.is_none() && began.elapsed() < within && effects::read(&log).failed == 0 {
            std::thread::sleep(Duration::from_millis(20));
            if !acted && self.is_settled() {
                (self.scenario.act)(&self.world, number);
                acted = true;
            }
            code = self.world.ended();
        }
        let began = Instant::now();
        while code.is_none() && began.elapsed() < LONG / 2 {
            std::thread::sleep(Duration::from_millis(50));
            code = self.world.ended();
        }
        self.place = format!("{}: {:?}", self.place, effects::read(&log).all.last());
        let failed = effects::read(&log).failed;
        let told = self.world.log()[said..].to_owned() + &self.world.status()["line"].to_string();
        self.unharmed(&before);
        fs::remove_file(&fault).expect("ours to remove");
        match code {
            None => {
                self.settled(number);
                self.unharmed(&before);
                assert_eq!(self.world.stop(), Some(0), "{}\n{}", self.place, self.world.log());
            }
            Some(code) => assert_eq!(code, 1, "{}\n{told}", self.place),
        }
        if let Fate::Fault(_, error) | Fate::Always(error) = fate
            && failed > 0
        {
            let word = WORDS.iter().find(|(name, _)| name == error).expect("a known error").1;
            let known = told.contains(word) || told.contains("no space left");
            assert!(known, "{}: {word} is not told:\n{told}", self.place);
        }
        self.recovers(number, &before);
        failed
    }

    /// Whatever was there and is still wanted is there, the very same, and what the scenario says
    /// of a dead daemon holds of one that lives, too.
    fn unharmed(&self, before: &Seen) {
        let kept = (self.scenario.kept)(&self.world);
        assert!(kept.is_empty(), "{}: {kept:#?}\n{}", self.place, self.world.log());
        let now = self.seen();
        for (id, (uid, _)) in before.iter().filter(|(id, _)| self.wanted().contains_key(*id)) {
            let same = now.get(id).is_some_and(|(found, _)| found == uid);
            assert!(same, "{}: {id} was lost\n{}", self.place, self.world.log());
        }
    }

    /// A fault from the named effect on, then from as many others as are asked for.
    fn all_faults(&mut self, named: &'static str, error: &'static str) {
        self.place = format!("{error} from {named}");
        let failed = self.suffers(1, &Fate::Fault(Point::first(named), error), PATIENCE);
        assert!(failed > 0, "{}: nothing was refused", self.place);
        let Some(sample) = sample() else { return };
        self.away(0);
        let mut ways = self.learn(&[1, 0], sample);
        for way in &mut ways {
            // A page of the log more or less makes no difference to what fails after it.
            way.cuts.retain(|fate| match fate {
                Fate::Kill(at) => effects::matters(&at.effect),
                _ => true,
            });
        }
        let rounds = ways.iter().map(|way| way.cuts.len()).max().unwrap_or(0);
        let mut survived = 1;
        for round in 0..rounds {
            for Way { number, cuts, .. } in &ways {
                let at = cuts[round % cuts.len()].point().expect("cuts are kills and tears");
                self.place = format!("side {number}, {error} from {at:?}");
                self.suffers(*number, &Fate::Fault(at.clone(), error), TOUCHED);
                survived += 1;
            }
        }
        let (name, ways) = (self.scenario.name, numbers(&ways));
        tell(&format!("{name}: N = {ways}; {survived} faults survived"));
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_time_only() {
    Bench::new(Scenario::new("ENOSPC", changing)).all_faults("create mirrors/*", "ENOSPC");
}

#[test]
fn a_disk_that_is_broken_for_a_while_costs_time_only() {
    Bench::new(Scenario::new("EIO", changing)).all_faults("sync history.db-wal", "EIO");
}

/// The deletions are made, and what the reserve has room for is their record.
#[test]
fn a_disk_that_fills_up_behind_a_deletion_costs_neither_it_nor_the_next() {
    let mut bench = Bench::new(Scenario::new("ENOSPC, ends", leaving(true)));
    bench.all_faults("DELETE */configmaps/e*", "ENOSPC");
}

/// What is gone is in the record still, and leaves it once that can be written.
#[test]
fn a_disk_that_breaks_behind_a_deletion_costs_time_only() {
    let mut bench = Bench::new(Scenario::new("EIO, leaves", leaving(false)));
    bench.all_faults("DELETE */configmaps/d*", "EIO");
}

#[test]
fn a_word_on_a_full_disk_is_stored_and_used_up_in_the_room_of_the_reserve() {
    Bench::new(confirmed("ENOSPC, confirmed")).all_faults("create .state.json*", "ENOSPC");
}

#[test]
fn nothing_is_deleted_by_a_word_that_a_broken_disk_cannot_use_up() {
    Bench::new(confirmed("EIO, confirmed")).all_faults("rename .state.json*", "EIO");
}

#[test]
fn a_disk_that_turns_read_only_is_named_and_costs_time_only() {
    Bench::new(Scenario::new("EROFS", changing)).all_faults("rename mirrors/*", "EROFS");
}

#[test]
fn a_read_only_state_directory_is_told_at_the_start_with_what_to_do() {
    let mut bench = Bench::new(Scenario::new("read-only", changing));
    bench.suffers(1, &Fate::Always("EROFS"), TOUCHED);
}

#[test]
fn the_reserve_lets_a_run_on_a_full_disk_be_recorded_and_is_made_again() {
    let mut bench = Bench::new(Scenario::new("reserve", changing));
    let reserve = bench.world.path("state/reserve");
    assert_eq!(fs::metadata(&reserve).expect("made at the first start").len(), 4 << 20);
    // Fetched still, but no room for the record of what it brings.
    bench.round += 1;
    bench.push(1);
    let (state, log) = (bench.world.path("state"), bench.world.path("effects"));
    let fault = bench.world.path("fault");
    let at = Point::first("sync mirrors/flux-system_flux-system");
    let fate = &Fate::Fault(at, "ENOSPC");
    bench.world.start_under(effects::supervise(&state, &log, fate, &fault));
    bench.settled(1);
    assert!(!reserve.exists(), "given up");
    let line = bench.world.status()["line"].to_string();
    assert!(line.contains("there is no reserve left"), "{line}");
    let told = "bf87340ed3aa82e0bd2573e87809809c";
    assert!(bench.world.log().contains("reserve of 4 MiB"), "{told}: {}", bench.world.log());
    fs::remove_file(&fault).expect("ours to remove");
    let head = bench.repo.head();
    let runs = bench.world.json(&["history"]);
    let recorded = runs.as_array().expect("a list").iter().any(|run| {
        run["verdict"] == "succeeded"
            && run["revision"].as_str().is_some_and(|r| r.ends_with(&head))
    });
    assert!(recorded, "{runs:#}");
    bench.world.reconcile();
    bench.world.eventually("the reserve is there again", |_| reserve.exists());
    bench.world.eventually("and nothing is told of it", |world| {
        !world.status()["line"].to_string().contains("reserve")
    });
}
