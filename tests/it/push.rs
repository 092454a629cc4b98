//! Commits of our own, made on the tip of a branch and sent to remotes of every kind.
//!
//! The receiving side is the git program with its hooks; what arrived is judged by `git fsck`,
//! `git log` and `git verify-commit`, never by what gitopsd says of itself.

mod faults;
mod kept;
mod merged;
mod sign;

use crate::bed::{Auth, Command, GitServer, Options, Repo, SshServer, git};
use gitopsd::flux::GitReference;
use gitopsd::source::{
    Change, Commit, Credential, Person, Poll, Push, PushError, Pushed, Remote, SigningKey, Source,
    SourceError, Standing, Start, Tip,
};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Options of a push without any.
static NONE: BTreeMap<String, String> = BTreeMap::new();

/// A Source in a directory of its own, and who pushes from it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: TempDir::with_prefix("gitopsd-push-").expect("a temporary directory") }
    }

    fn open(&self) -> Source {
        // The daemon does so at its start.
        gitopsd::net::install_crypto();
        let run = self.dir.path().join("run");
        Source::open(&self.state(), &run).expect("a fresh directory")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

fn remote(url: &str, branch: &str, data: &[(&str, &[u8])]) -> Remote {
    let data: BTreeMap<String, Vec<u8>> =
        data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
    Remote {
        url: url.to_owned(),
        reference: GitReference::Branch(branch.to_owned()),
        credential: Credential::from_secret(url, &data).expect("usable credentials"),
        timeout: Duration::from_secs(20),
        ignore: None,
    }
}

/// The same remote at another branch.
fn at(remote: &Remote, branch: &str) -> Remote {
    Remote { reference: GitReference::Branch(branch.to_owned()), ..remote.clone() }
}

/// A repository with a manifest, an executable file, a link and a directory that nobody touches.
fn repo(server: &GitServer, name: &str) -> Repo {
    let repo = Repo::create(server, name);
    repo.write("apps/dev/game.yaml", "image: game:1\n");
    repo.write("apps/dev/run.sh", "#!/bin/sh\necho 1\n");
    repo.write("apps/other/x.yaml", "x\n");
    repo.write(".sourceignore", "apps/\n");
    repo.write("README.md", "about\n");
    let script = repo.path().join("apps/dev/run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("ours to change");
    symlink("game.yaml", repo.path().join("apps/dev/link")).expect("ours to write");
    repo.commit("first");
    repo.push("main");
    repo
}

fn person() -> Person {
    Person { name: "Fluxcd Bot".to_owned(), email: "bot@test.invalid".to_owned() }
}

/// A commit that writes files.
fn try_edit(
    tip: &Tip,
    files: &[(&str, &str)],
    sign: Option<&SigningKey>,
) -> Result<Option<Commit>, SourceError> {
    let edits: Vec<(String, Vec<u8>)> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let author = person();
    let message = "Update images\n\ngame 1 -> 2\n\n[skip ci]";
    let time = 1_795_000_000;
    let (committer, edits) = (&author, edits.as_slice());
    tip.commit(&Change { edits, author: &author, committer, message, time, sign })
}

fn edit(tip: &Tip, files: &[(&str, &str)]) -> Commit {
    try_edit(tip, files, None).expect("files of the tip").expect("something new")
}

/// A push to a branch that is there.
fn to(branch: &str) -> Push<'_> {
    Push { branch: Some(branch), start: Start::Parent, refspec: None, options: &NONE }
}

/// One whole round: the tip, the tag in the manifest, the push.
fn round(source: &Source, remote: &Remote, tag: &str) -> Result<Pushed, PushError> {
    let tip = source.tip(remote)?;
    let commit = edit(&tip, &[("apps/dev/game.yaml", &format!("image: game:{tag}\n"))]);
    source.push(remote, &commit, &to("main"))
}

/// Runs git in the receiving repository.
fn bare(repo: &Repo, arguments: &[&str]) -> String {
    let output = git().arg("--git-dir").arg(repo.bare()).args(arguments).output();
    let output = output.expect("git can be run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {}: {error}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("git prints UTF-8 here")
}

/// Asserts that what arrived is what git itself would have made.
fn sound(repo: &Repo) {
    let output = git().arg("--git-dir").arg(repo.bare()).args(["fsck", "--strict"]).output();
    let output = output.expect("git can be run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let bad: Vec<&str> = said.lines().filter(|line| !line.contains("dangling")).collect();
    let quiet = bad.iter().all(|line| line.starts_with("Checking") || line.starts_with("notice"));
    assert!(output.status.success() && quiet, "git fsck: {said}");
}

fn head(repo: &Repo, branch: &str) -> String {
    bare(repo, &["rev-parse", &format!("refs/heads/{branch}")]).trim().to_owned()
}

/// Installs a hook in the receiving repository.
fn hook(repo: &Repo, name: &str, script: &str) {
    let path = repo.bare().join("hooks").join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("ours to write");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("ours to write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours to change");
}

#[test]
fn an_edit_arrives_as_one_commit_and_nothing_else_changes() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let remote = remote(&server.url_of("r"), "main", &[]);
    let Ok(Poll::New(polled)) = source.poll(&remote) else { panic!("a first revision") };
    server.forget();
    let tip = source.tip(&remote).unwrap();
    assert_eq!(tip.revision, polled.revision);
    assert_eq!((server.count(Command::ListRefs), server.count(Command::Fetch)), (1, 0));
    assert!(tip.tree.read("apps/dev/game.yaml").is_ok(), "ignored files can be edited");

    let files = [("apps/dev/game.yaml", "image: game:2\n"), ("apps/dev/run.sh", "#!/bin/sh\n")];
    let commit = edit(&tip, &files);
    assert_eq!(commit.id, edit(&tip, &files).id, "equal input, equal commit");
    let pushed = source.push(&remote, &commit, &to("main")).unwrap();
    assert_eq!(pushed.refs, ["refs/heads/main"]);
    sound(&repo);
    assert_eq!(head(&repo, "main"), commit.id);
    let format = "--format=%an|%ae|%cn|%ce|%at|%P|%B";
    let told = bare(&repo, &["log", "-1", format, "main"]);
    let expected = format!(
        "Fluxcd Bot|bot@test.invalid|Fluxcd Bot|bot@test.invalid|1795000000|{}|\
         Update images\n\ngame 1 -> 2\n\n[skip ci]\n",
        repo.head()
    );
    assert_eq!(told.trim_end(), expected.trim_end());
    let changed = bare(&repo, &["diff-tree", "-r", "--no-commit-id", "--raw", "main"]);
    let changed: Vec<&str> = changed.lines().map(|line| &line[..15]).collect();
    assert_eq!(changed, [":100644 100644 ", ":100755 100755 "], "two files, their modes kept");
    assert_eq!(bare(&repo, &["show", "main:apps/dev/run.sh"]), "#!/bin/sh\n");

    let last = source.last().unwrap().unwrap();
    assert_eq!(last.revision, polled.revision, "a push moves nothing that is in force");
    let Ok(Poll::New(next)) = source.poll(&remote) else { panic!("our own commit is news") };
    assert_eq!(next.revision.commit, commit.id);
    let tip = source.tip(&remote).unwrap();
    assert!(try_edit(&tip, &files, None).unwrap().is_none(), "nothing to do is no commit");
}

#[test]
fn what_cannot_be_edited_is_named() {
    let (server, place) = (GitServer::http(), Place::new());
    repo(&server, "r");
    let tip = place.open().tip(&remote(&server.url_of("r"), "main", &[])).unwrap();
    for path in ["apps/dev/none", "apps/dev", "apps/dev/link", "README.md/x", "", "/README.md"] {
        let error = try_edit(&tip, &[(path, "x")], None).unwrap_err();
        assert!(matches!(error, SourceError::PathNotFound { .. }), "{path}: {error:?}");
    }
    let nobody = Person { name: "<>\n".to_owned(), email: String::new() };
    let edits = [("README.md".to_owned(), b"x".to_vec())];
    let (edits, author, committer) = (&edits[..], &person(), &person());
    let good = Change { edits, author, committer, message: "m", time: 0, sign: None };
    assert!(tip.commit(&good).is_ok());
    for bad in [
        Change { message: " \n", ..good },
        Change { message: "a\0b", ..good },
        Change { author: &nobody, ..good },
    ] {
        let error = tip.commit(&bad).unwrap_err();
        assert!(matches!(error, SourceError::InvalidCommit { .. }), "{error:?}");
    }
}

#[test]
fn another_branch_is_made_from_the_tip_and_followed_from_then_on() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let auto = at(&main, "auto/images");
    let error = source.tip(&auto).unwrap_err();
    assert!(matches!(error, SourceError::RefNotFound { .. }), "{error:?}");
    let tip = source.tip(&main).unwrap();
    let commit = edit(&tip, &[("README.md", "two\n")]);
    let create = Push { branch: Some("auto/images"), start: Start::Absent, ..to("") };
    source.push(&main, &commit, &create).unwrap();
    assert_eq!(head(&repo, "auto/images"), commit.id);
    assert_eq!(head(&repo, "main"), repo.head(), "the branch it came from stays");
    let again = source.push(&main, &commit, &create).unwrap();
    assert_eq!(again.refs, Vec::<String>::new(), "what arrived already is no error");

    let tip = source.tip(&auto).unwrap();
    assert_eq!(tip.revision.commit, commit.id);
    let second = edit(&tip, &[("README.md", "three\n")]);
    let error = source.push(&main, &second, &create).unwrap_err();
    assert!(matches!(error, PushError::Moved { .. }), "it is there by now: {error:?}");
    source.push(&auto, &second, &to("auto/images")).unwrap();
    assert_eq!(bare(&repo, &["rev-list", "--count", "auto/images"]).trim(), "3");
    sound(&repo);

    let empty = Repo::create(&server, "empty");
    let error = source.tip(&remote(&server.url_of("empty"), "main", &[])).unwrap_err();
    assert!(matches!(error, SourceError::Empty { .. }), "{error:?}");
    drop(empty);
}

#[test]
fn a_checkout_may_be_any_reference() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let first = repo.head();
    repo.tag("v1.2.0");
    repo.write("README.md", "two\n");
    let second = repo.commit("two");
    repo.tag("v1.3.0");
    repo.push("main");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    for (reference, commit) in [
        (GitReference::Tag("v1.2.0".to_owned()), &first),
        (GitReference::Semver("1.x".to_owned()), &second),
        (GitReference::Name("refs/heads/main".to_owned()), &second),
        (GitReference::Commit { sha: first.clone(), branch: None }, &first),
    ] {
        let tip = source.tip(&Remote { reference: reference.clone(), ..main.clone() }).unwrap();
        assert_eq!(tip.revision.commit, *commit, "{reference:?}");
        assert!(tip.tree.read("apps/dev/run.sh").is_ok(), "{reference:?}");
    }
    let tag = Remote { reference: GitReference::Tag("v1.2.0".to_owned()), ..main.clone() };
    let commit = edit(&source.tip(&tag).unwrap(), &[("README.md", "fix\n")]);
    let create = Push { branch: Some("fix"), start: Start::Absent, ..to("") };
    source.push(&tag, &commit, &create).unwrap();
    assert_eq!(bare(&repo, &["rev-parse", "fix^"]).trim(), first);
    sound(&repo);
}

#[test]
fn a_refspec_sends_the_commit_to_a_second_place() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    let both = Push { refspec: Some("refs/heads/main:refs/heads/copy"), ..to("main") };
    for text in ["two\n", "three\n"] {
        let commit = edit(&source.tip(&main).unwrap(), &[("README.md", text)]);
        let pushed = source.push(&main, &commit, &both).unwrap();
        assert_eq!(pushed.refs, ["refs/heads/main", "refs/heads/copy"]);
        assert_eq!((head(&repo, "main"), head(&repo, "copy")), (commit.id.clone(), commit.id));
    }
    // Somebody commits to the branch: the second place lags behind and catches up.
    repo.git(&["pull", "--quiet", repo.bare().to_str().unwrap(), "main"]);
    repo.write("apps/other/x.yaml", "theirs\n");
    repo.commit("theirs");
    repo.push("main");
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "four\n")]);
    let pushed = source.push(&main, &commit, &both).unwrap();
    assert_eq!((pushed.refs.len(), pushed.left), (2, None));
    assert_eq!(head(&repo, "copy"), commit.id);

    // What is not known to come before is left as it is, and the branch does not wait for it.
    let strange = bare(&repo, &["commit-tree", "-m", "strange", "main^{tree}"]);
    let strange = strange.trim().to_owned();
    bare(&repo, &["update-ref", "refs/heads/copy", &strange]);
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "five\n")]);
    let pushed = source.push(&main, &commit, &both).unwrap();
    assert_eq!(pushed.refs, ["refs/heads/main"]);
    let left = pushed.left.expect("the second place did not take it");
    assert!(
        matches!(&left, PushError::Refused { what, .. } if what == "refs/heads/copy"),
        "{left}"
    );
    assert_eq!((head(&repo, "main"), head(&repo, "copy")), (commit.id, strange));

    // Nor does it wait for a hook that refuses the second place alone; and no second place takes
    // what the branch refuses.
    bare(&repo, &["update-ref", "-d", "refs/heads/copy"]);
    let refuse = |name: &str| format!("[ \"$1\" = refs/heads/{name} ] && exit 1; exit 0");
    hook(&repo, "update", &refuse("copy"));
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "six\n")]);
    let pushed = source.push(&main, &commit, &both).unwrap();
    assert!(pushed.left.is_some_and(|left| left.to_string().contains("hook declined")));
    assert_eq!(head(&repo, "main"), commit.id);
    hook(&repo, "update", &refuse("main"));
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "seven\n")]);
    assert!(source.push(&main, &commit, &both).is_err());
    assert!(!bare(&repo, &["branch", "--list"]).contains("copy"), "nothing is half done");
    sound(&repo);

    // Nor for a second place that cannot be; without a branch it is all there is.
    fs::remove_file(repo.bare().join("hooks/update")).unwrap();
    for refspec in ["+refs/heads/main:refs/heads/copy", "main:copy", ":refs/heads/copy"] {
        let commit = edit(&source.tip(&main).unwrap(), &[("README.md", refspec)]);
        let wrong = Push { refspec: Some(refspec), ..to("main") };
        let pushed = source.push(&main, &commit, &wrong).unwrap();
        let alone = source.push(&main, &commit, &Push { branch: None, ..wrong }).unwrap_err();
        for error in [pushed.left.expect("it cannot be"), alone] {
            let named = matches!(error, PushError::Source(SourceError::InvalidPush { .. }));
            assert!(named, "{refspec}: {error:?}");
        }
        assert_eq!(head(&repo, "main"), commit.id, "{refspec}");
    }
    let commit = edit(&source.tip(&main).unwrap(), &[("README.md", "eight\n")]);
    let alone = Push { branch: None, ..both };
    let pushed = source.push(&main, &commit, &alone).unwrap();
    assert_eq!((pushed.refs, pushed.left), (vec!["refs/heads/copy".to_owned()], None));
    assert_eq!(head(&repo, "copy"), commit.id);
    assert_ne!(head(&repo, "main"), commit.id, "no branch was asked for");
    sound(&repo);
}

#[test]
fn https_with_a_private_ca_and_a_password() {
    let auth = Auth::Basic { user: "ada".to_owned(), password: "pw-73Kx19".to_owned() };
    let server = GitServer::start(Options { auth, tls: true });
    let place = Place::new();
    let repo = repo(&server, "r");
    let (source, url) = (place.open(), server.url_of("r"));
    let ca = ("ca.crt", server.ca().as_bytes());
    let right = remote(&url, "main", &[("username", b"ada"), ("password", b"pw-73Kx19"), ca]);
    round(&source, &right, "2").unwrap();
    sound(&repo);
    let tip = source.tip(&right).unwrap();
    let commit = edit(&tip, &[("README.md", "two\n")]);
    let wrong = remote(&url, "main", &[("username", b"ada"), ("password", b"pw-wrong9"), ca]);
    let error = source.push(&wrong, &commit, &to("main")).unwrap_err();
    let denied = matches!(error, PushError::Source(SourceError::AuthenticationFailed { .. }));
    assert!(denied, "{error:?}");
    assert!(!format!("{error:?} {error} {:?}", error.hint()).contains("pw-wrong9"));
    let trusting = remote(&url, "main", &[("username", b"ada"), ("password", b"pw-73Kx19")]);
    let error = source.push(&trusting, &commit, &to("main")).unwrap_err();
    let untrusted = matches!(error, PushError::Source(SourceError::CertificateUntrusted { .. }));
    assert!(untrusted, "{error:?}");
    assert_eq!(head(&repo, "main"), tip.revision.commit);
}

#[test]
fn http_with_a_password_or_a_token() {
    for (auth, data) in [
        (
            Auth::Basic { user: "ada".to_owned(), password: "pw-73Kx19".to_owned() },
            &[("username", &b"ada"[..]), ("password", b"pw-73Kx19")][..],
        ),
        (Auth::Bearer("token-73Kx19".to_owned()), &[("bearerToken", b"token-73Kx19")]),
    ] {
        let server = GitServer::start(Options { auth, tls: false });
        let place = Place::new();
        let repo = repo(&server, "r");
        let (source, url) = (place.open(), server.url_of("r"));
        round(&source, &remote(&url, "main", data), "2").unwrap();
        sound(&repo);
        let tip = source.tip(&remote(&url, "main", data)).unwrap();
        let commit = edit(&tip, &[("README.md", "two\n")]);
        let error = source.push(&remote(&url, "main", &[]), &commit, &to("main")).unwrap_err();
        let denied = matches!(error, PushError::Source(SourceError::AuthenticationFailed { .. }));
        assert!(denied, "{error:?}");
    }
}

#[test]
fn ssh_with_a_key_that_may_push_and_one_that_may_not() {
    let (server, place) = (GitServer::http(), Place::new());
    let repo = repo(&server, "r");
    let ssh = SshServer::start(server.root());
    let (source, url) = (place.open(), ssh.url_of("r"));
    let identity = fs::read(ssh.identity()).unwrap();
    let known = fs::read(ssh.known_hosts()).unwrap();
    let data = [("identity", identity.as_slice()), ("known_hosts", known.as_slice())];
    let right = remote(&url, "main", &data);
    bare(&repo, &["config", "receive.advertisePushOptions", "true"]);
    hook(&repo, "post-receive", "echo \"thank you for $GIT_PUSH_OPTION_0\"");
    let tip = source.tip(&right).unwrap();
    let commit = edit(&tip, &[("README.md", "two\n")]);
    let options = BTreeMap::from([("ci.skip".to_owned(), String::new())]);
    let push = Push { options: &options, ..to("main") };
    let pushed = source.push(&right, &commit, &push).unwrap();
    assert_eq!(pushed.words, "thank you for ci.skip");
    sound(&repo);
    assert_eq!(head(&repo, "main"), commit.id);

    let tip = source.tip(&right).unwrap();
    let commit = edit(&tip, &[("README.md", "three\n")]);
    hook(&repo, "pre-receive", "echo 'not on a Friday' >&2; exit 1");
    let error = source.push(&right, &commit, &to("main")).unwrap_err();
    let expected = "not on a Friday (pre-receive hook declined)";
    assert!(matches!(&error, PushError::Refused { words, .. } if words == expected), "{error:?}");

    fs::write(server.root().join("read-only"), "").unwrap();
    let error = source.push(&right, &commit, &to("main")).unwrap_err();
    assert!(matches!(error, PushError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("marked as read only"), "{error}");
    assert!(source.tip(&right).is_ok(), "reading goes on");

    let other = SshServer::start(server.root());
    let strange = fs::read(other.identity()).unwrap();
    let denied = [("identity", strange.as_slice()), ("known_hosts", known.as_slice())];
    let error = source.push(&remote(&url, "main", &denied), &commit, &to("main")).unwrap_err();
    let denied = matches!(error, PushError::Source(SourceError::AuthenticationFailed { .. }));
    assert!(denied, "{error:?}");
    // An ssh that hangs is ended by the limit, whatever the server does meanwhile.
    fs::remove_file(server.root().join("read-only")).unwrap();
    hook(&repo, "pre-receive", "sleep 8; exit 1");
    let hasty = Remote { timeout: Duration::from_secs(2), ..right };
    let began = std::time::Instant::now();
    let error = source.push(&hasty, &commit, &to("main")).unwrap_err();
    let late = matches!(error, PushError::Source(SourceError::Timeout { .. }));
    assert!(late && began.elapsed() < Duration::from_secs(4), "{error:?} {:?}", began.elapsed());
    let tidied = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        fs::read_dir(place.dir.path().join("run")).unwrap().next().is_none()
    });
    assert!(tidied, "a private key is left behind");
}
