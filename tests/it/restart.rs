//! Kills the real daemon at every effect and looks whether the next ordinary start finishes.
//!
//! A [`Scenario`] is two states of a repository, its sides, and what may be done by hand. It goes
//! from one side to the other and back: the daemon starts under a supervisor, finds the push, and
//! dies at effect k (see `bed/effects.rs`). It is started again without one, and once it says that
//! all is well the cluster is compared with Git: every declared object is there with its values and
//! the uid it had, nothing is left of what was removed, nothing of others was touched, and the run
//! that was cut short is closed as interrupted.
//!
//! `GITOPSD_TEST_CUTS=all` cuts at every effect, a number at so many of each side; without it a
//! few are cut, spread over requests, flushes and renames. `scenarios.rs` has the scenarios,
//! `faults.rs` full, broken and read-only disks, `damage.rs` files that are not what we wrote.

mod damage;
mod faults;
mod scenarios;

use crate::bed::{Repo, effects};
use crate::world::{PATIENCE, World, mk_config_map, mk_namespace};
use effects::{Effects, Fate};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Cuts of side 0 and of side 1 in an ordinary run of the tests: with 13 scenarios that is 39, some
/// two seconds each.
const SAMPLE: [usize; 2] = [1, 2];

/// What Git declares, and what the cluster must hold on account of it.
#[derive(Clone, Debug, Default)]
struct Side {
    files: BTreeMap<String, String>,
    /// `Kind/name` of objects in the scenario's namespace, and the values that [`values`] picks.
    objects: BTreeMap<String, Value>,
}

/// A small piece of history, forwards and backwards.
struct Scenario {
    name: &'static str,
    /// Side 0 or 1, in the world given, in the given round: rounds may differ in names.
    side: fn(&World, usize, usize) -> Side,
    /// Objects that a round may delete and create again.
    recreates: &'static [&'static str],
    /// Kinds that are compared beside ConfigMaps, Secrets and Deployments.
    kinds: &'static str,
    /// What somebody does to the cluster before the daemon starts.
    before: fn(&World),
    /// What somebody asks of the daemon once it has settled at a side; it may die of it, and
    /// everything here can be asked twice.
    act: fn(&World, usize),
}

impl Scenario {
    fn new(name: &'static str, side: fn(&World, usize, usize) -> Side) -> Scenario {
        let (before, act) = (|_: &World| {}, |_: &World, _| {});
        Scenario { name, side, recreates: &[], kinds: "", before, act }
    }
}

/// An object as it is compared.
type Seen = BTreeMap<String, (String, Value)>;

/// A scenario on the control plane.
struct Bench {
    scenario: Scenario,
    world: World,
    repo: Repo,
    front: Child,
    round: usize,
    side: Side,
    /// Where it is, for whoever reads a failure.
    place: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It dies with us in any case; so it does not outlive the scenario.
        let _ = self.front.kill();
        let _ = self.front.wait();
        if std::thread::panicking() {
            tell(&format!("{} FAILED {}", self.scenario.name, self.place));
        }
    }
}

impl Bench {
    /// Side 0, applied; the daemon is not running.
    fn new(scenario: Scenario) -> Bench {
        let world = World::new();
        let kubeconfig = world.cluster().dir().join("users").join(&world.user);
        let (kubeconfig, front) = effects::front(&kubeconfig, &world.path(""));
        world.drop_in(&format!("kubeconfig: {}\n", kubeconfig.display()));
        world.cluster().apply(&mk_namespace(&world.namespace));
        world.cluster().apply(&mk_config_map(&world.namespace, "stranger", "not yours"));
        let extra = Repo::create(&world.git, "apps/extra");
        extra.write("extra.yaml", &mk_config_map(&world.namespace, "extra", "1"));
        extra.commit("extra");
        extra.push("main");
        let repo = world.flux_config();
        std::fs::write(world.path("fault"), "").expect("ours to write");
        let (side, place) = (Side::default(), "at the start".to_owned());
        let mut bench = Bench { scenario, world, repo, front, round: 0, side, place };
        bench.push(0);
        bench.world.start();
        bench.settled(0);
        bench.world.kill();
        bench
    }

    /// Commits a side and pushes it.
    fn push(&mut self, number: usize) {
        let side = (self.scenario.side)(&self.world, number, self.round);
        for path in self.side.files.keys().filter(|path| !side.files.contains_key(*path)) {
            self.repo.remove(path);
        }
        for (path, text) in &side.files {
            self.repo.write(path, text);
        }
        self.repo.commit(&format!("round {} side {number}", self.round));
        self.repo.push("main");
        self.side = side;
    }

    /// Whether the daemon says that the head is applied and all is well.
    fn is_settled(&self) -> bool {
        let status = self.world.status();
        let head = self.repo.head();
        let at_head = |item: &Value| {
            let revision = item["revision"].as_str().unwrap_or_default();
            let other = item["source"].as_str().is_some_and(|s| s != "flux-system/flux-system");
            let other = other || item["name"] == "extra" || item["suspended"] != Value::Null;
            item["running"] == false && (other || revision.ends_with(&head))
        };
        let items = status.pointer("/summary/items").and_then(Value::as_array);
        status["ready"] == true && items.is_some_and(|items| items.iter().all(at_head))
    }

    /// Waits until the daemon and the cluster are where a side wants them, by hand too.
    fn settled(&self, number: usize) {
        self.world.eventually("the head is applied", |_| self.is_settled());
        (self.scenario.act)(&self.world, number);
        let wanted = self.wanted();
        let values = |seen: Seen| -> BTreeMap<String, Value> {
            seen.into_iter().map(|(name, (_, value))| (name, value)).collect()
        };
        let began = Instant::now();
        while values(self.seen()) != wanted || !self.is_settled() {
            let waited = began.elapsed();
            assert!(
                waited < PATIENCE,
                "{}: after {waited:?} the cluster is not as Git says\n{:#?}\n{:#?}\n{}\n{:#}",
                self.place,
                self.seen(),
                wanted,
                self.world.log(),
                self.world.status()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wanted(&self) -> BTreeMap<String, Value> {
        let mut wanted = self.side.objects.clone();
        wanted.insert("ConfigMap/stranger".to_owned(), json!({"key": "not yours"}));
        wanted
    }

    /// Everything in the namespace that somebody declared.
    fn seen(&self) -> Seen {
        let kinds = format!("configmap,secret,deployment{}", self.scenario.kinds);
        let namespace = self.world.namespace.as_str();
        let arguments = ["get", &kinds, "--namespace", namespace, "-o", "json"];
        let output = self.world.cluster().kubectl(&arguments);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let seen = items.iter().filter_map(|object| {
            let name = object["metadata"]["name"].as_str()?;
            let uid = object["metadata"]["uid"].as_str()?.to_owned();
            let id = format!("{}/{name}", object["kind"].as_str()?);
            (name != "kube-root-ca.crt").then(|| (id, (uid, values(object))))
        });
        seen.collect()
    }

    /// Runs that the record has open, read from a copy of it: the daemon has it locked otherwise.
    fn open_runs(&self) -> BTreeSet<String> {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for name in ["history.db", "history.db-wal"] {
            let _ = std::fs::copy(self.world.path("state").join(name), copy.path().join(name));
        }
        let Ok(db) = rusqlite::Connection::open(copy.path().join("history.db")) else {
            return BTreeSet::new();
        };
        let Ok(mut open) = db.prepare("SELECT id FROM run WHERE verdict IS NULL") else {
            return BTreeSet::new();
        };
        let ids = open.query_map([], |row| row.get::<_, i64>(0)).expect("a table of runs");
        ids.flatten().map(|id| id.to_string()).collect()
    }

    /// One way of the history, ended by a fate. The daemon is gone afterwards; its exit code is
    /// told when it went by itself.
    fn go(&mut self, number: usize, fate: Fate) -> (Effects, Option<i32>) {
        self.round += 1;
        self.push(number);
        (self.scenario.before)(&self.world);
        let (state, log) = (self.world.path("state"), self.world.path("effects"));
        let fault = self.world.path("fault");
        self.world.start_under(effects::supervise(&state, &log, fate, &fault));
        let (began, mut acted) = (Instant::now(), false);
        let code = loop {
            if let Some(code) = self.world.ended() {
                break Some(code);
            }
            if self.is_settled() {
                if acted {
                    break None;
                }
                (self.scenario.act)(&self.world, number);
                acted = true;
            }
            assert!(began.elapsed() < PATIENCE, "{}\n{}", self.place, self.world.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.world.stop();
        (effects::read(&log), code)
    }

    /// The next ordinary start finishes the work, and nothing was lost meanwhile.
    fn recovers(&mut self, number: usize, before: &Seen) {
        let open = self.open_runs();
        self.world.start();
        self.settled(number);
        let after = self.seen();
        for (id, (uid, _)) in &after {
            let same = before.get(id).is_none_or(|(old, _)| old == uid);
            let may_change = self.scenario.recreates.contains(&id.as_str());
            assert!(same || may_change, "{}: {id} was deleted and made again", self.place);
        }
        let runs = self.world.json(&["history", "--number", "1000"]);
        let of = |verdict: &str| -> BTreeSet<String> {
            let runs = runs.as_array().expect("a list").iter();
            let runs = runs.filter(|run| run["verdict"] == verdict);
            runs.map(|run| run["run"].as_str().expect("a text").to_owned()).collect()
        };
        assert_eq!(of("running"), BTreeSet::new(), "{}", self.place);
        let closed = of("interrupted");
        assert!(open.is_subset(&closed), "{}: {open:?} {closed:?}", self.place);
        self.world.kill();
    }

    /// Learns how many effects each way has, then cuts at some or all of them, to and fro.
    fn cut(&mut self) {
        let learnt = [1, 0].map(|number| {
            self.place = format!("counting side {number}");
            let before = self.seen();
            let (learnt, _) = self.go(number, Fate::Count);
            self.recovers(number, &before);
            (number, learnt.all.len(), chosen(&learnt.all, SAMPLE[number]))
        });
        let rounds = learnt.iter().map(|(_, _, cuts)| cuts.len()).max().unwrap_or(0);
        let (mut survived, mut beyond) = (0, 0);
        for round in 0..rounds {
            for (number, all, cuts) in &learnt {
                let Some(fate) = cuts.get(round).copied() else {
                    self.away(*number);
                    continue;
                };
                self.place = format!("side {number}, {fate:?} of {all}");
                let before = self.seen();
                let (effects, code) = self.go(*number, fate);
                self.place = format!("{}: {:?}", self.place, effects.all.last());
                assert!(effects.cut || code.is_none(), "{}: {code:?}", self.place);
                self.recovers(*number, &before);
                *(if effects.cut { &mut survived } else { &mut beyond }) += 1;
            }
            if round % 20 == 19 {
                tell(&format!("{}: {} of {rounds}", self.scenario.name, round + 1));
            }
        }
        static TOTAL: AtomicUsize = AtomicUsize::new(0);
        let total = TOTAL.fetch_add(survived, Ordering::Relaxed) + survived;
        let [(_, there, _), (_, back, _)] = &learnt;
        tell(&format!(
            "{}: N = {there} there, {back} back; {survived} cuts survived, {beyond} not reached; \
             {total} cuts so far",
            self.scenario.name
        ));
    }

    /// Goes to a side in peace.
    fn away(&mut self, number: usize) {
        self.place = format!("to side {number} in peace");
        self.round += 1;
        self.push(number);
        (self.scenario.before)(&self.world);
        self.world.start();
        self.settled(number);
        self.world.kill();
    }
}

/// The values of an object that its declaration sets.
fn values(object: &Value) -> Value {
    match object["kind"].as_str() {
        Some("ConfigMap" | "Secret") => object["data"].clone(),
        Some("Deployment") => object["spec"]["template"]["spec"]["containers"][0]["image"].clone(),
        _ => object["spec"].clone(),
    }
}

/// Where to cut: every write is torn one time in five, the one before a flush one time in two.
fn chosen(all: &[String], few: usize) -> Vec<Fate> {
    let written = |at: usize| {
        at > 0 && all[at - 1].split_once(' ').is_some_and(|(w, _)| w.ends_with("write"))
    };
    let sample = match std::env::var("GITOPSD_TEST_CUTS").as_deref() {
        Ok("all") => {
            let torn = |at: usize| at.is_multiple_of(5) && written(at);
            let fate = |at| if torn(at) { Fate::Tear(at) } else { Fate::Kill(at) };
            return (1..=all.len()).map(fate).collect();
        }
        Ok(number) => number.parse().expect("GITOPSD_TEST_CUTS is a number or `all`"),
        Err(_) => few,
    };
    let matter: Vec<usize> =
        (1..=all.len()).filter(|number| effects::matters(&all[number - 1])).collect();
    let picked: BTreeSet<usize> =
        (0..sample).map(|n| matter[(2 * n + 1) * matter.len() / (2 * sample)]).collect();
    let torn = |at: usize| at.is_multiple_of(2) && written(at - 1);
    let fate = |at| if torn(at) { Fate::Tear(at - 1) } else { Fate::Kill(at) };
    picked.into_iter().map(fate).collect()
}

/// Tells the operator of the tests; print macros would be swallowed when a test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "restart: {line}");
}
