//! Sealed files: who can open them, what a damaged one costs, and where plaintext never is.

use crate::bed::{GitServer, Repo, SECRETS, TEST_KEY, tools};
use crate::world::{App, World, mk_config_map, mk_kustomization, mk_namespace};
use age::secrecy::ExposeSecret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who may open what is sealed to [`TEST_KEY`].
pub const OURS: &str = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";

/// A secret value, long enough that it is found nowhere by chance.
const VALUE: &str = "opensesame-Zq81nLw5Kx";

/// Seals a YAML text with the real sops; only values below keys that match `rule`.
pub fn seal(text: &str, recipient: &str, rule: &str) -> String {
    let mut child = Command::new(tools::bin().join("sops"))
        .args(["encrypt", "--age", recipient, "--encrypted-regex", rule])
        .args(["--filename-override", "secret.yaml", "--input-type", "yaml"])
        .args(["--output-type", "yaml", "/dev/stdin"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sops can be run");
    child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).expect("sops reads it");
    let output = child.wait_with_output().expect("sops ends");
    assert!(output.status.success(), "sops: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("sops prints UTF-8")
}

fn secret(namespace: &str, name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         stringData:\n  password: {value}\n"
    )
}

/// A Secret sealed as people seal it.
fn sealed(world: &World, name: &str, recipient: &str) -> String {
    seal(&secret(&world.namespace, name, VALUE), recipient, "^(data|stringData)$")
}

/// A fresh age key: its file and its recipient.
fn stranger() -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let text = identity.to_string();
    (text.expose_secret().to_owned(), identity.to_public().to_string())
}

pub const OPEN: &str = "  decryption: {provider: sops}\n";

/// The opened value of a Secret in the cluster.
fn opened(world: &World, name: &str) -> Option<String> {
    let object = world.get("secret", name)?;
    let value = object["data"]["password"].as_str()?.to_owned();
    String::from_utf8(STANDARD.decode(value).ok()?).ok()
}

fn good(world: &World) -> [(&'static str, String); 1] {
    [("good.yaml", mk_config_map(&world.namespace, "good", "1"))]
}

fn fails(world: &World, name: &str, words: &[&str]) {
    world.eventually(&format!("{name} fails with {words:?}"), |world| {
        let message = world.message(name);
        !world.is_ready(name) && words.iter().all(|word| message.contains(word))
    });
}

fn warnings(world: &World, name: &str) -> String {
    let item = world.item(&format!("Kustomization/flux-system/{name}"));
    let warnings = item["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_file_sealed_to_somebody_else_is_told_with_its_recipient_and_the_others_run() {
    let mut world = World::new();
    let (_, theirs) = stranger();
    let files = [("s.yaml", sealed(&world, "s", &theirs)), good(&world)[0].clone()];
    world.apps(&[
        App { name: "theirs", spec: OPEN, files: &files },
        App { name: "ours", spec: OPEN, files: &[("o.yaml", sealed(&world, "o", OURS))] },
    ]);
    world.start();
    world.eventually("the other one is ready", |world| world.is_ready("ours"));
    fails(&world, "theirs", &["apps/theirs/s.yaml", &theirs, OURS]);
    assert_eq!(opened(&world, "o").as_deref(), Some(VALUE));
    assert_eq!(world.get("configmap", "good"), None, "nothing of it is applied");
}

#[test]
fn a_wrong_mac_is_warned_of_or_refused_as_the_host_says() {
    let mut world = World::new();
    let text = sealed(&world, "s", OURS);
    // What bots do: cleartext of a sealed file is edited.
    let edited = text.replacen("kind: Secret\n", "kind: Secret\nimmutable: false\n", 1);
    assert_ne!(text, edited);
    let repo =
        world.apps(&[App { name: "apps", spec: OPEN, files: &[("s.yaml", edited.clone())] }]);
    world.start();
    world.settled();
    assert_eq!(opened(&world, "s").as_deref(), Some(VALUE));
    let told = warnings(&world, "apps");
    assert!(told.contains("apps/apps/s.yaml") && told.contains("MAC is wrong"), "{told}");
    assert!(told.contains("sops set --ignore-mac"), "{told}");

    assert_eq!(world.stop(), Some(0));
    world.drop_in("decryption: {mac: enforce}\n");
    world.start();
    fails(&world, "apps", &["apps/apps/s.yaml", "MAC is wrong"]);
    assert!(world.get("secret", "s").is_some(), "what was applied stays");
    repo.write("apps/apps/s.yaml", &text);
    repo.commit("sealed again");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert_eq!(warnings(&world, "apps"), "");
}

#[test]
fn a_flipped_byte_stops_the_kustomization_and_names_the_value() {
    let mut world = World::new();
    let text = sealed(&world, "s", OURS);
    let at = text.find("password: ENC[AES256_GCM,data:").unwrap() + 31;
    let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mut flipped = text.clone();
    flipped.replace_range(at..=at, other);
    world.apps(&[
        App { name: "flipped", spec: OPEN, files: &[("s.yaml", flipped)] },
        App { name: "good", spec: OPEN, files: &good(&world) },
    ]);
    world.start();
    world.eventually("the good one is ready", |world| world.is_ready("good"));
    fails(&world, "flipped", &["apps/flipped/s.yaml", "password", "does not authenticate"]);
    assert_eq!(opened(&world, "s"), None);
    assert!(!world.message("flipped").contains(VALUE));
}

#[test]
fn a_sealed_file_that_nothing_opens_is_an_error_and_a_plaintext_secret_a_notice() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let generated = [
        (
            "kustomization.yaml",
            format!("namespace: {ns}\nsecretGenerator:\n- name: g\n  files: [values.yaml]\n"),
        ),
        ("values.yaml", seal("password: x\n", OURS, "^password$")),
    ];
    // kustomize would put it into the ConfigMap as it is.
    let configured = [
        (
            "kustomization.yaml",
            format!("namespace: {ns}\nconfigMapGenerator:\n- name: c\n  files: [app.enc.yaml]\n"),
        ),
        ("app.enc.yaml", seal("password: x\n", OURS, "^password$")),
    ];
    world.apps(&[
        App { name: "configured", spec: OPEN, files: &configured },
        App { name: "closed", spec: "", files: &[("s.yaml", sealed(&world, "s", OURS))] },
        App { name: "generated", spec: "", files: &generated },
        App { name: "plain", spec: "", files: &[("p.yaml", secret(&ns, "p", VALUE))] },
    ]);
    world.start();
    fails(&world, "closed", &["apps/closed/s.yaml", "no spec.decryption"]);
    fails(&world, "generated", &["apps/generated/values.yaml", "no spec.decryption"]);
    fails(&world, "configured", &["apps/configured/app.enc.yaml", "read it by a secretGenerator"]);
    world.eventually("the plain one is ready", |world| world.is_ready("plain"));
    assert_eq!(opened(&world, "p").as_deref(), Some(VALUE), "repositories have them");
    let told = warnings(&world, "plain");
    assert!(told.contains("apps/plain/p.yaml") && told.contains("plaintext"), "{told}");
    assert!(!told.contains(VALUE));
    assert_eq!(opened(&world, "s"), None);
}

#[test]
fn a_decryption_secret_of_the_cluster_opens_what_the_host_key_cannot() {
    let mut world = World::new();
    let (key, theirs) = stranger();
    let name = format!("keys-{}", world.namespace);
    let spec = format!("  decryption: {{provider: sops, secretRef: {{name: {name}}}}}\n");
    world.apps(&[
        App { name: "theirs", spec: &spec, files: &[("s.yaml", sealed(&world, "s", &theirs))] },
        App { name: "ours", spec: &spec, files: &[("o.yaml", sealed(&world, "o", OURS))] },
    ]);
    world.start();
    // The Secret is not there: on the root's own server the host's key stands in.
    world.eventually("the host key opens ours", |world| world.is_ready("ours"));
    fails(&world, "theirs", &[&theirs]);
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: flux-system\n\
         stringData:\n  a.agekey: {key}\n"
    ));
    world.eventually("the cluster's key opens theirs", |world| world.is_ready("theirs"));
    assert_eq!(opened(&world, "s").as_deref(), Some(VALUE));
    world.run(&["reconcile"]);
    assert!(world.is_ready("ours"), "{}", world.message("ours"));
}

#[test]
fn the_hosts_key_does_not_open_what_comes_from_another_server() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let elsewhere = GitServer::http();
    let theirs = Repo::create(&elsewhere, "evil/apps");
    theirs.write("s.yaml", &sealed(&world, "s", OURS));
    theirs.commit("copied from the flux-config repository");
    theirs.push("main");
    let name = format!("origin-{ns}");
    let source = |spec: &str| {
        format!(
            "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata:\n  \
             name: theirs\n  namespace: flux-system\nspec:\n  interval: 1h\n  \
             url: {}\n  ref: {{branch: main}}\n---\napiVersion: kustomize.toolkit.fluxcd.io/v1\n\
             kind: Kustomization\nmetadata:\n  name: theirs\n  namespace: flux-system\nspec:\n  \
             interval: 1h\n  retryInterval: 1s\n  path: ./\n  prune: true\n  \
             sourceRef: {{kind: GitRepository, name: theirs}}\n{spec}",
            elsewhere.url_of("evil/apps")
        )
    };
    let by_name = format!("  decryption: {{provider: sops, secretRef: {{name: {name}}}}}\n");
    let repo = world.apps(&[]);
    repo.write("clusters/my-cluster/theirs.yaml", &source(OPEN));
    repo.commit("another server");
    repo.push("main");
    world.start();
    fails(&world, "theirs", &["s.yaml", OURS]);
    assert_eq!(opened(&world, "s"), None);

    repo.write("clusters/my-cluster/theirs.yaml", &source(&by_name));
    repo.commit("by the name of a Secret that is not there");
    repo.push("main");
    world.run(&["reconcile", "--with-source"]);
    fails(&world, "theirs", &[&name, "does not exist"]);
    assert_eq!(opened(&world, "s"), None);

    // Whoever may write that Secret has decided.
    world.cluster().apply(&mk_namespace("flux-system"));
    let key = TEST_KEY.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    world.cluster().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: flux-system\n\
         stringData:\n  age.agekey: {key}\n"
    ));
    world.eventually("opened by the cluster's Secret", |world| world.is_ready("theirs"));
    assert_eq!(opened(&world, "s").as_deref(), Some(VALUE));
}

/// A text as it is, and in base64.
fn forms(text: &str) -> [String; 2] {
    [text.to_owned(), STANDARD_NO_PAD.encode(text)]
}

/// Fails when any of the bytes hold the value.
fn scan(what: &str, bytes: &[u8]) {
    for form in forms(VALUE).iter().chain(&forms(KEY)) {
        let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
        assert!(!found, "{what} holds a secret: {}", String::from_utf8_lossy(bytes));
    }
}

/// The part of the test key that only its owner knows.
const KEY: &str = "1N4HDH7D7K7DTJLS9AQR960Z6CGV33FJG4RLPDX7U7W3CVKDS39QSCPX7AR";

/// Ids of a process's children.
fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    all
}

/// Ends the looking, also when an assertion ends the test.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at a process and its children until told to stop; answers the children it met.
fn look(pid: u32, stop: &AtomicBool) -> BTreeSet<u32> {
    let mut met = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let ids = children(pid);
        for id in ids.iter().chain([&pid]) {
            for file in ["cmdline", "environ"] {
                // A child that has just ended has neither.
                let bytes = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
                scan(&format!("/proc/{id}/{file}"), &bytes);
            }
        }
        met.extend(ids);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    met
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// One Secret is applied, values land in errors of the API server by opening and by substitution,
/// one in a ConfigMap, one is changed and shown as a difference.
#[test]
fn the_plaintext_is_in_the_cluster_and_nowhere_else() {
    assert!(!SECRETS.contains(VALUE), "a value of this test alone");
    let mut world = World::new();
    let ns = world.namespace.clone();
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\n  namespace: {ns}\nspec:\n  \
         replicas: {VALUE}\n  selector: {{matchLabels: {{app: d}}}}\n  template:\n    \
         metadata: {{labels: {{app: d}}}}\n    spec: {{containers: [{{name: a, image: b}}]}}\n"
    );
    let variables = format!("vars-{ns}");
    let spec = format!("  postBuild: {{substituteFrom: [{{kind: Secret, name: {variables}}}]}}\n");
    let used = mk_config_map(&ns, "used", "1").replace("\"1\"", "before-${password}-after");
    let bad = deployment.replace("name: d\n", "name: e\n").replace(VALUE, "${password}");
    let repo = world.apps(&[
        App { name: "secret", spec: OPEN, files: &[("s.yaml", sealed(&world, "s", OURS))] },
        App { name: "plain", spec: "", files: &[("p.yaml", secret(&ns, "p", VALUE))] },
        App {
            name: "refused",
            spec: OPEN,
            files: &[("d.yaml", seal(&deployment, OURS, "^replicas$"))],
        },
        App { name: "used", spec: &spec, files: &[("u.yaml", used)] },
        App { name: "wrong", spec: &spec, files: &[("w.yaml", bad)] },
    ]);
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&secret("flux-system", &variables, VALUE));
    world.start();
    let stop = AtomicBool::new(false);
    let pid = world.pid();
    let met = std::thread::scope(|scope| {
        let looking = scope.spawn(|| look(pid, &stop));
        let enough = Enough(&stop);
        world.eventually("what can be applied is", |world| {
            ["secret", "plain", "used"].iter().all(|name| world.is_ready(name))
                && ["refused", "wrong"].iter().all(|name| world.message(name).contains(':'))
        });
        // The values change, so that there are differences to be shown.
        world.ok(&["suspend", "secret"]);
        world.ok(&["suspend", "plain"]);
        let changed = secret(&ns, "p", &format!("{VALUE}-2"));
        repo.write("apps/plain/p.yaml", &changed);
        repo.write(
            "apps/secret/s.yaml",
            &seal(&secret(&ns, "s", &format!("{VALUE}-2")), OURS, "^(data|stringData)$"),
        );
        repo.commit("new values");
        repo.push("main");
        world.run(&["reconcile", "--with-source"]);
        let verbs: [&[&str]; 8] = [
            &["status"],
            &["status", "refused"],
            &["diff"],
            &["resume", "secret"],
            &["resume", "plain"],
            &["reconcile"],
            &["history"],
            &["history", "refused"],
        ];
        for verb in verbs {
            for json in [&[][..], &["--json"]] {
                let output = world.run(&[verb, json].concat());
                scan(&format!("{verb:?}"), &output.stdout);
                scan(&format!("{verb:?}, stderr"), &output.stderr);
            }
        }
        world.eventually("the new values are applied", |world| {
            opened(world, "s").is_some_and(|value| value.ends_with("-2"))
                && opened(world, "p").is_some_and(|value| value.ends_with("-2"))
        });
        for run in world.json(&["history", "-n", "200"]).as_array().unwrap() {
            let id = run["run"].as_str().unwrap();
            for json in [&[][..], &["--json"]] {
                let output = world.run(&[&["history", "show", id], json].concat());
                scan(&format!("history show {id}"), &output.stdout);
            }
        }
        drop(enough);
        looking.join().expect("no process showed a secret")
    });
    assert!(!met.is_empty(), "render children were looked at");
    let used = world.get("configmap", "used").expect("it was applied");
    assert_eq!(used["data"]["key"], format!("before-{VALUE}-after"));
    assert_eq!(world.stop(), Some(0));
    let mut files = vec![world.path("log")];
    collect(&world.path("state"), &mut files);
    collect(&world.path("run"), &mut files);
    for file in files {
        // The mirror holds what is plaintext in Git, compressed.
        scan(&file.display().to_string(), &fs::read(&file).unwrap_or_default());
    }
}

/// Every run of the history, with its changes.
pub fn recorded(world: &World) -> String {
    let runs = world.json(&["history", "-n", "200"]);
    let show = |run: &Value| {
        world.ok(&["history", "show", run["run"].as_str().expect("a run has a name"), "--json"])
    };
    runs.as_array().expect("a list").iter().map(show).collect()
}

/// One Kustomization writes a substituted secret into a ConfigMap, another substitutes from that.
#[test]
fn a_secret_that_is_handed_on_in_a_config_map_is_masked_for_whoever_reads_it() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let (variables, settings) = (format!("secret-{ns}"), format!("settings-{ns}"));
    let from = |kind: &str, name: &str| {
        format!("  postBuild: {{substituteFrom: [{{kind: {kind}, name: {name}}}]}}\n")
    };
    let hands = mk_config_map("flux-system", &settings, "1");
    let hands = hands.replace("key: \"1\"", "ADDRESS: \"user:${password}@db\"");
    let stays = "metadata:\n  annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}";
    let hands = hands.replacen("metadata:", stays, 1);
    let beside = mk_config_map(&ns, "beside", "1");
    let used = mk_config_map(&ns, "used", "1").replace("\"1\"", "\"${ADDRESS}\"");
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&secret("flux-system", &variables, VALUE));
    let reads = from("ConfigMap", &settings);
    let hands = [("h.yaml", hands), ("b.yaml", beside)];
    let repo = world.apps(&[
        App { name: "hands", spec: &from("Secret", &variables), files: &hands },
        App { name: "reads", spec: &reads, files: &[("u.yaml", used)] },
    ]);
    world.start();
    world.settled();
    let is = |world: &World, value: &str| {
        world.get("configmap", "used").unwrap_or_default()["data"]["key"] == value
    };
    assert!(is(&world, &format!("user:{VALUE}@db")));
    // A change, a heal and a plan show values; another start knows as much.
    let second = format!("{VALUE}-2");
    world.cluster().apply(&secret("flux-system", &variables, &second));
    let now = format!("user:{second}@db");
    world.eventually("the new value has come through", |world| is(world, &now));
    world.settled();
    // The last time the ConfigMap has left Git and, as it may not be pruned, not the cluster.
    for (start, left) in [(false, false), (true, false), (true, true)] {
        if left {
            repo.remove("apps/hands/h.yaml");
            repo.commit("it leaves");
            repo.push("main");
            world.run(&["reconcile", "--with-source"]);
            world.eventually("it is kept", |world| recorded(world).contains("kept: "));
        }
        if start {
            world.kill();
        }
        let patch = r#"{"data":{"key":"theirs"}}"#;
        world.cluster().kubectl_ok(&["-n", &ns, "patch", "configmap", "used", "-p", patch]);
        if start {
            // Whoever reads may run before whoever hands on.
            world.start();
        }
        world.eventually("it is healed", |world| is(world, &now));
        world.settled();
    }
    world.settled();
    let mut told = recorded(&world);
    assert!(told.contains("data.key: ***"), "the change is told, but not its values: {told}");
    told += &format!("{}{}{}", world.ok(&["status", "--json"]), world.ok(&["diff"]), world.log());
    scan("what is told", told.as_bytes());
}

/// A parent writes a substituted secret into the variables of its child, and into names: what the
/// child's run tells hides it too.
#[test]
fn a_secret_that_a_parent_hands_down_as_a_variable_is_masked_in_the_childs_runs() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let variables = format!("handed-{ns}");
    let from = format!("  postBuild: {{substituteFrom: [{{kind: Secret, name: {variables}}}]}}\n");
    let hands = "  postBuild: {substitute: {WORD: \"${password}\"}}\n";
    let child = mk_kustomization("child", "./apps/child", hands);
    let repo = world.apps(&[App { name: "parent", spec: &from, files: &[("c.yaml", child)] }]);
    let map = |word: &str| {
        let text = mk_config_map(&ns, "used", "1");
        text.replace("\"1\"", &format!("{word}-${{WORD}}")).replace("used", "used-${WORD:0:4}")
    };
    repo.write("apps/child/m.yaml", &map("before"));
    repo.commit("a child");
    repo.push("main");
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&secret("flux-system", &variables, VALUE));
    world.start();
    world.settled();
    repo.write("apps/child/m.yaml", &map("after"));
    repo.commit("another word");
    repo.push("main");
    world.ok(&["suspend", "child"]);
    world.run(&["reconcile", "--with-source"]);
    for verb in [&["diff"][..], &["status"], &["status", "child", "--json"]] {
        scan(&format!("{verb:?}"), &world.run(verb).stdout);
    }
    world.ok(&["resume", "child"]);
    let name = format!("used-{}", &VALUE[..4]);
    world.eventually("it is applied", |world| {
        world
            .get("configmap", &name)
            .is_some_and(|map| map["data"]["key"] == format!("after-{VALUE}"))
    });
    world.settled();
    let mut told = String::new();
    for run in world.json(&["history", "child"]).as_array().unwrap() {
        let shown = world.ok(&["history", "show", run["run"].as_str().unwrap()]);
        scan("history show", shown.as_bytes());
        told += &shown;
    }
    assert!(told.contains("data.key: ***"), "the change is told, but not its values: {told}");
    assert_eq!(world.stop(), Some(0));
    let mut files = vec![world.path("log")];
    collect(&world.path("state"), &mut files);
    for file in files {
        scan(&file.display().to_string(), &fs::read(&file).unwrap_or_default());
    }
}

#[test]
fn a_name_that_holds_a_value_of_a_secret_is_warned_of_with_its_file() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let variables = format!("names-{ns}");
    let from = format!("  postBuild: {{substituteFrom: [{{kind: Secret, name: {variables}}}]}}\n");
    let map = mk_config_map(&ns, "used", "1").replace("used", "used-${password}");
    world.apps(&[App { name: "apps", spec: &from, files: &[("m.yaml", map)] }]);
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&secret("flux-system", &variables, "open-sesame"));
    world.start();
    world.settled();
    let told = warnings(&world, "apps");
    let start = format!("apps/apps/m.yaml:1: the name of ConfigMap/{ns}/used-*** holds a value");
    assert!(told.contains(&start), "{told}");
    assert!(!told.contains("open-sesame"), "{told}");
}
