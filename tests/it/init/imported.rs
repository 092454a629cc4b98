//! `gitopsd init` with credentials of every kind by file, and from one kind to another.

use super::*;

#[test]
fn credentials_are_taken_over_from_files_and_the_daemon_uses_them() {
    let mut world = World::new();
    host(&world);
    let auth = Auth::Bearer(PASSWORD.to_owned());
    let server = GitServer::start(Options { auth, tls: true });
    repository(&world, &server);
    let sshd = SshServer::start(server.root());
    fs::write(world.path("token"), format!("{PASSWORD}\n")).expect("ours");
    fs::write(world.path("ca"), server.ca()).expect("ours");
    let named = |path: std::path::PathBuf| path.display().to_string();
    let (token, ca) = (named(world.path("token")), named(world.path("ca")));
    let (url, ssh) = (server.url_of("infra/flux-config"), sshd.url_of("infra/flux-config"));
    let call = |more: &[&str]| {
        let usual = ["init", "--path", "clusters/a", "--no-recovery", "--no-restart"];
        init(&world, &[&usual[..], more].concat())
    };

    let untrusted = call(&["--repo", &url, "--token-file", &token]);
    assert_eq!(untrusted.status.code(), Some(1));
    assert!(said(&untrusted).contains("--ca-file FILE"), "{}", said(&untrusted));
    let unproven = call(&["--repo", &url, "--ca-file", &ca]);
    assert!(said(&unproven).contains("--token-file"), "{}", said(&unproven));
    let both = call(&["--repo", &url, "--token-file", &token, "--password-file", &token]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let all = ["--repo", &url, "--ca-file", &ca, "--token-file", &token, "--generate-age-key"];
    let done = call(&all);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(files(&world)["credentials/git-ca"].1, server.ca().as_bytes());
    world.start();
    world.settled();
    assert_eq!(world.stop(), Some(0));

    let (identity, known) = (named(sshd.identity()), named(sshd.known_hosts()));
    let call = |more: &[&str]| {
        let usual = ["init", "--path", "clusters/a", "--no-recovery", "--no-restart"];
        init(&world, &[&usual[..], more].concat())
    };
    fs::write(world.path("strange"), "elsewhere ssh-ed25519 AAAA\n").expect("ours");
    let strange = named(world.path("strange"));
    let unknown = call(&["--repo", &ssh, "--identity", &identity, "--known-hosts", &strange]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("the file names no key of 127.0.0.1"), "{}", said(&unknown));
    let done = call(&["--repo", &ssh, "--identity", &identity, "--known-hosts", &known]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("is here already"), "the age key stays: {}", said(&done));
    let after = files(&world);
    assert_eq!(
        text(&after["credentials/git-identity"].1),
        fs::read_to_string(identity).expect("it")
    );
    world.start();
    world.settled();
}

#[test]
fn no_key_is_made_where_what_is_sealed_needs_another_and_rules_that_are_there_are_added_to() {
    let (world, server) = (World::new(), private_git());
    host(&world);
    let repo = repository(&world, &server);
    let sealed = seal(&mk_config_map(&world.namespace, "theirs", "hidden"), OURS, "^data$");
    repo.write(&format!("apps/{}/theirs.yaml", world.namespace), &sealed);
    repo.write(".sops.yaml", "creation_rules:\n  - age: age1somebody\n");
    repo.commit("sealed");
    repo.push("main");
    let named = |name: &str| world.path(name).display().to_string();
    let (url, password, key) =
        (server.url_of("infra/flux-config"), named("password"), named("age.key"));
    let usual = ["init", "--repo", &url, "--path", "clusters/a", "--password-file", &password];
    let call = |more: &[&str]| {
        init(&world, &[&usual[..], &["--no-recovery", "--no-restart"], more].concat())
    };
    let before = files(&world);
    for dry in [&["--dry-run"][..], &[]] {
        let stopped = call(dry);
        let told = said(&stopped);
        assert_eq!(stopped.status.code(), Some(1), "{told}");
        assert!(told.contains("theirs.yaml: sealed to age1") && told.contains(OURS), "{told}");
        assert!(told.contains("--age-key FILE; if it is lost, say --generate-age-key"), "{told}");
        assert_eq!(files(&world), before, "nothing stands in the way of the right key");
    }
    let done = call(&["--age-key", &key]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("add them beside those it has"), "{}", said(&done));
    assert!(!said(&done).contains("Commit this as .sops.yaml"), "{}", said(&done));
}
