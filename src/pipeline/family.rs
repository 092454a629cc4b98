//! Pure: whether Git may still declare a Kustomization that nobody has spoken of since the start.
//!
//! A parent that is suspended, or blocked, renders nothing after a restart: its children are in
//! no graph, and yet it never said that they have left. Only the word of everybody who declared a
//! child last makes it one that left Git.

use crate::plan::Owner;
use std::collections::{BTreeMap, BTreeSet};

/// Who stands where as the search for what left Git begins.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Kustomizations that are in force.
    pub declared: BTreeSet<Owner>,
    /// Those among them that have not rendered since the start.
    pub silent: BTreeSet<Owner>,
    /// Those that left Git and are being ended, or wait for a confirmation.
    pub ending: BTreeSet<Owner>,
}

/// Who declared whom last.
#[derive(Debug, Default)]
pub struct Family {
    parents: BTreeMap<Owner, BTreeSet<Owner>>,
}

impl Family {
    /// From pairs of child and parent as they are stored.
    pub fn new(rows: &[(String, String)]) -> Self {
        let mut parents: BTreeMap<Owner, BTreeSet<Owner>> = BTreeMap::new();
        for (child, parent) in rows {
            if let (Some(child), Some(parent)) = (Owner::parse(child), Owner::parse(parent)) {
                parents.entry(child).or_default().insert(parent);
            }
        }
        Family { parents }
    }

    /// True for one that is not in force and that somebody silent may declare, itself or through
    /// others that are not in force for the same reason. Of whom no parent is known, anybody
    /// silent may. Before a parent has ended it is not settled what becomes of its children.
    pub fn may_stand(&self, owner: &Owner, standing: &Standing) -> bool {
        let mut seen = BTreeSet::from([owner]);
        let mut asked = vec![owner];
        while let Some(child) = asked.pop() {
            let Some(parents) = self.parents.get(child) else {
                if !standing.silent.is_empty() {
                    return true;
                }
                continue;
            };
            for parent in parents {
                if standing.silent.contains(parent) || standing.ending.contains(parent) {
                    return true;
                }
                if !standing.declared.contains(parent) && seen.insert(parent) {
                    asked.push(parent);
                }
            }
        }
        false
    }

    /// Everybody that a parent declared last.
    pub fn children(&self, of: &Owner) -> impl Iterator<Item = &Owner> {
        let of = of.clone();
        let hangs = move |(_, parents): &(&Owner, &BTreeSet<Owner>)| parents.contains(&of);
        self.parents.iter().filter(hangs).map(|(child, _)| child)
    }

    /// What each parent in force has lost: its children that are not, each with those of the
    /// `gone` that hang from it or are it. A child may own nothing itself.
    pub fn lost<'a>(
        &self,
        gone: impl Iterator<Item = &'a Owner>,
        declared: &BTreeSet<Owner>,
    ) -> BTreeMap<Owner, BTreeMap<Owner, BTreeSet<Owner>>> {
        let mut lost: BTreeMap<Owner, BTreeMap<Owner, BTreeSet<Owner>>> = BTreeMap::new();
        for owner in gone {
            let mut seen = BTreeSet::from([owner]);
            let mut asked = vec![owner];
            while let Some(child) = asked.pop() {
                for parent in self.parents.get(child).into_iter().flatten() {
                    if declared.contains(parent) {
                        let children = lost.entry(parent.clone()).or_default();
                        children.entry(child.clone()).or_default().insert(owner.clone());
                    } else if seen.insert(parent) {
                        asked.push(parent);
                    }
                }
            }
        }
        lost
    }

    /// Everybody that hangs from one alone, at any depth.
    pub fn descendants(&self, of: &Owner) -> BTreeSet<Owner> {
        let mut found = BTreeSet::from([of.clone()]);
        loop {
            let before = found.len();
            let hangs = |(_, parents): &(&Owner, &BTreeSet<Owner>)| parents.is_subset(&found);
            let more: Vec<Owner> =
                self.parents.iter().filter(hangs).map(|(child, _)| child.clone()).collect();
            found.extend(more);
            if found.len() == before {
                found.remove(of);
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "n".into(), name: name.into() }
    }

    fn owners(names: &[&str]) -> BTreeSet<Owner> {
        names.iter().map(|name| owner(name)).collect()
    }

    /// root → apps → web → (deep), root → infra, and `both` that apps and infra declare.
    fn family() -> Family {
        let rows = [
            ("apps", "root"),
            ("infra", "root"),
            ("web", "apps"),
            ("deep", "web"),
            ("both", "apps"),
            ("both", "infra"),
        ];
        Family::new(&rows.map(|(child, parent)| (format!("n/{child}"), format!("n/{parent}"))))
    }

    #[test]
    fn a_child_has_left_git_only_by_the_word_of_all_who_declared_it() {
        let stands = |name: &str, declared: &[&str], silent: &[&str]| {
            let standing = Standing {
                declared: owners(declared),
                silent: owners(silent),
                ..Standing::default()
            };
            family().may_stand(&owner(name), &standing)
        };
        let all = ["root", "apps", "infra"];
        assert!(!stands("web", &all, &[]), "apps has spoken");
        assert!(stands("web", &all, &["apps"]), "apps is suspended");
        assert!(stands("deep", &all, &["apps"]), "and web with it");
        assert!(!stands("web", &all, &["infra"]), "infra never declared it");
        assert!(stands("both", &all, &["infra"]));
        assert!(stands("web", &["root"], &["root"]), "the root itself is suspended");
        assert!(!stands("web", &["root", "infra"], &["infra"]), "apps left by the root's word");
        let ending = Standing { ending: owners(&["apps"]), ..Standing::default() };
        assert!(family().may_stand(&owner("web"), &ending), "apps is held or being ended");
        assert!(stands("unheard-of", &all, &["infra"]), "its parent is not known");
        assert!(!stands("unheard-of", &all, &[]));
    }

    #[test]
    fn what_hangs_from_another_too_is_no_descendant() {
        assert_eq!(family().descendants(&owner("apps")), owners(&["web", "deep"]));
        assert_eq!(
            family().descendants(&owner("root")),
            owners(&["apps", "infra", "web", "deep", "both"])
        );
        assert_eq!(family().descendants(&owner("deep")), owners(&[]));
    }
}
