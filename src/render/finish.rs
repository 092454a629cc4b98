//! Pure: the engine's output as objects that know their file.
//!
//! The output is split into documents, lists are flattened, kustomize's own objects dropped and
//! the rest checked for the three fields that make an object one. Each object's file is taken
//! from kustomize's origin annotation, which is removed again unless the user asked for it.

use super::document;
use super::error::{Problem, Warning, WarningKind};
use super::kustomization::ORIGIN;
use super::manifest::{ObjectId, Origin};
use super::reach::{Generator, resolve};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One object of the build.
#[derive(Clone, PartialEq)]
pub(crate) struct Built {
    /// Its body.
    pub value: Value,
    /// Its file, or the kustomization file whose generator made it.
    pub file: Option<String>,
    /// True when a generator made it.
    pub generated: bool,
}

/// Where one document of a file stands, to give objects their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stands {
    /// Line of its first key.
    pub line: u32,
    /// Kind.
    pub kind: String,
    /// Name, before prefixes.
    pub name: String,
}

/// Documents of every resource file.
pub(crate) type Lines = BTreeMap<String, Vec<Stands>>;

/// Reads what the engine printed; `root` is the directory that origins are relative to.
///
/// # Errors
/// Objects without `apiVersion`, `kind` or `metadata.name`, each with its file.
pub(crate) fn objects(
    text: &str,
    root: &str,
    keep_origin: bool,
) -> Result<Vec<Built>, Vec<Problem>> {
    let documents = document::read(text).map_err(|error| {
        let message = format!("the build's output is not YAML: {}", error.message);
        vec![Problem { file: None, line: None, message }]
    })?;
    let mut built = Vec::new();
    let mut problems = Vec::new();
    for document in documents {
        let mut value = document.value;
        let (file, generated) = take_origin(&mut value, root, keep_origin);
        for value in flatten(value) {
            if own(&value) {
                continue;
            }
            match missing(&value) {
                None => built.push(Built { value, file: file.clone(), generated }),
                Some(field) => {
                    let message = format!("{} has no {field}", ObjectId::of(&value));
                    problems.push(Problem { file: file.clone(), line: None, message });
                }
            }
        }
    }
    if problems.is_empty() { Ok(built) } else { Err(problems) }
}

/// The first of the fields that every object must have, if it is not there.
pub(crate) fn missing(value: &Value) -> Option<&'static str> {
    let lacks =
        |pointer: &str| value.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty);
    [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")]
        .into_iter()
        .find_map(|(pointer, field)| lacks(pointer).then_some(field))
}

/// True for lists, whose items are the objects.
pub(crate) fn is_list(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    kind.ends_with("List") && value.get("items").is_some_and(Value::is_array)
}

/// True for kustomize's own configuration, which is no object of the cluster.
pub(crate) fn own(value: &Value) -> bool {
    value
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| version.starts_with("kustomize.config.k8s.io/"))
}

fn flatten(mut value: Value) -> Vec<Value> {
    if !is_list(&value) {
        return vec![value];
    }
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items.into_iter().flat_map(flatten).collect(),
        _ => Vec::new(),
    }
}

fn take_origin(value: &mut Value, root: &str, keep: bool) -> (Option<String>, bool) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return (None, false);
    };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return (None, false);
    };
    let said = annotations.get(ORIGIN).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !keep {
        annotations.shift_remove(ORIGIN);
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("repo:").is_some() {
        return (None, false);
    }
    match (field("path:"), field("configuredIn:")) {
        (Some(path), _) => (resolve(root, path), false),
        (None, Some(path)) => (resolve(root, path), true),
        (None, None) => (None, false),
    }
}

/// The object's file and, where one document alone can be meant, its line.
pub(crate) fn origin(built: &Built, lines: &Lines) -> Option<Origin> {
    let file = built.file.clone()?;
    let id = ObjectId::of(&built.value);
    let documents = lines.get(&file).map(Vec::as_slice).unwrap_or_default();
    let of_kind: Vec<&Stands> = documents.iter().filter(|at| at.kind == id.kind).collect();
    let exact = of_kind.iter().find(|at| at.name == id.name).copied();
    // Prefixes, suffixes and hashes surround the name that stands in the file.
    let mut around = of_kind.iter().filter(|at| id.name.contains(&at.name)).copied();
    let line = exact.or_else(|| around.next().filter(|_| around.next().is_none()));
    Some(Origin { file, line: line.map(|at| at.line) })
}

/// Warns of a Secret whose values stand in Git for all to read.
pub(crate) fn plaintext(
    built: &Built,
    origin: Option<&Origin>,
    generators: &[Generator],
    opened: &BTreeSet<String>,
) -> Option<Warning> {
    let id = ObjectId::of(&built.value);
    if id.kind != "Secret" || !id.group.is_empty() || !has_values(&built.value) {
        return None;
    }
    let file = built.file.as_deref()?;
    let from_sealed = if built.generated {
        generators
            .iter()
            .filter(|generator| generator.file == file && id.name.contains(&generator.name))
            .any(|generator| generator.inputs.iter().any(|input| opened.contains(input)))
    } else {
        opened.contains(file)
    };
    (!from_sealed).then(|| Warning {
        kind: WarningKind::PlaintextSecret,
        file: Some(file.to_owned()),
        line: origin.and_then(|origin| origin.line),
        message: format!(
            "{id} is plaintext in Git; seal it with `sops encrypt -i` and change the values that \
             were published"
        ),
    })
}

/// Values that are neither empty nor a variable of `postBuild`.
fn has_values(secret: &Value) -> bool {
    ["data", "stringData"].iter().any(|field| {
        let map = secret.get(field).and_then(Value::as_object);
        map.into_iter().flatten().any(|(_, value)| match value.as_str() {
            Some(text) => !text.is_empty() && !text.contains("${"),
            None => !value.is_null(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OUTPUT: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  annotations:
    config.kubernetes.io/origin: |
      configuredIn: ../base/kustomization.yaml
      configuredBy:
        apiVersion: builtin
        kind: ConfigMapGenerator
  name: c-4h2mbtbbt6
---
apiVersion: v1
kind: List
metadata:
  annotations:
    config.kubernetes.io/origin: |
      path: list.yaml
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, annotations: {k: v}}}
---
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
";

    #[test]
    fn objects_know_their_files_and_lists_are_flat() {
        let built: Vec<_> = objects(OUTPUT, "apps/prod", false)
            .unwrap_or_default()
            .into_iter()
            .map(|b| (ObjectId::of(&b.value).to_string(), b.file.unwrap_or_default(), b.generated))
            .collect();
        let expected = [
            ("ConfigMap/c-4h2mbtbbt6", "apps/base/kustomization.yaml", true),
            ("Service/a", "apps/prod/list.yaml", false),
            ("Deployment/b", "apps/prod/list.yaml", false),
        ];
        assert_eq!(built, expected.map(|(id, file, made)| (id.into(), file.into(), made)));
    }

    #[test]
    fn the_origin_annotation_goes_and_others_stay() {
        let text = "{apiVersion: v1, kind: A, metadata: {name: x, annotations: {\
                    config.kubernetes.io/origin: 'path: x.yaml', k: v}}}";
        let read = |keep| objects(text, "", keep).unwrap_or_default().remove(0).value;
        assert_eq!(read(false)["metadata"], json!({"name": "x", "annotations": {"k": "v"}}));
        assert!(read(true)["metadata"]["annotations"].get(ORIGIN).is_some());
        let bare = objects(OUTPUT, "", false).unwrap_or_default().remove(0).value;
        assert_eq!(bare["metadata"], json!({"name": "c-4h2mbtbbt6"}));
    }

    #[test]
    fn an_object_without_a_name_is_told_with_its_file() {
        let text = "apiVersion: v1\nkind: A\nmetadata: {annotations: \
                    {config.kubernetes.io/origin: 'path: x.yaml'}}\n";
        let Err(problems) = objects(text, "d", false) else { panic!("accepted") };
        assert_eq!(problems, [Problem::at("d/x.yaml", None, "A/ has no metadata.name")]);
    }

    #[test]
    fn a_line_is_told_only_when_one_document_can_be_meant() {
        let stands =
            |line, kind: &str, name: &str| Stands { line, kind: kind.into(), name: name.into() };
        let lines = Lines::from([(
            "f.yaml".to_owned(),
            vec![
                stands(1, "Service", "web"),
                stands(9, "Service", "web-admin"),
                stands(20, "Job", "j"),
            ],
        )]);
        for (kind, name, line) in [
            ("Service", "web", Some(1)),
            ("Service", "web-admin", Some(9)),
            ("Service", "x-web-admin", None),
            ("Job", "x-j-y", Some(20)),
            ("Pod", "j", None),
        ] {
            let value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
            let built = Built { value, file: Some("f.yaml".into()), generated: false };
            let expected = Some(Origin { file: "f.yaml".into(), line });
            assert_eq!(origin(&built, &lines), expected, "{kind} {name}");
        }
    }

    #[test]
    fn only_secrets_that_stand_open_in_git_are_warned_of() {
        let secret = |data: Value| {
            json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "x-s-hash"}, "stringData": data})
        };
        let generators =
            [Generator { file: "k.yaml".into(), name: "s".into(), inputs: vec!["in.env".into()] }];
        let opened = BTreeSet::from(["sealed.yaml".to_owned(), "in.env".to_owned()]);
        for (file, generated, data, warned) in [
            ("open.yaml", false, json!({"k": "v"}), true),
            ("open.yaml", false, json!({"k": "${v}"}), false),
            ("open.yaml", false, json!({}), false),
            ("sealed.yaml", false, json!({"k": "v"}), false),
            ("k.yaml", true, json!({"k": "v"}), false),
            ("other.yaml", true, json!({"k": "v"}), true),
        ] {
            let built = Built { value: secret(data), file: Some(file.into()), generated };
            let warning = plaintext(&built, None, &generators, &opened);
            assert_eq!(warning.is_some(), warned, "{file}");
        }
    }
}
