//! Pushes that do not happen: hooks, protected branches, other pushers, slow and read-only servers.

use super::*;
use crate::bed::Fault;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

#[test]
fn a_refusal_is_told_in_the_servers_own_words() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let before = head(&repo, "main");
    hook(&repo, "pre-receive", "printf '\\033[31mFreeze\\033[0m until Monday\\n' >&2; exit 1");
    let error = round(&source, &main, "2").unwrap_err();
    let expected = PushError::Refused {
        url: main.url.clone(),
        what: "refs/heads/main".to_owned(),
        words: "Freeze until Monday (pre-receive hook declined)".to_owned(),
    };
    assert_eq!(error, expected);
    assert!(error.retry() && error.hint().is_some());
    hook(&repo, "pre-receive", "yes 'again and again' | head -n 20000; exit 1");
    let error = round(&source, &main, "2").unwrap_err();
    assert!(matches!(error, PushError::Refused { .. }), "{error:?}");
    assert!(error.to_string().len() < 2000, "a hook that never stops talking is cut short");
    hook(&repo, "pre-receive", "exit 0");

    // A protected branch: a rule for one ref, as forges have it.
    let protected = "[ \"$1\" = refs/heads/main ] && { echo 'main is protected'; exit 1; }; exit 0";
    hook(&repo, "update", protected);
    let error = round(&source, &main, "2").unwrap_err();
    assert!(error.to_string().contains("main is protected"), "{error}");
    assert_eq!(head(&repo, "main"), before);
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    let create = Push { branch: Some("auto"), start: Start::Absent, ..to("") };
    source.push(&main, &commit, &create).unwrap();
    assert_eq!(head(&repo, "auto"), commit.id, "another branch is not");
    let below = Push { branch: Some("auto/images"), ..create };
    let error = source.push(&main, &commit, &below).unwrap_err();
    assert!(error.to_string().contains("refs/heads/auto is there"), "{error}");
    sound(&repo);
}

#[test]
fn push_options_reach_the_hook_or_are_said_to_be_missing() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    let pairs = [("ci.skip", ""), ("merge_request.title", "Update: a=b")];
    let options: BTreeMap<String, String> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let push = Push { options: &options, ..to("main") };
    let error = source.push(&main, &commit, &push).unwrap_err();
    assert!(matches!(error, PushError::Unsupported { what: "push options", .. }), "{error:?}");
    bare(&repo, &["config", "receive.advertisePushOptions", "true"]);
    hook(&repo, "post-receive", "env | grep '^GIT_PUSH_OPTION' | sort");
    let pushed = source.push(&main, &commit, &push).unwrap();
    let expected = "GIT_PUSH_OPTION_0=ci.skip; \
                    GIT_PUSH_OPTION_1=merge_request.title=Update: a=b; GIT_PUSH_OPTION_COUNT=2";
    assert_eq!(pushed.words, expected);
    sound(&repo);
}

#[test]
fn credentials_that_only_read_are_told_apart_from_wrong_ones() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    bare(&repo, &["config", "http.receivepack", "false"]);
    let error = round(&source, &main, "2").unwrap_err();
    let words = "HTTP status 403".to_owned();
    assert_eq!(error, PushError::ReadOnly { url: main.url.clone(), words });

    // A forge says more, in text beside the status.
    let forge = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", forge.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in forge.incoming().take(2).flatten() {
            let mut stream = stream;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let words = "ada:pw-73Kx19 may not push code to this project.";
            let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8";
            let length = words.len();
            let answer =
                format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{words}");
            // A client that has seen enough is its own affair.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    let user = [("username", &b"ada"[..]), ("password", b"pw-73Kx19")];
    let error = source.push(&remote(&url, "main", &user), &commit, &to("main")).unwrap_err();
    assert!(matches!(error, PushError::ReadOnly { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("may not push code to this project. (HTTP status 403)"), "{said}");
}

#[test]
fn a_stale_tip_is_seen_before_and_during_the_push() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let tip = source.tip(&main).unwrap();
    let commit = edit(&tip, &[("README.md", "ours\n")]);
    repo.write("apps/other/x.yaml", "theirs\n");
    let theirs = repo.commit("theirs");
    repo.push("main");
    let error = source.push(&main, &commit, &to("main")).unwrap_err();
    let (url, what) = (main.url.clone(), "refs/heads/main".to_owned());
    let moved = PushError::Moved { url, what, words: String::new() };
    assert_eq!(error, moved);
    assert_eq!(server.count(Command::Push), 0, "the listing alone tells");

    // Somebody is faster between the listing and the change: here the hook itself.
    repo.write("apps/other/x.yaml", "theirs again\n");
    let faster = repo.commit("theirs again");
    repo.git(&["push", "--quiet", repo.bare().to_str().unwrap(), "HEAD:refs/heads/staged"]);
    hook(
        &repo,
        "pre-receive",
        &format!("env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main {faster}"),
    );
    let tip = source.tip(&main).unwrap();
    assert_eq!(tip.revision.commit, theirs);
    let commit = edit(&tip, &[("README.md", "ours\n")]);
    let error = source.push(&main, &commit, &to("main")).unwrap_err();
    let PushError::Moved { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("refs/heads/main"), "the server's own words: {words:?}");
    assert_eq!(head(&repo, "main"), faster, "nobody's commit is lost");
    fs::remove_file(repo.bare().join("hooks/pre-receive")).unwrap();

    let tip = source.tip(&main).unwrap();
    assert_eq!(tip.revision.commit, faster);
    let commit = edit(&tip, &[("README.md", "ours\n")]);
    source.push(&main, &commit, &to("main")).unwrap();
    assert_eq!(bare(&repo, &["show", "main:apps/other/x.yaml"]), "theirs again\n");

    // History is rewritten behind our back: what we saw is gone, and is not brought back.
    bare(&repo, &["config", "receive.denyNonFastForwards", "true"]);
    let tip = source.tip(&main).unwrap();
    let commit = edit(&tip, &[("README.md", "ours again\n")]);
    bare(&repo, &["update-ref", "refs/heads/main", &theirs]);
    assert_eq!(source.push(&main, &commit, &to("main")).unwrap_err(), moved);
    bare(&repo, &["update-ref", "-d", "refs/heads/main"]);
    assert_eq!(source.push(&main, &commit, &to("main")).unwrap_err(), moved);
    sound(&repo);
}

#[test]
fn both_sides_commits_survive_a_pusher_in_a_tight_loop() {
    const EACH: usize = 12;
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let (mut moved, began) = (0, Instant::now());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for number in 0..EACH {
                repo.write("apps/other/x.yaml", &format!("{number}\n"));
                repo.commit(&format!("theirs {number}"));
                let target = repo.bare().to_str().unwrap();
                let push =
                    ["-C", repo.path().to_str().unwrap(), "push", "--quiet", target, "HEAD:main"];
                while !git().args(push).output().unwrap().status.success() {
                    repo.git(&["pull", "--quiet", "--rebase", target, "main"]);
                }
            }
        });
        for number in 0..EACH {
            let tag = format!("ours-{number}");
            loop {
                match round(&source, &main, &tag) {
                    Ok(_) => break,
                    Err(PushError::Moved { .. }) if moved < 40 * EACH => moved += 1,
                    Err(error) => panic!("{number}: {error:?} after {moved} retries"),
                }
            }
        }
        other.join().expect("the other side gets through as well");
    });
    eprintln!("{EACH} commits of each side, {moved} retries, {:?}", began.elapsed());
    sound(&repo);
    let log = bare(&repo, &["log", "--format=%s", "main"]);
    let count = |what: &str| log.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("theirs"), count("Update images")), (EACH, EACH), "{log}");
    let last = format!("image: game:ours-{}\n", EACH - 1);
    assert_eq!(bare(&repo, &["show", "main:apps/dev/game.yaml"]), last);
    assert_eq!(bare(&repo, &["show", "main:apps/other/x.yaml"]), format!("{}\n", EACH - 1));
}

#[test]
fn a_slow_server_is_given_up_in_time_and_nothing_is_doubled() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let tip = source.tip(&main).unwrap();
    let commit = edit(&tip, &[("README.md", "two\n")]);
    let mut hasty = main.clone();
    hasty.timeout = Duration::from_secs(2);
    server.fault(Fault::Silence);
    let began = Instant::now();
    let error = source.push(&hasty, &commit, &to("main")).unwrap_err();
    assert!(matches!(error, PushError::Source(SourceError::Timeout { .. })), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    server.fault(Fault::None);

    // A hook that takes longer than we wait: the push arrives late, and counts.
    hook(&repo, "pre-receive", "sleep 4");
    let began = Instant::now();
    let late = loop {
        match source.push(&hasty, &commit, &to("main")) {
            Err(PushError::Source(SourceError::Timeout { .. })) => {}
            other => break other,
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(60), "still {waited:?}");
        std::thread::sleep(Duration::from_millis(250));
    };
    let late = late.expect("it arrived, or arrives now");
    assert_eq!(late.refs, Vec::<String>::new(), "it was there when it was asked for again");
    assert_eq!(head(&repo, "main"), commit.id);
    assert_eq!(bare(&repo, &["rev-list", "--count", "main"]).trim(), "2");
    let tip = source.tip(&main).unwrap();
    assert!(try_edit(&tip, &[("README.md", "two\n")], None).unwrap().is_none());
    sound(&repo);
}

#[test]
fn an_answer_that_breaks_off_is_an_error_and_the_next_round_sees_the_world() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "two\n")]);
    for fault in [Fault::HangUp, Fault::Status(500), Fault::Status(503), Fault::Status(404)] {
        server.fault(fault);
        let error = source.push(&main, &commit, &to("main")).unwrap_err();
        assert!(matches!(error, PushError::Source(_)) && error.retry(), "{fault:?}: {error:?}");
    }
    server.fault(Fault::None);
    server.down();
    let error = source.push(&main, &commit, &to("main")).unwrap_err();
    let unreachable = matches!(error, PushError::Source(SourceError::Unreachable { .. }));
    assert!(unreachable, "{error:?}");
    server.up();
    source.push(&main, &commit, &to("main")).unwrap();
    sound(&repo);
    let file = format!("file://{}", repo.bare().display());
    let local = Remote { url: file, ..main };
    let error = source.push(&local, &commit, &to("main")).unwrap_err();
    assert!(matches!(error, PushError::Source(SourceError::InvalidUrl { .. })), "{error:?}");
}
