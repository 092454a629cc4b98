//! Pure: `dependsOn` of the whole walk: circles, and dependencies that nobody declares.

use super::report::{Entry, Note, Outcome};
use crate::flux::{Key, Kustomization};
use std::collections::{BTreeMap, BTreeSet};

/// Adds what is wrong with the dependencies to the entries.
///
/// A dependency that is not there blocks only where everything could be walked: it may be
/// declared by what could not be rendered.
pub fn tell<'a>(all: impl Iterator<Item = (&'a Kustomization, &'a mut Entry)>) {
    let mut all: Vec<_> = all.collect();
    let known: BTreeSet<Key> = all.iter().map(|(k, _)| k.key()).collect();
    let whole = all.iter().all(|(_, entry)| entry.result == Outcome::Ok);
    let edges: BTreeMap<Key, Vec<Key>> = all
        .iter()
        .map(|(k, _)| (k.key(), k.depends_on.iter().map(|d| d.key.clone()).collect()))
        .collect();
    for (kustomization, entry) in &mut all {
        let own = kustomization.key();
        if let Some(circle) = circle(&edges, &own) {
            let names: Vec<String> =
                circle.iter().map(|key| format!("{}/{}", key.namespace, key.name)).collect();
            let message = format!("dependsOn runs in a circle: {}", names.join(" -> "));
            block(entry, message);
        }
        for dependency in kustomization.depends_on.iter().filter(|d| !known.contains(&d.key)) {
            let message = format!("dependsOn: {} does not exist", dependency.key);
            if whole {
                block(entry, message);
            } else {
                entry.warnings.push(Note::new(format!("{message} in what could be walked")));
            }
        }
    }
}

fn block(entry: &mut Entry, message: String) {
    entry.errors.push(Note::new(message));
    if entry.result == Outcome::Ok {
        entry.result = Outcome::Blocked;
    }
}

/// A way from a Kustomization back to itself, the shortest one.
fn circle(edges: &BTreeMap<Key, Vec<Key>>, start: &Key) -> Option<Vec<Key>> {
    let mut paths = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            for next in path.last().and_then(|key| edges.get(key)).into_iter().flatten() {
                let step = || path.iter().cloned().chain([next.clone()]).collect::<Vec<_>>();
                if next == start {
                    return Some(step());
                }
                if seen.insert(next.clone()) {
                    longer.push(step());
                }
            }
        }
        paths = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    #[test]
    fn only_members_of_a_circle_are_in_one() {
        let key = |name: &str| Key::new(Kind::Kustomization, "n", name);
        let edges: BTreeMap<Key, Vec<Key>> = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")]
            .into_iter()
            .map(|(from, to)| (key(from), vec![key(to)]))
            .collect();
        let found = |name| circle(&edges, &key(name)).map(|path| path.len());
        assert_eq!(
            [found("a"), found("b"), found("c"), found("d")],
            [None, Some(3), Some(3), Some(2)]
        );
    }
}
