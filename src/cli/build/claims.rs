//! Pure: which Kustomization of the walk has which object, and where two differ.
//!
//! In the order in which they were met, each claims what its run would apply. Flux objects are not
//! applied: which Kustomization declares them is the walk's own business.

use super::report::{Entry, Note};
use crate::flux::{Class, Kustomization, classify};
use crate::plan::{Claim, Claims, Owner};
use crate::render::{Manifest, ObjectId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Claims the objects of one Kustomization, before they are labelled, and tells what is wrong. One
/// that is `idle` would not run.
pub fn claim(
    claims: &mut Claims,
    (of, idle): (&Kustomization, bool),
    manifests: &[Manifest],
    entry: &mut Entry,
) {
    let mut wanted: BTreeMap<ObjectId, Claim> = BTreeMap::new();
    for manifest in manifests {
        let claim = Claim { digest: Some(digest(manifest)), origin: manifest.origin.clone() };
        if let Some(first) = wanted.insert(manifest.id.clone(), claim) {
            let also = first.origin.map(|o| format!(", also in {o}")).unwrap_or_default();
            let message = format!("{} is declared twice{also}", manifest.id);
            entry.errors.push(Note::at(manifest.origin.as_ref(), message));
        }
    }
    for manifest in manifests.iter().filter(|m| classify(m.body()) != Class::Plain) {
        wanted.remove(&manifest.id);
    }
    let owner = Owner::of(of);
    let (conflicts, notes) = if idle {
        // It claims nothing as long as it does not run.
        let wanted: Vec<(ObjectId, Claim)> = wanted.into_iter().collect();
        (claims.conflicts(&owner, &wanted), &mut entry.warnings)
    } else {
        (claims.claim(&owner, wanted).err().unwrap_or_default(), &mut entry.errors)
    };
    for mut conflict in conflicts {
        // The note has a place for it.
        let origin = conflict.origin.take();
        notes.push(Note::at(origin.as_ref(), conflict.to_string()));
    }
}

fn digest(manifest: &Manifest) -> String {
    let digest = Sha256::digest(manifest.body().to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::{GitReference, root};
    use crate::render::Origin;
    use serde_json::json;
    use std::time::Duration;

    /// What is said of a Kustomization that declares a ConfigMap and a Flux object.
    fn told(claims: &mut Claims, name: &str, value: &str, suspend: bool) -> [Vec<String>; 2] {
        let branch = GitReference::Branch("main".into());
        let mut of = root("https://h/r", branch, "p", Duration::from_secs(60)).kustomization;
        of.name = name.into();
        let object = |api: &str, kind: &str| {
            let body = json!({"apiVersion": api, "kind": kind,
                "metadata": {"name": "a", "namespace": "n"}, "data": {"k": value}});
            Manifest::new(body, Some(Origin { file: name.into(), line: Some(1) }), false)
        };
        let helm = object("helm.toolkit.fluxcd.io/v2", "HelmRelease");
        let mut entry = Entry::of(&of);
        claim(claims, (&of, suspend), &[object("v1", "ConfigMap"), helm], &mut entry);
        [entry.errors, entry.warnings].map(|n| n.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_later_of_two_that_differ_is_wrong_and_a_suspended_one_is_warned() {
        let mut claims = Claims::default();
        let differs = "ConfigMap/n/a is declared differently by Kustomization flux-system/first \
                       (first:1): keep one, or make both identical";
        let none = Vec::<String>::new;
        assert_eq!(told(&mut claims, "paused", "0", true), [none(), none()]);
        assert_eq!(told(&mut claims, "first", "1", false), [none(), none()]);
        assert_eq!(told(&mut claims, "same", "1", false), [none(), none()]);
        let other = told(&mut claims, "other", "2", false);
        assert_eq!(other, [vec![format!("other:1: {differs}")], none()]);
        let paused = told(&mut claims, "paused", "2", true);
        assert_eq!(paused, [none(), vec![format!("paused:1: {differs}")]]);
    }
}
