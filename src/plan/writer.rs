//! Pure: who else writes an object, read from its `managedFields`.
//!
//! The server keeps for each manager the fields it wrote last. An edit takes a field out of our
//! Apply entry and puts it into the editor's, so the editor of a value that differs is known by
//! name. Whoever removes a field leaves no trace: then nobody is named rather than somebody wrong.

use super::desired::MANAGER;
use super::diff::Difference;
use serde_json::Value;

/// What is said of a writer that uses our own field manager.
const UNDER_OUR_NAME: &str = "kustomize-controller (somebody else under our name)";

/// Most fields named of one object that are held again without a change of value.
const NAMED: usize = 20;

/// Our Apply entry's set of fields.
pub(super) fn held(object: &Value) -> Option<&Value> {
    entries(object).find(|entry| is_ours(entry)).and_then(|entry| entry.get("fieldsV1"))
}

/// The manager that wrote the value a live object has at the path of a difference; of several the
/// latest.
pub fn writer(live: &Value, difference: &Difference) -> Option<String> {
    difference.before.as_ref()?;
    let path = parse(&difference.path);
    let owners = entries(live).filter(|entry| {
        let fields = entry.get("fieldsV1").unwrap_or(&Value::Null);
        text(entry, "subresource") != "status" && owns(fields, live, &path)
    });
    let (ours, mut others): (Vec<&Value>, Vec<&Value>) = owners.partition(|entry| is_ours(entry));
    others.sort_by_key(|entry| text(entry, "time"));
    match (others.last(), ours.is_empty()) {
        (Some(entry), _) if text(entry, "manager") == MANAGER => Some(UNDER_OUR_NAME.to_owned()),
        (Some(entry), _) => Some(text(entry, "manager").to_owned()),
        (None, false) => Some(UNDER_OUR_NAME.to_owned()),
        (None, true) => None,
    }
}

/// Managers whose fields are taken over by the next apply.
pub fn taken(live: &Value) -> Vec<String> {
    let mut names: Vec<String> = entries(live)
        .filter(|entry| is_taken(entry))
        .map(|entry| text(entry, "manager").to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Everybody else who holds fields of an object beside its status, and keeps them.
pub fn others(live: &Value) -> Vec<String> {
    let theirs = |entry: &&Value| {
        text(entry, "subresource") != "status" && !is_ours(entry) && !is_taken(entry)
    };
    let mut names: Vec<String> =
        entries(live).filter(theirs).map(|entry| text(entry, "manager").to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Fields that the manifest has and our entry of the live object has not: their values are ours,
/// but removing them from Git would not remove them from the cluster.
pub fn regained(live: &Value, wanted: &Value) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(wanted) = held(wanted) {
        missing(held(live).unwrap_or(&Value::Null), wanted, "", &mut names);
    }
    names
}

/// True for an entry that we take over (Flux: Kustomization, Override): kubectl's, what was there
/// before the first apply, and updates under our own name. `kubectl rollout restart` is carried along.
pub fn is_taken(entry: &Value) -> bool {
    let (manager, update) = (text(entry, "manager"), text(entry, "operation") == "Update");
    text(entry, "subresource").is_empty()
        && ((manager.starts_with("kubectl") && manager != "kubectl-rollout")
            || (manager == "before-first-apply" && update)
            || (manager == MANAGER && update))
}

pub(super) fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// True for our own Apply entry.
pub fn is_ours(entry: &Value) -> bool {
    text(entry, "manager") == MANAGER
        && text(entry, "operation") == "Apply"
        && text(entry, "subresource").is_empty()
}

fn missing(live: &Value, wanted: &Value, path: &str, names: &mut Vec<String>) {
    let Some(wanted) = wanted.as_object() else { return };
    for (field, below) in wanted {
        let found = live.get(field);
        let name = match field.split_once(':') {
            Some(("f", key)) if path.is_empty() => key.to_owned(),
            Some(("f", key)) => format!("{path}.{key}"),
            Some((_, item)) => format!("{path}[{item}]"),
            // "." is the field itself.
            None => continue,
        };
        let leaf = below.as_object().is_none_or(|map| map.is_empty());
        match found {
            None if leaf && names.len() < NAMED => names.push(name),
            _ => missing(found.unwrap_or(&Value::Null), below, &name, names),
        }
    }
}

/// A step of a path.
enum Part {
    Key(String),
    Index(usize),
}

/// Reads the paths that `diff` writes: `spec.list[0].x` and `metadata.labels["a.b/c"]`.
fn parse(path: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, after) = quoted.split_once("\"]").unwrap_or((quoted, ""));
            parts.push(Part::Key(key.to_owned()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').unwrap_or((index, ""));
            parts.push(Part::Index(index.parse().unwrap_or(usize::MAX)));
            rest = after;
        } else {
            let bare = rest.strip_prefix('.').unwrap_or(rest);
            let end = bare.find(['.', '[']).unwrap_or(bare.len());
            parts.push(Part::Key(bare[..end].to_owned()));
            rest = &bare[end..];
        }
    }
    parts
}

/// Whether a set of fields holds the value at a path, or a part of it.
fn owns(fields: &Value, live: &Value, path: &[Part]) -> bool {
    let Some(set) = fields.as_object() else { return false };
    let Some((first, rest)) = path.split_first() else { return true };
    match first {
        Part::Key(key) => match set.get(&format!("f:{key}")) {
            Some(below) => leaf(below) || owns(below, &live[key.as_str()], rest),
            None => false,
        },
        Part::Index(index) => {
            let item = &live[*index];
            let found = set.iter().find(|(name, _)| names(name, item, *index));
            found.is_some_and(|(_, below)| leaf(below) || owns(below, item, rest))
        }
    }
}

/// A field without fields below is held whole.
fn leaf(below: &Value) -> bool {
    below.as_object().is_some_and(|map| map.is_empty())
}

/// Whether `k:{…}`, `v:…` or `i:…` names this item of a list.
fn names(name: &str, item: &Value, index: usize) -> bool {
    match name.split_once(':') {
        Some(("i", number)) => number.parse() == Ok(index),
        Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok_and(|v| v == *item),
        Some(("k", key)) => {
            let key: Value = serde_json::from_str(key).unwrap_or_default();
            key.as_object()
                .is_some_and(|key| key.iter().all(|(field, value)| item.get(field) == Some(value)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live() -> Value {
        json!({"metadata": {"labels": {"a.b/c": "x"}, "managedFields": [
            {"manager": "kustomize-controller", "operation": "Apply", "time": "2026-01-01T00:00:00Z",
                "fieldsV1": {"f:spec": {"f:paused": {}, "f:selector": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-03T00:00:00Z",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a.b/c": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {"f:image": {}}}}}},
            {"manager": "helm", "operation": "Update", "time": "2026-01-02T00:00:00Z",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:a.b/c": {}}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale",
                "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]},
            "spec": {"replicas": 3, "paused": true, "selector": {"x": 1},
                "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}})
    }

    #[test]
    fn the_latest_writer_of_a_field_is_named() {
        for (path, expected) in [
            ("metadata.labels[\"a.b/c\"]", Some("kubectl-edit")),
            ("spec.containers[1].image", Some("kubectl-edit")),
            ("spec.containers[0].image", None),
            ("spec.containers", Some("kubectl-edit")),
            ("spec.replicas", Some("kube-controller-manager")),
            ("spec.paused", Some(UNDER_OUR_NAME)),
            ("spec.selector.x", Some(UNDER_OUR_NAME)),
            ("spec.other", None),
        ] {
            let difference = Difference {
                path: path.to_owned(),
                before: Some("1".to_owned()),
                after: Some("2".to_owned()),
            };
            assert_eq!(writer(&live(), &difference).as_deref(), expected, "{path}");
            let removed = Difference { before: None, ..difference };
            assert_eq!(writer(&live(), &removed), None, "whoever removed it left no trace");
        }
        assert_eq!(taken(&live()), ["kubectl-edit"]);
    }

    #[test]
    fn fields_that_left_our_entry_are_named() {
        let wanted = json!({"metadata": {"managedFields": [
            {"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": {
                "f:spec": {".": {}, "f:paused": {}, "f:replicas": {},
                    "f:containers": {"k:{\"name\":\"b\"}": {".": {}, "f:image": {}}}}}}]}});
        assert_eq!(
            regained(&live(), &wanted),
            ["spec.replicas", "spec.containers[{\"name\":\"b\"}].image"]
        );
        assert_eq!(regained(&live(), &live()), Vec::<String>::new());
    }
}
