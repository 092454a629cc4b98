//! How commits are made and where they go: over ssh, signed, to a second place, against somebody
//! who writes the same values.

use super::{Extra, LONG, Setting, Stage, git, mk_secret};
use crate::bed::SshServer;
use crate::world::World;
use std::fs;
use std::path::Path;

/// Makes an ed25519 key with a passphrase, the public half beside it.
fn keygen(path: &Path, passphrase: &str) {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "robot", "-f"])
        .arg(path)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen works");
}

#[test]
fn tags_are_committed_over_ssh_and_a_key_that_may_only_read_is_named() {
    let ssh = std::cell::OnceCell::new();
    let stage = Stage::with(&Setting::default(), |world, _| {
        let server = ssh.get_or_init(|| SshServer::start(world.git.root()));
        let identity = fs::read(server.identity()).expect("ssh-keygen wrote it");
        let known = fs::read(server.known_hosts()).expect("the bed wrote it");
        let data = [("identity", identity.as_slice()), ("known_hosts", known.as_slice())];
        let secret = mk_secret(world, "ssh", &data);
        let source = format!("  secretRef: {{name: {secret}}}\n");
        Extra { url: Some(server.url_of("games/app")), source, ..Extra::default() }
    });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    assert_eq!(stage.commits("main"), 2);

    let read_only = stage.world.git.root().join("read-only");
    fs::write(&read_only, "").expect("ours to write");
    stage.push("a-3");
    assert!(!stage.reconcile("a"), "the key may only read");
    let item = stage.automation();
    let message = item["message"].as_str().unwrap_or_default();
    assert!(message.contains("marked as read only"), "{item}");
    fs::remove_file(&read_only).expect("ours");
    stage.reconcile("a");
    stage.arrived("a", "3");
    assert_eq!(stage.commits("main"), 3);
}

#[test]
fn commits_are_signed_by_an_ssh_key_that_git_verifies() {
    let stage = Stage::with(&Setting::default(), |world, _| {
        let key = world.path("signer");
        keygen(&key, "open sesame");
        let pem = fs::read(&key).expect("ssh-keygen wrote it");
        let data = [("identity", pem.as_slice()), ("password", b"open sesame")];
        let secret = mk_secret(world, "signer", &data);
        let commit = format!(", signingKey: {{type: ssh, secretRef: {{name: {secret}}}}}");
        Extra { commit, ..Extra::default() }
    });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    let public = fs::read_to_string(stage.world.path("signer.pub")).expect("ssh-keygen wrote it");
    let allowed = stage.world.path("allowed");
    fs::write(&allowed, format!("robot@test.invalid {public}")).expect("ours to write");
    let bare = stage.app.bare().to_str().expect("a plain name");
    let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
    let verified = crate::bed::git()
        .args(["--git-dir", bare, "-c", &setting, "-c", "gpg.format=ssh"])
        .args(["verify-commit", "main"])
        .output()
        .expect("git can be run");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{said}");
    assert!(said.contains("Good \"git\" signature for robot@test.invalid"), "{said}");
    assert!(!stage.world.log().contains("open sesame"));
}

#[test]
fn a_key_that_cannot_sign_stops_the_commit_and_openpgp_is_named_as_unsupported() {
    let stage = Stage::with(&Setting::default(), |world, _| {
        let secret =
            mk_secret(world, "gpg", &[("git.asc", b"-----BEGIN PGP PRIVATE KEY BLOCK-----")]);
        let commit = format!(", signingKey: {{secretRef: {{name: {secret}}}}}");
        Extra { commit, unready: true, ..Extra::default() }
    });
    stage.push("a-2");
    stage.reconcile("a");
    stage.chosen("a", "2");
    let item = stage.automation();
    assert_eq!(item["reason"], "Unsupported", "{item}");
    let unsupported = stage.world.status()["summary"]["unsupported"].to_string();
    assert!(unsupported.contains("git.commit.signingKey"), "{unsupported}");
    assert_eq!(stage.commits("main"), 1, "an unsigned commit must not pass for a signed one");
}

#[test]
fn a_second_place_that_cannot_take_the_commit_keeps_no_image_from_being_deployed() {
    let push = "    push: {refspec: 'refs/heads/main:refs/heads/copy'}\n";
    let stage = Stage::new(&Setting { git: push, ..Setting::default() });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    assert_eq!(stage.in_git("copy", "a"), "a-2");
    let strange = git(&stage.app, &["commit-tree", "-m", "strange", "main^{tree}"]);
    git(&stage.app, &["update-ref", "refs/heads/copy", strange.trim()]);
    stage.push("a-3");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "3");
    assert_eq!((stage.commits("main"), stage.in_git("copy", "a")), (3, "a-2".to_owned()));
    stage.world.eventually("status says what it did not take", |_| {
        let warnings = stage.automation()["warnings"].to_string();
        warnings.contains("refs/heads/copy") && warnings.contains("never forced")
    });

    // One that cannot be at all is named when it is read, and holds up no more.
    let file = "clusters/my-cluster/all.yaml";
    stage.config.replace(file, "refs/heads/main:refs/heads/copy", "main:copy");
    stage.config.commit("a short name");
    stage.config.push("main");
    assert!(stage.world.reconcile(), "{}", stage.world.log());
    stage.world.eventually("status says what is wrong with it", |world| {
        let unsupported = world.status()["summary"]["unsupported"].to_string();
        unsupported.contains("spec.git.push.refspec (the destination must be a full name")
    });
    stage.push("a-4");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "4");
}

#[test]
fn somebody_who_writes_the_same_value_back_gets_one_commit_of_ours_in_an_interval() {
    let stage = Stage::new(&Setting { interval: LONG, ..Setting::default() });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    let bare = stage.app.bare().to_str().expect("a plain name").to_owned();
    stage.app.git(&["pull", "--quiet", &bare, "main"]);
    stage.app.replace("k8s/images.yaml", ":a-2 ", ":a-1 ");
    stage.app.commit("no");
    stage.app.push("main");
    stage.world.run(&["reconcile", "GitRepository/flux-system/app"]);
    stage.world.eventually("status says that somebody else writes it", |_| {
        stage.automation()["warnings"].to_string().contains("somebody else writes")
    });
    stage.world.eventually("theirs is deployed", |_| stage.deployed("a") == "a-1");
    assert_eq!((stage.commits("main"), stage.in_git("main", "a")), (3, "a-1".to_owned()));
    stage.push("a-3");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "3");
}

#[test]
fn a_template_with_a_function_that_is_not_here_keeps_no_image_from_being_deployed() {
    let extra = |_: &World, _: &_| Extra {
        commit: ", messageTemplate: 'at {{ now }}'".to_owned(),
        ..Extra::default()
    };
    let stage = Stage::with(&Setting::default(), extra);
    let warned = || stage.automation()["warnings"].to_string();
    stage.world.eventually("status says so before there is a commit", |_| {
        let warnings = warned();
        ["ImageUpdateAutomation/flux-system/app", "\\\"now\\\"", "default message"]
            .iter()
            .all(|part| warnings.contains(part))
    });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    let message = git(&stage.app, &["log", "-1", "--format=%B", "main"]);
    assert!(message.starts_with("Update app to a-2 [skip ci]"), "{message}");
}

#[test]
fn a_commit_that_moved_on_before_it_was_polled_is_told_by_the_run_that_brought_it() {
    let stage = Stage::new(&Setting::default());
    // Somebody commits on top of ours before the source is asked: the server's own hook.
    let hook = stage.app.bare().join("hooks/post-receive");
    fs::create_dir_all(hook.parent().expect("below")).expect("ours to write");
    let script = "#!/bin/sh\nrm \"$0\"\ntheirs=$(GIT_AUTHOR_NAME=Eve GIT_AUTHOR_EMAIL=e@v \
                  GIT_COMMITTER_NAME=Eve GIT_COMMITTER_EMAIL=e@v git commit-tree -p main -m theirs \
                  'main^{tree}')\ngit update-ref refs/heads/main \"$theirs\"\n";
    fs::write(&hook, script).expect("ours to write");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&hook, open).expect("ours");
    stage.push("a-2");
    stage.reconcile("a");
    stage.arrived("a", "2");
    assert_eq!(stage.commits("main"), 3);
    stage.world.settled();
    let shown = stage.world.ok(&["history", "app", "-n", "1"]);
    assert!(shown.contains("a-1 → a-2 by ImagePolicy a"), "{shown}");
    let runs = stage.world.json(&["history", "app"]);
    let told = runs.as_array().into_iter().flatten();
    let told = told.filter(|run| run["images"].as_array().is_some_and(|all| !all.is_empty()));
    assert_eq!(told.count(), 1, "one run brought it: {runs}");
}
