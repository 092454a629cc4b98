//! Killed at every write to the disk between a new tag and its deployment: nothing is committed
//! twice, nothing is lost, and the history tells which policy it was.

use super::{Setting, Stage};
use crate::bed::effects::{self, Fate, Point};
use crate::world::PATIENCE;
use std::time::{Duration, Instant};

/// Effects that are cut at most; there are fewer.
const MOST: usize = 60;

#[test]
fn killed_between_any_two_effects_nothing_is_doubled_and_nothing_is_lost() {
    let mut stage = Stage::new(&Setting { scan: "1s", ..Setting::default() });
    std::fs::write(stage.world.path("fault"), "").expect("ours to write");
    let mut cuts = 0;
    for nth in 1..=MOST {
        let number = (nth + 1).to_string();
        stage.world.stop();
        stage.push(&format!("a-{number}"));
        let point = Point { effect: "* history.db-wal*".to_owned(), nth };
        let cut = until_cut(&mut stage, &Fate::Kill(point), &number);
        stage.world.start();
        stage.arrived("a", &number);
        assert_eq!(stage.commits("main"), nth + 1, "cut {nth}: one commit for each tag");
        stage.world.settled();
        let shown = stage.world.ok(&["history", "app", "-n", "1"]);
        let told = format!("a-{nth} → a-{number} by ImagePolicy a");
        assert!(shown.contains(&told), "cut {nth}: {shown}");
        if !cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 5, "only {cuts} effects were cut");
    assert!(cuts < MOST, "there are more effects than were cut");
    eprintln!("{cuts} cuts survived");
}

/// Starts the daemon under a supervisor; true when it was killed before the tag had arrived.
fn until_cut(stage: &mut Stage, fate: &Fate, number: &str) -> bool {
    let (state, log) = (stage.world.path("state"), stage.world.path("effects"));
    let fault = stage.world.path("fault");
    stage.world.start_under(effects::supervise(&state, &log, fate, &fault));
    let tag = format!("a-{number}");
    let began = Instant::now();
    loop {
        if stage.world.ended().is_some() {
            return true;
        }
        if stage.deployed("a") == tag && stage.world.status()["ready"] == true {
            stage.world.stop();
            return false;
        }
        assert!(began.elapsed() < PATIENCE, "{}", stage.world.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}
