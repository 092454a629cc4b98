//! A branch of its own for the commits: whether it was merged is told by history, and the next
//! commit then follows the commit that has it.

use super::*;

/// Some commits of somebody else on main.
fn theirs(repo: &Repo, name: &str, commits: usize) {
    for number in 0..commits {
        repo.write("apps/other/x.yaml", &format!("{name} {number}\n"));
        repo.commit(name);
    }
    repo.push("main");
}

#[test]
fn a_branch_that_was_merged_goes_on_from_the_commit_that_has_it() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    source.poll(&main).unwrap();
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    let create = Push { branch: Some("auto"), start: Start::Absent, ..to("") };
    source.push(&main, &commit, &create).unwrap();
    let auto = at(&main, "auto");
    let standing = || {
        let (branch, checkout) = (source.tip(&auto).unwrap(), source.tip(&main).unwrap());
        source.standing(&main, &branch, &checkout).unwrap()
    };
    assert_eq!(standing(), Standing::Ahead);

    theirs(&repo, "meanwhile", 3);
    assert_eq!(standing(), Standing::Apart { lacking: 3 });
    server.forget();
    assert_eq!(standing(), Standing::Apart { lacking: 3 });
    assert_eq!(server.count(Command::Fetch), 0, "what is known is not asked for again");

    // Merged, and so long ago that the first look at history does not reach it.
    let bare_path = repo.bare().to_str().unwrap();
    repo.git(&["pull", "--quiet", "--no-rebase", "--no-ff", "--no-edit", bare_path, "auto"]);
    theirs(&repo, "later", 55);
    assert_eq!(standing(), Standing::Merged);
    let merged = head(&repo, "auto");
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "three\n")]);
    let onward = |from| Push { branch: Some("auto"), start: Start::Merged(from), ..to("") };
    let error = source.push(&main, &commit, &onward(&commit.parent)).unwrap_err();
    assert!(matches!(error, PushError::Moved { .. }), "it is not there: {error:?}");
    source.push(&main, &commit, &onward(&merged)).unwrap();
    assert_eq!(head(&repo, "auto"), commit.id);
    assert_eq!(bare(&repo, &["rev-parse", "auto^"]).trim(), head(&repo, "main"));
    bare(&repo, &["merge-base", "--is-ancestor", &merged, "auto"]);
    assert_eq!(standing(), Standing::Ahead);
    sound(&repo);
}
