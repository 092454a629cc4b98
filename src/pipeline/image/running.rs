//! Pure: the images that manifests run, and the policies that chose them.

use super::Known;
use crate::render::{Manifest, ObjectId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Lists of containers in a pod's spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Deepest nesting that is looked into: a CronJob's pod stands seven levels below its top.
const DEPTH: usize = 12;

/// Every image of the manifests, with the objects that run it.
pub(super) fn images(manifests: &[Manifest]) -> BTreeMap<String, BTreeSet<ObjectId>> {
    let mut found: BTreeMap<String, BTreeSet<ObjectId>> = BTreeMap::new();
    for manifest in manifests {
        let mut named = BTreeSet::new();
        collect(manifest.body(), 0, &mut named);
        for image in named {
            found.entry(image).or_default().insert(manifest.id.clone());
        }
    }
    found
}

fn collect(value: &Value, depth: usize, named: &mut BTreeSet<String>) {
    if depth > DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (field, below) in fields {
                if CONTAINERS.contains(&field.as_str()) {
                    let containers = below.as_array().into_iter().flatten();
                    let images = containers.filter_map(|c| c.get("image").and_then(Value::as_str));
                    named.extend(images.map(|image| without_digest(image).to_owned()));
                } else {
                    collect(below, depth + 1, named);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, depth + 1, named)),
        _ => {}
    }
}

/// `name:tag` of `name:tag@sha256:…`.
pub(super) fn without_digest(image: &str) -> &str {
    image.split_once('@').map_or(image, |(tagged, _)| tagged)
}

/// The policies, `namespace/name`, that an image comes from: those whose choice it is, else those
/// of that image whose filter lets its tag through.
pub(super) fn chosen_by(image: &str, known: &BTreeMap<String, Known>) -> Vec<String> {
    let exact = |known: &Known| known.choice.tagged() == image;
    let of = |is: &dyn Fn(&Known) -> bool| -> Vec<String> {
        known.iter().filter(|(_, k)| is(k)).map(|(policy, _)| policy.clone()).collect()
    };
    let found = of(&exact);
    if !found.is_empty() {
        return found;
    }
    let admits = |known: &Known| {
        let tag = image.strip_prefix(&known.choice.name).and_then(|rest| rest.strip_prefix(':'));
        let filter = known.policy.as_ref().map(|policy| policy.filter.as_ref());
        match (tag, filter) {
            (Some(tag), Some(Some(filter))) => filter.pattern.matches(tag),
            (Some(_), Some(None)) => true,
            _ => false,
        }
    };
    of(&admits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::ImagePolicy;
    use crate::history::Choice;
    use serde_json::json;

    fn known(policy: &str, tag: &str, filter: Option<&str>) -> (String, Known) {
        let spec = json!({"imageRepositoryRef": {"name": "app"},
            "policy": {"alphabetical": {}}, "filterTags": filter.map(|p| json!({"pattern": p}))});
        let manifest = json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImagePolicy",
            "metadata": {"name": policy, "namespace": "n"}, "spec": spec});
        let choice = Choice {
            name: "r.example:5000/app".into(),
            tag: tag.into(),
            digest: None,
            previous: None,
            since_ms: 0,
        };
        let policy = ImagePolicy::read(&manifest).expect("a policy");
        (format!("n/{}", policy.name), Known { choice, policy: Some(policy) })
    }

    #[test]
    fn images_of_pods_are_found_wherever_the_pod_stands() {
        let pod = json!({"initContainers": [{"image": "r/init:1"}],
            "containers": [{"image": "r/app:1@sha256:ab"}, {"name": "none"}]});
        let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "c", "namespace": "n"},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "m", "namespace": "n"}, "data": {"image": "r/no:1"}});
        let found = images(&[Manifest::new(cron, None, false), Manifest::new(map, None, false)]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["r/app:1", "r/init:1"]);
    }

    #[test]
    fn an_image_comes_from_whose_choice_it_is_else_from_whose_filter_it_passes() {
        let known: BTreeMap<String, Known> =
            [known("dev", "dev-2", Some("^dev-")), known("prod", "prod-1", Some("^prod-"))].into();
        for (image, by) in [
            ("r.example:5000/app:dev-2", &["n/dev"][..]),
            ("r.example:5000/app:dev-1", &["n/dev"]),
            ("r.example:5000/app:prod-0", &["n/prod"]),
            ("r.example:5000/app:test-1", &[]),
            ("r.example:5000/apple:dev-1", &[]),
            ("r.example:5000/app", &[]),
        ] {
            assert_eq!(chosen_by(image, &known), by, "{image}");
        }
    }
}
