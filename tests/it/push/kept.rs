//! What a push leaves on our own disk: nothing; and what the tips of other branches leave: a bound.

use super::*;
use std::path::Path;

/// Files of a state directory with their sizes.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata().expect("nobody else works here") {
                meta if meta.is_dir() => todo.push(entry.path()),
                meta => drop(found.insert(entry.path(), meta.len())),
            }
        }
    }
    found
}

/// How many packs each mirror has, the oldest mirror first.
fn packs(state: &Path) -> Vec<usize> {
    let mut mirrors = BTreeMap::new();
    for path in files(state).into_keys() {
        let inside = path.strip_prefix(state).expect("it lies there");
        if inside.extension().is_some_and(|end| end == "pack") {
            let mirror = inside.iter().next().expect("a mirror").to_owned();
            *mirrors.entry(mirror).or_default() += 1;
        }
    }
    mirrors.into_values().collect()
}

#[test]
fn a_kill_between_commit_and_push_costs_nothing() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let main = remote(&server.url_of("r"), "main", &[]);
    let source = place.open();
    source.poll(&main).unwrap();
    repo.write("apps/other/x.yaml", "theirs\n");
    repo.commit("theirs");
    repo.push("main");
    let tip = source.tip(&main).unwrap();
    let before = files(&place.state());
    let commit = edit(&tip, &[("README.md", "two\n")]);
    assert_eq!(files(&place.state()), before, "a commit is nowhere but in memory");
    // What a killed process leaves is what lies on the disk now; nothing is tidied up.
    std::mem::forget((source, tip));

    let source = place.open();
    let last = source.last().unwrap().unwrap();
    assert_ne!(last.revision.commit, repo.head(), "the tip did not come into force");
    let again = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    assert_eq!(again.id, commit.id);
    source.push(&main, &again, &to("main")).unwrap();
    // Killed between the push and whatever is recorded of it: the next round sees it.
    drop(source);
    let source = place.open();
    let Ok(Poll::New(next)) = source.poll(&main) else { panic!("the push is news") };
    assert_eq!(next.revision.commit, commit.id);
    assert_eq!(next.tree.rules_digest(), last.tree.rules_digest());
    assert_eq!(source.push(&main, &again, &to("main")).unwrap().refs, Vec::<String>::new());
    sound(&repo);
}

#[test]
fn packs_of_tips_do_not_pile_up() {
    const ROUNDS: usize = 60;
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let main = remote(&server.url_of("r"), "main", &[]);
    let source = place.open();
    let Ok(Poll::New(polled)) = source.poll(&main) else { panic!("a first revision") };
    repo.push("develop");
    let mut most = 0;
    for number in 0..ROUNDS {
        repo.write("README.md", &format!("{number}\n"));
        let commit = repo.commit("more");
        repo.push("develop");
        let tip = source.tip(&at(&main, "develop")).unwrap();
        assert_eq!(tip.revision.commit, commit);
        assert_eq!(tip.tree.read("README.md").unwrap(), format!("{number}\n").into_bytes());
        most = most.max(packs(&place.state()).into_iter().max().unwrap_or_default());
    }
    assert!(most <= 51, "{most} packs");
    assert_eq!(packs(&place.state()).len(), 2, "the first revision is still read from the old one");
    assert_eq!(source.last().unwrap().unwrap().revision, polled.revision);
    assert_eq!(polled.tree.read("README.md").unwrap(), b"about\n", "old trees can still be read");
    let revision = polled.revision;
    drop(polled.tree);
    let left = packs(&place.state());
    assert!(left.len() == 1 && left[0] < ROUNDS / 2, "the mirror was made anew: {left:?}");
    assert!(matches!(source.poll(&main), Ok(Poll::Unchanged)));
    server.forget();
    source.tip(&at(&main, "develop")).unwrap();
    assert_eq!(server.count(Command::Fetch), 0, "a known tip is not fetched again");
    drop(source);
    let last = place.open().last().unwrap().unwrap();
    assert_eq!(last.revision, revision);
    assert_eq!(last.tree.read("README.md").unwrap(), b"about\n");
}
