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
    /// of an older version only, after a restart: it then agrees with anything.
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

impl Conflict {
    /// What is wrong, for who names object and file beside it.
    pub fn cause(&self) -> String {
        let (holder, place) = (&self.holder, place(&self.holder_origin));
        format!(
            "is declared differently by Kustomization {holder}{place}: keep one, or make both \
             identical"
        )
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.id, place(&self.origin), self.cause())
    }
}

fn place(origin: &Option<Origin>) -> String {
    origin.as_ref().map_or_else(String::new, |origin| format!(" ({origin})"))
}

/// Who claims what, over all Kustomizations.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_object: HashMap<ObjectId, BTreeMap<Owner, Claim>>,
    by_owner: BTreeMap<Owner, BTreeSet<ObjectId>>,
    /// Digests of what an owner wants and was refused: when the other comes to want the same,
    /// neither waits for the other.
    refused: BTreeMap<Owner, HashMap<ObjectId, String>>,
}

impl Claims {
    /// Replaces the claims of one owner by those of its latest render.
    ///
    /// Refused as a whole, leaving the former claims in force, when an object is claimed
    /// differently by another; all conflicts are told. Answers the owners that were refused before
    /// and may be refused no longer.
    pub fn claim(
        &mut self,
        owner: &Owner,
        wanted: BTreeMap<ObjectId, Claim>,
    ) -> Result<Vec<Owner>, Vec<Conflict>> {
        let conflicts: Vec<Conflict> =
            wanted.iter().filter_map(|(id, claim)| self.conflict(owner, id, claim)).collect();
        if !conflicts.is_empty() {
            let wanted = wanted.into_iter().filter_map(|(id, claim)| Some((id, claim.digest?)));
            self.refused.insert(owner.clone(), wanted.collect());
            return Err(conflicts);
        }
        // What this owner drops or changes may be what another waits for.
        let touched: BTreeSet<ObjectId> = {
            let before = self.by_owner.get(owner).into_iter().flatten().cloned();
            before.chain(wanted.keys().cloned()).collect()
        };
        self.drop_owner(owner);
        let waits =
            self.refused.iter().filter(|(_, ids)| touched.iter().any(|id| ids.contains_key(id)));
        let waits = waits.map(|(owner, _)| owner.clone()).collect();
        self.by_owner.insert(owner.clone(), wanted.keys().cloned().collect());
        for (id, claim) in wanted {
            self.by_object.entry(id).or_default().insert(owner.clone(), claim);
        }
        Ok(waits)
    }

    /// Where a claim would be refused, without making it.
    pub fn conflicts(&self, owner: &Owner, wanted: &[(ObjectId, Claim)]) -> Vec<Conflict> {
        wanted.iter().filter_map(|(id, claim)| self.conflict(owner, id, claim)).collect()
    }

    /// Takes up what an inventory says after a restart, with the digest of the last claim where
    /// that is known, unless the owner has rendered since.
    pub fn remember(
        &mut self,
        owner: &Owner,
        known: impl IntoIterator<Item = (ObjectId, Option<String>)>,
    ) {
        if self.by_owner.contains_key(owner) {
            return;
        }
        let mut ids = BTreeSet::new();
        for (id, digest) in known {
            let claim = Claim { digest, origin: None };
            self.by_object.entry(id.clone()).or_default().insert(owner.clone(), claim);
            ids.insert(id);
        }
        self.by_owner.insert(owner.clone(), ids);
    }

    /// Forgets an owner that left Git.
    pub fn drop_owner(&mut self, owner: &Owner) {
        self.refused.remove(owner);
        for id in self.by_owner.remove(owner).unwrap_or_default() {
            if let Some(claims) = self.by_object.get_mut(&id) {
                claims.remove(owner);
                if claims.is_empty() {
                    self.by_object.remove(&id);
                }
            }
        }
    }

    /// Another owner that claims the object, or would if it were not refused.
    pub fn other(&self, owner: &Owner, id: &ObjectId) -> Option<&Owner> {
        let claimants = self.by_object.get(id).into_iter().flat_map(BTreeMap::keys);
        let refused = self.refused.iter().filter(|(_, ids)| ids.contains_key(id));
        claimants.chain(refused.map(|(owner, _)| owner)).find(|claimant| *claimant != owner)
    }

    /// Whether anybody claims the object.
    pub fn wanted(&self, id: &ObjectId) -> bool {
        self.by_object.contains_key(id) || self.refused.values().any(|ids| ids.contains_key(id))
    }

    /// Owners whose latest claims were refused.
    pub fn refused(&self) -> Vec<Owner> {
        self.refused.keys().cloned().collect()
    }

    /// The owner whose labels an object carries: the first of its claimants.
    pub fn labelled(&self, id: &ObjectId) -> Option<&Owner> {
        self.by_object.get(id)?.keys().next()
    }

    fn conflict(&self, owner: &Owner, id: &ObjectId, claim: &Claim) -> Option<Conflict> {
        let holders = self.by_object.get(id)?;
        let (holder, held) = holders.iter().find(|(holder, held)| {
            let asked = self.refused.get(*holder).and_then(|asked| asked.get(id));
            *holder != owner
                && matches!((&held.digest, &claim.digest), (Some(a), Some(b)) if a != b)
                && (asked.is_none() || asked != claim.digest.as_ref())
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
        assert_eq!(
            claims.labelled(&id("blaster")),
            Some(&owner("dev")),
            "the newcomer got nothing"
        );
        assert_eq!(claims.other(&owner("dev"), &id("blaster")), Some(&owner("prod")), "but asks");
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
        claims.remember(&owner("a"), [(id("x"), None)]);
        claims.claim(&owner("b"), claim("x", "1")).unwrap();
        claims.claim(&owner("a"), BTreeMap::new()).unwrap();
        claims.remember(&owner("a"), [(id("x"), None)]);
        assert_eq!(claims.other(&owner("b"), &id("x")), None);
    }

    #[test]
    fn two_that_come_to_want_the_same_do_not_wait_for_each_other() {
        let mut claims = Claims::default();
        for name in ["dev", "prod"] {
            claims.claim(&owner(name), claim("blaster", "old")).unwrap();
        }
        claims.claim(&owner("dev"), claim("blaster", "new")).unwrap_err();
        claims.claim(&owner("prod"), claim("blaster", "old")).expect("it holds what it has");
        let waits = claims.claim(&owner("prod"), claim("blaster", "new")).unwrap();
        assert_eq!(waits, [owner("dev")]);
        assert_eq!(claims.claim(&owner("dev"), claim("blaster", "new")), Ok(Vec::new()));
        assert_eq!(claims.refused(), Vec::new());
    }

    #[test]
    fn after_a_restart_a_newcomer_is_told_by_the_digest_of_the_last_claim() {
        let mut claims = Claims::default();
        claims.remember(&owner("a"), [(id("x"), Some("1".into()))]);
        claims.claim(&owner("b"), claim("x", "2")).unwrap_err();
        assert_eq!(claims.other(&owner("a"), &id("x")), Some(&owner("b")), "it is wanted");
        claims.drop_owner(&owner("a"));
        claims.claim(&owner("b"), claim("x", "2")).unwrap();
    }
}
