//! What is said of image objects: names that nobody declares, markers, files that stay as they are.

use super::*;
use serde_json::{Value, json};

fn declared(kind: &str, name: &str, spec: Value) -> Declared {
    let manifest = json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "n", "labels": {"of": name}}, "spec": spec});
    let object = Object::read(&manifest).expect("an image object").expect("a sound one");
    Declared { place: 0, object, origin: Some(format!("{name}.yaml:3")) }
}

fn repository(name: &str) -> Declared {
    declared("ImageRepository", name, json!({"image": "r.example/app", "interval": "1m"}))
}

fn policy(name: &str, repository: Value) -> Declared {
    let spec = json!({"imageRepositoryRef": repository, "policy": {"numerical": {}}});
    declared("ImagePolicy", name, spec)
}

/// An automation that takes the policy with the label `of`.
fn automation(name: &str, source: &str, of: &str) -> Declared {
    let spec = json!({"interval": "1m", "sourceRef": {"name": source},
        "policySelector": {"matchLabels": {"of": of}},
        "git": {"commit": {"author": {"email": "bot@example.com"}}}});
    declared("ImageUpdateAutomation", name, spec)
}

/// The markers of one file, for an automation.
fn marks(automation: &str, text: &str) -> (Key, Result<Marked, String>) {
    let files = [("k8s/app.yaml".to_owned(), text.as_bytes().to_vec())];
    (Key::new(Kind::ImageUpdateAutomation, "n", automation), Ok(Marked::of(&files)))
}

fn marker(policy: &str) -> String {
    format!("image: a:1 # {{\"$imagepolicy\": \"{policy}\"}}\n")
}

/// What is told; the GitRepository n/git is declared too, and objects that are called idle are.
fn told(
    objects: &[Declared],
    whole: bool,
    marked: impl IntoIterator<Item = (Key, Result<Marked, String>)>,
) -> Vec<String> {
    let all: BTreeSet<Key> = objects.iter().map(|of| of.object.key()).collect();
    let git = Key::new(Kind::GitRepository, "n", "git");
    let exists = |key: &Key| *key == git || all.contains(key);
    let idle = all.iter().filter(|key| key.name == "idle").cloned().collect();
    let (unread, marked) = (BTreeSet::new(), marked.into_iter().collect());
    let known = Known {
        objects,
        whole,
        exists: &exists,
        elsewhere: &|_: usize, source: &Key| source.name == "far",
        idle: &idle,
        unread: &unread,
        marked: &marked,
    };
    let all = tell(&known).into_iter();
    let word = |wrong| if wrong { "error" } else { "warning" };
    all.map(|told| format!("{} {}", word(told.wrong), told.note)).collect()
}

#[test]
fn what_fits_together_is_silent() {
    let objects =
        [repository("app"), policy("app", json!({"name": "app"})), automation("all", "git", "app")];
    assert_eq!(told(&objects, true, [marks("all", &marker("n:app:tag"))]), [""; 0]);
    assert_eq!(told(&objects, true, []), [""; 0], "files that are not at hand say nothing");
}

#[test]
fn names_that_nobody_declares_are_errors_where_all_was_walked() {
    let objects = [
        policy("app", json!({"name": "ap"})),
        policy("idle", json!({"name": "ap"})),
        automation("all", "gti", "app"),
    ];
    let lacks = "ImagePolicy/n/app: spec.imageRepositoryRef: ImageRepository/n/ap is declared \
                 nowhere";
    let fix = "correct the name, or declare it";
    let source = "ImageUpdateAutomation/n/all: spec.sourceRef: GitRepository/n/gti is declared \
                  nowhere";
    let idle = lacks.replace("n/app", "n/idle");
    let alone = "ImagePolicy/n/idle: its tag is written nowhere: no ImageUpdateAutomation of \
                 namespace n selects it";
    assert_eq!(
        told(&objects, true, []),
        [
            format!("error app.yaml:3: {lacks}: {fix}"),
            format!("warning idle.yaml:3: {idle}: {fix}"),
            format!("warning idle.yaml:3: {alone}"),
            format!("error all.yaml:3: {source}: {fix}"),
        ]
    );
    let part = "in what could be walked";
    assert_eq!(
        told(&objects, false, []),
        [
            format!("warning app.yaml:3: {lacks} {part}: {fix}"),
            format!("warning idle.yaml:3: {idle} {part}: {fix}"),
            format!("warning all.yaml:3: {source} {part}: {fix}"),
        ]
    );
}

#[test]
fn a_repository_of_another_namespace_has_to_admit_somebody() {
    let far = |more: Value| {
        let mut spec = json!({"image": "r.example/app", "interval": "1m"});
        spec["accessFrom"] = more;
        let mut far = declared("ImageRepository", "app", spec);
        let Object::ImageRepository(repository) = &mut far.object else { panic!() };
        repository.namespace = "far".into();
        let reference = json!({"name": "app", "namespace": "far"});
        told(&[far, policy("app", reference), automation("all", "git", "app")], true, [])
    };
    let denied = "error app.yaml:3: ImagePolicy/n/app: spec.imageRepositoryRef: \
                  ImageRepository/far/app is for policies of its own namespace only: admit \
                  namespace n in its spec.accessFrom.namespaceSelectors";
    for nobody in [Value::Null, json!({}), json!({"namespaceSelectors": []})] {
        assert_eq!(far(nobody), [denied]);
    }
    assert_eq!(far(json!({"namespaceSelectors": [{}]})), [""; 0]);
}

#[test]
fn a_marker_of_nobodys_policy_is_told_once_and_a_policy_without_one_is_a_warning() {
    let objects = [
        repository("app"),
        policy("app", json!({"name": "app"})),
        automation("one", "git", "app"),
        automation("two", "git", "other"),
    ];
    let wrong = marker("n:ap");
    let found = told(&objects, true, [marks("one", &wrong), marks("two", &wrong)]);
    let unwritten = "warning app.yaml:3: ImagePolicy/n/app: its tag is written nowhere: put # \
                     {\"$imagepolicy\": \"n:app\"} behind the value";
    let nobodys = "warning k8s/app.yaml:1: the marker names ImagePolicy/n/ap, which is declared \
                   nowhere, or it belongs to another cluster: correct the name, or declare it; \
                   until then \
                   ImageUpdateAutomation/n/one leaves this file of GitRepository/n/git alone";
    assert_eq!(found, [unwritten, nobodys]);
    // The policy of a repository that was not walked may be declared there.
    let found = told(&objects, false, [marks("one", &wrong)]);
    assert!(found[0].starts_with("warning k8s/app.yaml:1: the marker"), "{found:?}");
    assert_eq!(found.len(), 1);
    // A marker where another automation edits writes nothing of this policy.
    let own = marker("n:app");
    assert_eq!(told(&objects, true, [marks("two", &own), marks("one", "a: 1\n")]), [unwritten]);
}

#[test]
fn what_else_keeps_a_file_from_edits_is_a_warning_and_a_path_that_is_not_there_an_error() {
    let objects = [automation("all", "git", "app")];
    let found = told(&objects, true, [marks("all", &format!("{}a: [\n", marker("n:app")))]);
    let [told_once] = found.as_slice() else { panic!("{found:?}") };
    assert!(told_once.starts_with("warning k8s/app.yaml:"), "{told_once}");
    let alone = "until then ImageUpdateAutomation/n/all leaves this file of \
                 GitRepository/n/git alone";
    assert!(told_once.contains("not YAML") && told_once.ends_with(alone), "{told_once}");
    // What the file marks is not known: no policy is said to be without a marker.
    let objects = [policy("app", json!({"name": "app"})), automation("all", "git", "app")];
    let found = told(&objects, true, [marks("all", "a: [ # {\"$imagepolicy\": \"n:app\"}\n")]);
    assert!(!found.iter().any(|told| told.contains("written nowhere")), "{found:?}");
    let objects = [automation("all", "git", "app")];
    let (key, _) = marks("all", "");
    let found = told(&objects, true, [(key, Err("there is no such place".to_owned()))]);
    let expected = "error all.yaml:3: ImageUpdateAutomation/n/all: spec.update.path: there is \
                    no such place";
    assert_eq!(found, [expected]);
}

#[test]
fn what_is_suspended_is_wrong_for_nobody_yet() {
    let mut objects = [policy("app", json!({"name": "ap"})), automation("all", "gti", "app")];
    let words = |objects: &[Declared]| {
        let (key, _) = marks("all", "");
        let found = told(objects, true, [(key, Err("there is no such place".to_owned()))]);
        let word = |told: &String| told.split(' ').next().unwrap_or_default().to_owned();
        found.iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(words(&objects), ["error", "error", "error"]);
    for declared in &mut objects {
        match &mut declared.object {
            Object::ImagePolicy(policy) => policy.suspend = true,
            Object::ImageUpdateAutomation(automation) => automation.suspend = true,
            _ => panic!("neither"),
        }
    }
    assert_eq!(words(&objects), ["warning", "warning", "warning"]);
}

#[test]
fn many_troubles_of_one_automation_are_counted_and_a_file_elsewhere_names_its_source() {
    let objects = [automation("all", "git", "app")];
    let found = told(&objects, true, [marks("all", &format!("- {}", marker("n:ap")).repeat(25))]);
    assert_eq!(found.len(), 21);
    let more = "warning all.yaml:3: ImageUpdateAutomation/n/all: and 5 more of the kind in the \
                files that it edits";
    assert_eq!(found[20], more);

    let objects = [automation("all", "far", "app")];
    let inside = format!("a: |\n  {}", marker("n:ap"));
    let found = told(&objects, false, [marks("all", &inside)]);
    let [_, inside] = found.as_slice() else { panic!("{found:?}") };
    assert!(inside.starts_with("warning k8s/app.yaml:2: the marker is text"), "{inside}");
    assert!(inside.ends_with(" (a file of GitRepository/n/far)"), "{inside}");
}
