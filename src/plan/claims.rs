//! Pure: which Kustomization wants which object.
//!
//! Every Kustomization claims what its latest render names. An object claimed by one is its own,
//! also when another has just dropped it (a move deletes nothing). Claimed identically by two, it
//! is shared and lives until the last of them lets go. Claimed differently by two, the newcomer is
//! refused before any write, with both owners and both files.

use super::desired::Owner;
use crate::render::{ObjectId, Origin};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// One Kustomization's claim of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Keyed digest of the manifest without owner labels; `None` when known from the inventory
    /// only, after a restart: it then agrees with anything.
    pub digest: Option<String>,
    /// Its file in Git.
    pub origin: Option<Origin>,
}

/// Two Kustomizations want different things of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The object.
    pub id: ObjectId,
    /// Who has it.
    pub holder: Owner,
    /// The holder's file.
    pub holder_origin: Option<Origin>,
    /// The newcomer's file.
    pub origin: Option<Origin>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |origin: &Option<Origin>| {
            origin.as_ref().map_or_else(String::new, |o| format!(" ({o})"))
        };
        write!(
            f,
            "{}{} is declared differently by Kustomization {}{}: keep one, or make both identical",
            self.id,
            place(&self.origin),
            self.holder,
            place(&self.holder_origin),
        )
    }
}

/// Who claims what, over all Kustomizations.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_object: HashMap<ObjectId, BTreeMap<Owner, Claim>>,
    by_owner: BTreeMap<Owner, BTreeSet<ObjectId>>,
}

impl Claims {
    /// Replaces the claims of one owner by those of its latest render.
    ///
    /// Refused as a whole, leaving the former claims in force, when an object is claimed
    /// differently by another; all conflicts are told.
    pub fn claim(
        &mut self,
        owner: &Owner,
        wanted: BTreeMap<ObjectId, Claim>,
    ) -> Result<(), Vec<Conflict>> {
        let conflicts: Vec<Conflict> =
            wanted.iter().filter_map(|(id, claim)| self.conflict(owner, id, claim)).collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        self.drop_owner(owner);
        self.by_owner.insert(owner.clone(), wanted.keys().cloned().collect());
        for (id, claim) in wanted {
            self.by_object.entry(id).or_default().insert(owner.clone(), claim);
        }
        Ok(())
    }

    /// Takes up what an inventory says after a restart, unless the owner has rendered since.
    pub fn remember(&mut self, owner: &Owner, ids: impl IntoIterator<Item = ObjectId>) {
        if self.by_owner.contains_key(owner) {
            return;
        }
        let ids: BTreeSet<ObjectId> = ids.into_iter().collect();
        for id in &ids {
            let claim = Claim { digest: None, origin: None };
            self.by_object.entry(id.clone()).or_default().insert(owner.clone(), claim);
        }
        self.by_owner.insert(owner.clone(), ids);
    }

    /// Forgets an owner that left Git.
    pub fn drop_owner(&mut self, owner: &Owner) {
        for id in self.by_owner.remove(owner).unwrap_or_default() {
            if let Some(claims) = self.by_object.get_mut(&id) {
                claims.remove(owner);
                if claims.is_empty() {
                    self.by_object.remove(&id);
                }
            }
        }
    }

    /// Another owner that claims the object.
    pub fn other(&self, owner: &Owner, id: &ObjectId) -> Option<&Owner> {
        self.by_object.get(id)?.keys().find(|claimant| *claimant != owner)
    }

    /// The owner whose labels an object carries: the first of its claimants.
    pub fn labelled(&self, id: &ObjectId) -> Option<&Owner> {
        self.by_object.get(id)?.keys().next()
    }

    fn conflict(&self, owner: &Owner, id: &ObjectId, claim: &Claim) -> Option<Conflict> {
        let holders = self.by_object.get(id)?;
        let (holder, held) = holders.iter().find(|(holder, held)| {
            *holder != owner
                && matches!((&held.digest, &claim.digest), (Some(a), Some(b)) if a != b)
        })?;
        Some(Conflict {
            id: id.clone(),
            holder: holder.clone(),
            holder_origin: held.origin.clone(),
            origin: claim.origin.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "flux-system".into(), name: name.into() }
    }

    fn id(name: &str) -> ObjectId {
        ObjectId {
            namespace: String::new(),
            name: name.into(),
            group: String::new(),
            kind: "Namespace".into(),
        }
    }

    fn claim(name: &str, digest: &str) -> BTreeMap<ObjectId, Claim> {
        let origin = Some(Origin { file: format!("{digest}.yaml"), line: Some(1) });
        [(id(name), Claim { digest: Some(digest.into()), origin })].into()
    }

    #[test]
    fn identical_declarations_are_shared_until_the_last_lets_go() {
        let mut claims = Claims::default();
        claims.claim(&owner("dev"), claim("blaster", "a")).unwrap();
        claims.claim(&owner("prod"), claim("blaster", "a")).unwrap();
        assert_eq!(claims.other(&owner("dev"), &id("blaster")), Some(&owner("prod")));
        claims.claim(&owner("dev"), BTreeMap::new()).unwrap();
        assert_eq!(claims.other(&owner("prod"), &id("blaster")), None);
    }

    #[test]
    fn a_different_declaration_is_refused_with_both_owners_and_files() {
        let mut claims = Claims::default();
        claims.claim(&owner("dev"), claim("blaster", "a")).unwrap();
        let refused = claims.claim(&owner("prod"), claim("blaster", "b")).unwrap_err();
        assert_eq!(
            refused[0].to_string(),
            "Namespace/blaster (b.yaml:1) is declared differently by Kustomization \
             flux-system/dev (a.yaml:1): keep one, or make both identical"
        );
        assert_eq!(claims.other(&owner("dev"), &id("blaster")), None, "the newcomer got nothing");
    }

    #[test]
    fn a_dropped_object_may_be_taken_by_another() {
        let mut claims = Claims::default();
        claims.claim(&owner("a"), claim("x", "1")).unwrap();
        claims.claim(&owner("a"), BTreeMap::new()).unwrap();
        claims.claim(&owner("b"), claim("x", "2")).unwrap();
        assert_eq!(claims.other(&owner("a"), &id("x")), Some(&owner("b")));
    }

    #[test]
    fn a_remembered_inventory_agrees_with_any_declaration_and_yields_to_a_render() {
        let mut claims = Claims::default();
        claims.remember(&owner("a"), [id("x")]);
        claims.claim(&owner("b"), claim("x", "1")).unwrap();
        claims.claim(&owner("a"), BTreeMap::new()).unwrap();
        claims.remember(&owner("a"), [id("x")]);
        assert_eq!(claims.other(&owner("b"), &id("x")), None);
    }
}
