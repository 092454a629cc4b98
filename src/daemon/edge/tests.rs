//! When the next run is due, what it does, and what the journal is told.

use super::*;
use crate::pipeline::{EDGE_OFFLINE, Failure, Step};

fn edge() -> Edge {
    Edge::new(true, false, Duration::from_secs(600))
}

fn report(failure: Option<Failure>, waits: bool) -> EdgeReport {
    let view = EdgeView { ready: failure.is_none() && !waits, ..EdgeView::default() };
    EdgeReport { failure, waits, view, ..EdgeReport::failed(soon()) }
}

fn soon() -> Failure {
    Failure::new(Step::Plan, "EdgeFailed", "away").retry(Retry::Soon)
}

fn planned(edge: &Edge) -> EdgeTask {
    edge.due.clone().expect("a run is due").1
}

fn left(edge: &Edge) -> u64 {
    let (at, ..) = edge.due.as_ref().expect("a run is due");
    (at.saturating_duration_since(Instant::now()) + Duration::from_millis(500)).as_secs()
}

#[test]
fn what_may_pass_is_tried_ever_less_often_and_what_needs_a_person_at_the_interval() {
    let mut edge = edge();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        edge.due = None;
        edge.ran(&report(Some(soon()), false));
        pauses.push(left(&edge));
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
    edge.due = None;
    edge.ran(&report(Some(soon().retry(Retry::Interval)), false));
    assert_eq!(left(&edge), 600);
    edge.due = None;
    edge.ran(&report(None, true));
    assert_eq!(left(&edge), 2, "it begins anew");
}

#[test]
fn the_greater_task_wins_at_the_earlier_time() {
    let mut edge = edge();
    edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
    edge.ask(EdgeTask::Rotate, Trigger::Retry, Duration::from_secs(5));
    edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::ZERO);
    assert_eq!((left(&edge), planned(&edge)), (0, EdgeTask::Rotate));
}

#[test]
fn without_a_section_whatever_is_asked_for_withdraws_what_is_left() {
    let mut edge = Edge::new(false, true, Duration::from_secs(600));
    edge.ask(EdgeTask::Keep, Trigger::Prune, Duration::ZERO);
    assert_eq!((left(&edge), planned(&edge)), (0, EdgeTask::Withdraw));
}

#[test]
fn one_failure_is_told_once_whatever_is_healed_meanwhile() {
    let mut edge = edge();
    for (task, failure, ready, news) in [
        (EdgeTask::Keep, Some(soon()), false, true),
        (EdgeTask::Heal, None, false, false),
        (EdgeTask::Keep, Some(soon()), false, false),
        (EdgeTask::Heal, Some(soon()), false, true),
        (EdgeTask::Heal, Some(soon()), false, false),
        // It waits for something.
        (EdgeTask::Keep, None, false, false),
        (EdgeTask::Keep, Some(soon()), false, false),
        (EdgeTask::Keep, None, true, true),
        (EdgeTask::Keep, None, true, false),
        (EdgeTask::Heal, None, true, false),
    ] {
        edge.running = Some(task);
        assert_eq!(edge.news(report(failure, false).trouble(), ready), news);
    }
}

#[test]
fn nobody_being_reached_is_told_once_whatever_the_uplink_says_of_it() {
    let mut edge = edge();
    edge.running = Some(EdgeTask::Keep);
    let offline = |cause: &str| Some(Failure::new(Step::Plan, EDGE_OFFLINE, cause));
    for (failure, ready, news) in [
        (offline("timed out"), false, true),
        (offline("no such name"), false, false),
        (offline("timed out"), false, false),
        // Somebody was reached, and it does not work all the same.
        (Some(soon()), false, true),
        (offline("timed out"), false, true),
        (None, true, true),
        (offline("no such name"), false, true),
    ] {
        assert_eq!(edge.news(report(failure, false).trouble(), ready), news);
    }
}

#[test]
fn a_rotation_is_refused_while_there_is_nothing_to_rotate() {
    let said = |down: Option<&str>, up| edge().said((down.map(str::to_owned), up)).unfit();
    let hint = |refused: Option<Refused>| refused.and_then(|refused| refused.hint);
    let down = said(Some("leo"), false);
    assert_eq!(down.as_ref().map(|refused| refused.status), Some(409));
    assert!(hint(down).is_some_and(|hint| hint.contains("gitopsd edge up")));
    assert!(hint(said(Some("leo"), true)).is_some_and(|hint| hint.contains("ask again")));
    assert_eq!(said(None, false), None);
}

#[test]
fn what_was_said_of_an_edge_is_over_once_nothing_is_configured_and_nothing_left() {
    let leo = || (Some("leo".to_owned()), false);
    for (wanted, left, said, over) in [
        (true, false, leo(), false),
        (false, true, leo(), false),
        (false, false, leo(), true),
        (false, false, (None, true), true),
        (false, false, (None, false), false),
    ] {
        let edge = Edge::new(wanted, left, Duration::from_secs(600)).said(said);
        assert_eq!(edge.is_over(), over);
    }
}

#[test]
fn of_up_and_down_what_was_said_last_is_done() {
    let mut edge = edge();
    let down = || EdgeTask::Down("leo".into());
    edge.ask(down(), Trigger::Boot, Duration::ZERO);
    edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::ZERO);
    assert_eq!(planned(&edge), down());
    edge.ask(EdgeTask::Up, Trigger::Boot, Duration::ZERO);
    edge.ask(EdgeTask::Rotate, Trigger::Boot, Duration::ZERO);
    assert_eq!(planned(&edge), EdgeTask::Up);
    edge.ask(down(), Trigger::Boot, Duration::ZERO);
    assert_eq!(planned(&edge), down());
}

#[test]
fn what_could_not_be_noted_is_asked_for_again_unless_the_opposite_was() {
    let leo = || Some("leo".to_owned());
    let down = || EdgeTask::Down("leo".into());
    for (said, task, noted, next) in [
        (leo(), down(), false, down()),
        (leo(), down(), true, EdgeTask::Keep),
        (None, down(), false, EdgeTask::Keep),
        (None, EdgeTask::Up, false, EdgeTask::Up),
        (None, EdgeTask::Up, true, EdgeTask::Keep),
        (leo(), EdgeTask::Up, false, EdgeTask::Keep),
        (None, EdgeTask::Rotate, false, EdgeTask::Keep),
    ] {
        let mut edge = edge().said((said, false));
        edge.running = Some(task);
        edge.ran(&EdgeReport { noted, ..report(Some(soon()), false) });
        assert_eq!(planned(&edge), next);
    }
}

#[test]
fn what_a_person_said_last_is_done_by_the_next_start() {
    let leo = || Some("leo".to_owned());
    for (up, task) in [(false, EdgeTask::Down("leo".into())), (true, EdgeTask::Up)] {
        let mut edge = edge().said((leo(), up));
        edge.begin();
        assert_eq!(planned(&edge), task);
    }
}

#[test]
fn a_heal_that_waits_for_something_is_followed_by_a_whole_run_soon() {
    let mut edge = edge();
    edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
    edge.running = Some(EdgeTask::Heal);
    edge.ran(&report(None, true));
    assert_eq!((left(&edge), planned(&edge)), (2, EdgeTask::Keep));
}

#[test]
fn a_heal_asks_nobody_outside_and_moves_no_plan() {
    let mut edge = edge();
    edge.ask(EdgeTask::Keep, Trigger::Interval, Duration::from_secs(600));
    edge.moved(0);
    assert_eq!(edge.next(Instant::now()), Some((EdgeTask::Heal, Trigger::Drift)));
    edge.running = Some(EdgeTask::Heal);
    edge.ran(&report(None, false));
    assert_eq!((left(&edge), planned(&edge)), (600, EdgeTask::Keep));
}
