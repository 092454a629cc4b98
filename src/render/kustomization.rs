//! Pure: the kustomization file that the engine is given.
//!
//! The file at `spec.path`, or the generated list of resources, extended with the fields of the
//! spec as Flux extends it (Flux: Kustomization, Generating). It is written as JSON, which every
//! YAML reader takes and no quoting rule can spoil.
//!
//! `originAnnotations` are always asked for: they tell which file each object comes from. That
//! also keeps kustomize from refusing an empty file, so Flux's `namespace: _placeholder` (which
//! would end up on the objects of a component) is not needed.

use super::reach::{Reach, join};
use crate::flux::{Image, Kustomization};
use serde_json::{Map, Value, json};

/// The annotation by which kustomize tells an object's file.
pub(crate) const ORIGIN: &str = "config.kubernetes.io/origin";

/// The file to write, and whether the user asked for [`ORIGIN`] to stay.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Composed {
    /// Path in the workspace.
    pub file: String,
    /// Its text.
    pub text: String,
    /// True when the origin annotations are part of the result.
    pub keep_origin: bool,
}

/// Merges a spec into what lies at its path.
pub(crate) fn compose(reach: &Reach, spec: &Kustomization) -> Composed {
    let mut content = match &reach.content {
        Value::Object(content) => content.clone(),
        _ => Map::new(),
    };
    if reach.file.is_none() {
        content.insert("apiVersion".into(), json!("kustomize.config.k8s.io/v1beta1"));
        content.insert("kind".into(), json!("Kustomization"));
    }
    for (field, value) in [
        ("namespace", &spec.target_namespace),
        ("namePrefix", &spec.name_prefix),
        ("nameSuffix", &spec.name_suffix),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            content.insert(field.into(), json!(value));
        }
    }
    append(&mut content, "patches", spec.patches.iter().map(|patch| json!(patch)));
    append(&mut content, "components", reach.components.iter().map(|entry| json!(entry)));
    for image in &spec.images {
        merge_image(&mut content, image);
    }
    let keep_origin = build_metadata(&mut content, &spec.build_metadata);
    let file = reach.file.clone().unwrap_or_else(|| join(&reach.root, "kustomization.yaml"));
    Composed { file, text: Value::Object(content).to_string(), keep_origin }
}

fn append(content: &mut Map<String, Value>, field: &str, more: impl Iterator<Item = Value>) {
    let more: Vec<Value> = more.collect();
    if more.is_empty() {
        return;
    }
    match content.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.extend(more),
        None => {
            content.insert(field.into(), Value::Array(more));
        }
    }
}

/// By name; a tag or digest of the spec replaces both of the file's, a name only the name.
fn merge_image(content: &mut Map<String, Value>, image: &Image) {
    let images = content
        .get_mut("images")
        .and_then(Value::as_array_mut)
        .and_then(|list| {
            list.iter_mut()
                .find(|entry| entry.get("name").and_then(Value::as_str) == Some(&image.name))
        })
        .and_then(Value::as_object_mut);
    let Some(entry) = images else {
        append(content, "images", std::iter::once(json!(image)));
        return;
    };
    if let Some(name) = &image.new_name {
        entry.insert("newName".into(), json!(name));
    }
    if image.new_tag.is_some() || image.digest.is_some() {
        for (field, value) in [("newTag", &image.new_tag), ("digest", &image.digest)] {
            match value {
                Some(value) => entry.insert(field.into(), json!(value)),
                None => entry.remove(field),
            };
        }
    }
}

/// The spec's list replaces the file's; true when origins were asked for.
fn build_metadata(content: &mut Map<String, Value>, said: &[String]) -> bool {
    let mut wanted: Vec<String> = if said.is_empty() {
        let list = content.get("buildMetadata").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    } else {
        said.to_vec()
    };
    let asked = wanted.iter().any(|entry| entry == "originAnnotations");
    if !asked {
        wanted.push("originAnnotations".to_owned());
    }
    content.insert("buildMetadata".into(), json!(wanted));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fields: Value) -> Kustomization {
        let mut spec = json!({"interval": "10m", "prune": true, "path": "./apps",
            "sourceRef": {"kind": "GitRepository", "name": "app"}});
        for (name, value) in fields.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        let manifest = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization", "metadata": {"name": "apps", "namespace": "f"}, "spec": spec});
        match crate::flux::Object::read(&manifest) {
            Some(Ok(crate::flux::Object::Kustomization(read))) => *read,
            other => panic!("{other:?}"),
        }
    }

    fn composed(content: Value, fields: Value) -> (Value, bool) {
        let reach = Reach {
            root: "apps".into(),
            file: Some("apps/kustomization.yaml".into()),
            content,
            ..Reach::default()
        };
        let composed = compose(&reach, &spec(fields));
        assert_eq!(composed.file, "apps/kustomization.yaml");
        (serde_json::from_str(&composed.text).unwrap(), composed.keep_origin)
    }

    #[test]
    fn the_spec_extends_the_file_as_flux_does() {
        let file =
            json!({"resources": ["a.yaml"], "namespace": "old", "patches": [{"path": "p.yaml"}]});
        let fields = json!({"targetNamespace": "new", "namePrefix": "x-",
            "patches": [{"patch": "kind: A", "target": {"kind": "B"}}]});
        let expected = json!({"resources": ["a.yaml"], "namespace": "new",
            "patches": [{"path": "p.yaml"}, {"patch": "kind: A", "target": {"kind": "B"}}],
            "namePrefix": "x-", "buildMetadata": ["originAnnotations"]});
        assert_eq!(composed(file, fields), (expected, false));
    }

    #[test]
    fn images_merge_by_name_and_a_digest_removes_the_tag() {
        let file = json!({"images": [{"name": "a", "newName": "r/a", "newTag": "1"}, {"name": "b", "digest": "d"}]});
        for (images, expected) in [
            (
                json!([{"name": "a", "digest": "sha256:1"}]),
                json!([{"name": "a", "newName": "r/a", "digest": "sha256:1"}, {"name": "b", "digest": "d"}]),
            ),
            (
                json!([{"name": "b", "newTag": "2"}, {"name": "c", "newTag": "3"}]),
                json!([{"name": "a", "newName": "r/a", "newTag": "1"}, {"name": "b", "newTag": "2"}, {"name": "c", "newTag": "3"}]),
            ),
            (
                json!([{"name": "a", "newName": "q/a"}]),
                json!([{"name": "a", "newName": "q/a", "newTag": "1"}, {"name": "b", "digest": "d"}]),
            ),
        ] {
            let (content, _) = composed(file.clone(), json!({"images": images}));
            assert_eq!(content["images"], expected);
        }
    }

    #[test]
    fn origins_stay_only_when_the_user_asked_for_them() {
        let ours = json!(["managedByLabel", "originAnnotations"]);
        let (content, keep) = composed(json!({"buildMetadata": ["managedByLabel"]}), json!({}));
        assert_eq!((content["buildMetadata"].clone(), keep), (ours, false));
        let (_, keep) = composed(json!({}), json!({"buildMetadata": ["originAnnotations"]}));
        assert!(keep);
    }

    #[test]
    fn a_generated_file_stands_at_the_path_and_may_be_empty() {
        let reach =
            Reach { root: "apps".into(), content: json!({"resources": []}), ..Reach::default() };
        let composed = compose(&reach, &spec(json!({})));
        assert_eq!(composed.file, "apps/kustomization.yaml");
        let expected = json!({"resources": [], "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization", "buildMetadata": ["originAnnotations"]});
        assert_eq!(serde_json::from_str::<Value>(&composed.text).unwrap(), expected);
    }
}
