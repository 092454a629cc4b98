//! Kills, damage and time, against real files.

use super::*;
use std::fs;
use std::path::Path;

const OWNER: &str = "flux-system/apps";

fn open(dir: &Path) -> (History, Opened) {
    History::open(dir).expect("the database opens")
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("temp dir")
}

fn mk_start(owner: &str) -> Start {
    Start {
        owner: owner.into(),
        trigger: Trigger::Request { by: "root".into() },
        revision: "main@sha1:0123".into(),
        author: "Leo <leo@example>".into(),
        subject: "web: two replicas".into(),
        started_ms: 1_000,
    }
}

fn mk_entries(ids: &[&str]) -> Vec<Entry> {
    ids.iter().map(|id| Entry { id: (*id).into(), version: "v1".into() }).collect()
}

fn mk_change(diff: &str) -> Change {
    Change {
        object: "Service/apps/web".into(),
        id: "apps_web__Service".into(),
        verb: Verb::Configured,
        diff: diff.into(),
        origin: Some("apps/web.yaml".into()),
    }
}

fn mk_finish(finished_ms: i64) -> Finish {
    Finish {
        verdict: Verdict::Succeeded,
        message: "applied".into(),
        steps: vec![("render".into(), 1200), ("apply".into(), 3400)],
        finished_ms,
    }
}

/// Copies the files as a power cut would leave them.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = temp();
    for entry in fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    copy
}

#[test]
fn a_run_is_read_back_whole() {
    let dir = temp();
    let (history, opened) = open(dir.path());
    assert_eq!(opened, Opened { fresh: true, ..Opened::default() });
    let run = history.begin(&mk_start(OWNER), &mk_entries(&["a", "b"])).expect("begun");
    history.change(run, &mk_change("-1\n+2")).expect("recorded");
    let applied = Applied { revision: "main@sha1:0123".into(), digest: "d".into() };
    history.finish(run, &mk_finish(2_000), Some(&applied)).expect("finished");
    drop(history);

    let (history, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    let row = RunRow {
        id: RunId(1),
        owner: OWNER.into(),
        trigger: Trigger::Request { by: "root".into() },
        revision: "main@sha1:0123".into(),
        author: "Leo <leo@example>".into(),
        subject: "web: two replicas".into(),
        started_ms: 1_000,
        finished_ms: Some(2_000),
        verdict: Some(Verdict::Succeeded),
        message: "applied".into(),
        steps: vec![("render".into(), 1200), ("apply".into(), 3400)],
        changes: 1,
    };
    assert_eq!(history.run(run).expect("read"), Some((row.clone(), vec![mk_change("-1\n+2")])));
    assert_eq!(history.runs(Some(OWNER), 5).expect("listed"), std::slice::from_ref(&row));
    assert_eq!(history.runs(None, 5).expect("listed"), [row]);
    assert_eq!(history.runs(Some("other/one"), 5).expect("listed"), []);
    let last = LastApplied {
        revision: "main@sha1:0123".into(),
        digest: "d".into(),
        finished_ms: 2_000,
        verdict: Verdict::Succeeded,
    };
    assert_eq!(history.last(OWNER).expect("read"), Some(last));
    assert_eq!(history.run(RunId(9)).expect("read"), None);
    assert!(matches!(history.finish(run, &mk_finish(1), None), Err(HistoryError::NotOpen(_))));
    assert!(matches!(history.change(run, &mk_change("")), Err(HistoryError::NotOpen(_))));
}

#[test]
fn the_last_thing_that_was_done_to_an_object_is_known_over_all_runs() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let last = || history.last_verb("apps_web__Service").expect("read");
    assert_eq!(last(), None);
    for verb in [Verb::Created, Verb::Deleted, Verb::Skipped] {
        let run = history.begin(&mk_start("apps/web"), &[]).expect("begun");
        history.change(run, &Change { verb, ..mk_change("") }).expect("recorded");
        history.finish(run, &mk_finish(2), None).expect("finished");
    }
    assert_eq!(last(), Some(Verb::Deleted), "what was left alone was not touched");
}

#[test]
fn ownership_grows_before_the_run_and_shrinks_on_confirmation_only() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let first = history.begin(&mk_start(OWNER), &mk_entries(&["a", "b"])).expect("begun");
    history.finish(first, &mk_finish(1), None).expect("finished");
    let mut union = mk_entries(&["b", "c"]);
    union[0].version = "v2".into();
    history.begin(&mk_start(OWNER), &union).expect("begun");
    let ids = |history: &History| {
        let entries = history.inventory(OWNER).expect("read");
        entries.into_iter().map(|entry| (entry.id, entry.version)).collect::<Vec<_>>()
    };
    let both = |id: &str, version: &str| (id.to_owned(), version.to_owned());
    assert_eq!(ids(&history), [both("a", "v1"), both("b", "v2"), both("c", "v1")]);
    history.forget(OWNER, &["a".into()]).expect("gone");
    history.forget("other/one", &["b".into()]).expect("another owner's row is not touched");
    assert_eq!(ids(&history), [both("b", "v2"), both("c", "v1")]);
    assert_eq!(history.owners().expect("listed"), [OWNER]);
    history.forget(OWNER, &["b".into(), "c".into()]).expect("handed over");
    assert_eq!(history.owners().expect("listed"), Vec::<String>::new());
}

#[test]
fn a_run_cut_short_is_closed_as_interrupted_and_keeps_its_inventory() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let ids = ["a", "b"];
    let run = history.begin(&mk_start(OWNER), &mk_entries(&ids)).expect("begun");
    let known = |id: &str| ObjectDigest { id: id.into(), digest: Some("d".into()), uid: None };
    // One that ends by itself is known by its uid, and not made again because of this.
    let finite = ObjectDigest { uid: Some("u".into()), ..known("b") };
    history.set_digests(OWNER, &[known("a"), finite.clone()]).expect("stored");
    let calm = history.begin(&mk_start("calm/one"), &mk_entries(&["x"])).expect("begun");
    history.set_digests("calm/one", &[known("x")]).expect("stored");
    history.finish(calm, &mk_finish(1), None).expect("finished");

    let (history, opened) = open(killed(dir.path()).path());
    assert_eq!(opened.interrupted, [run]);
    let (row, _) = history.run(run).expect("read").expect("there");
    assert_eq!((row.verdict, row.finished_ms), (Some(Verdict::Interrupted), None));
    assert_eq!(history.inventory(OWNER).expect("read"), mk_entries(&ids));
    // What was applied last is not certain, so the digest is gone.
    let unsure = ObjectDigest { digest: None, ..known("a") };
    assert_eq!(history.object_digests(OWNER).expect("read"), [unsure, finite]);
    assert_eq!(history.object_digests("calm/one").expect("read"), [known("x")]);
}

#[test]
fn a_torn_log_loses_its_last_commit_and_nothing_before() {
    let dir = temp();
    let (history, _) = open(dir.path());
    history.begin(&mk_start(OWNER), &mk_entries(&["a"])).expect("begun");
    let whole = fs::metadata(dir.path().join("history.db-wal")).expect("a log").len();
    history.begin(&mk_start("b/b"), &mk_entries(&["b"])).expect("begun");
    let copy = killed(dir.path());
    let log = fs::OpenOptions::new()
        .write(true)
        .open(copy.path().join("history.db-wal"))
        .expect("the log opens");
    log.set_len(whole + 100).expect("torn inside the second commit");
    let (history, opened) = open(copy.path());
    assert_eq!(opened, Opened { interrupted: vec![RunId(1)], ..Opened::default() });
    assert_eq!(history.owners().expect("listed"), [OWNER]);
}

#[test]
fn a_damaged_database_is_put_aside_and_the_newest_two_are_kept() {
    let dir = temp();
    for round in 1..=3 {
        let (history, _) = open(dir.path());
        history.begin(&mk_start(OWNER), &mk_entries(&["a"])).expect("begun");
        drop(history);
        fs::write(dir.path().join("history.db"), vec![7; 8192]).expect("damaged");
        let (history, opened) = open(dir.path());
        let aside = dir.path().join(format!("history.db.corrupt-{round}"));
        assert_eq!(
            opened,
            Opened { rebuilt: Some(aside.clone()), fresh: true, ..Opened::default() }
        );
        assert_eq!(fs::read(&aside).expect("kept"), vec![7; 8192]);
        assert_eq!(history.owners().expect("listed"), Vec::<String>::new());
    }
    assert!(!dir.path().join("history.db.corrupt-1").exists());
    assert!(dir.path().join("history.db.corrupt-2").exists());
}

#[test]
fn damage_inside_the_file_is_found_after_a_bad_stop() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let many: Vec<String> = (0..2000).map(|n| format!("apps_object-{n}__ConfigMap")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    history.begin(&mk_start(OWNER), &mk_entries(&many)).expect("begun");
    drop(history);
    let path = dir.path().join("history.db");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, bytes).expect("damaged");
    fs::write(dir.path().join(open::SUSPECT), "").expect("marked");
    let (_history, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some() && opened.fresh, "{opened:?}");
    assert!(!dir.path().join(open::SUSPECT).exists());
}

/// Overwrites the page that each of these tables and indexes begins on, after an orderly stop, and
/// answers what was there.
fn spoil(dir: &Path, names: &[&str], page: &[u8]) -> Vec<u8> {
    let path = dir.join("history.db");
    let root = |db: &Connection, name: &str| {
        let asked = "SELECT rootpage FROM sqlite_master WHERE name = ?1";
        db.query_row(asked, [name], |row| row.get::<_, i64>(0)).expect("a table or an index")
    };
    let db = Connection::open(&path).expect("nobody else has it");
    let roots: Vec<i64> = names.iter().map(|name| root(&db, name)).collect();
    drop(db);
    assert!(!dir.join("history.db-wal").exists() && !dir.join(open::SUSPECT).exists());
    let mut bytes = fs::read(&path).expect("read");
    let mut before = Vec::new();
    for root in roots {
        let at = usize::try_from(root - 1).expect("pages count from 1") * 4096;
        before.extend_from_slice(&bytes[at..at + 4096]);
        bytes[at..at + 4096].copy_from_slice(page);
    }
    fs::write(&path, bytes).expect("damaged");
    before
}

#[test]
fn damage_that_shows_only_while_open_runs_are_looked_for_is_put_aside() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let run = history.begin(&mk_start(OWNER), &mk_entries(&["a"])).expect("begun");
    history.finish(run, &mk_finish(1), None).expect("finished");
    drop(history);
    spoil(dir.path(), &["run", "run_open"], &[0xff; 4096]);
    let (history, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some_and(|aside| aside.exists()) && opened.fresh);
    assert_eq!(history.runs(None, 5).expect("listed"), []);
    assert!(!dir.path().join(open::SUSPECT).exists());
}

#[tokio::test]
async fn damage_that_is_met_while_running_is_told_and_the_next_start_puts_it_aside() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let run = history.begin(&mk_start(OWNER), &mk_entries(&["a"])).expect("begun");
    history.finish(run, &mk_finish(1), None).expect("finished");
    drop(history);
    spoil(dir.path(), &["inventory"], &[0xff; 4096]);
    let (history, opened) = open(dir.path());
    assert_eq!(opened, Opened::default(), "nobody has looked at that page yet");
    let error = history.inventory(OWNER).expect_err("damaged");
    assert!(matches!(error, HistoryError::Corrupt { .. }) && error.retry(), "{error}");
    assert_eq!(history.damaged().await.to_string(), error.to_string());
    drop(history);
    let (history, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some() && opened.fresh, "{opened:?}");
    assert_eq!(history.inventory(OWNER).expect("read"), []);
}

#[test]
fn an_index_that_disagrees_with_its_table_is_found_where_damage_was_met() {
    let dir = temp();
    drop(open(dir.path()));
    let empty = spoil(dir.path(), &["run_by_owner"], &[0; 4096]);
    spoil(dir.path(), &["run_by_owner"], &empty);
    let (history, _) = open(dir.path());
    history.begin(&mk_start(OWNER), &[]).expect("begun");
    drop(history);
    spoil(dir.path(), &["run_by_owner"], &empty);
    fs::write(dir.path().join(open::SUSPECT), "").expect("marked");
    let (_history, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some(), "{opened:?}");
}

#[test]
fn a_second_daemon_and_a_newer_file_are_refused() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let error = History::open(dir.path()).expect_err("locked");
    assert!(matches!(error, HistoryError::Locked { .. }) && error.retry(), "{error}");
    history.lock().pragma_update(None, "user_version", 99).expect("a newer file");
    drop(history);
    let error = History::open(dir.path()).expect_err("newer");
    assert_eq!(error.to_string(), "the database has schema 99, this gitopsd knows 5");
    assert!(!error.retry() && dir.path().join("history.db").exists());
}

#[test]
fn old_runs_expire_but_never_the_newest_of_an_owner_nor_an_inventory_row() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let history = history.with_retention(HistorySettings { days: 1, runs: 10 });
    let day = 86_400_000;
    let begun = |owner: &str, started_ms| {
        let start = Start { started_ms, ..mk_start(owner) };
        let run = history.begin(&start, &mk_entries(&["a"])).expect("begun");
        history.change(run, &mk_change("+1")).expect("recorded");
        history.finish(run, &mk_finish(started_ms), None).expect("finished");
    };
    begun("quiet/one", 0);
    begun("busy/one", 0);
    (0..15).for_each(|_| begun("busy/one", 10 * day));
    assert_eq!(history.expire(10 * day).expect("expired"), 7);
    let rows = history.runs(None, 100).expect("listed");
    let owners = |owner: &str| rows.iter().filter(|row| row.owner == owner).count();
    assert_eq!((owners("quiet/one"), owners("busy/one")), (1, 9));
    assert_eq!(history.owners().expect("listed"), ["busy/one", "quiet/one"]);
    let left: i64 = history
        .read("count", |db| db.query_row("SELECT count(*) FROM change", [], |row| row.get(0)))
        .expect("counted");
    assert_eq!(left, 10);
    // Age alone, with room for all of them.
    assert_eq!(history.expire(20 * day).expect("expired"), 8);
}

#[test]
fn what_is_stored_for_one_run_is_bounded() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let run = history.begin(&mk_start(OWNER), &[]).expect("begun");
    let long = "é".repeat(20 << 10);
    (0..300).for_each(|_| history.change(run, &mk_change(&long)).expect("recorded"));
    let (_, changes) = history.run(run).expect("read").expect("there");
    assert!(changes[0].diff.ends_with("\n… (24576 bytes more)"), "{}", changes[0].diff.len());
    assert_eq!(changes[299].diff, "(left out: the diffs of this run exceed 4 MiB)");
    let total: usize = changes.iter().map(|change| change.diff.len()).sum();
    assert!(total < (4 << 20) + (64 << 10), "{total}");
}

#[test]
fn a_full_disk_fails_the_begin_as_a_whole_and_says_so() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let pages: i64 = history
        .read("count", |db| db.pragma_query_value(None, "page_count", |row| row.get(0)))
        .expect("counted");
    history.lock().pragma_update(None, "max_page_count", pages).expect("no more room");
    let many: Vec<String> = (0..2000).map(|n| format!("apps_object-{n}__ConfigMap")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = history.begin(&mk_start(OWNER), &mk_entries(&many)).expect_err("full");
    assert_eq!(error.to_string(), "could not begin a run: the disk of the state directory is full");
    assert!(error.retry() && error.hint().is_some());
    assert_eq!(history.runs(None, 5).expect("listed"), []);
    assert_eq!(history.inventory(OWNER).expect("read"), []);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // sysfs refuses new files even to root, whether it is mounted read-write or not.
    let error = History::open(Path::new("/sys")).expect_err("nobody may write there");
    let text = error.to_string();
    let start =
        "could not open the database: the state directory cannot be written (/sys/history.db: ";
    assert!(text.starts_with(start), "{text}");
    assert!(error.retry() && error.hint().is_some());
}

#[test]
fn notes_survive_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let (history, _) = open(dir.path());
    history.set_meta("cluster", "uid-1").expect("stored");
    let log = || fs::metadata(dir.path().join("history.db-wal")).expect("a log").len();
    let before = log();
    history.set_meta("cluster", "uid-1").expect("the same again");
    assert_eq!(log(), before, "the same value is no write");
    for entry in fs::read_dir(dir.path()).expect("listed") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    drop(history);
    let (history, _) = open(dir.path());
    assert_eq!(history.meta("cluster").expect("read").as_deref(), Some("uid-1"));
    assert_eq!(history.meta("other").expect("read"), None);
}

#[test]
fn notes_with_one_beginning_are_read_and_dropped_together() {
    let dir = temp();
    let (history, _) = open(dir.path());
    for key in ["a:1", "a:2", "ab", "b%:1", "b_:1"] {
        history.set_meta(key, "x").expect("stored");
    }
    let keys = |start: &str| -> Vec<String> {
        history.metas(start).expect("read").into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!((keys("a:"), keys("b%")), (vec!["a:1".into(), "a:2".into()], vec!["b%:1".into()]));
    history.drop_metas("a:").expect("dropped");
    assert_eq!((keys("a"), keys("b").len()), (vec!["ab".into()], 2));
}

#[test]
fn a_new_file_knows_that_nobody_has_looked_for_what_an_older_one_knew() {
    let dir = temp();
    let (history, _) = open(dir.path());
    assert!(history.unsurveyed().expect("read"));
    drop(history);
    let (history, _) = open(dir.path());
    assert!(history.unsurveyed().expect("read"), "also after a restart");
    history.surveyed().expect("stored");
    drop(history);
    assert!(!open(dir.path()).0.unsurveyed().expect("read"));
}

#[test]
fn triggers_verbs_and_verdicts_are_one_word_and_read_back() {
    use Trigger::*;
    let all = [Boot, Interval, Revision, Dependency, Drift, Values, Retry, Prune, Resume];
    let dir = temp();
    let (history, _) = open(dir.path());
    for trigger in all {
        let word = trigger.to_string();
        assert!(word.chars().all(|c| c.is_ascii_lowercase()), "{word}");
        let start = Start { trigger: trigger.clone(), ..mk_start(OWNER) };
        let run = history.begin(&start, &[]).expect("begun");
        assert_eq!(history.run(run).expect("read").expect("there").0.trigger, trigger);
        let json = serde_json::to_string(&trigger).expect("JSON");
        assert_eq!(json, format!("\"{word}\""));
    }
    for verb in
        [Verb::Created, Verb::Recreated, Verb::Healed, Verb::Deleted, Verb::Skipped, Verb::Held]
    {
        let run = history.begin(&mk_start(OWNER), &[]).expect("begun");
        let change = Change { verb, ..mk_change("") };
        history.change(run, &change).expect("recorded");
        for verdict in [Verdict::Failed, Verdict::Cancelled] {
            let _ = history.finish(run, &Finish { verdict, ..mk_finish(1) }, None);
        }
        let (row, changes) = history.run(run).expect("read").expect("there");
        assert_eq!((changes, row.verdict), (vec![change], Some(Verdict::Failed)));
    }
}

#[test]
fn a_run_whose_end_could_not_be_recorded_is_closed_by_the_next_of_its_owner() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let ids = ["apps_web__Service"];
    let lost = history.begin(&mk_start(OWNER), &mk_entries(&ids)).expect("begun");
    let digest = ObjectDigest { id: ids[0].into(), digest: Some("d".into()), uid: None };
    history.set_digests(OWNER, std::slice::from_ref(&digest)).expect("stored");
    let other = history.begin(&mk_start("flux-system/other"), &[]).expect("begun");
    history.begin(&mk_start(OWNER), &mk_entries(&ids)).expect("begun");
    let verdict = |run| history.run(run).expect("read").expect("there").0.verdict;
    assert_eq!(verdict(lost), Some(Verdict::Interrupted));
    assert_eq!(verdict(other), None, "it may still be under way");
    let unknown = vec![ObjectDigest { digest: None, ..digest }];
    assert_eq!(history.object_digests(OWNER).expect("read"), unknown);
}

#[test]
fn a_run_whose_end_was_lost_is_closed_by_the_next_and_what_has_ended_is_not_made_again() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let first = history.begin(&mk_start(OWNER), &mk_entries(&["a", "job"])).expect("begun");
    let known = |id: &str| ObjectDigest { id: id.into(), digest: Some("d".into()), uid: None };
    let finite = ObjectDigest { uid: Some("u".into()), ..known("job") };
    history.set_digests(OWNER, &[known("a"), finite.clone()]).expect("stored");
    history.begin(&mk_start("other/one"), &[]).expect("begun");
    history.begin(&mk_start(OWNER), &[]).expect("begun");
    let verdict = |run| history.run(run).expect("read").expect("there").0.verdict;
    assert_eq!(verdict(first), Some(Verdict::Interrupted));
    assert_eq!(verdict(RunId(2)), None, "another owner's");
    let unsure = ObjectDigest { digest: None, ..known("a") };
    assert_eq!(history.object_digests(OWNER).expect("read"), [unsure, finite]);
}

#[test]
fn what_a_person_decided_is_read_back_and_uses_up_the_reserve_in_front_of_all() {
    let dir = temp();
    let (history, _) = open(dir.path());
    let mut state = State::default();
    state.confirm("0123456789ab");
    history.save_state(&state).expect("stored");
    assert_eq!(history.state().expect("read"), state);
    assert_eq!(history.trouble(), None);
    // However it came to be given up, everybody sees it, and makes it again.
    assert!(history.spend() && !history.spend());
    assert!(history.trouble().is_some());
    history.make_room();
    assert_eq!(history.trouble(), None);
}
