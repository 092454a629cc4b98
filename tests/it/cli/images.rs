//! What `check` and `build` say of image objects that name what is not there, and of misspelt
//! fields.

use super::{config_map, gitopsd, kustomization, text, tree};
use std::fs;

/// A repository, a policy and an automation, in lines 1, 6 and 11 of their file.
const OBJECTS: &str = "apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageRepository
metadata: {name: app, namespace: flux-system}
spec: {image: registry.example/app, interval: 1m}
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImagePolicy
metadata: {name: app, namespace: flux-system}
spec: {imageRepositoryRef: {name: app}, policy: {numerical: {}}}
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageUpdateAutomation
metadata: {name: app, namespace: flux-system}
spec:
  interval: 1h
  sourceRef: {kind: GitRepository, name: flux-system}
  git: {commit: {author: {email: bot@example.com}}}
  update: {path: ./apps}
";

/// A ConfigMap whose fifth line is marked.
fn marked(policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: images, namespace: flux-system}}\n\
         data:\n  image: registry.example/app:1 # {{\"$imagepolicy\": \"{policy}\"}}\n"
    )
}

/// A repository with the objects, a Kustomization `apps`, and in its directory the marked file.
fn repository(objects: &str, apps: &str) -> tempfile::TempDir {
    tree(&[
        ("clusters/a/images.yaml", objects),
        ("clusters/a/apps.yaml", apps),
        ("apps/images.yaml", &marked("flux-system:app")),
    ])
}

fn apps() -> String {
    kustomization("apps", "./apps", "")
}

/// The lines of `check` that are not ok, and its exit code.
fn check(dir: &tempfile::TempDir) -> (Vec<String>, Option<i32>) {
    let done = gitopsd(&["check", text(dir.path())]);
    assert_eq!(done.err, "", "{done:?}");
    let bad = |line: &&str| line.starts_with("warn  ") || line.starts_with("fail  ");
    (done.out.lines().filter(bad).map(str::to_owned).collect(), done.code)
}

/// Asserts that there is one finding, which begins like this.
fn finds(dir: &tempfile::TempDir, expected: &str) {
    let (lines, code) = check(dir);
    let [line] = lines.as_slice() else { panic!("{expected}: {lines:?}") };
    assert!(line.starts_with(expected), "{expected}: {line}");
    let failed = expected.starts_with("fail");
    assert_eq!(code, Some(i32::from(failed)), "{line}");
    // `build` ends as `check` does.
    let built = gitopsd(&["build", "--tree", text(dir.path()), "--path", "clusters/a"]);
    assert_eq!(built.code, code, "{expected}: {built:?}");
}

#[test]
fn image_objects_that_fit_together_are_well_and_what_they_lack_is_named_with_file_and_line() {
    assert_eq!(check(&repository(OBJECTS, &apps())), (Vec::new(), Some(0)));
    let file = "fail  flux-system/flux-system: clusters/a/images.yaml";
    let automation = "ImageUpdateAutomation/flux-system/app:";
    for (said, instead, expected) in [
        (
            "imageRepositoryRef: {name: app}",
            "imageRepositoryRef: {name: ap}",
            format!(
                "{file}:6: ImagePolicy/flux-system/app: spec.imageRepositoryRef: \
                 ImageRepository/flux-system/ap is declared nowhere: correct the name"
            ),
        ),
        (
            "GitRepository, name: flux-system}",
            "GitRepository, name: far}",
            format!(
                "{file}:11: {automation} spec.sourceRef: GitRepository/flux-system/far is declared \
                 nowhere: correct the name"
            ),
        ),
        (
            "git: {commit:",
            "git: {push: {branch: bad..branch}, commit:",
            format!("{file}:17: {automation} spec.git.push.branch: \"bad..branch\" is no name"),
        ),
        (
            "git: {commit:",
            "git: {checkout: {ref: {branch: a b}}, commit:",
            format!("{file}:17: {automation} spec.git.checkout.ref.branch: \"a b\" is no name"),
        ),
        (
            "path: ./apps}",
            "path: ./nowhere}",
            format!(
                "{file}:11: {automation} spec.update.path: there is no directory at \"nowhere\""
            ),
        ),
    ] {
        let wrong = OBJECTS.replace(said, instead);
        assert_ne!(wrong, OBJECTS, "{said}");
        finds(&repository(&wrong, &apps()), &expected);
    }
}

#[test]
fn a_marker_of_nobodys_policy_is_named_and_a_policy_without_a_marker_is_a_warning() {
    let dir = repository(OBJECTS, &apps());
    fs::write(dir.path().join("apps/images.yaml"), marked("flux-system:ap")).expect("ours");
    let (lines, code) = check(&dir);
    let marker = "warn  flux-system/flux-system: apps/images.yaml:5: the marker names \
                  ImagePolicy/flux-system/ap, which is declared nowhere, or it belongs to another \
                  cluster: correct the name";
    let policy = "warn  flux-system/flux-system: clusters/a/images.yaml:6: \
                  ImagePolicy/flux-system/app: its tag is written nowhere: put # \
                  {\"$imagepolicy\": \"flux-system:app\"} behind the value";
    let [one, two] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(two.starts_with(marker), "{two}");
    assert_eq!((one.as_str(), code), (policy, Some(0)));

    fs::write(dir.path().join("apps/images.yaml"), config_map("images", "1")).expect("ours");
    finds(&dir, policy);
}

#[test]
fn what_a_repository_that_was_not_given_may_declare_is_no_error() {
    let far = kustomization("far", "./far", "").replace("name: flux-system}\n", "name: far}\n");
    let apps = format!("{}---\n{far}", apps());
    let wrong =
        OBJECTS.replace("imageRepositoryRef: {name: app}", "imageRepositoryRef: {name: ap}");
    let dir = repository(&wrong, &apps);
    fs::write(dir.path().join("apps/images.yaml"), marked("flux-system:ap")).expect("ours");
    let (lines, code) = check(&dir);
    assert_eq!(code, Some(0), "{lines:?}");
    for part in ["ImageRepository/flux-system/ap is", "ImagePolicy/flux-system/ap, which is"] {
        let told = format!("{part} declared nowhere in what could be walked");
        let found = lines.iter().filter(|line| line.starts_with("warn  ") && line.contains(&told));
        assert_eq!(found.count(), 1, "{part}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("written nowhere")), "{lines:?}");

    // An automation of that repository, or of another branch, edits files that are not at hand.
    for (said, instead) in [
        ("name: flux-system}\n  git: {", "name: far}\n  git: {"),
        ("git: {commit:", "git: {checkout: {ref: {branch: other}}, commit:"),
    ] {
        let declared = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: \
                        {name: far, namespace: flux-system}\nspec: {interval: 1h, url: \
                        'https://git.example/far'}\n";
        let elsewhere = OBJECTS.replace(said, instead).replace("./apps", "./nowhere");
        let dir = repository(&format!("{elsewhere}---\n{declared}"), &self::apps());
        assert_eq!(check(&dir), (Vec::new(), Some(0)), "{instead}");
    }
}

#[test]
fn a_misspelt_field_is_unknown_with_what_was_meant_and_one_of_flux_not_supported_yet() {
    let object = "Kustomization/flux-system/apps";
    let place = "warn  flux-system/apps: clusters/a/apps.yaml:1:";
    for (more, expected) in [
        (
            "  dependOn: []\n",
            format!("{place} {object} spec.dependOn: unknown field, did you mean dependsOn?"),
        ),
        (
            "  PRUNE: true\n",
            format!("{place} {object} spec.PRUNE: unknown field, did you mean prune?"),
        ),
        (
            "  postBuild: {substitue: {a: b}}\n",
            format!(
                "{place} {object} spec.postBuild.substitue: unknown field, did you mean substitute?"
            ),
        ),
        ("  colour: blue\n", format!("{place} {object} spec.colour: unknown field, Flux has none")),
        (
            "  ignore: []\n",
            format!("warn  flux-system/apps: not supported yet: {object} spec.ignore"),
        ),
    ] {
        finds(&repository(OBJECTS, &kustomization("apps", "./apps", more)), &expected);
    }
    let wrong = OBJECTS.replace("interval: 1m}", "interval: 1m, secretRef: {name: a, nmae: b}}");
    let expected = "warn  flux-system/flux-system: clusters/a/images.yaml:1: \
                    ImageRepository/flux-system/app spec.secretRef.nmae: unknown field, did you \
                    mean name?";
    finds(&repository(&wrong, &apps()), expected);
}

#[test]
fn a_misspelt_field_that_must_be_there_is_named_beside_what_is_missing() {
    let wrong = OBJECTS.replace("spec: {image:", "spec: {imgae:");
    let expected = "fail  flux-system/flux-system: clusters/a/images.yaml:4: \
                    ImageRepository/flux-system/app: spec.image: missing; spec.imgae: unknown \
                    field, did you mean image?";
    finds(&repository(&wrong, &apps()), expected);
    // The entry of a list that lacks it, in line 11.
    let list = "  dependsOn:\n  - name: base\n  - nmae: other\n";
    let expected = "fail  flux-system/flux-system: clusters/a/apps.yaml:11: \
                    Kustomization/flux-system/apps: spec.dependsOn: missing field `name`; \
                    spec.dependsOn[1].nmae: unknown field, did you mean name?";
    finds(&repository(OBJECTS, &kustomization("apps", "./apps", list)), expected);
    // Of the entry itself, with the file in which it stands.
    let entry = kustomization("flux-system", "./clusters/a", "  prun: true\n");
    let dir = repository(OBJECTS, &apps());
    fs::create_dir(dir.path().join("clusters/a/flux-system")).expect("ours");
    let sync = "clusters/a/flux-system/gotk-sync.yaml";
    fs::write(dir.path().join(sync), entry).expect("ours");
    let expected = format!(
        "warn  flux-system/flux-system: {sync}:1: Kustomization/flux-system/flux-system spec.prun: \
         unknown field, did you mean prune?"
    );
    finds(&dir, &expected);
}

#[test]
fn what_cannot_be_read_or_is_not_supported_may_declare_what_is_missing() {
    let wrong =
        OBJECTS.replace("imageRepositoryRef: {name: app}", "imageRepositoryRef: {name: ap}");
    let lacks = "ImageRepository/flux-system/ap is declared nowhere";
    let of = |group: &str, kind: &str| {
        format!(
            "{wrong}---\napiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: a, namespace: \
             flux-system}}\n"
        )
    };
    let misspelt = apps().replace("prune: true", "prun: true");
    for (objects, apps, level, code) in [
        (of("fluxcd.controlplane.io", "ResourceSet"), apps(), "warn", 0),
        (of("helm.toolkit.fluxcd.io", "HelmRelease"), apps(), "warn", 0),
        (of("notification.toolkit.fluxcd.io", "Alert"), apps(), "fail", 1),
        (wrong.clone(), misspelt, "warn", 1),
    ] {
        let (lines, found) = check(&repository(&objects, &apps));
        let told = lines.iter().find(|line| line.contains(lacks));
        assert!(told.is_some_and(|line| line.starts_with(level)), "{lines:?}");
        assert_eq!(found, Some(code), "{lines:?}");
    }
    // An object without a namespace is read as one of `default`, whether it can be read or not.
    let anywhere = OBJECTS
        .replace("app, namespace: flux-system", "app, namespace: default")
        .replacen("app, namespace: default", "app", 1)
        .replace("spec: {image:", "spec: {imgae:");
    let anywhere =
        anywhere.replace("name: flux-system}", "name: flux-system, namespace: flux-system}");
    let dir = repository(&anywhere, &apps());
    fs::write(dir.path().join("apps/images.yaml"), marked("default:app")).expect("ours");
    let (lines, code) = check(&dir);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(line.contains("spec.image: missing") && code == Some(1), "{line}");
}

#[test]
fn one_file_is_edited_too_and_neither_nested_repositories_nor_what_is_suspended_are_wrong() {
    let one = OBJECTS.replace("path: ./apps}", "path: ./apps/images.yaml}");
    assert_eq!(check(&repository(&one, &apps())), (Vec::new(), Some(0)));

    let suspended = OBJECTS.replace("path: ./apps}", "path: ./nowhere}\n  suspend: true");
    let expected = "warn  flux-system/flux-system: clusters/a/images.yaml:11: \
                    ImageUpdateAutomation/flux-system/app: spec.update.path: there is no directory";
    finds(&repository(&suspended, &apps()), expected);

    let dir = repository(&OBJECTS.replace("path: ./apps}", "path: .}"), &apps());
    let nested = dir.path().join("vendor/z");
    fs::create_dir_all(&nested).expect("ours");
    fs::write(nested.join("z.yaml"), marked("other:z")).expect("ours");
    assert_eq!(check(&dir).0.len(), 1, "what Git does not track counts");
    fs::write(nested.join(".git"), "gitdir: ../../.git/modules/z\n").expect("ours");
    assert_eq!(check(&dir), (Vec::new(), Some(0)));
}
