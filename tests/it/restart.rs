//! Kills the real daemon at every effect and looks whether the next ordinary start finishes.
//!
//! A [`Scenario`] is two states of a repository, its sides, and what may be done by hand. It goes
//! from one side to the other and back: the daemon starts under a supervisor, finds the push, and
//! dies at effect k (see `bed/effects.rs`), be that a write to a file or to the database, a request
//! to the API server, or a push of its own. It is started again without one, and once it says that
//! all is well the cluster is compared with Git: every declared object is there with its values and
//! the uid it had, nothing is left of what was removed, nothing of others was touched, and the run
//! that was cut short is closed as interrupted.
//!
//! Each scenario names the effects that it is about; they are cut in every run of the tests, and a
//! name that no effect has fails. `GITOPSD_TEST_CUTS=all` cuts at every effect too, a number at so
//! many of each way (`cuts.rs`). `scenarios.rs` has the scenarios, `compare.rs` what is looked at
//! after a cut, `checks.rs` shows that it sees what a broken product leaves, `faults.rs` has full,
//! broken and read-only disks, `damage.rs` files that are not what we wrote.

mod checks;
mod compare;
mod cuts;
mod damage;
mod faults;
mod scenarios;

use crate::bed::{Repo, effects};
use crate::world::{PATIENCE, World, mk_config_map, mk_namespace};
use effects::{Effects, Fate, Front, Point};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(50);

/// How long the record of a run may take once nothing is left to do.
const CLOSED: Duration = Duration::from_secs(10);

/// What Git declares, and what the cluster must hold on account of it.
#[derive(Clone, Debug, Default)]
struct Side {
    files: BTreeMap<String, String>,
    /// `Kind/name` of objects in the scenario's namespace, and the values that [`values`] picks.
    objects: BTreeMap<String, Value>,
    /// Kind and list of what is compared beside ConfigMaps, Secrets and Deployments.
    beside: Option<(&'static str, String)>,
}

/// Declares a side, in the world given, in the given round: rounds may differ in names and values.
type Declare = dyn Fn(&World, usize, usize) -> Side;

/// What happens outside the daemon before a round.
type Elsewhere = dyn Fn(&World, usize);

/// What must hold after a round: the reasons why it does not.
type Judge = dyn Fn(&World, usize) -> Vec<String>;

/// A small piece of history, forwards and backwards.
struct Scenario {
    name: &'static str,
    /// Side 0 or 1.
    side: Box<Declare>,
    /// Nobody commits anything: what is to be noticed comes from elsewhere.
    quiet: bool,
    /// Objects that a round may delete and create again.
    recreates: &'static [&'static str],
    /// The effects that are cut in every run of the tests, each on the way to a side. What no way
    /// leads back from has side 1 only.
    cuts: Vec<(usize, Fate)>,
    /// What somebody does elsewhere before the daemon starts, in the given round.
    before: Box<Elsewhere>,
    /// What somebody asks of the daemon once it has settled at a side; it may die of it, and
    /// everything here can be asked twice.
    act: fn(&World, usize),
    /// What must hold as soon as the daemon is dead, and why it does not.
    kept: fn(&World) -> Vec<String>,
    /// What must hold once the next start has finished the work of a round, and why it does not.
    finished: Box<Judge>,
}

impl Scenario {
    fn new(name: &'static str, side: impl Fn(&World, usize, usize) -> Side + 'static) -> Scenario {
        Scenario {
            name,
            side: Box::new(side),
            quiet: false,
            recreates: &[],
            cuts: Vec::new(),
            before: Box::new(|_: &World, _: usize| {}),
            act: |_, _| {},
            kept: |_| Vec::new(),
            finished: Box::new(|_: &World, _: usize| Vec::new()),
        }
    }

    /// Names what is cut on the way to side 1 and back.
    fn cut_at(mut self, there: Fate, back: Fate) -> Scenario {
        self.cuts = vec![(1, there), (0, back)];
        self
    }

    /// Names what is cut where there is no way back: each round goes on from the one before.
    fn cut_onward<const N: usize>(mut self, there: [Fate; N]) -> Scenario {
        self.cuts = there.into_iter().map(|fate| (1, fate)).collect();
        self
    }
}

/// An object as it is compared.
type Seen = BTreeMap<String, (String, Value)>;

/// A scenario on the control plane.
struct Bench {
    scenario: Scenario,
    world: World,
    repo: Repo,
    front: Front,
    round: usize,
    side: Side,
    /// The number of that side.
    at: usize,
    /// The commit of that side.
    head: String,
    /// Where it is, for whoever reads a failure.
    place: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&format!("{} FAILED {}", self.scenario.name, self.place));
        }
    }
}

impl Bench {
    /// Side 0, applied; the daemon is not running.
    ///
    /// On the control plane that is shared nobody looks for what is in no inventory, so an object
    /// that the record has lost stays lost.
    fn new(scenario: Scenario) -> Bench {
        Bench::on(World::new(), scenario)
    }

    fn on(world: World, scenario: Scenario) -> Bench {
        let front = Front::start(&world.path("kubeconfig"), &world.path(""));
        world.drop_in(&format!("kubeconfig: {}\n", front.kubeconfig.display()));
        world.cluster().apply(&mk_namespace(&world.namespace));
        world.cluster().apply(&mk_config_map(&world.namespace, "stranger", "not yours"));
        let extra = Repo::create(&world.git, "apps/extra");
        extra.write("extra.yaml", &mk_config_map(&world.namespace, "extra", "1"));
        extra.commit("extra");
        extra.push("main");
        let repo = world.flux_config();
        std::fs::write(world.path("fault"), "").expect("ours to write");
        let (side, head, place) = (Side::default(), String::new(), "at the start".to_owned());
        let mut bench = Bench { scenario, world, repo, front, round: 0, side, at: 0, head, place };
        bench.push(0);
        bench.world.start();
        bench.settled(0);
        bench.world.kill();
        bench
    }

    /// Commits a side and pushes it, unless nobody does.
    fn push(&mut self, number: usize) {
        let side = (self.scenario.side)(&self.world, number, self.round);
        for path in self.side.files.keys().filter(|path| !side.files.contains_key(*path)) {
            self.repo.remove(path);
        }
        for (path, text) in &side.files {
            self.repo.write(path, text);
        }
        if !self.scenario.quiet || self.head.is_empty() {
            self.head = self.repo.commit(&format!("round {} side {number}", self.round));
            self.repo.push("main");
        }
        (self.side, self.at) = (side, number);
    }

    /// Whether the daemon says that the head is applied and all is well.
    fn is_settled(&self) -> bool {
        let status = self.world.status();
        let head = self.head.as_str();
        let at_head = |item: &Value| {
            let revision = item["revision"].as_str().unwrap_or_default();
            // Other sources, and what hangs from them, have heads of their own or none.
            let other =
                item["source"] != "flux-system/flux-system" && item["name"] != "flux-system";
            let other = other || item["suspended"] != Value::Null;
            item["running"] == false && (other || revision.ends_with(head))
        };
        let items = status.pointer("/summary/items").and_then(Value::as_array);
        status["ready"] == true && items.is_some_and(|items| items.iter().all(at_head))
    }

    /// Waits until the daemon and the cluster are where a side wants them, by hand too.
    fn settled(&self, number: usize) {
        self.world.eventually("the head is applied", |_| self.is_settled());
        (self.scenario.act)(&self.world, number);
        let began = Instant::now();
        loop {
            let wrong = self.difference();
            if wrong.is_empty() && self.is_settled() {
                return;
            }
            let waited = began.elapsed();
            assert!(
                waited < PATIENCE,
                "{}: after {waited:?} the cluster is not as Git says: {wrong:#?}\n{}\n{:#}",
                self.place,
                self.world.log(),
                self.world.status()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// One way of the history, ended by a fate. The daemon is gone afterwards; its exit code is
    /// told when it went by itself.
    fn go(&mut self, number: usize, fate: &Fate) -> (Effects, Option<i32>) {
        self.round += 1;
        self.push(number);
        (self.scenario.before)(&self.world, self.round);
        let (state, log) = (self.world.path("state"), self.world.path("effects"));
        let fault = self.world.path("fault");
        self.world.start_under(effects::supervise(&state, &log, fate, &fault));
        let (began, mut acted) = (Instant::now(), false);
        let code = loop {
            if let Some(code) = self.world.ended() {
                break Some(code);
            }
            if !acted && self.is_settled() {
                (self.scenario.act)(&self.world, number);
                acted = true;
            }
            // What a Kustomization leaves behind is deleted after all is well.
            if acted && self.is_settled() && self.difference().is_empty() {
                break None;
            }
            assert!(began.elapsed() < PATIENCE, "{}\n{}", self.place, self.world.log());
            std::thread::sleep(LOOK);
        };
        self.world.stop();
        (effects::read(&log), code)
    }

    /// The next ordinary start finishes the work, and nothing was lost meanwhile.
    fn recovers(&mut self, number: usize, before: &Seen) {
        let kept = (self.scenario.kept)(&self.world);
        assert!(kept.is_empty(), "{}: {kept:#?}", self.place);
        let open = self.open_runs();
        self.world.start();
        self.settled(number);
        let began = Instant::now();
        let left = loop {
            let left = self.left_open(&open);
            // Objects of an end are gone a moment before its run is closed.
            if left.is_empty() || began.elapsed() > CLOSED {
                break left;
            }
            std::thread::sleep(LOOK);
        };
        let finished = (self.scenario.finished)(&self.world, self.round);
        let wrong = [self.made_again(before), left, finished].concat();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.place);
        self.world.kill();
    }

    /// Goes to a side in peace.
    fn away(&mut self, number: usize) {
        self.place = format!("to side {number} in peace");
        self.round += 1;
        self.push(number);
        (self.scenario.before)(&self.world, self.round);
        self.world.start();
        self.settled(number);
        self.world.kill();
    }
}

/// Killed before the first effect that a pattern fits.
fn kill(effect: &str) -> Fate {
    Fate::Kill(Point::first(effect))
}

/// Killed in the middle of it.
fn tear(effect: &str) -> Fate {
    Fate::Tear(Point::first(effect))
}

/// Tells the operator of the tests; print macros would be swallowed when a test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "restart: {line}");
}
