//! Git remotes as they are met: refs of every kind, credentials, a private CA, ssh, damage.

use crate::bed::{Auth, Command, GitServer, Options, Repo, SshServer};
use gitopsd::flux::GitReference;
use gitopsd::source::{Credential, Poll, Remote, Snapshot, Source, SourceError, Tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A Source in a directory of its own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: TempDir::with_prefix("gitopsd-source-").expect("a temporary directory") }
    }

    fn open(&self) -> Source {
        // The daemon does so at its start.
        gitopsd::net::install_crypto();
        let run = self.dir.path().join("run");
        Source::open(&self.state(), &run).expect("a fresh directory")
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }
}

fn remote(url: &str, reference: GitReference, data: &[(&str, &[u8])]) -> Remote {
    let data: BTreeMap<String, Vec<u8>> =
        data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
    Remote {
        url: url.to_owned(),
        reference,
        credential: Credential::from_secret(url, &data).expect("usable credentials"),
        timeout: Duration::from_secs(20),
        ignore: None,
    }
}

fn branch(name: &str) -> GitReference {
    GitReference::Branch(name.to_owned())
}

fn new(polled: Result<Poll, SourceError>) -> Snapshot {
    match polled {
        Ok(Poll::New(snapshot)) => snapshot,
        other => panic!("a new revision was expected: {other:?}"),
    }
}

fn same(polled: Result<Poll, SourceError>) {
    assert!(matches!(polled, Ok(Poll::Unchanged)), "{polled:?}");
}

/// A repository with one file, `a/x.yaml`, and a commit message of two paragraphs.
fn repo(server: &GitServer) -> Repo {
    let repo = Repo::create(server, "r");
    repo.write("a/x.yaml", "one\n");
    repo.commit("first: subject\n\nbody");
    repo.push("main");
    repo
}

fn push(repo: &Repo, text: &str) -> String {
    repo.write("a/x.yaml", &format!("{text}\n"));
    let commit = repo.commit(text);
    repo.push("main");
    commit
}

#[test]
fn a_revision_is_fetched_once_and_a_poll_without_news_only_lists() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server);
    let source = place.open();
    assert!(source.last().unwrap().is_none());
    let remote = remote(&server.url_of("r"), branch("main"), &[]);
    let first = new(source.poll(&remote));
    assert_eq!(first.revision.to_string(), format!("main@sha1:{}", repo.head()));
    assert_eq!(first.author, "Ada Tester <ada@test.invalid>");
    assert_eq!(first.subject, "first: subject");
    assert_eq!(first.tree.read("a/x.yaml").unwrap(), b"one\n");
    let plain = Tree::from_dir(repo.path()).unwrap();
    assert_eq!(plain.id(), first.tree.id(), "a directory reads as its commit does");

    server.forget();
    same(source.poll(&remote));
    assert_eq!((server.count(Command::ListRefs), server.count(Command::Fetch)), (1, 0));

    let head = push(&repo, "two");
    let second = new(source.poll(&remote));
    assert_eq!(second.revision.commit, head);
    assert_eq!(second.tree.read("a/x.yaml").unwrap(), b"two\n");
    assert_eq!(first.tree.read("a/x.yaml").unwrap(), b"one\n", "as long as somebody holds it");

    drop((first, second, source));
    let source = place.open();
    assert_eq!(source.last().unwrap().unwrap().revision.commit, head, "kept over a restart");
    server.forget();
    same(source.poll(&remote));
    assert_eq!(server.count(Command::Fetch), 0);
}

#[test]
fn history_may_be_rewritten_and_a_missing_branch_names_its_neighbours() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server);
    let first = repo.head();
    push(&repo, "two");
    let source = place.open();
    let remote = remote(&server.url_of("r"), branch("main"), &[]);
    new(source.poll(&remote));
    repo.reset(&first);
    repo.force_push("main");
    assert_eq!(new(source.poll(&remote)).revision.commit, first, "back to an older commit");
    repo.git(&["checkout", "--quiet", "--orphan", "other"]);
    let orphan = repo.commit("orphan");
    repo.force_push("main");
    assert_eq!(new(source.poll(&remote)).revision.commit, orphan, "without a common ancestor");

    let mut ignoring = remote.clone();
    ignoring.ignore = Some("a/".to_owned());
    let ignored = new(source.poll(&ignoring));
    assert_eq!(ignored.tree.list("").unwrap(), Vec::new(), "other rules are another revision");
    new(source.poll(&remote));

    repo.push("mian");
    let bare = repo.bare().to_str().unwrap().to_owned();
    repo.git(&["--git-dir", &bare, "update-ref", "-d", "refs/heads/main"]);
    let error = source.poll(&remote).unwrap_err();
    assert!(
        matches!(&error, SourceError::RefNotFound { similar, .. } if *similar == ["mian"]),
        "{error:?}"
    );
    assert_eq!(source.last().unwrap().unwrap().revision.commit, orphan);
}

#[test]
fn tags_ranges_names_and_commits_are_followed() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server);
    let one = repo.head();
    repo.tag("v1.2.0");
    let two = push(&repo, "two");
    repo.tag("v1.10.0");
    let three = push(&repo, "three");
    repo.tag("2.0.0-rc.1");
    repo.push("develop");
    let (source, url) = (place.open(), server.url_of("r"));
    let get = |reference| new(source.poll(&remote(&url, reference, &[]))).revision.to_string();
    let tag = |name: &str| GitReference::Tag(name.to_owned());
    let range = |text: &str| GitReference::Semver(text.to_owned());
    assert_eq!(get(tag("v1.10.0")), format!("v1.10.0@sha1:{two}"), "the commit, not the tag");
    assert_eq!(get(range("1.x <1.5")), format!("v1.2.0@sha1:{one}"));
    assert_eq!(get(range("1.x")), format!("v1.10.0@sha1:{two}"));
    assert_eq!(get(range(">=2.0.0-0")), format!("2.0.0-rc.1@sha1:{three}"));
    let name = GitReference::Name("refs/heads/develop".to_owned());
    assert_eq!(get(name), format!("refs/heads/develop@sha1:{three}"));
    let commit = |sha: &str, branch: Option<&str>| GitReference::Commit {
        sha: sha.to_owned(),
        branch: branch.map(str::to_owned),
    };
    assert_eq!(get(commit(&one, None)), format!("sha1:{one}"));
    server.forget();
    same(source.poll(&remote(&url, commit(&one, None), &[])));
    assert_eq!(server.requests().len(), 0, "a commit cannot move");
    assert_eq!(get(commit(&two, Some("develop"))), format!("develop@sha1:{two}"));

    for (reference, url) in [
        (range("3.x"), url.clone()),
        (range("not a range"), url.clone()),
        (commit(&"1".repeat(40), None), url.clone()),
        (branch("main"), server.url_of("none")),
        (branch("main"), "http://127.0.0.1:1/r.git".to_owned()),
    ] {
        let error = source.poll(&remote(&url, reference.clone(), &[])).unwrap_err();
        assert!(error.to_string().len() > 20, "{reference:?}: {error}");
        assert!(source.last().unwrap().is_some(), "the last good revision stays");
    }
}

#[test]
fn a_remote_that_does_not_answer_is_given_up_in_time() {
    let (server, place) = (GitServer::http(), Place::new());
    repo(&server);
    server.fault(crate::bed::Fault::Silence);
    let source = place.open();
    let mut slow = remote(&server.url_of("r"), branch("main"), &[]);
    slow.timeout = Duration::from_secs(2);
    let began = std::time::Instant::now();
    let error = source.poll(&slow).unwrap_err();
    assert!(matches!(error, SourceError::Timeout { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    server.fault(crate::bed::Fault::None);
    // The exchange that was given up may take a moment to notice.
    let answered = (0..40).find_map(|_| {
        std::thread::sleep(Duration::from_millis(250));
        source.poll(&slow).ok()
    });
    assert!(matches!(answered, Some(Poll::New(_))), "{answered:?}");
}

#[test]
fn basic_auth_opens_the_door_and_leaves_no_trace() {
    let auth = Auth::Basic { user: "ada".to_owned(), password: "pw-73Kx19".to_owned() };
    let server = GitServer::start(Options { auth, tls: false });
    let place = Place::new();
    repo(&server);
    let (source, url) = (place.open(), server.url_of("r"));
    let wrong = [("username", &b"ada"[..]), ("password", b"pw-wrong9")];
    for data in [&[][..], &wrong] {
        let error = source.poll(&remote(&url, branch("main"), data)).unwrap_err();
        assert!(matches!(error, SourceError::AuthenticationFailed { .. }), "{error:?}");
        assert!(!format!("{error:?} {error} {:?}", error.hint()).contains("pw-wrong9"));
    }
    let right = [("username", &b"ada"[..]), ("password", b"pw-73Kx19")];
    new(source.poll(&remote(&url, branch("main"), &right)));
    let inside = url.replace("http://", "http://ada:pw-73Kx19@");
    same(source.poll(&remote(&inside, branch("main"), &[])));
    let error = source.poll(&remote(&inside, branch("none"), &[])).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("pw-73Kx19"), "{error}");
    no_trace(&place.state(), "pw-73Kx19");
}

#[test]
fn a_bearer_token_opens_the_door() {
    let auth = Auth::Bearer("token-73Kx19".to_owned());
    let server = GitServer::start(Options { auth, tls: false });
    let place = Place::new();
    repo(&server);
    let (source, url) = (place.open(), server.url_of("r"));
    let wrong = [("bearerToken", &b"token-wrong"[..])];
    let error = source.poll(&remote(&url, branch("main"), &wrong)).unwrap_err();
    assert!(matches!(error, SourceError::AuthenticationFailed { .. }), "{error:?}");
    new(source.poll(&remote(&url, branch("main"), &[("bearerToken", b"token-73Kx19")])));
    no_trace(&place.state(), "token-73Kx19");
}

#[test]
fn a_private_ca_is_trusted_where_it_is_named_and_nowhere_else() {
    let auth = Auth::Basic { user: "ada".to_owned(), password: "pw-73Kx19".to_owned() };
    let server = GitServer::start(Options { auth, tls: true });
    let place = Place::new();
    repo(&server);
    let (source, url) = (place.open(), server.url_of("r"));
    let user = [("username", &b"ada"[..]), ("password", b"pw-73Kx19")];
    let error = source.poll(&remote(&url, branch("main"), &user)).unwrap_err();
    assert!(matches!(error, SourceError::CertificateUntrusted { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("ca.crt"));
    assert_eq!(server.requests().len(), 0, "no password went out");
    let ca = ("ca.crt", server.ca().as_bytes());
    let trusted = remote(&url, branch("main"), &[user[0], user[1], ca]);
    new(source.poll(&trusted));
    same(source.poll(&trusted));
    let nonsense = [user[0], user[1], ("ca.crt", &b"nonsense"[..])];
    let data: BTreeMap<String, Vec<u8>> =
        nonsense.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
    let usable = Credential::from_secret(&url, &data).is_ok()
        && source.poll(&remote(&url, branch("main"), &nonsense)).is_ok();
    assert!(!usable, "a certificate that is none is no reason to trust anybody");
}

#[test]
fn ssh_wants_the_right_key_and_the_right_host() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server);
    let ssh = SshServer::start(server.root());
    let (source, url) = (place.open(), ssh.url_of("r"));
    let identity = fs::read(ssh.identity()).unwrap();
    let known = fs::read(ssh.known_hosts()).unwrap();
    let data = [("identity", identity.as_slice()), ("known_hosts", known.as_slice())];
    let right = remote(&url, branch("main"), &data);
    new(source.poll(&right));
    same(source.poll(&right));
    push(&repo, "two");
    assert_eq!(new(source.poll(&right)).tree.read("a/x.yaml").unwrap(), b"two\n");

    let other = SshServer::start(server.root());
    let strange = fs::read(other.identity()).unwrap();
    let denied = [("identity", strange.as_slice()), ("known_hosts", known.as_slice())];
    let error = source.poll(&remote(&url, branch("main"), &denied)).unwrap_err();
    assert!(matches!(error, SourceError::AuthenticationFailed { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("deploy keys"));

    // Another server answers under this name: the key of the other host, our port.
    let key = fs::read_to_string(other.known_hosts()).unwrap();
    let (_, key) = key.split_once(' ').unwrap();
    let (name, _) = std::str::from_utf8(&known).unwrap().split_once(' ').unwrap();
    let changed = format!("{name} {key}");
    let wrong = [("identity", identity.as_slice()), ("known_hosts", changed.as_bytes())];
    let error = source.poll(&remote(&url, branch("main"), &wrong)).unwrap_err();
    assert!(matches!(error, SourceError::HostKeyUnknown { .. }), "{error:?}");
    let error = source.poll(&remote(&ssh.url_of("none"), branch("main"), &data)).unwrap_err();
    assert!(!matches!(error, SourceError::AuthenticationFailed { .. }), "{error:?}");
    let text = std::str::from_utf8(&identity).unwrap().lines().nth(1).unwrap().to_owned();
    no_trace(&place.state(), &text);
    // Below the runtime directory the key lies while ssh runs; the thread that ran it tidies up.
    let tidy = || fs::read_dir(place.dir.path().join("run")).unwrap().next().is_none();
    let tidied = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        tidy()
    });
    assert!(tidied, "a private key is left behind");
}

#[test]
fn a_damaged_mirror_is_put_aside_and_made_anew() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server);
    let remote = remote(&server.url_of("r"), branch("main"), &[]);
    drop(new(place.open().poll(&remote)));
    for pack in packs(&place.state()) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[20..32].fill(b'X');
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let source = place.open();
    assert!(source.last().unwrap().is_none(), "nothing is made up");
    let snapshot = new(source.poll(&remote));
    assert_eq!(snapshot.revision.commit, repo.head());
    assert_eq!(snapshot.tree.read("a/x.yaml").unwrap(), b"one\n");
}

fn packs(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    collect(dir, &mut files);
    files.retain(|file| file.extension().is_some_and(|end| end == "pack"));
    assert!(!files.is_empty(), "a mirror has a pack");
    files
}

fn no_trace(dir: &Path, secret: &str) {
    let mut files = Vec::new();
    collect(dir, &mut files);
    for file in files {
        let bytes = fs::read(&file).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds a credential", file.display());
    }
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
