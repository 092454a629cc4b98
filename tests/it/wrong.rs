//! What is wrong in Git costs what it touches and nothing else, and is told by its name.

use crate::world::{App, World, mk_config_map, mk_deployment, mk_kustomization};
use serde_json::Value;

/// A Kustomization with one good ConfigMap of the same name.
fn good(world: &World, name: &str) -> [(&'static str, String); 1] {
    [("good.yaml", mk_config_map(&world.namespace, name, "1"))]
}

fn failure(world: &World, name: &str, field: &str) -> String {
    let item = world.item(&format!("Kustomization/flux-system/{name}"));
    item["failure"][field].as_str().unwrap_or_default().to_owned()
}

/// Waits until a Kustomization has failed with a cause that holds all of these.
fn fails_with(world: &World, name: &str, words: &[&str]) {
    world.eventually(&format!("{name} fails with {words:?}"), |world| {
        let message = world.message(name);
        !world.is_ready(name) && words.iter().all(|word| message.contains(word))
    });
}

#[test]
fn broken_yaml_in_one_kustomization_is_named_by_line_and_the_others_run() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let broken = [
        ("a.yaml", mk_config_map(&ns, "a", "1")),
        ("b.yaml", format!("{}  bad\n indent: [\n", mk_config_map(&ns, "b", "1"))),
    ];
    let repo = world.apps(&[
        App { name: "broken", spec: "", files: &broken },
        App { name: "good", spec: "", files: &good(&world, "good") },
    ]);
    world.start();
    world.eventually("the good one is ready", |world| world.is_ready("good"));
    fails_with(&world, "broken", &["apps/broken/b.yaml:"]);
    let file = failure(&world, "broken", "file");
    let line = file.strip_prefix("apps/broken/b.yaml:").and_then(|line| line.parse::<u32>().ok());
    assert!(line.is_some_and(|line| (7..=10).contains(&line)), "{file}");
    assert_eq!(world.item("Kustomization/flux-system/broken")["reason"], "BuildFailed");
    assert!(world.get("configmap", "good").is_some());
    assert_eq!(world.get("configmap", "a"), None, "half a render is no render");

    repo.write("apps/broken/b.yaml", &mk_config_map(&ns, "b", "1"));
    repo.commit("mended");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    assert!(world.get("configmap", "b").is_some());

    // Broken again: what was applied stays.
    repo.write("apps/broken/b.yaml", "kind: [\n");
    repo.commit("broken again");
    repo.push("main");
    assert!(!world.reconcile());
    assert!(world.get("configmap", "a").is_some() && world.get("configmap", "b").is_some());
}

#[test]
fn beside_an_object_that_the_server_refuses_the_good_ones_are_applied() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: {ns}\nspec:\n  \
         ports: [{{port: 99999}}]\n"
    );
    let missing = mk_config_map("nowhere-at-all", "a", "1");
    let unknown = format!(
        "apiVersion: example.invalid/v1\nkind: Widget\nmetadata:\n  name: w\n  namespace: {ns}\n"
    );
    let mixed = |bad: String| [("bad.yaml", bad), ("good.yaml", mk_config_map(&ns, "good", "1"))];
    world.apps(&[
        App { name: "service", spec: "", files: &mixed(service) },
        App { name: "namespace", spec: "", files: &mixed(missing) },
        App { name: "kind", spec: "", files: &mixed(unknown) },
    ]);
    world.start();
    fails_with(&world, "service", &["99999"]);
    fails_with(&world, "namespace", &["nowhere-at-all", "declare the Namespace"]);
    fails_with(&world, "kind", &["Widget", "CRD"]);
    assert_eq!(failure(&world, "service", "object"), format!("Service/{ns}/web"));
    assert!(failure(&world, "service", "file").starts_with("apps/service/bad.yaml"));
    assert_eq!(failure(&world, "kind", "object"), format!("Widget/{ns}/w"));
    assert!(world.get("configmap", "good").is_some());
}

#[test]
fn a_missing_dependency_is_named_and_its_arrival_starts_who_waits() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let spec = "  dependsOn: [{name: base}]\n";
    let repo = world.apps(&[App { name: "web", spec, files: &good(&world, "web") }]);
    world.start();
    fails_with(&world, "web", &["Kustomization/flux-system/base does not exist"]);
    assert_eq!(world.item("Kustomization/flux-system/web")["reason"], "DependencyNotReady");
    assert_eq!(world.get("configmap", "web"), None);

    let files = [("a.yaml", mk_config_map(&ns, "base", "1"))];
    App { name: "base", spec: "", files: &files }.write(&repo);
    repo.commit("the base");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    world.settled();
    assert!(world.get("configmap", "web").is_some());
}

#[test]
fn a_circle_of_dependencies_is_named_and_only_its_members_wait() {
    let mut world = World::new();
    let after = |name: &str| format!("  dependsOn: [{{name: {name}}}]\n");
    let repo = world.apps(&[
        App { name: "a", spec: &after("b"), files: &good(&world, "a") },
        App { name: "b", spec: &after("c"), files: &good(&world, "b") },
        App { name: "c", spec: &after("a"), files: &good(&world, "c") },
        App { name: "free", spec: "", files: &good(&world, "free") },
    ]);
    world.start();
    world.eventually("the free one is ready", |world| world.is_ready("free"));
    for name in ["a", "b", "c"] {
        let item = world.item(&format!("Kustomization/flux-system/{name}"));
        assert_eq!(item["reason"], "DependencyCycle", "{item:#}");
        let message = item["message"].as_str().unwrap();
        let circle = "flux-system/a -> flux-system/b -> flux-system/c -> flux-system/a";
        assert!(message.contains(circle), "{message}");
        assert_eq!(world.get("configmap", name), None);
    }
    let text = mk_kustomization("c", "./apps/c", "");
    repo.write("clusters/my-cluster/c.yaml", &text);
    repo.commit("cut the circle");
    repo.push("main");
    world.run(&["reconcile", "--with-source"]);
    world.settled();
    assert!(world.get("configmap", "a").is_some());
}

/// `Kind/namespace/name field` of everything that is listed as unsupported.
fn unsupported(world: &World) -> Vec<String> {
    let status = world.status();
    let listed = status.pointer("/summary/unsupported").and_then(Value::as_array);
    let part = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        let [kind, ns, name, field] =
            ["kind", "namespace", "name", "field"].map(|name| part(entry, name));
        format!("{kind}/{ns}/{name} {field}").trim().to_owned()
    };
    listed.into_iter().flatten().map(line).collect()
}

#[test]
fn kinds_and_fields_that_are_not_acted_upon_are_listed_by_name() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let release = format!(
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: redis\n  \
         namespace: {ns}\nspec: {{interval: 1h}}\n"
    );
    let other = "  kubeConfig: {secretRef: {name: other-cluster}}\n";
    let new = "  somethingNew: {a: 1}\n";
    world.apps(&[
        App { name: "helm", spec: "", files: &[("release.yaml", release)] },
        App { name: "elsewhere", spec: other, files: &good(&world, "elsewhere") },
        App { name: "newer", spec: new, files: &good(&world, "newer") },
    ]);
    world.start();
    world.eventually("all three have been looked at", |world| {
        world.is_ready("helm") && world.is_ready("newer") && !world.message("elsewhere").is_empty()
    });
    let listed = unsupported(&world);
    for expected in [
        format!("HelmRelease/{ns}/redis"),
        "Kustomization/flux-system/elsewhere spec.kubeConfig".to_owned(),
        "Kustomization/flux-system/newer spec.somethingNew".to_owned(),
    ] {
        assert!(listed.contains(&expected), "{expected} is not in {listed:?}");
    }
    let shown = String::from_utf8(world.run(&["status"]).stdout).unwrap();
    assert!(shown.contains("redis") && shown.contains("somethingNew"), "{shown}");
    let elsewhere = world.item("Kustomization/flux-system/elsewhere");
    assert_eq!(elsewhere["reason"], "Unsupported");
    assert_eq!(world.get("configmap", "elsewhere"), None, "that was meant for another cluster");
    assert_eq!(world.run(&["status"]).status.code(), Some(1));
}

#[test]
fn a_work_order_that_cannot_be_read_is_named_with_its_file() {
    let mut world = World::new();
    let repo = world.apps(&[App { name: "good", spec: "", files: &good(&world, "good") }]);
    let text = mk_kustomization("bad", "./apps/bad", "").replace("interval: 1h", "interval: soon");
    repo.write("clusters/my-cluster/bad.yaml", &text);
    repo.commit("bad");
    repo.push("main");
    world.start();
    world.eventually("the good one is ready", |world| world.is_ready("good"));
    let problem = world.status()["summary"]["problems"][0].clone();
    assert_eq!(problem["object"], "Kustomization/flux-system/bad");
    assert!(problem["origin"].as_str().unwrap().starts_with("clusters/my-cluster/bad.yaml"));
    assert!(problem["message"].as_str().unwrap().contains("spec.interval"), "{problem}");
    assert_eq!(world.run(&["status"]).status.code(), Some(1));
}

#[test]
fn a_namespace_that_only_flux_itself_would_make_is_made_when_others_need_it() {
    let mut world = World::new();
    let ns = format!("{}-flux", world.namespace);
    let part = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {ns}\n  labels: \
         {{app.kubernetes.io/part-of: flux}}\n"
    );
    world.entry(&[
        ("clusters/my-cluster/flux/gotk-components.yaml", part),
        ("clusters/my-cluster/apps.yaml", mk_kustomization("apps", "./apps", "")),
        ("apps/a.yaml", mk_config_map(&ns, "a", "1")),
    ]);
    world.start();
    world.settled();
    assert!(world.cluster().get(&ns, "configmap", "a").is_some());
    let namespace = world.cluster().get("", "namespace", &ns).expect("it was made");
    assert_eq!(namespace["metadata"]["labels"]["app.kubernetes.io/part-of"], Value::Null);
    let aside = world.status()["summary"]["set_aside"].clone();
    assert_eq!(aside[0]["name"], ns, "{aside}");
}

#[test]
fn a_wait_that_ends_without_health_says_why() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = |name: &str, tag: &str| [("d.yaml", mk_deployment(&ns, name, tag))];
    let mut huge = files("huge", "1");
    huge[0].1.push_str("        resources: {requests: {cpu: \"100\"}}\n");
    let mut secret = files("secret", "1-nosecret");
    secret[0].1.push_str("        envFrom: [{secretRef: {name: db-password}}]\n");
    let wait = "  wait: true\n  timeout: 4s\n";
    let checks = format!(
        "  timeout: 4s\n  healthChecks: [{{apiVersion: apps/v1, kind: Deployment, name: crash, \
         namespace: {ns}}}]\n"
    );
    world.apps(&[
        App { name: "image", spec: wait, files: &files("image", "1-broken") },
        App { name: "crash", spec: &checks, files: &files("crash", "1-crash") },
        App { name: "secret", spec: wait, files: &secret },
        App { name: "huge", spec: wait, files: &huge },
        App { name: "fine", spec: wait, files: &files("fine", "1") },
        App { name: "later", spec: "  dependsOn: [{name: crash}]\n", files: &good(&world, "l") },
    ]);
    world.start();
    world.eventually("the fine one is ready", |world| world.is_ready("fine"));
    fails_with(&world, "image", &["1-broken", "pull"]);
    fails_with(&world, "crash", &["exit code 1"]);
    fails_with(&world, "secret", &["db-password"]);
    fails_with(&world, "huge", &["fits on no node", "cpu"]);
    for name in ["image", "crash", "secret", "huge"] {
        assert_eq!(
            world.item(&format!("Kustomization/flux-system/{name}"))["reason"],
            "HealthCheckFailed"
        );
        assert_eq!(failure(&world, name, "object"), format!("Deployment/{ns}/{name}"));
    }
    fails_with(&world, "later", &["crash", "not ready"]);
    assert_eq!(world.get("configmap", "l"), None);
}
