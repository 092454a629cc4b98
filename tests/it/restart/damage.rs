//! Files of the state directory that are not what we wrote.
//!
//! The database is replaced by garbage, cut in the middle, damaged in a page or gone: it is put aside
//! and told, and what Git declares is adopted again. What people decided, in `state.json`, is never guessed: a
//! file that cannot be read stops the daemon with its name and what to do.

use super::{Bench, Scenario, Seen, Side};
use crate::world::World;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn four(world: &World, side: usize, _: usize) -> Side {
    let maps = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
    Side::default().app(world, "app", "", &maps[..4 - side])
}

/// A bench whose database went through `damage` while the daemon was away; afterwards everything
/// is as before, uids included, and an object that leaves Git is pruned.
fn rebuilt(name: &'static str, damage: fn(&Path)) -> Bench {
    let mut bench = Bench::new(Scenario::new(name, four));
    let before: Seen = bench.seen();
    damage(&bench.world.path("state"));
    bench.world.start();
    bench.settled(0);
    assert_eq!(bench.seen(), before);
    bench.push(1);
    bench.world.reconcile();
    bench.settled(1);
    let kept: Seen =
        before.into_iter().filter(|(id, _)| id != "ConfigMap/d").collect::<BTreeMap<_, _>>();
    assert_eq!(bench.seen(), kept, "what was adopted is pruned, and nothing else");
    bench
}

#[test]
fn a_database_of_garbage_is_put_aside_told_and_rebuilt_by_adoption() {
    let bench = rebuilt("garbage", |state| {
        let _ = fs::remove_file(state.join("history.db-wal"));
        fs::write(state.join("history.db"), vec![0x5a; 40_960]).expect("ours to write");
    });
    let aside = bench.world.path("state/history.db.corrupt-1");
    assert_eq!(fs::read(aside).expect("kept for a look"), vec![0x5a; 40_960]);
    assert!(bench.world.log().contains("the database was damaged"), "{}", bench.world.log());
}

#[test]
fn a_database_that_was_cut_in_the_middle_is_put_aside_and_rebuilt() {
    let bench = rebuilt("half", |state| {
        // All of it lies in the database once somebody has closed it.
        let damaged = state.join("history.db");
        rusqlite::Connection::open(&damaged)
            .and_then(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .expect("nobody else has it");
        let bytes = fs::read(&damaged).expect("there");
        fs::write(&damaged, &bytes[..bytes.len() / 2]).expect("ours to write");
        // As after a power cut, or nobody would look at every page.
        fs::write(state.join("history.db.suspect"), "").expect("ours to write");
    });
    assert!(bench.world.log().contains("the database was damaged"), "{}", bench.world.log());
}

/// Overwrites the pages that these tables and indexes begin on; everything else is as an orderly
/// stop leaves it, and nothing says that anybody should look.
fn spoil(state: &Path, names: &[&str]) {
    let file = state.join("history.db");
    let database = rusqlite::Connection::open(&file).expect("nobody else has it");
    database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("nobody else has it");
    let mut bytes = fs::read(&file).expect("there");
    for name in names {
        let root = "SELECT rootpage FROM sqlite_master WHERE name = ?1";
        let root: i64 = database.query_row(root, [name], |row| row.get(0)).expect("it is there");
        let at = usize::try_from(root - 1).expect("pages count from 1") * 4096;
        bytes[at..at + 4096].fill(0xff);
    }
    drop(database);
    fs::write(&file, bytes).expect("ours to write");
    assert!(!state.join("history.db-wal").exists() && !state.join("history.db.suspect").exists());
}

#[test]
fn a_page_that_was_damaged_after_an_orderly_stop_is_met_by_the_start_and_the_database_rebuilt() {
    let bench = rebuilt("page", |state| spoil(state, &["run", "run_open"]));
    assert!(bench.world.log().contains("the database was damaged"), "{}", bench.world.log());
}

#[test]
fn damage_that_is_met_while_running_ends_the_daemon_and_the_next_start_rebuilds() {
    let mut bench = Bench::new(Scenario::new("running", four));
    let before: Seen = bench.seen();
    spoil(&bench.world.path("state"), &["change", "sqlite_autoindex_change_1"]);
    bench.world.start();
    bench.settled(0);
    // Until somebody asks, nobody reads what was changed.
    bench.world.run(&["history"]);
    let (code, told) = ended(&mut bench, 0);
    assert_eq!(code, 1, "systemd starts it again: {told}");
    for word in ["the database is damaged", "the next start of gitopsd puts the file aside"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    bench.world.start();
    bench.settled(0);
    assert!(bench.world.log().contains("the database was damaged"), "{}", bench.world.log());
    assert_eq!(bench.seen(), before);
}

/// Waits until the daemon has ended by itself. Its exit code, and what it has logged since.
fn ended(bench: &mut Bench, since: usize) -> (i32, String) {
    let began = Instant::now();
    loop {
        if let Some(code) = bench.world.ended() {
            return (code, bench.world.log()[since..].to_owned());
        }
        assert!(began.elapsed() < crate::world::PATIENCE, "{}", bench.world.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn garbage_in_the_wal_is_no_part_of_the_record() {
    rebuilt("wal", |state| {
        fs::write(state.join("history.db-wal"), vec![0xa5; 20_000]).expect("ours to write");
    });
}

#[test]
fn a_lost_state_directory_is_rebuilt_from_git_and_the_cluster() {
    rebuilt("lost", |state| fs::remove_dir_all(state).expect("ours to remove"));
}

#[test]
fn a_mirror_that_was_damaged_is_fetched_again() {
    rebuilt("mirror", |state| {
        let packs = state.join("mirrors/flux-system_flux-system/git-1/objects/pack");
        for pack in fs::read_dir(packs).expect("a mirror").flatten() {
            fs::write(pack.path(), b"nonsense").expect("ours to write");
        }
    });
}

#[test]
fn a_state_file_that_was_cut_stops_the_daemon_with_its_name_and_what_to_do() {
    let mut bench = Bench::new(Scenario::new("state", four));
    let file = bench.world.path("state/state.json");
    bench.world.start();
    bench.world.eventually("ready", |world| world.status()["ready"] == true);
    let name = format!("{}-app", bench.world.namespace);
    bench.world.ok(&["suspend", &name]);
    bench.world.kill();
    let whole = fs::read(&file).expect("a suspend is stored");
    refused(&mut bench, &whole[..whole.len() / 2]);
    // As a product leaves it that cuts the file off before it writes.
    refused(&mut bench, b"");
    fs::write(&file, whole).expect("ours to write");
    bench.world.start();
    bench.world.eventually("still suspended", |world| {
        let item = world.item(&format!("Kustomization/flux-system/{name}"));
        item["suspended"] != json!(null)
    });
}

/// The daemon does not start on such a `state.json`, and says what to do.
fn refused(bench: &mut Bench, text: &[u8]) {
    fs::write(bench.world.path("state/state.json"), text).expect("ours to write");
    let said = bench.world.log().len();
    bench.world.start_under(std::process::Command::new("env"));
    let (code, told) = ended(bench, said);
    assert_eq!(code, 78, "a restart does not help: {told}");
    for word in ["state.json", "correct the file, or remove it"] {
        assert!(told.contains(word), "{word}: {told}");
    }
}
