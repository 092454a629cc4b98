//! The walk over small trees in memory.

use super::*;
use serde_json::json;

/// A tree of `(path, content)`; the id of a file is its content's length and first line.
fn walked(
    files: &[(&str, &str)],
    path: &str,
    components: &[&str],
    ignore: bool,
) -> Result<Reach, Unreachable> {
    let tree: BTreeMap<String, String> =
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let node = |path: &str| match tree.get(path) {
        Some(text) => Some(Node::File { id: format!("#{path}"), size: text.len() as u64 }),
        None => tree.keys().any(|key| key.starts_with(&format!("{path}/"))).then_some(Node::Dir),
    };
    let view = View {
        entry: &|path| Ok(node(path)),
        list: &|dir| {
            let below = |key: &String| {
                let rest =
                    if dir.is_empty() { key } else { key.strip_prefix(dir)?.strip_prefix('/')? };
                rest.split('/').next().map(str::to_owned)
            };
            let names: BTreeSet<String> = tree.keys().filter_map(below).collect();
            Ok(names
                .into_iter()
                .filter_map(|name| node(&join(dir, &name)).map(|node| (name, node)))
                .collect())
        },
        read: &|path| tree.get(path).map(|t| t.clone().into_bytes()).ok_or(format!("no {path}")),
        copy: &|_| None,
    };
    let components: Vec<String> = components.iter().map(|&entry| entry.to_owned()).collect();
    reach(&view, path, &components, ignore)
}

fn paths(reach: &Reach) -> Vec<&str> {
    reach.files.keys().map(String::as_str).collect()
}

#[test]
fn every_field_that_names_a_file_is_followed() {
    let top = "\
resources: [../base, web.json]
components: [../extra]
patches: [{path: p.yaml}, {patch: '[]', target: {kind: A}}]
patchesStrategicMerge: [s.yaml, 'kind: A']
patchesJson6902: [{path: j.yaml, target: {kind: B}}]
configMapGenerator: [{name: c, files: [conf/app.ini, key=conf/other], envs: [c.env]}]
secretGenerator: [{name: s, files: ['config.json=s.bin'], env: s.env}]
configurations: [conf.yaml]
crds: [crd.json]
openapi: {path: schema.json}
replacements: [{path: r.yaml}, {source: {kind: A}, targets: []}]
transformers: [t.yaml, ../plugins]
generators:
- |
  apiVersion: builtin
  kind: SecretGenerator
  metadata: {name: g}
  envs: [g.env]
";
    let files = [
        ("apps/kustomization.yaml", top),
        ("apps/web.json", "{}"),
        ("base/kustomization.yml", "bases: [deep/]"),
        ("base/deep/Kustomization", "resources: [d.yaml]"),
        ("base/deep/d.yaml", ""),
        ("extra/kustomization.yaml", "kind: Component"),
        ("apps/p.yaml", ""),
        ("apps/s.yaml", ""),
        ("apps/j.yaml", ""),
        ("apps/conf/app.ini", ""),
        ("apps/conf/other", ""),
        ("apps/c.env", ""),
        ("apps/s.bin", ""),
        ("apps/s.env", ""),
        ("apps/conf.yaml", ""),
        ("apps/crd.json", ""),
        ("apps/schema.json", ""),
        ("apps/r.yaml", ""),
        (
            "apps/t.yaml",
            "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: t}\npath: tp.yaml\n",
        ),
        ("apps/tp.yaml", ""),
        ("apps/g.env", ""),
        ("plugins/kustomization.yaml", "resources: [x.yaml]"),
        ("plugins/x.yaml", ""),
        ("apps/README.md", ""),
        ("apps/unused.yaml", ""),
    ];
    let reach = walked(&files, "./apps/", &[], false).unwrap();
    assert_eq!(reach.problems, []);
    let mut expected: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    expected.retain(|path| !matches!(*path, "apps/README.md" | "apps/unused.yaml"));
    expected.sort_unstable();
    assert_eq!(paths(&reach), expected);
    let role = |path: &str| reach.files[path].roles.iter().next().cloned();
    assert_eq!(role("apps/s.bin"), Some(Role::SecretFile("config.json".into())));
    assert_eq!(role("apps/g.env"), Some(Role::SecretEnv));
    assert_eq!(role("apps/conf/other"), Some(Role::ConfigInput));
    assert_eq!(role("apps/tp.yaml"), Some(Role::Patch));
    let generators: Vec<_> =
        reach.generators.iter().map(|g| (g.file.as_str(), g.inputs.clone())).collect();
    let top = "apps/kustomization.yaml";
    assert_eq!(
        generators,
        [
            (top, vec!["apps/s.bin".to_owned(), "apps/s.env".to_owned()]),
            (top, vec!["apps/g.env".to_owned()]),
        ]
    );
}

#[test]
fn all_that_is_missing_is_told_at_once_with_its_line() {
    let text = "resources:\n- gone.yaml\n- ../../out.yaml\n- /abs.yaml\n- dir\n- app.yaml # here\n\
                patches:\n- path: p.yaml\nhelmCharts: []\n";
    let files = [("a/kustomization.yaml", text), ("a/dir/x.yaml", ""), ("a/app.yaml", "")];
    let reach = walked(&files, "a", &[], false).unwrap();
    let told: Vec<String> = reach.problems.iter().map(Problem::to_string).collect();
    let at = |rest: &str| format!("a/kustomization.yaml:{rest}");
    assert_eq!(
        told,
        [
            at("2: gone.yaml is not there (looked for a/gone.yaml)"),
            at("3: ../../out.yaml lies outside the source"),
            at("4: /abs.yaml lies outside the source"),
            at("5: directory dir has no kustomization.yaml"),
            at("8: p.yaml is not there (looked for a/p.yaml)"),
            at("9: helmCharts: charts are not inflated here, as in Flux; use a HelmRelease"),
        ]
    );
}

#[test]
fn a_directory_without_a_kustomization_file_is_generated_as_flux_does() {
    let files = [
        ("a/z.yml", ""),
        ("a/b/c.yaml", ""),
        ("a/k/kustomization.yaml", "resources: [in.yaml]"),
        ("a/k/in.yaml", ""),
        ("a/k/not.yaml", ""),
        ("a/data.json", "{}"),
        ("a/README.md", ""),
    ];
    let reach = walked(&files, "/a", &[], false).unwrap();
    assert_eq!(reach.file, None);
    assert_eq!(reach.content, json!({"resources": ["./b/c.yaml", "./k", "./z.yml"]}));
    assert_eq!(paths(&reach), ["a/b/c.yaml", "a/k/in.yaml", "a/k/kustomization.yaml", "a/z.yml"]);
    let empty = walked(&[("a/README.md", "")], "a", &[], false).unwrap();
    assert_eq!(empty.content, json!({"resources": []}));
}

#[test]
fn a_path_that_is_gone_is_not_an_empty_one() {
    let files = [("a/x.yaml", "")];
    assert_eq!(walked(&files, "b", &[], false), Err(Unreachable::NoPath("b".into())));
    assert_eq!(walked(&files, "a/x.yaml", &[], false), Err(Unreachable::NoPath("a/x.yaml".into())));
    assert_eq!(walked(&files, "../../a", &[], false).unwrap().root, "a");
    assert!(walked(&files, "", &[], false).is_ok());
}

#[test]
fn broken_kustomization_files_and_cycles_are_told() {
    for (files, expected) in [
        (vec![("kustomization.yaml", "resources:\n- a\n b: c\n")], "kustomization.yaml:3: "),
        (
            vec![
                ("kustomization.yaml", "resources: [b]"),
                ("b/kustomization.yaml", "resources:\n- ..\n"),
            ],
            "b/kustomization.yaml:2: .. leads back",
        ),
        (
            vec![("kustomization.yaml", ""), ("kustomization.yml", "")],
            "kustomization.yml: kustomization.yaml is in the same directory",
        ),
        (
            vec![(
                "kustomization.yaml",
                "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n",
            )],
            "kustomization.yaml:2: kustomize.toolkit.fluxcd.io/v1 Kustomization cannot stand",
        ),
    ] {
        let reach = walked(&files, "", &[], false).unwrap();
        let told: Vec<String> = reach.problems.iter().map(Problem::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(expected), "{told:?}");
    }
}

#[test]
fn remotes_are_listed_and_local_names_that_look_like_them_are_local() {
    let text = "resources:\n- https://x.example/a.yaml\n- github.com/o/r//d?ref=v1\n- my.git\n";
    let files = [("kustomization.yaml", text), ("my.git/kustomization.yaml", "")];
    let reach = walked(&files, "", &[], false).unwrap();
    let remotes: Vec<_> = reach.remotes.iter().map(|r| (r.line, r.entry.as_str())).collect();
    assert_eq!(
        remotes,
        [(Some(2), "https://x.example/a.yaml"), (Some(3), "github.com/o/r//d?ref=v1")]
    );
    assert_eq!(reach.problems, []);
}

#[test]
fn missing_components_of_the_spec_are_dropped_only_on_request() {
    let files = [("a/kustomization.yaml", ""), ("c/kustomization.yaml", "kind: Component")];
    let reach = walked(&files, "a", &["../c", "../gone"], true).unwrap();
    assert_eq!((reach.components, reach.problems), (vec!["../c".to_owned()], vec![]));
    let reach = walked(&files, "a", &["../gone", "/c", "../../c"], false).unwrap();
    let told: Vec<String> = reach.problems.iter().map(Problem::to_string).collect();
    assert_eq!(
        told,
        [
            "spec.components: ../../c lies outside the source",
            "spec.components: ../gone is not a directory of this revision",
            "spec.components: /c must be a relative path inside the source",
        ]
    );
}

#[test]
fn directories_without_end_are_told_and_do_not_overflow_the_stack() {
    let deep = format!("apps/{}a.yaml", "d/".repeat(20_000));
    let reach = walked(&[(&deep, "kind: A"), ("apps/b.yaml", "kind: B")], "apps", &[], false);
    let reach = reach.expect("the path is there");
    assert_eq!(paths(&reach), ["apps/b.yaml"]);
    let [problem] = reach.problems.as_slice() else { panic!("{:?}", reach.problems) };
    assert_eq!(problem.message, "is more than 64 directories below spec.path");
}
