//! What the specs of Flux objects say: the entry under a name of its own, and field by field.

use crate::world::{App, World, mk_config_map, mk_deployment, mk_kustomization, mk_namespace};
use serde_json::json;

/// Flux's bootstrap calls the pair `flux-system`; many repositories have names of their own, and
/// give the Kustomization of the entry variables, patches and keys.
#[test]
fn an_entry_with_a_name_of_its_own_gives_the_root_its_spec_before_anything_is_applied() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    world.cluster().apply(&mk_namespace(&ns));
    let url = world.git.url_of("infra/flux-config");
    let source = format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata:\n  name: home\n  \
         namespace: flux-system\nspec:\n  interval: 1h\n  url: {url}\n  ref: {{branch: main}}\n"
    );
    let entry = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  \
                 name: cluster\n  namespace: flux-system\nspec:\n  interval: 1h\n  \
                 path: ./clusters/my-cluster\n  prune: true\n  wait: true\n  timeout: 20s\n  \
                 sourceRef: {kind: GitRepository, name: home}\n  \
                 postBuild: {substitute: {WORD: hello}}\n";
    let map = mk_config_map(&ns, "greeting", "1").replace("\"1\"", "${WORD}");
    world.entry(&[
        ("clusters/my-cluster/flux/source.yaml", source),
        ("clusters/my-cluster/flux/entry.yaml", entry.to_owned()),
        ("clusters/my-cluster/map.yaml", map),
    ]);
    for start in ["the first", "a later"] {
        world.start();
        world.settled();
        assert_eq!(world.get("configmap", "greeting").unwrap()["data"]["key"], "hello", "{start}");
        assert_eq!(world.stop(), Some(0));
    }
    world.start();
    world.settled();
    let runs = world.json(&["history", "flux-system"]);
    let changes: u64 =
        runs.as_array().unwrap().iter().map(|run| run["changes"].as_u64().unwrap()).sum();
    assert_eq!(changes, 1, "it was never applied without its variables: {runs:#}");
    let names: Vec<String> = world.status()["summary"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["flux-system", "flux-system"], "it is not run twice");
}

/// Fields that rendering, applying and waiting read, each with an effect of its own.
#[test]
fn every_field_of_a_spec_does_in_the_cluster_what_it_says() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let bare = |text: String| text.replace(&format!("  namespace: {ns}\n"), "");
    let spec = format!(
        "  targetNamespace: {ns}\n  namePrefix: pre-\n  nameSuffix: -suf\n  wait: true\n  \
         commonMetadata: {{labels: {{team: red}}, annotations: {{note: hello}}}}\n  \
         images: [{{name: registry.test.invalid/app, newTag: other}}]\n  \
         components: [../../parts/extra]\n  \
         patches:\n  - target: {{kind: ConfigMap, name: a}}\n    patch: |\n      \
         - {{op: replace, path: /data/key, value: patched}}\n  \
         healthCheckExprs: [{{apiVersion: v1, kind: ConfigMap, current: \"data.key != 'bad'\"}}]\n"
    );
    let files = [
        ("a.yaml", bare(mk_config_map(&ns, "a", "1"))),
        ("web.yaml", bare(mk_deployment(&ns, "web", "1"))),
    ];
    // An API version of years ago; the child is patched by the parent that declares it.
    let child = mk_kustomization("patched-child", "./apps/child", "")
        .replace("fluxcd.io/v1\n", "fluxcd.io/v1beta2\n");
    let parent = "  patches:\n  - target: {group: kustomize.toolkit.fluxcd.io, kind: Kustomization}\n    \
                  patch: |\n      - {op: add, path: /spec/postBuild, value: {substitute: {WORD: handed}}}\n";
    let waits = "  dependsOn: [{name: fields, readyExpr: \"dep.spec.wait && \
                 dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')\"}]\n";
    let repo = world.apps(&[
        App { name: "fields", spec: &spec, files: &files },
        App { name: "parent", spec: parent, files: &[("child.yaml", child)] },
        App { name: "waits", spec: waits, files: &[("w.yaml", mk_config_map(&ns, "waits", "1"))] },
    ]);
    let part =
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [c.yaml]\n";
    repo.write("parts/extra/kustomization.yaml", part);
    repo.write("parts/extra/c.yaml", &bare(mk_config_map(&ns, "c", "1")));
    let word = mk_config_map(&ns, "word", "1").replace("\"1\"", "${WORD}");
    repo.write("apps/child/word.yaml", &word);
    repo.commit("parts and a child");
    repo.push("main");
    world.start();
    world.settled();
    let get = |kind: &str, name: &str| {
        world.get(kind, name).unwrap_or_else(|| panic!("{kind} {name}: {}", world.log()))
    };
    let map = get("configmap", "pre-a-suf");
    assert_eq!(map["data"]["key"], "patched");
    assert_eq!(map["metadata"]["labels"]["team"], "red");
    assert_eq!(map["metadata"]["annotations"], json!({"note": "hello"}));
    let web = get("deployment", "pre-web-suf");
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.test.invalid/app:other");
    assert_eq!(get("configmap", "pre-c-suf")["metadata"]["labels"]["team"], "red");
    assert_eq!(get("configmap", "word")["data"]["key"], "handed");
    get("configmap", "waits");

    // The expression speaks for all ConfigMaps, and one of them does not hold it.
    repo.replace("parts/extra/c.yaml", "\"1\"", "bad");
    let file = "clusters/my-cluster/fields.yaml";
    repo.replace(file, "  wait: true\n", "  wait: true\n  timeout: 2s\n");
    repo.commit("a bad one");
    repo.push("main");
    assert!(!world.reconcile());
    let message = world.message("fields");
    assert!(message.contains("pre-c-suf") && message.contains("not healthy after 2s"), "{message}");
}
