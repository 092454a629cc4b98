//! The comparison itself: does it tell what a broken product would leave?
//!
//! A real daemon is cut where that product would fail, its loss is made by hand, and an ordinary
//! start follows. What the functions of `compare.rs` then say is compared as a whole.

use super::{Bench, Scenario, Side, kill};
use crate::world::{World, mk_config_map};
use std::collections::BTreeSet;

fn four(world: &World, side: usize, _: usize) -> Side {
    let maps = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
    Side::default().app(world, "app", "", &maps[..4 - side])
}

impl Bench {
    fn starts_and_says_that_all_is_well(&mut self) {
        self.world.start();
        self.world.eventually("the head is applied", |_| self.is_settled());
    }

    fn by_hand(&self, sql: &str) -> usize {
        let db = rusqlite::Connection::open(self.world.path("state/history.db"));
        let changed = db.and_then(|db| db.execute(sql, []));
        changed.expect("nobody else has it")
    }

    fn kubectl(&self, arguments: &[&str]) {
        let namespace = ["--namespace", self.world.namespace.as_str()];
        self.world.cluster().kubectl_ok(&[&namespace, arguments].concat());
    }
}

#[test]
fn an_object_that_is_forgotten_before_it_is_deleted_is_told() {
    let mut bench = Bench::new(Scenario::new("forgotten", four));
    let (effects, _) = bench.go(1, &kill("DELETE */configmaps/d*"));
    assert!(effects.cut, "{effects:?}");
    let open = bench.open_runs();
    assert_eq!(open.len(), 1, "the run that deletes is written down: {effects:?}");
    let row = format!("DELETE FROM inventory WHERE id LIKE '{}_d_%'", bench.world.namespace);
    assert_eq!(bench.by_hand(&row), 1);
    bench.starts_and_says_that_all_is_well();
    assert_eq!(bench.difference(), ["ConfigMap/d is left"]);
    assert_eq!(bench.left_open(&open), [""; 0]);
}

#[test]
fn everything_else_that_a_cut_may_cost_is_told() {
    let mut bench = Bench::new(Scenario::new("told", four));
    let (before, none) = (bench.seen(), [""; 0]);
    bench.kubectl(&["delete", "configmap", "a"]);
    let stranger = mk_config_map(&bench.world.namespace, "stranger", "ours now");
    bench.world.cluster().apply(&stranger);
    let told = |key: &str| format!("{{\"key\":{key:?}}}");
    let missing = format!("ConfigMap/a {} is missing", told("1"));
    let other = format!("ConfigMap/stranger is {}, not {}", told("ours now"), told("not yours"));
    assert_eq!(bench.difference(), [missing, other.clone()]);
    bench.starts_and_says_that_all_is_well();
    bench.world.eventually("a is there again", |world| world.get("configmap", "a").is_some());
    assert_eq!(bench.difference(), [other]);
    assert_eq!(bench.made_again(&before), ["ConfigMap/a was deleted and made again"]);
    assert_eq!(bench.left_open(&BTreeSet::new()), none);
    let closed = BTreeSet::from(["1".to_owned()]);
    assert_eq!(bench.left_open(&closed), ["run 1 is not interrupted"]);
    bench.world.kill();
    assert_eq!(bench.by_hand("UPDATE run SET verdict = NULL WHERE id = 1"), 1);
    assert_eq!(bench.open_runs(), closed, "read from the files that a cut leaves");
}

#[test]
fn a_cut_of_what_is_not_done_is_no_cut() {
    let mut bench = Bench::new(Scenario::new("nothing", four));
    assert_eq!(bench.survives(1, &kill("DELETE */configmaps/nothing*")), Err(0));
}
