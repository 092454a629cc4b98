//! Pure: dependencies between Kustomizations, and the cycles among them.

use super::item::{Item, Ready};
use crate::flux::{Dependency, Key, Kustomization, Object};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Why a Kustomization may not start yet, or `None` when every dependency is ready.
///
/// `current` is the revision of the Kustomization's own source, `source` its key: a dependency on
/// the same source must have applied that very revision (Flux: Kustomization, Dependencies).
pub fn unmet(
    items: &BTreeMap<Key, Item>,
    of: &Kustomization,
    source: &Key,
    current: &str,
    resolve: impl Fn(&Key) -> Key,
) -> Option<String> {
    let own = items.get(&of.key());
    of.depends_on.iter().find_map(|dependency| {
        let key = resolve(&dependency.key);
        let Some(item) = items.get(&key) else {
            return Some(format!("dependency {key} does not exist"));
        };
        if let Some(expression) = &dependency.ready_expr {
            let own = own.map_or(Value::Null, view);
            return match expression.evaluate(&[("self", &own), ("dep", &view(item))]) {
                Ok(true) => None,
                Ok(false) => Some(format!("dependency {key}: readyExpr is false")),
                Err(error) => Some(format!("dependency {key}: readyExpr: {error}")),
            };
        }
        built_in(item, &dependency_source(item, &resolve), source, current)
            .map(|why| format!("dependency {key} {why}"))
    })
}

fn dependency_source(item: &Item, resolve: impl Fn(&Key) -> Key) -> Option<Key> {
    match &item.object {
        Object::Kustomization(kustomization) => Some(resolve(&kustomization.source)),
        _ => None,
    }
}

fn built_in(item: &Item, dep_source: &Option<Key>, source: &Key, current: &str) -> Option<String> {
    if item.condition.status != Ready::True {
        // Not its cause, which will be another one before this is said anew.
        return Some("is not ready".to_owned());
    }
    let applied = item.revision.as_ref().map(|r| r.id.as_str()).unwrap_or_default();
    if dep_source.as_ref() == Some(source) && applied != current {
        return Some(format!("has applied {applied}, not yet {current}"));
    }
    None
}

/// The object as CEL sees it: the manifest with the status that Flux would have written.
fn view(item: &Item) -> Value {
    let mut object = item.manifest.clone();
    if !object.is_object() {
        object = json!({"metadata": {}});
    }
    let condition = &item.condition;
    object["metadata"]["generation"] = json!(1);
    object["status"] = json!({
        "observedGeneration": 1,
        "lastAppliedRevision": item.revision.as_ref().map(|r| r.id.clone()),
        "conditions": [{"type": "Ready", "status": condition.status, "reason": condition.reason,
            "message": condition.message, "observedGeneration": 1}],
    });
    object
}

/// Every cycle of `dependsOn`, each starting at its smallest key.
pub fn cycles<'a>(
    edges: impl Fn(&Key) -> &'a [Dependency],
    keys: impl Iterator<Item = Key>,
) -> Vec<Vec<Key>> {
    let mut found: BTreeSet<Vec<Key>> = BTreeSet::new();
    let mut done: BTreeSet<Key> = BTreeSet::new();
    for start in keys {
        let mut path: Vec<(Key, usize)> = vec![(start, 0)];
        while let Some((key, next)) = path.last().cloned() {
            let Some(dependency) = edges(&key).get(next) else {
                done.insert(key);
                path.pop();
                continue;
            };
            if let Some(last) = path.last_mut() {
                last.1 += 1;
            }
            let target = dependency.key.clone();
            if let Some(at) = path.iter().position(|(key, _)| *key == target) {
                let mut cycle: Vec<Key> = path[at..].iter().map(|(key, _)| key.clone()).collect();
                let least = cycle.iter().enumerate().min_by_key(|(_, key)| (*key).clone());
                let least = least.map_or(0, |(index, _)| index);
                cycle.rotate_left(least);
                found.insert(cycle);
            } else if !done.contains(&target) {
                path.push((target, 0));
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    fn key(name: &str) -> Key {
        Key::new(Kind::Kustomization, "n", name)
    }

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<Key, Vec<Dependency>> {
        let list = |targets: &[&str]| {
            targets.iter().map(|t| Dependency { key: key(t), ready_expr: None }).collect()
        };
        edges.iter().map(|(from, to)| (key(from), list(to))).collect()
    }

    fn found(edges: &[(&str, &[&str])]) -> Vec<Vec<String>> {
        let graph = graph(edges);
        let of = |key: &Key| graph.get(key).map_or(&[][..], Vec::as_slice);
        cycles(of, graph.keys().cloned())
            .into_iter()
            .map(|cycle| cycle.into_iter().map(|key| key.name).collect())
            .collect()
    }

    #[test]
    fn every_cycle_is_named_once_from_its_smallest_member() {
        assert_eq!(
            found(&[("c", &["a"]), ("a", &["b"]), ("b", &["c"]), ("d", &["a", "d"])]),
            [vec!["a", "b", "c"], vec!["d"]]
        );
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        assert!(found(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]).is_empty());
    }
}
