//! `gitopsd init`: from a bare host to one that follows Git, and back where something is wrong.
//!
//! The control plane, Git over HTTP and SSH, and age are real.

mod imported; // credentials of every kind, by file
mod started; // the terminal, the service, sealing

use crate::bed::effects::{Fate, Point, read, supervise};
use crate::bed::{Auth, GitServer, Options, Repo, SshServer, TEST_KEY};
use crate::sealed::seal;
use crate::world::{World, mk_config_map, mk_kustomization, mk_namespace};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Who may open what is sealed to [`TEST_KEY`].
const OURS: &str = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";

const PASSWORD: &str = "correct-horse-Zq81nLw5Kx";

/// A host as the package leaves it: a configuration without a root, and nothing else.
fn host(world: &World) {
    world.configure("");
    let text = fs::read_to_string(world.path("config.yaml")).expect("written before");
    let (_, rest) = text.split_once("kubeconfig:").expect("after the root");
    let shared = "cluster: {shared: true}\n";
    let text = format!("kubeconfig:{rest}{shared}");
    let key = format!("decryption: {{ageKeyFile: {}}}\n", world.path("age.key").display());
    fs::write(world.path("config.yaml"), text.replace(&key, "")).expect("ours");
    fs::write(world.path("password"), PASSWORD).expect("ours");
    fs::write(world.path("wrong"), "wrong\n").expect("ours");
}

/// Every file of the configuration: path, mode and content.
fn files(world: &World) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    gather(&world.path(""), &world.path(""), &mut found);
    found
}

fn gather(top: &Path, dir: &Path, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("ours").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(top).expect("below").display().to_string();
        if ["state", "run", "log", "systemctl.log", "bin", "effects", "pid"].contains(&&*name) {
            continue;
        }
        let mode = entry.metadata().expect("there").permissions().mode() & 0o7777;
        if path.is_dir() {
            found.insert(format!("{name}/"), (mode, Vec::new()));
            gather(top, &path, found);
        } else {
            found.insert(name, (mode, fs::read(&path).expect("ours")));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that a call said.
fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn private_git() -> GitServer {
    let auth = Auth::Basic { user: "git".to_owned(), password: PASSWORD.to_owned() };
    GitServer::start(Options { auth, tls: false })
}

/// A flux-config repository with one Kustomization, on branch `main`.
fn repository(world: &World, server: &GitServer) -> Repo {
    world.cluster().apply(&mk_namespace(&world.namespace));
    let repo = Repo::create(server, "infra/flux-config");
    let name = &world.namespace;
    let path = format!("./apps/{name}");
    repo.write("clusters/a/apps.yaml", &mk_kustomization(name, &path, ""));
    repo.write(&format!("apps/{name}/cm.yaml"), &mk_config_map(name, "made", "by init"));
    repo.commit("first");
    repo.push("main");
    repo
}

/// The arguments of a whole answer, with others added.
fn arguments<'a>(url: &'a str, password: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["init", "--repo", url, "--path", "clusters/a", "--password-file", password];
    let rest = ["--generate-age-key", "--no-recovery", "--no-restart"];
    [&usual[..], &rest, more].concat()
}

fn init(world: &World, arguments: &[&str]) -> Output {
    world.command(arguments).stdin(Stdio::null()).output().expect("the program is built")
}

#[test]
fn flags_alone_set_a_host_up_once_and_the_daemon_follows() {
    let (mut world, server) = (World::new(), private_git());
    host(&world);
    let repo = repository(&world, &server);
    let theirs = recipient();
    for (file, to) in [("ours", OURS), ("theirs", &theirs)] {
        let object = mk_config_map(&world.namespace, file, "hidden");
        let sealed = seal(&object, to, "^data$");
        repo.write(&format!("apps/{}/{file}.yaml", world.namespace), &sealed);
    }
    repo.commit("sealed");
    repo.push("main");
    let (url, password) = (server.url_of("infra/flux-config"), world.path("password"));
    let (key, password) = (world.path("age.key"), password.display().to_string());
    let key = key.display().to_string();
    let whole = [
        &["init", "--repo", &url, "--path", "./clusters/a/", "--password-file", &password][..],
        &["--age-key", &key, "--no-recovery", "--no-restart"],
    ]
    .concat();

    let before = files(&world);
    let dry = init(&world, &[&whole[..], &["--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    assert!(said(&dry).contains("config.d/50-init.yaml would be written"), "{}", said(&dry));
    // Variables that only the cluster has are no reason to refuse the entry.
    let variables = "  postBuild: {substituteFrom: [{kind: Secret, name: settings}]}\n";
    let entry = mk_kustomization("cluster", "./clusters/a", variables);
    repo.write("clusters/a/entry.yaml", &entry);
    repo.commit("with variables");
    repo.push("variables");
    repo.remove("clusters/a/entry.yaml");
    repo.commit("without variables");
    let dry = init(&world, &[&whole[..], &["--branch", "variables", "--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    assert!(said(&dry).contains("Secret/flux-system/settings is declared nowhere"));
    assert_eq!(files(&world), before, "a dry run touches nothing");

    let done = init(&world, &whole);
    let told = said(&done);
    assert_eq!(done.status.code(), Some(0), "{told}");
    for part in [
        "clusters/a leads to 2 Kustomizations from one source, 2 sealed files",
        &format!("theirs.yaml: sealed to {theirs}; the key held here is {OURS}"),
        "then sops updatekeys FILE",
        "no Flux controllers run in it",
        &format!("age: {OURS}\n"),
        "encrypted_regex: ^(data|stringData)$",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains(PASSWORD) && !told.contains("AGE-SECRET"), "{told}");
    let after = files(&world);
    let added: Vec<_> = after.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
    let added: Vec<_> = added.iter().map(|(name, (mode, _))| format!("{name} {mode:o}")).collect();
    assert_eq!(
        added,
        [
            "config.d/ 755",
            "config.d/50-init.yaml 644",
            "credentials/ 700",
            "credentials/age-key 400",
            "credentials/git-password 400",
        ]
    );
    assert!(before.iter().all(|(name, file)| after[name] == *file), "nothing else is touched");
    assert_eq!(text(&after["credentials/age-key"].1), TEST_KEY);

    let again = init(&world, &whole);
    assert_eq!(again.status.code(), Some(0));
    assert!(said(&again).contains("nothing was changed"), "{}", said(&again));
    assert_eq!(files(&world), after, "the same again changes nothing");
    let shorter = init(&world, &["init", "--no-recovery", "--no-restart"]);
    assert!(said(&shorter).contains("nothing was changed"), "{}", said(&shorter));

    repo.remove(&format!("apps/{}/theirs.yaml", world.namespace));
    repo.replace(
        "clusters/a/apps.yaml",
        "  prune: true",
        "  prune: true\n  decryption: {provider: sops}",
    );
    repo.commit("without theirs");
    repo.push("main");
    world.start();
    world.settled();
    assert!(world.get("configmap", "made").is_some() && world.get("configmap", "ours").is_some());
    assert_eq!(world.run(&["check"]).status.code(), Some(0));
}

#[test]
fn what_is_missing_is_named_at_once_with_its_flags() {
    let world = World::new();
    host(&world);
    let before = files(&world);
    let bare = init(&world, &["init"]);
    assert_eq!(bare.status.code(), Some(2), "{}", said(&bare));
    for flag in ["--repo URL", "--path DIRECTORY", "--recovery AGE_RECIPIENT", "--no-recovery"] {
        assert!(said(&bare).contains(flag), "{flag}: {}", said(&bare));
    }
    let ssh = init(&world, &["init", "--repo", "git@127.0.0.1:r.git"]);
    assert_eq!(ssh.status.code(), Some(2), "{}", said(&ssh));
    for flag in ["--path", "--identity FILE", "--generate-identity", "--host-key-fingerprint"] {
        assert!(said(&ssh).contains(flag), "{flag}: {}", said(&ssh));
    }
    let json = world.json(&["init"]);
    assert_eq!(json["steps"][0]["level"], "fail");
    assert_eq!(files(&world), before);
}

#[test]
fn a_flag_that_makes_no_sense_is_named_itself_before_anything_else_is_looked_at() {
    let world = World::new();
    host(&world);
    let before = files(&world);
    for (flag, value, found) in [
        ("--repo", "nonsense", "no scheme"),
        ("--repo", "ftp://h/r", "scheme \"ftp\" is not taken"),
        ("--repo", "https://me:hunter2@h/r", "credentials inside the URL"),
        ("--path", "../a", "\"../a\" is not a directory below the repository's top"),
    ] {
        let output = init(&world, &["init", flag, value]);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with(&format!("fail  {flag}: {found}\n      -> ")), "{told}");
        assert!(!told.contains("50-init.yaml") && !told.contains("hunter2"), "{told}");
    }
    assert_eq!(files(&world), before);
}

#[test]
fn every_flag_that_makes_no_sense_is_told_at_once_and_beside_them_what_is_wrong_in_a_file() {
    let world = World::new();
    host(&world);
    let failed = |arguments: &[&str]| {
        let output = init(&world, &[&["init"][..], arguments].concat());
        let told = text(&output.stdout);
        let what = told.lines().filter_map(|line| line.strip_prefix("fail  ")?.split(": ").next());
        let what = what.collect::<Vec<&str>>().join(" ");
        assert!(!said(&output).contains("50-init.yaml"), "{}", said(&output));
        (what, output.status.code(), told)
    };
    let before = files(&world);
    let none = world.path("none").display().to_string();
    let (what, code, told) = failed(&["--interval", "soon", "--commit", "abc"]);
    assert_eq!((what.as_str(), code), ("--commit --interval flags", Some(2)), "{told}");
    assert!(told.contains("not said: --repo URL; --path DIRECTORY"), "{told}");
    let all = [
        &["--repo", "nonsense", "--path", "../x", "--recovery", "me"][..],
        &["--interval", "soon", "--commit", "abc", "--password-file", &none],
    ]
    .concat();
    let (what, code, told) = failed(&all);
    let flags = "--repo --path --recovery --password-file --commit --interval";
    assert_eq!((what.as_str(), code), (flags, Some(2)), "{told}");
    assert_eq!(files(&world), before);

    world.drop_in("limits: {workers: many}\nroot: {interval: 0s}\n");
    let before = files(&world);
    let (what, code, told) = failed(&["--path", "../x", "--commit", "abc", "--no-recovery"]);
    assert_eq!((what.as_str(), code), ("--path --commit flags configuration", Some(78)), "{told}");
    for line in ["test.yaml:1: limits.workers: \"many\"", "test.yaml:2: root.interval: \"0s\""] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(files(&world), before);
}

#[test]
fn a_token_takes_the_place_of_a_password_and_of_the_name_that_stood_beside_it() {
    let world = World::new();
    host(&world);
    repository(&world, &world.git);
    let (url, secret) = (world.git.url_of("infra/flux-config"), world.path("password"));
    let secret = secret.to_str().expect("UTF-8");
    let config = || text(&files(&world)["config.d/50-init.yaml"].1);
    let done = init(&world, &arguments(&url, secret, &["--username", "me"]));
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(config().contains("username: me"), "{}", config());
    let before = files(&world);
    let token = ["init", "--token-file", secret, "--no-recovery", "--no-restart"];
    let both = init(&world, &[&token[..], &["--username", "me"]].concat());
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    assert!(text(&both.stdout).starts_with("fail  --username: said without"), "{}", said(&both));
    assert_eq!(files(&world), before);
    let done = init(&world, &token);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(!config().contains("username"), "{}", config());
}

#[test]
fn every_refusal_says_what_to_do_and_leaves_the_host_as_it_was() {
    let (world, server) = (World::new(), private_git());
    host(&world);
    repository(&world, &server);
    let url = server.url_of("infra/flux-config");
    let (right, wrong) = (world.path("password"), world.path("wrong"));
    let (right, wrong) = (right.to_str().expect("UTF-8"), wrong.to_str().expect("UTF-8"));
    let none = world.path("none").display().to_string();
    let kubeconfig = fs::read_to_string(world.path("kubeconfig")).expect("the bed wrote it");
    let closed = kubeconfig.replace(world.cluster().server(), "https://127.0.0.1:1");
    fs::write(world.path("closed"), closed).expect("ours");
    let closed = world.path("closed").display().to_string();
    let secret = world.path("age.key").display().to_string();
    let refused = |when: &str| {
        let before = files(&world);
        for (more, password, code, words) in [
            (&["--path", "clusters/b"][..], right, 1, "say --path with what is there: clusters/a"),
            (&["--path", "apps/nothing"], right, 1, "is no directory of this revision"),
            (&["--branch", "mian"], right, 1, "it has main"),
            (&["--tag", "v1"], right, 1, "say --branch, --tag"),
            (&[], wrong, 1, "give --username and --password-file"),
            (&["--interval", "soon"], right, 2, "fail  --interval: \"soon\" is not taken"),
            (&["--path", "/clusters"], right, 2, "fail  --path: \"/clusters\" is not a directory"),
            (&["--kubeconfig", &none], right, 1, "curl -sfL https://get.k3s.io"),
            (&["--kubeconfig", &closed], right, 1, "fail  cluster: "),
            (&["--recovery", "age1nonsense"], right, 2, "is no public key of age"),
            (&["--username", "other"], right, 1, "give --username and --password-file"),
            (&["--password-file", &none], right, 1, "is not there"),
        ] {
            let mut all = arguments(&url, password, &[]);
            for pair in more.chunks(2) {
                all.retain(|argument| *argument != "--no-recovery" || pair[0] != "--recovery");
                match all.iter().position(|argument| *argument == pair[0]) {
                    Some(at) => all[at + 1] = pair[1],
                    None => all.extend(pair),
                }
            }
            let output = init(&world, &all);
            let told = said(&output);
            assert_eq!(output.status.code(), Some(code), "{when} {more:?}: {told}");
            assert!(told.contains(words), "{when} {more:?}: {told}");
            assert!(!told.contains(PASSWORD), "{told}");
            assert_eq!(files(&world), before, "{when} {more:?}");
        }
    };
    refused("on a bare host");
    let done = init(&world, &arguments(&url, right, &[]));
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    refused("on one that is set up");
    // No start of the service would take such a key: it is not restarted, and nothing is written.
    let key = world.path("credentials/git-password");
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("ours");
    mode(0o644);
    let before = files(&world);
    for more in [&["--interval", "5m"][..], &["--interval", "5m", "--dry-run"], &[]] {
        let usual = ["init", "--no-recovery", "--no-restart"];
        let told = said(&init(&world, &[&usual[..], more].concat()));
        let words = [format!("fail  credentials: {} ", key.display()), "mode 0644".to_owned()];
        let fix = format!("chmod 0400 {}, then run the same again", key.display());
        assert!(words.iter().chain([&fix]).all(|word| told.contains(word)), "{more:?}: {told}");
        assert_eq!(files(&world), before, "{more:?}");
    }
    mode(0o400);

    let before = files(&world);
    let mut other = arguments(&url, right, &["--age-key", &secret]);
    other.retain(|argument| *argument != "--generate-age-key");
    let told = said(&init(&world, &other));
    assert!(
        told.contains("a key is never overwritten") && !told.contains("AGE-SECRET-KEY-1"),
        "{told}"
    );
    // The password of one server is not shown to another.
    let elsewhere = world.git.url_of("infra/flux-config");
    let told = said(&init(&world, &["init", "--repo", &elsewhere, "--path", "a", "--no-recovery"]));
    assert!(told.contains("git-password was meant for 127.0.0.1"), "{told}");
    assert_eq!(files(&world), before);
}

#[test]
fn an_ssh_server_is_pinned_by_its_fingerprint_and_a_deploy_key_is_made_once() {
    let world = World::new();
    host(&world);
    repository(&world, &world.git);
    let server = SshServer::start(world.git.root());
    let url = server.url_of("infra/flux-config");
    let known = server.known_hosts();
    let printed = tool("ssh-keygen", &["-l", "-f", known.to_str().expect("UTF-8")]);
    let fingerprint = printed.split_whitespace().nth(1).expect("its second word").to_owned();
    let whole = |more: &[&str]| {
        let usual = ["init", "--repo", &url, "--path", "clusters/a", "--generate-identity"];
        let rest = ["--generate-age-key", "--no-recovery", "--no-restart"];
        let all = [&usual[..], &rest, more].concat();
        init(&world, &all)
    };

    let bare = files(&world);
    let unknown = whole(&[]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(said(&unknown).contains(&format!("is unknown and shows {fingerprint}")));
    assert!(said(&unknown).contains("--host-key-fingerprint"));
    let wrong = whole(&["--host-key-fingerprint", "SHA256:nonsense"]);
    assert!(said(&wrong).contains("shows another key"), "{}", said(&wrong));
    let dry = whole(&["--host-key-fingerprint", &fingerprint, "--dry-run"]);
    assert!(said(&dry).contains("one would be made"), "{}", said(&dry));
    assert_eq!(files(&world), bare);

    // Nobody accepts the new key yet: it is kept, and nothing else.
    let first = whole(&["--host-key-fingerprint", &fingerprint]);
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    let key = world.path("credentials/git-identity");
    let public = tool("ssh-keygen", &["-y", "-f", key.to_str().expect("UTF-8")]);
    assert!(said(&first).contains(public.trim()), "{}", said(&first));
    assert!(said(&first).contains("then run the same again"), "{}", said(&first));
    let kept: Vec<String> =
        files(&world).into_keys().filter(|name| !bare.contains_key(name)).collect();
    assert_eq!(kept, ["credentials/", "credentials/git-identity"]);

    let accepted = server.identity().with_file_name("authorized_keys");
    let line = fs::read_to_string(&accepted).expect("the bed wrote it");
    let (forced, _) = line.split_once("ssh-ed25519").expect("a key");
    fs::write(&accepted, format!("{forced}{public}")).expect("ours");
    let second = whole(&["--host-key-fingerprint", &fingerprint]);
    assert_eq!(second.status.code(), Some(0), "{}", said(&second));
    let after = files(&world);
    let pinned = text(&after["credentials/git-known-hosts"].1);
    let host_key = fs::read_to_string(known).expect("the bed wrote it");
    assert_eq!(host_key.strip_suffix(" gitopsd test\n"), pinned.strip_suffix('\n'));
    let third = whole(&[]);
    assert!(said(&third).contains("nothing was changed"), "{}", said(&third));
    assert_eq!(files(&world), after);
    let shown = world.json(&["key", "show"]);
    assert_eq!(shown["deploy"]["path"], key.display().to_string());
}

#[test]
fn a_cluster_that_flux_owns_is_handed_over_first_and_its_keys_are_taken_along() {
    let (mut world, server) = (World::alone(), private_git());
    host(&world);
    repository(&world, &server);
    let url = server.url_of("infra/flux-config");
    let password = world.path("password").display().to_string();
    // Flux followed the same repository over ssh: what it used opens nothing over http.
    let secret = format!(
        "{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: sops-age, namespace: flux-system}}\n\
         stringData:\n  age.agekey: {:?}\n  note.txt: no key\n---\napiVersion: v1\nkind: Secret\n\
         metadata: {{name: flux-system, namespace: flux-system}}\nstringData:\n  identity: a key\n  \
         known_hosts: git.example ssh-ed25519 AAAA\n",
        mk_namespace("flux-system"),
        TEST_KEY.trim()
    );
    world.cluster().apply(&secret);
    let controller = |replicas: u32| {
        crate::world::mk_deployment("flux-system", "kustomize-controller", "1")
            .replace(
                "namespace: flux-system\n",
                "namespace: flux-system\n  labels: {app.kubernetes.io/part-of: flux}\n",
            )
            .replace("replicas: 1", &format!("replicas: {replicas}"))
    };
    world.cluster().apply(&controller(1));
    let all = ["init", "--repo", &url, "--path", "clusters/a", "--no-restart"];
    let second = recipient();
    let more = ["--password-file", &password, "--recovery", &second];
    let all = [&all[..], &more].concat();
    let before = files(&world);
    let refused = init(&world, &all);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for part in ["kustomize-controller runs in it", "scale deployment --all --replicas=0"] {
        assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
    }
    assert_eq!(files(&world), before);

    world.cluster().apply(&controller(0));
    let done = init(&world, &all);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("is imported from Flux's Secret sops-age"), "{}", said(&done));
    assert!(said(&done).contains(&format!("age: {OURS},{second}\n")), "{}", said(&done));
    let shown = world.json(&["key", "show"]);
    assert_eq!(shown["age"]["recipients"], serde_json::json!([OURS]));
    assert_eq!(shown["recovery"], *second);
    world.start();
    world.settled();
    // Once the cluster answers, its Secret could be read: the host's own password goes before it.
    assert!(world.reconcile(), "{}", world.log());
}

/// The public key of a fresh identity.
fn recipient() -> String {
    age::x25519::Identity::generate().to_public().to_string()
}

/// What another tool prints; it must succeed.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
    text(&output.stdout)
}

#[test]
fn killed_at_any_change_the_next_run_puts_everything_back_or_finds_it_in_place() {
    let world = World::new();
    host(&world);
    repository(&world, &world.git);
    let (url, password) = (world.git.url_of("infra/flux-config"), world.path("password"));
    let password = password.to_str().expect("UTF-8");
    let cut = |effect: &str, arguments: &[&str]| {
        let log = world.path("effects");
        let _ = fs::remove_file(&log);
        let fate = Fate::Kill(Point::first(effect));
        let (root, fault) = (world.path("config.yaml"), world.path("no-fault"));
        let root = root.parent().expect("a file lies in a directory");
        let mut command = supervise(root, &log, &fate, &fault);
        command.arg(env!("CARGO_BIN_EXE_gitopsd"));
        command.arg("--config").arg(world.path("config.yaml")).args(arguments);
        let cut = command.stdin(Stdio::null()).output().expect("the supervisor runs");
        assert!(read(&log).cut, "{effect}: {:#?}\n{}", read(&log).all, said(&cut));
    };
    let next = || {
        let next = init(&world, &arguments(&url, password, &["--branch", "mian"]));
        assert_eq!(next.status.code(), Some(1), "{}", said(&next));
        said(&next)
    };

    // Secrets may be sealed to a key from the moment it is there: it stays whatever happens.
    let bare = files(&world);
    cut("rename config.d/*", &arguments(&url, password, &[]));
    let key = files(&world).remove("credentials/age-key").expect("it comes first");
    assert!(next().contains("what it had changed is put back"));
    let mut kept = files(&world);
    assert_eq!(kept.remove("credentials/age-key"), Some(key.clone()));
    kept.remove("credentials/");
    assert_eq!(kept, bare);

    let done = init(&world, &arguments(&url, password, &[]));
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let before = files(&world);
    assert_eq!(before["credentials/age-key"], key);
    let changed = arguments(&url, password, &["--interval", "7m", "--token-file", password]);
    let changed: Vec<&str> = {
        // A token takes the place of the password: one file comes, one goes, one changes.
        let at = changed.iter().position(|a| *a == "--password-file").expect("it is there");
        [&changed[..at], &changed[at + 2..]].concat()
    };
    for effect in [
        "rename .init/*",
        "rename credentials/*",
        "unlink credentials/git-password*",
        "rename config.d/*",
        "rename .init/undo*",
    ] {
        cut(effect, &changed);
        assert_ne!(files(&world), before, "{effect}: there is something to put back");
        next();
        assert_eq!(files(&world), before, "{effect}");
    }
    // Once all is in place the service starts with it, and nobody takes it away again.
    cut("unlink .init/placed*", &changed);
    let told = next();
    assert!(told.contains("it had put everything in place, and that stays"), "{told}");
    let after = files(&world);
    assert!(after.keys().all(|name| !name.starts_with(".init")), "{:?}", after.keys());
    assert!(after.contains_key("credentials/git-token"));
    assert!(!after.contains_key("credentials/git-password"));
    let again = init(&world, &changed);
    assert!(said(&again).contains("nothing was changed"), "{}", said(&again));
    assert_eq!(files(&world), after);
}

#[test]
fn a_repository_of_many_parts_is_counted_and_its_other_sources_are_left_for_later() {
    let world = World::new();
    host(&world);
    let (_, app) = world.examples("2m");
    drop(app);
    let (url, key) = (world.git.url_of("infra/flux-config"), world.path("age.key"));
    let key = key.to_str().expect("UTF-8");
    let output = init(
        &world,
        &[
            &["init", "--repo", &url, "--path", "clusters/my-cluster", "--age-key", key][..],
            &["--no-recovery", "--no-restart"],
        ]
        .concat(),
    );
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for part in [
        "clusters/my-cluster leads to 5 Kustomizations from 3 sources, one sealed file",
        "2 Kustomizations of other sources cannot be looked at yet",
        "ok    sops: .sops.yaml names these recipients already",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("sealed file:") && !told.contains("creation_rules"), "{told}");
}
