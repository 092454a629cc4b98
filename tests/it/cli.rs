//! The program as a person calls it: help, exit codes, and `build` and `check` on repositories.
//!
//! No daemon and no cluster, but for the check of a host: what the verbs say when there is one is in
//! `story`.

mod built; // secrets handed on, an entry of its own name, two that differ
mod host; // the parts of a host that are checked
mod images; // what image objects name, and fields that are misspelt

use crate::bed::tools;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERBS: &[&str] = &[
    "run",
    "check",
    "build",
    "status",
    "reconcile",
    "diff",
    "confirm",
    "history",
    "images",
    "suspend",
    "resume",
    "init",
    "keygen",
    "key",
    "completions",
];

/// What a call left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

fn gitopsd(arguments: &[&str]) -> Done {
    let output = Command::new(env!("CARGO_BIN_EXE_gitopsd"))
        .args(arguments)
        .env_clear()
        .env("GITOPSD_RENDER_ENGINE", tools::bin().join("kubectl"))
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples")
}

/// A directory with files.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a file below")).expect("temp dir is writable");
        fs::write(path, text).expect("temp dir is writable");
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 paths in tests")
}

fn kustomization(name: &str, path: &str, more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: \
         {name}, namespace: flux-system}}\nspec:\n  interval: 10m\n  prune: true\n  path: \
         {path}\n  sourceRef: {{kind: GitRepository, name: flux-system}}\n{more}"
    )
}

fn config_map(name: &str, data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: flux-system}}\n\
         data: {{k: '{data}'}}\n"
    )
}

/// `build --json`: the report and the exit code.
fn report(dir: &Path, more: &[&str]) -> (Value, Option<i32>) {
    let mut arguments = vec!["build", "--json", "--tree", text(dir), "--path", "clusters/a"];
    arguments.extend(more);
    let done = gitopsd(&arguments);
    let report = serde_json::from_str(&done.out);
    (report.unwrap_or_else(|error| panic!("{error}: {done:?}")), done.code)
}

/// `name result` of each Kustomization, in order of names.
fn results(report: &Value) -> Vec<String> {
    let entries = report["kustomizations"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let mut results: Vec<String> =
        entries.map(|e| format!("{} {}", text(&e["name"]), text(&e["result"]))).collect();
    results.sort();
    results
}

#[test]
fn every_verb_explains_itself_with_examples_and_exit_codes() {
    for verb in VERBS {
        let done = gitopsd(&[verb, "--help"]);
        assert_eq!(done.code, Some(0), "{verb}: {done:?}");
        assert!(done.out.contains("EXAMPLES\n") && done.out.contains("EXIT CODES\n"), "{verb}");
        assert_eq!(done.err, "", "{verb}");
    }
    let all = gitopsd(&["--help"]).out;
    assert!(VERBS.iter().all(|verb| all.contains(&format!("\n  {verb} "))), "{all}");
}

#[test]
fn wrong_usage_is_2() {
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["suspend"],
        &["build", "--tree", "."],
        &["history", "-n", "0"],
        &["reconcile", "a", "b"],
        &["reconcile", "-n", "flux-system"],
        &["suspend", "helmrelease", "redis"],
        &["resume", "source", "a"],
        &["suspend", "web/apps", "-n", "web"],
        &["resume", "ks/web/apps", "-n", "web"],
        &["reconcile", "a", "b", "c", "d"],
    ] {
        assert_eq!(gitopsd(wrong).code, Some(2), "{wrong:?}");
    }
    let done = gitopsd(&["suspend", "helmrelease", "redis"]);
    let told = "gitopsd: \"helmrelease\" is no kind that gitopsd runs: say kustomization, ";
    assert!(done.err.starts_with(told), "{done:?}");
}

/// A reload tells the words of such a trial behind the program's name.
#[test]
fn what_a_trial_finds_is_told_without_the_programs_name() {
    let dir = tree(&[
        ("config.yaml", "root: {url: 'https://git.example/r', path: a}\n"),
        ("credentials/age-key", "AGE-SECRET-KEY-1NONE\n"),
    ]);
    let key = dir.path().join("credentials/age-key");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&key, open).expect("ours");
    let config = dir.path().join("config.yaml");
    let done = gitopsd(&["--config", text(&config), "run", "--check"]);
    assert_eq!(done.code, Some(78), "{done:?}");
    assert!(!done.err.contains("gitopsd: "), "{done:?}");
    assert!(done.err.contains(&format!("chmod 0400 {}", key.display())), "{done:?}");
}

#[test]
fn without_a_daemon_every_question_is_69_and_says_what_to_do() {
    let dir = tree(&[]);
    let socket = dir.path().join("api.sock");
    for question in [
        &["status"][..],
        &["reconcile", "apps"],
        &["diff"],
        &["history"],
        &["history", "show", "1"],
        &["images"],
        &["reconcile", "image", "blaster-dev"],
        &["suspend", "apps", "--for", "2h"],
        &["resume", "apps"],
        &["resume", "kustomization", "apps", "-n", "flux-system"],
        &["suspend", "Kustomization/apps", "-n", "flux-system"],
        &["confirm", "abc"],
    ] {
        let mut arguments = vec!["--socket", text(&socket)];
        arguments.extend(question);
        let done = gitopsd(&arguments);
        assert_eq!(done.code, Some(69), "{question:?}: {done:?}");
        assert_eq!(done.out, "", "{question:?}");
        assert!(done.err.contains("gitopsd is not running"), "{done:?}");
        assert!(done.err.contains("systemctl status gitopsd"), "{done:?}");
    }
}

#[test]
fn a_wrong_configuration_is_78_with_every_problem_and_its_line() {
    let dir = tree(&[("config.yaml", "root:\n  url: git@host:x\n  path: /abs\ncolour: blue\n")]);
    let path = dir.path().join("config.yaml");
    for verb in ["run", "check"] {
        let done = gitopsd(&["--config", text(&path), verb]);
        assert_eq!(done.code, Some(78), "{verb}: {done:?}");
        let told = done.out + &done.err;
        for problem in [":2: root.url", ":3: root.path", ":4: colour"] {
            assert!(told.contains(&format!("config.yaml{problem}")), "{verb} {problem}: {told}");
        }
    }
    let none = gitopsd(&["--config", text(&dir.path().join("none.yaml")), "run"]);
    assert_eq!(none.code, Some(78));
    assert!(
        none.err.contains("name the repository as root.url, root.ref and root.path"),
        "{none:?}"
    );
    let checked = gitopsd(&["--config", text(&dir.path().join("none.yaml")), "check"]);
    assert_eq!(checked.code, Some(78));
    assert!(checked.out.ends_with("\n      -> sudo gitopsd init\n"), "{checked:?}");
}

#[test]
fn completions_are_there_for_each_shell() {
    for (shell, mark) in [
        ("bash", "complete -F _gitopsd"),
        ("zsh", "#compdef gitopsd"),
        ("fish", "complete -c gitopsd"),
    ] {
        let done = gitopsd(&["completions", shell]);
        assert_eq!(done.code, Some(0));
        assert!(done.out.contains(mark) && done.out.contains("reconcile"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gitopsd"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn the_examples_are_built_whole_and_no_secret_is_in_any_file() {
    let (examples, built) = (examples(), tree(&[]));
    let (flux, games) = (examples.join("flux-config"), examples.join("games/blaster"));
    let key = examples.join("age.key");
    let (dev, prod) = (
        format!("flux-system/blaster={}", games.display()),
        format!("flux-system/blaster-prod={}", games.display()),
    );
    let build = |output: &Path, more: &[&str]| {
        let mut arguments = vec!["build", "--tree", text(&flux), "--path", "clusters/my-cluster"];
        arguments.extend(["--source", &dev, "--source", &prod, "--identity", text(&key)]);
        arguments.extend(["--output", text(output)]);
        arguments.extend(more);
        gitopsd(&arguments)
    };
    let done = build(built.path(), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");

    let report = fs::read_to_string(built.path().join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(
        results(&report),
        [
            "blaster ok",
            "blaster-prod ok",
            "flux-system ok",
            "infra-config ok",
            "infra-controllers ok"
        ]
    );
    let entries = report["kustomizations"].as_array().expect("a list");
    let named = |name: &str| entries.iter().find(|e| e["name"] == name).expect("is there").clone();
    let mut blaster = named("blaster");
    blaster["warnings"] = json!([]);
    assert_eq!(
        blaster,
        json!({"namespace": "flux-system", "name": "blaster", "path": "./k8s/dev",
            "source": "flux-system/blaster", "result": "ok", "engine": "child", "objects": 7,
            "errors": [], "warnings": [], "unsupported": []})
    );
    let total: u64 = entries.iter().filter_map(|e| e["objects"].as_u64()).sum();
    assert_eq!(report["objects"], total);
    let aside = report["set_aside"].as_array().expect("a list");
    assert!(aside.iter().any(|set| set["kind"] == "CustomResourceDefinition"), "{aside:?}");

    let file = |name: &str| {
        let path = built.path().join(format!("flux-system/{name}.yaml"));
        fs::read_to_string(path).expect("a file for each Kustomization")
    };
    let dev_file = file("blaster");
    assert!(dev_file.contains("kustomize.toolkit.fluxcd.io/name: blaster\n"), "{dev_file}");
    assert!(dev_file.contains("CLUSTER: my-cluster\n"), "substituted: {dev_file}");
    assert!(file("flux-system").contains("kind: GitRepository\n"), "Flux objects are included");
    let secrets = fs::read_to_string(examples.join("secrets.txt")).expect("the test values");
    let values: Vec<&str> = secrets.lines().filter_map(|l| Some(l.split_once('=')?.1)).collect();
    assert!(values.len() >= 5);
    for name in ["blaster", "blaster-prod", "flux-system", "infra-config", "infra-controllers"] {
        let told = file(name);
        for value in &values {
            let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, value);
            assert!(!told.contains(value) && !told.contains(&encoded), "{name} tells a secret");
        }
    }

    let open = tree(&[]);
    assert_eq!(build(open.path(), &["--show-secrets"]).code, Some(0));
    let path = open.path().join("flux-system/blaster.yaml");
    let told = fs::read_to_string(&path).expect("a file");
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, values[0]);
    assert!(told.contains(&encoded), "asked for, it is shown");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("it").permissions());
    assert_eq!(mode & 0o777, 0o600, "and for us alone");
}

#[test]
fn one_failure_stops_nothing_else_and_what_is_missing_is_named() {
    let children = [
        kustomization("good", "./good", ""),
        kustomization("broken", "./broken", ""),
        kustomization("nowhere", "./nowhere", ""),
        kustomization("far", "./far", "").replace("name: flux-system}\n", "name: other}\n"),
        kustomization("remote", "./good", "  kubeConfig: {secretRef: {name: x}}\n"),
        kustomization("round", "./good", "  dependsOn: [{name: trip}]\n"),
        kustomization("trip", "./good2", "  dependsOn: [{name: round}]\n"),
        kustomization(
            "vars",
            "./vars",
            "  postBuild: {substituteFrom: [{kind: ConfigMap, name: v}]}\n",
        ),
        kustomization(
            "unset",
            "./vars",
            "  postBuild: {substituteFrom: [{kind: ConfigMap, name: w}]}\n",
        ),
    ];
    let dir = tree(&[
        ("clusters/a/all.yaml", &children.join("---\n")),
        ("good/cm.yaml", &config_map("v", "from-good")),
        ("good2/cm.yaml", &config_map("v2", "x")),
        ("broken/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n"),
        ("vars/cm.yaml", &config_map("out", "${k}")),
    ]);
    let (report, code) = report(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        results(&report),
        [
            "broken error",
            "far blocked",
            "flux-system ok",
            "good ok",
            "nowhere error",
            "remote unsupported",
            "round blocked",
            "trip blocked",
            "unset blocked",
            "vars ok",
        ]
    );
    let entries = report["kustomizations"].as_array().expect("a list");
    let error = |name: &str| {
        let entry = entries.iter().find(|e| e["name"] == name).expect("is there");
        entry["errors"][0].clone()
    };
    assert_eq!(error("broken")["file"], "broken/cm.yaml");
    assert!(error("broken")["line"].as_u64().is_some(), "{}", error("broken"));
    let told = |name: &str| error(name)["message"].as_str().expect("a sentence").to_owned();
    assert!(told("far").contains("add --source flux-system/other=DIR"), "{}", told("far"));
    assert!(told("round").contains("round -> flux-system/trip"), "{}", told("round"));
    assert!(told("unset").contains("ConfigMap/flux-system/w"), "{}", told("unset"));

    let printed = gitopsd(&["build", "--tree", text(dir.path()), "--path", "clusters/a"]);
    assert!(printed.out.contains("k: from-good\n"), "variables of another's render: {printed:?}");
    assert_eq!(printed.out.matches("\nkind: Kustomization\n").count(), 9);

    // `check` judges as `build` does, but for what was not given to it; neither says a thing twice.
    let checked = gitopsd(&["check", text(dir.path()), "--entry", "clusters/a"]);
    assert_eq!(checked.code, Some(1));
    for told in [&printed.err, &checked.out] {
        let lines: Vec<&str> = told.lines().filter(|line| line.contains("kubeConfig")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("is not supported yet, and ignoring it could do harm"));
    }
    for name in ["broken", "far", "nowhere", "remote", "round", "trip", "unset"] {
        let mark = if ["far", "unset"].contains(&name) { "warn" } else { "fail" };
        let told = format!("{mark}  flux-system/{name}: ");
        assert_eq!(checked.out.matches(&told).count(), 1, "{name}: {}", checked.out);
    }
    for (alone, code) in [("far", 0), ("remote", 1), ("unset", 0)] {
        let child = children.iter().find(|c| c.contains(&format!("name: {alone}"))).expect("one");
        let dir = tree(&[
            ("clusters/a/all.yaml", child),
            ("good/cm.yaml", &config_map("v", "x")),
            ("vars/cm.yaml", &config_map("out", "${k}")),
        ]);
        let built = gitopsd(&["build", "--tree", text(dir.path()), "--path", "clusters/a"]);
        let checked = gitopsd(&["check", text(dir.path())]);
        assert_eq!((built.code, checked.code), (Some(1), Some(code)), "{alone}: {checked:?}");
    }

    let other = format!("flux-system/other={}", dir.path().join("good").display());
    let mapped = self::report(dir.path(), &["--source", &other]).0;
    assert!(results(&mapped).contains(&"far error".to_owned()), "found, but has no ./far");
}

#[test]
fn check_of_a_repository_finds_the_entry_and_names_file_and_line() {
    let dir = tree(&[
        ("clusters/a/apps.yaml", &kustomization("apps", "./apps", "")),
        ("apps/cm.yaml", "apiVersion: v1\nkind: ConfigMap\n\tmetadata: {}\n"),
    ]);
    let done = gitopsd(&["check", text(dir.path())]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("ok    entry: clusters/a\n"), "{done:?}");
    assert!(done.out.contains("fail  flux-system/apps: apps/cm.yaml:"), "{done:?}");
    fs::write(dir.path().join("apps/cm.yaml"), config_map("x", "y")).expect("writable");
    let done = gitopsd(&["check", text(dir.path()), "--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let findings: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(findings[0], json!({"level": "ok", "what": "entry", "found": "clusters/a"}));
}
