//! Which directory stands for which GitRepository.

use crate::flux::{
    GitReference, GitRepository, ImageUpdateAutomation, Key, Kustomization, Object, Root,
};
use crate::pipeline::Order;
use crate::source::{Tree, public_url};
use std::collections::{BTreeMap, BTreeSet};

/// Sources by key; the root's tree stands for every source that is the root under another name.
pub struct Sources {
    root: Tree,
    root_keys: BTreeSet<Key>,
    /// Remote and reference of the root, once the tree has stated them.
    remote: Option<(String, GitReference)>,
    mapped: BTreeMap<String, Tree>,
    declared: BTreeMap<Key, GitRepository>,
}

impl Sources {
    /// The tree of the root, and those that `--source NAMESPACE/NAME=DIR` names.
    pub fn new(root: &Root, tree: Tree, mapped: BTreeMap<String, Tree>) -> Self {
        let root_keys = [root.source.key()].into();
        Sources { root: tree, root_keys, remote: None, mapped, declared: BTreeMap::new() }
    }

    /// True for the root's source, whatever it is called.
    pub fn is_root(&self, key: &Key) -> bool {
        let mapped = self.mapped.contains_key(&format!("{}/{}", key.namespace, key.name));
        let same = |git: &GitRepository| {
            self.remote.as_ref().is_some_and(|(url, reference)| {
                normal_url(&git.url) == *url && git.reference == *reference
            })
        };
        self.root_keys.contains(key) || !mapped && self.declared.get(key).is_some_and(same)
    }

    /// Takes in the sources that one render declares.
    pub fn learn(&mut self, by: &Kustomization, root: &Root, work: &[Order]) {
        for order in work {
            if let Object::GitRepository(git) = &order.object {
                self.declared.insert(git.key(), (**git).clone());
            }
        }
        // Whoever bootstrapped under other names points back at the entry all the same.
        if by.key() == root.kustomization.key() {
            for order in work {
                let Object::Kustomization(k) = &order.object else { continue };
                let same_path = normal(&k.path) == normal(&by.path);
                if same_path
                    && self.tree(&k.source).is_err()
                    && self.declared.contains_key(&k.source)
                {
                    self.root_keys.insert(k.source.clone());
                }
            }
        }
        if self.remote.is_none() {
            let own = self.root_keys.iter().find_map(|key| self.declared.get(key));
            self.remote = own.map(|git| (normal_url(&git.url), git.reference.clone()));
        }
    }

    /// The files of a source, or what to do to have them.
    pub fn tree(&self, key: &Key) -> Result<Tree, String> {
        let name = format!("{}/{}", key.namespace, key.name);
        if let Some(tree) = self.mapped.get(&name) {
            return Ok(tree.clone());
        }
        if self.is_root(key) {
            return Ok(self.root.clone());
        }
        let (what, at) = match self.declared.get(key) {
            Some(git) => ("is not in --tree", format!(" (a checkout of {})", public_url(&git.url))),
            None => ("is declared nowhere in what could be walked", String::new()),
        };
        Err(format!("source {key} {what}: add --source {name}=DIR{at}"))
    }

    /// The files that an automation edits, those that no deploy reads included. `None` where they
    /// are not at hand: a directory stands for what the source follows, not for another branch.
    pub fn edited(&self, automation: &ImageUpdateAutomation) -> Option<Tree> {
        let follows = self.declared.get(&automation.source).map(|git| &git.reference);
        if automation.checkout.as_ref().is_some_and(|checkout| Some(checkout) != follows) {
            return None;
        }
        self.tree(&automation.source).ok().map(|tree| tree.unfiltered())
    }
}

/// `./a//b/` as `a/b`.
pub fn normal(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

fn normal_url(url: &str) -> String {
    url.trim_end_matches('/').trim_end_matches(".git").to_owned()
}
