//! What `build` and `check` make of a repository as a whole: secrets that are handed on, an entry
//! with a name of its own, and Kustomizations that want different things.

use super::{config_map, examples, gitopsd, kustomization, report, results, text, tree};
use crate::sealed::seal;
use serde_json::json;
use std::fs;

/// Who may open what is sealed to the key of the examples.
const OURS: &str = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";

/// A secret value, long enough that it is found nowhere by chance.
const VALUE: &str = "opensesame-Zq81nLw5Kx";

/// A GitRepository of another server.
fn source(name: &str) -> String {
    format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: {name}, \
         namespace: flux-system}}\nspec: {{interval: 1h, url: 'https://git.example/{name}', \
         ref: {{branch: main}}}}\n"
    )
}

/// The daemon's own is `a_secret_that_a_parent_hands_down_as_a_variable_…` in `sealed`.
#[test]
fn a_secret_that_a_parent_hands_down_is_masked_in_what_its_children_build() {
    let from = |kind: &str, name: &str| {
        format!("  postBuild: {{substituteFrom: [{{kind: {kind}, name: {name}}}]}}\n")
    };
    let hands = |value: &str| format!("  postBuild: {{substitute: {{PW: \"{value}\"}}}}\n");
    let declared = [
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: vars, namespace: flux-system}}\n\
             stringData: {{password: {VALUE}}}\n"
        ),
        kustomization("parent", "./parent", &from("Secret", "vars")),
        kustomization("late", "./late", &from("ConfigMap", "of-child")),
    ];
    let sealed = seal(&kustomization("sealed", "./sealed", &hands(VALUE)), OURS, "^PW$");
    let dir = tree(&[
        ("clusters/a/all.yaml", &declared.join("---\n")),
        ("clusters/a/sealed.yaml", &sealed),
        ("parent/child.yaml", &kustomization("child", "./child", &hands("${password}"))),
        ("child/map.yaml", &config_map("of-child", "before-${PW}-after")),
        ("child/grandchild.yaml", &kustomization("grandchild", "./grandchild", &hands("${PW}"))),
        ("grandchild/map.yaml", &config_map("of-grandchild", "${PW}")),
        ("sealed/map.yaml", &config_map("of-sealed", "${PW}")),
        ("late/map.yaml", &config_map("of-late", "${k}")),
    ]);
    let (identity, stored) = (examples().join("age.key"), tree(&[]));
    let build = |more: &[&str]| {
        let mut arguments = vec!["build", "--tree", text(dir.path()), "--path", "clusters/a"];
        arguments.extend(["--identity", text(&identity)]);
        arguments.extend(more);
        gitopsd(&arguments)
    };
    let shown = build(&["--show-secrets"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for (line, of) in [
        (format!("  k: before-{VALUE}-after\n"), "child and late"),
        (format!("  k: {VALUE}\n"), "grandchild and sealed"),
    ] {
        assert_eq!(shown.out.matches(&line).count(), 2, "{of}: {}", shown.out);
    }
    let printed = build(&[]);
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    assert!(printed.out.contains("  k: \"before-***-after\"\n"), "{}", printed.out);
    assert!(!(printed.out + &printed.err).contains(VALUE), "it is printed");
    assert_eq!(build(&["--output", text(stored.path())]).code, Some(0));
    for name in ["child", "flux-system", "grandchild", "late", "parent", "sealed"] {
        let path = stored.path().join(format!("flux-system/{name}.yaml"));
        let told = fs::read_to_string(path).expect("a file for each Kustomization");
        assert!(!told.contains(VALUE), "{name} tells it");
    }

    // What is wrong with a spec is told with the words that stand there.
    let wrong = kustomization("wrong", "./child", "").replace("10m", "\"${password}\"");
    fs::write(dir.path().join("parent/wrong.yaml"), wrong).expect("ours to write");
    let refused = build(&[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("spec.interval: \"***\" is not a duration"), "{}", refused.err);
}

/// The daemon's own is `an_entry_with_a_name_of_its_own_…` in `entry`.
#[test]
fn an_entry_with_a_name_of_its_own_is_built_and_checked_with_the_spec_that_it_states() {
    let spec = "  postBuild:\n    substitute: {WORD: hello}\n    substituteFrom: [{kind: ConfigMap, \
                name: own}]\n  patches:\n  - target: {kind: ConfigMap, name: greeting}\n    \
                patch: |\n      - {op: add, path: /data/more, value: patched}\n";
    let entry = kustomization("cluster", "./clusters/a/", spec);
    let entry = entry.replace("GitRepository, name: flux-system", "GitRepository, name: home");
    let dir = tree(&[
        ("clusters/a/flux/source.yaml", &source("home")),
        ("clusters/a/flux/entry.yaml", &entry),
        ("clusters/a/own.yaml", &config_map("own", "from-the-entry")),
        ("clusters/a/greeting.yaml", &config_map("greeting", "${WORD} ${k}")),
    ]);
    let build = || gitopsd(&["build", "--tree", text(dir.path()), "--path", "clusters/a"]);
    let built = build();
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.out.contains("  k: hello from-the-entry\n  more: patched\n"), "{}", built.out);
    assert!(built.out.contains("fluxcd.io/name: flux-system\n"), "the host's name: {}", built.out);
    assert_eq!(results(&report(dir.path(), &[]).0), ["flux-system ok"], "it is not built twice");
    let checked = gitopsd(&["check", text(dir.path())]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains("ok    flux-system/flux-system: 4 objects\n"), "{checked:?}");

    // In another namespace it would read other Secrets: there it is a mere name.
    let mere = entry.replacen("namespace: flux-system", "namespace: web", 1);
    let mere = mere.replace("name: home}", "name: home, namespace: flux-system}");
    fs::write(dir.path().join("clusters/a/flux/entry.yaml"), mere).expect("ours to write");
    let built = build();
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.out.contains("  k: \"${WORD} ${k}\"\n"), "{}", built.out);
    assert_eq!(results(&report(dir.path(), &[]).0), ["flux-system ok"]);
}

#[test]
fn what_two_kustomizations_declare_at_once_is_an_error_of_the_later_one() {
    let declared = ["first", "second", "third"]
        .map(|name| kustomization(name, &format!("./{name}"), ""))
        .join("---\n");
    let dir = tree(&[
        ("clusters/a/all.yaml", &declared),
        ("first/map.yaml", &config_map("shared", "1")),
        ("first/far.yaml", &source("far")),
        ("second/map.yaml", &config_map("shared", "2")),
        ("second/far.yaml", &source("far")),
        ("third/map.yaml", &config_map("shared", "1")),
    ]);
    let (report, code) = report(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert_eq!(results(&report), ["first ok", "flux-system ok", "second error", "third ok"]);
    let entries = report["kustomizations"].as_array().expect("a list");
    let second = entries.iter().find(|entry| entry["name"] == "second").expect("is there");
    let differs = "ConfigMap/flux-system/shared is declared differently by Kustomization \
                   flux-system/first (first/map.yaml:1): keep one, or make both identical";
    let twice = "GitRepository/flux-system/far is declared twice: keep one of the two";
    assert_eq!(
        second["errors"],
        json!([{"file": "second/far.yaml", "line": 1, "message": twice},
            {"file": "second/map.yaml", "line": 1, "message": differs}])
    );
    let checked = gitopsd(&["check", text(dir.path())]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let told = format!("fail  flux-system/second: second/map.yaml:1: {differs}\n");
    assert!(checked.out.contains(&told), "{checked:?}");
}
