//! The three image kinds: defaults, every problem at once, nothing dropped in silence.

use super::*;
use crate::flux::{GitReference, Key, Kind, Pattern};
use serde_json::json;
use std::time::Duration;

fn manifest(kind: &str, version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("image.toolkit.fluxcd.io/{version}"), "kind": kind,
        "metadata": {"name": "app", "namespace": "flux-system", "labels": {"stage": "dev"}},
        "spec": spec})
}

fn repository(spec: Value) -> Result<ImageRepository, Vec<String>> {
    ImageRepository::read(&manifest("ImageRepository", "v1beta2", spec))
}

fn policy(spec: Value) -> Result<ImagePolicy, Vec<String>> {
    ImagePolicy::read(&manifest("ImagePolicy", "v1", spec))
}

fn automation(spec: Value) -> Result<ImageUpdateAutomation, Vec<String>> {
    ImageUpdateAutomation::read(&manifest("ImageUpdateAutomation", "v1beta1", spec))
}

fn labelled(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn plain() -> Value {
    json!({"interval": "1m", "sourceRef": {"kind": "GitRepository", "name": "app"},
        "git": {"commit": {"author": {"email": "bot@example.com"}}}})
}

#[test]
fn a_repository_has_the_defaults_of_the_controller() {
    let read = repository(json!({"image": "r.local:5000/a/b", "interval": "5m"})).unwrap();
    let expected = ImageRepository {
        namespace: "flux-system".into(),
        name: "app".into(),
        image: "r.local:5000/a/b".into(),
        interval: Duration::from_secs(300),
        timeout: Duration::from_secs(300),
        secret_ref: None,
        service_account: None,
        cert_secret_ref: None,
        proxy_secret_ref: None,
        exclusion_list: vec![Pattern::parse(r"^.*\.sig$").unwrap()],
        insecure: false,
        access_from: None,
        suspend: false,
        unsupported: Vec::new(),
    };
    assert_eq!(read, expected);
    let short = json!({"image": "a", "interval": "5m", "timeout": "10ms", "exclusionList": []});
    let short = repository(short).unwrap();
    assert_eq!(short.timeout, Duration::from_secs(1));
    assert!(short.exclusion_list[0].matches("sha256-0.sig"));
}

#[test]
fn all_problems_of_a_repository_are_told_at_once() {
    let spec = json!({"image": "https://r/a", "interval": "1", "exclusionList": ["ok", "("]});
    let problems = repository(spec).unwrap_err();
    for field in ["image", "interval", "exclusionList[1]"] {
        let at = format!("spec.{field}:");
        assert!(problems.iter().any(|p| p.starts_with(&at)), "{field}: {problems:?}");
    }
    for image in ["r/a:v1", "r:5000/a@sha256:0", "a:b", "", "a//b", "a b"] {
        assert!(repository(json!({"image": image, "interval": "1m"})).is_err(), "{image}");
    }
}

#[test]
fn a_cloud_login_blocks_and_an_unknown_field_is_named() {
    let spec = json!({"image": "a", "interval": "1m", "provider": "aws", "verify": {}});
    let told: Vec<_> =
        repository(spec).unwrap().unsupported.iter().map(|u| (u.to_string(), u.blocks)).collect();
    let named = |field: &str| format!("ImageRepository/flux-system/app spec.{field}");
    assert_eq!(told, [(named("provider"), true), (named("verify"), false)]);
}

#[test]
fn access_from_admits_by_any_selector_and_all_its_labels() {
    let admits = |from: Value, labels: &[(&str, &str)]| {
        let spec = json!({"image": "a", "interval": "1m", "accessFrom": from});
        repository(spec).unwrap().access_from.unwrap().admits(&labelled(labels))
    };
    let two = json!({"namespaceSelectors": [{"matchLabels": {"a": "1", "b": "2"}},
        {"matchLabels": {"c": "3"}}]});
    assert!(admits(two.clone(), &[("c", "3")]));
    assert!(admits(two.clone(), &[("a", "1"), ("b", "2"), ("z", "9")]));
    assert!(!admits(two, &[("a", "1")]));
    assert!(admits(json!({"namespaceSelectors": [{"matchLabels": {}}]}), &[]));
    assert!(!admits(json!({"namespaceSelectors": []}), &[("a", "1")]));
    assert!(AccessFrom::default().admits_nobody());
}

#[test]
fn a_policy_takes_the_first_order_that_is_said_and_names_the_others() {
    let spec = json!({"imageRepositoryRef": {"name": "app", "namespace": "images"},
        "filterTags": {"pattern": "^v(?P<n>.*)$", "extract": "$n"},
        "policy": {"numerical": {"order": "desc"}, "semver": {"range": ">=1"}}});
    let read = policy(spec).unwrap();
    assert!(matches!(&read.order, TagOrder::Semver { said, .. } if said == ">=1"));
    assert_eq!(read.repository.to_string(), "images/app");
    assert_eq!(read.unsupported[0].field, "spec.policy.numerical");
    assert_eq!(read.labels, labelled(&[("stage", "dev")]));
    assert_eq!((read.digest, read.interval), (DigestReflection::Never, Duration::from_secs(600)));
    for (said, direction) in [
        (json!({"alphabetical": {}}), TagOrder::Alphabetical(Direction::Asc)),
        (json!({"alphabetical": {"order": "desc"}}), TagOrder::Alphabetical(Direction::Desc)),
        (json!({"numerical": {"order": "ASC"}}), TagOrder::Numerical(Direction::Asc)),
    ] {
        let spec = json!({"imageRepositoryRef": {"name": "app"}, "policy": said});
        let read = policy(spec).unwrap();
        assert_eq!(
            (read.order, read.repository.to_string()),
            (direction, "flux-system/app".into())
        );
    }
}

#[test]
fn all_problems_of_a_policy_are_told_at_once() {
    let problems = policy(json!({"policy": {}, "filterTags": {"pattern": "("},
        "digestReflectionPolicy": "Sometimes", "interval": "1m"}))
    .unwrap_err();
    for field in
        ["imageRepositoryRef", "policy", "filterTags.pattern", "digestReflectionPolicy", "interval"]
    {
        let at = format!("spec.{field}:");
        assert!(problems.iter().any(|p| p.starts_with(&at)), "{field}: {problems:?}");
    }
    let range =
        json!({"imageRepositoryRef": {"name": "a"}, "policy": {"semver": {"range": "x y"}}});
    assert!(policy(range).unwrap_err()[0].starts_with("spec.policy.semver.range: "));
    let always = json!({"imageRepositoryRef": {"name": "a"}, "policy": {"numerical": {}},
        "digestReflectionPolicy": "Always"});
    assert!(policy(always).unwrap_err()[0].starts_with("spec.interval: missing"));
}

#[test]
fn an_automation_pushes_where_it_checks_out_unless_said() {
    let source = GitReference::Branch("main".into());
    let read = automation(plain()).unwrap();
    assert_eq!(read.source, Key::new(Kind::GitRepository, "flux-system", "app"));
    assert_eq!((read.path.as_str(), read.push_branch(&source)), ("", Some("main")));
    assert_eq!(read.push_branch(&GitReference::Tag("v1".into())), None);
    assert_eq!(read.push_branch(&GitReference::Name("refs/heads/x".into())), Some("x"));

    let mut spec = plain();
    spec["git"]["checkout"] = json!({"ref": {"branch": "develop"}});
    assert_eq!(automation(spec.clone()).unwrap().push_branch(&source), Some("develop"));
    let refspec = "refs/heads/develop:refs/heads/copy";
    spec["git"]["push"] = json!({"branch": "bot", "options": {"ci.skip": ""}, "refspec": refspec});
    let read = automation(spec).unwrap();
    assert_eq!(read.push_branch(&source), Some("bot"));
    assert_eq!(read.push_options, labelled(&[("ci.skip", "")]));
    let beside = read.push_refspec.map(|refspec| (refspec.said, refspec.destination));
    assert_eq!(beside, Some((refspec.to_owned(), "refs/heads/copy".to_owned())));
}

#[test]
fn a_branch_that_git_refuses_is_a_problem_of_the_field_that_names_it() {
    for branch in ["bad..branch", "a b", "x.lock", "a/.b", "a//b", "a~1", "a.", "a@{1}"] {
        for (field, git) in [
            ("git.push.branch", json!({"push": {"branch": branch}})),
            ("git.checkout.ref.branch", json!({"checkout": {"ref": {"branch": branch}}})),
        ] {
            let mut spec = plain();
            let commit = spec["git"]["commit"].take();
            spec["git"] = git;
            spec["git"]["commit"] = commit;
            let problems = automation(spec).unwrap_err();
            let [told] = problems.as_slice() else { panic!("{branch}: {problems:?}") };
            let expected =
                format!("spec.{field}: {branch:?} is no name that git takes for a branch");
            assert!(told.starts_with(&expected), "{told}");
        }
    }
    for branch in ["auto/images", "a.b", "release-1.2", "@"] {
        let mut spec = plain();
        spec["git"]["push"] = json!({"branch": branch});
        assert!(automation(spec).is_ok(), "{branch}");
    }
}

#[test]
fn a_refspec_that_cannot_be_served_is_named_and_the_branch_does_not_wait_for_it() {
    for (refspec, cause) in [
        ("+refs/heads/main:refs/heads/copy", "never forced"),
        ("main:copy", "full name"),
        ("refs/heads/*:refs/heads/*", "not a valid name"),
        (":refs/heads/main", "deletes"),
    ] {
        let mut spec = plain();
        spec["git"]["push"] = json!({"refspec": refspec});
        let read = automation(spec).unwrap();
        let source = GitReference::Branch("main".into());
        assert_eq!((read.push_branch(&source), &read.push_refspec), (Some("main"), &None));
        let [told] = read.unsupported.as_slice() else { panic!("{:?}", read.unsupported) };
        assert!(told.field.starts_with("spec.git.push.refspec (") && !told.blocks, "{told}");
        assert!(told.field.contains(cause), "{told}");
    }
}

#[test]
fn all_problems_of_an_automation_are_told_at_once() {
    let problems =
        automation(json!({"interval": "1m", "git": {"checkout": {"ref": {"tag": "v1"}}},
        "sourceRef": {"kind": "Bucket", "name": "b"}, "update": {"strategy": "Magic"},
        "policySelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}))
        .unwrap_err();
    for field in
        ["sourceRef.kind", "update.strategy", "git.commit", "git.push.branch", "policySelector"]
    {
        let at = format!("spec.{field}:");
        assert!(problems.iter().any(|p| p.starts_with(&at)), "{field}: {problems:?}");
    }
    // v1alpha1 had `checkout` and `commit` outside of `git`.
    let old = json!({"interval": "1m", "sourceRef": {"name": "b"}, "commit": {}});
    let moved = "spec.commit: unknown here, it belongs in spec.git";
    assert_eq!(automation(old).unwrap_err(), ["spec.git: missing", moved]);
}

#[test]
fn a_required_field_that_is_misspelt_is_named_with_what_was_meant() {
    let read = repository(json!({"imgae": "r/a", "interval": "1m"}));
    let image = ["spec.image: missing", "spec.imgae: unknown field, did you mean image?"];
    assert_eq!(read.unwrap_err(), image);
    let read = policy(json!({"imageRepositoryRef": {"nmae": "a"}, "policy": {"numerical": {}}}));
    let meant = "spec.imageRepositoryRef.nmae: unknown field, did you mean name?";
    assert_eq!(read.unwrap_err().last().map(String::as_str), Some(meant));
    let mut spec = plain();
    spec["git"]["commit"]["author"] = json!({"emial": "bot@example.com"});
    let author = [
        "spec.git.commit.author.email: missing",
        "spec.git.commit.author.emial: unknown field, did you mean email?",
    ];
    assert_eq!(automation(spec).unwrap_err(), author);
}

#[test]
fn an_openpgp_key_blocks_and_unknown_parts_are_named() {
    let mut spec = plain();
    spec["git"]["commit"]["signingKey"] = json!({"secretRef": {"name": "k"}});
    spec["git"]["commit"]["trailer"] = json!("x");
    spec["update"] = json!({"strategy": "Setters", "path": "./apps", "depth": 3});
    let read = automation(spec).unwrap();
    let key = SigningKey { kind: SigningKind::Gpg, secret_ref: "k".into() };
    assert_eq!((read.signing_key, read.path.as_str()), (Some(key), "./apps"));
    let mut told: Vec<_> = read.unsupported.iter().map(|u| (u.field.as_str(), u.blocks)).collect();
    told.sort_unstable();
    let expected = [
        ("spec.git.commit.signingKey", true),
        ("spec.git.commit.trailer", false),
        ("spec.update.depth", false),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_selector_wants_all_of_its_parts() {
    let selects = |selector: Value, labels: &[(&str, &str)]| {
        serde_json::from_value::<LabelSelector>(selector).unwrap().matches(&labelled(labels))
    };
    let one = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
    assert!(selects(json!({}), &[]));
    assert!(selects(json!({"matchLabels": {"a": "1"}}), &[("a", "1"), ("b", "2")]));
    assert!(!selects(json!({"matchLabels": {"a": "1"}}), &[("a", "2")]));
    assert!(selects(one("In", json!(["1", "2"])), &[("a", "2")]));
    assert!(!selects(one("In", json!(["1", "2"])), &[]));
    assert!(selects(one("NotIn", json!(["1"])), &[]));
    assert!(!selects(one("NotIn", json!(["1"])), &[("a", "1")]));
    assert!(selects(one("Exists", json!([])), &[("a", "1")]));
    assert!(selects(one("DoesNotExist", json!([])), &[("b", "1")]));
}
