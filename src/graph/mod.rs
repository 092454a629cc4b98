//! The graph of Flux objects: what exists, what it waits for, what is due.
//!
//! [`Graph::new`] starts with the root pair of the host's configuration. The daemon feeds
//! [`Event`]s to [`Graph::handle`], asks [`Graph::due`] what to start now and [`Graph::wake`] when
//! to ask again; both answer with [`Effect`]s, which the daemon carries out. [`Graph::summary`] is
//! the one value that `status`, the STATUS line and the API describe. [`Vigil`] beside it says when
//! an event on an applied object calls for a look, and a look for a run.
//!
//! Every file here is pure: times are arguments, nothing is fetched, rendered or applied. The
//! graph runs no step itself and knows no cluster; it stands left of the loop that drives it so
//! that everything that reports can read it.

mod depends;
mod image;
mod item;
mod orders;
mod schedule;
mod summary;
mod vigil;

pub use item::{Condition, Item, Phase, Ready, Time};
pub use schedule::{Effect, Event};
pub use summary::{ItemView, Summary, UnsupportedView, brief};
pub use vigil::{Look, Sight, Vigil};

use crate::flux::{GitRepository, Key, Kind, Kustomization, Object, Root, Unsupported};
use crate::history::Choice;
use crate::pipeline::{Order, Problem, Revision, SetAsideEntry, set_aside_namespaces};
use crate::plan::Held;
use crate::render::ObjectId;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// All Flux objects that are in force, and the root they hang from.
pub struct Graph {
    root: Root,
    items: BTreeMap<Key, Item>,
    /// Names under which the repository itself declares the root pair.
    aliases: BTreeMap<Key, Key>,
    /// The entry as the latest render of the root states it under another name, where the root
    /// does not run as it yet.
    stated: Option<Box<Kustomization>>,
    /// What each parent's latest render said beside its work orders.
    notices: BTreeMap<Key, Notices>,
    /// Items that their parent no longer declares, until it is sure that nobody else does.
    leaving: BTreeMap<Key, Item>,
    /// Declarations by a second parent, taken up when the first one drops the item.
    contested: BTreeMap<Key, (Key, Order)>,
    /// Ends of many children at once that wait for a confirmation, by parent.
    cascades: BTreeMap<Key, Held>,
    /// The end of most of what there is, however many parents declared it; shown under the root.
    together: Option<(Key, Held)>,
    /// What of those on their way out was confirmed.
    agreed: BTreeSet<ObjectId>,
    /// Suspends of the host, by printed key, for items that may not be declared yet.
    preset: BTreeMap<String, String>,
    /// What policies had chosen in a former process, by `namespace/name`, until they are declared.
    recalled: BTreeMap<String, Choice>,
}

/// What one Kustomization's render declared that is not run.
#[derive(Clone, Debug, Default)]
struct Notices {
    problems: Vec<Problem>,
    unsupported: Vec<Unsupported>,
    set_aside: Vec<SetAsideEntry>,
}

impl Graph {
    /// A graph of the root pair, due at once.
    pub fn new(root: Root, now: Time) -> Self {
        let source =
            Item::new(Object::GitRepository(Box::new(root.source.clone())), Value::Null, now);
        let entry = Item::new(
            Object::Kustomization(Box::new(root.kustomization.clone())),
            Value::Null,
            now,
        );
        let items = [(root.source.key(), source), (root.kustomization.key(), entry)].into();
        Graph {
            root,
            items,
            aliases: BTreeMap::new(),
            stated: None,
            notices: BTreeMap::new(),
            leaving: BTreeMap::new(),
            contested: BTreeMap::new(),
            cascades: BTreeMap::new(),
            together: None,
            agreed: BTreeSet::new(),
            preset: BTreeMap::new(),
            recalled: BTreeMap::new(),
        }
    }

    /// Takes up the suspends of a former process: printed key → how it is shown.
    pub fn preset(&mut self, suspends: impl Iterator<Item = (String, String)>) {
        self.preset.extend(suspends);
        for (key, item) in &mut self.items {
            item.suspended = self.preset.get(&key.to_string()).cloned();
        }
    }

    /// Takes up what policies, `namespace/name`, had chosen in a former process: it is in force also
    /// for one that does not choose any more because it is suspended.
    pub fn recall(&mut self, choices: impl Iterator<Item = (String, Choice)>) {
        self.recalled.extend(choices);
    }

    /// Key of the root Kustomization.
    pub fn root(&self) -> Key {
        self.root.kustomization.key()
    }

    /// The root pair as it is in force.
    pub fn root_pair(&self) -> &Root {
        &self.root
    }

    /// One item.
    pub fn item(&self, key: &Key) -> Option<&Item> {
        self.items.get(&self.resolve(key))
    }

    /// The revision in which a declaration is missing, by the Kustomization that had it: where
    /// that has left too, or nobody knows it, the root's.
    pub fn without(&self, parent: Option<&Key>) -> Option<Revision> {
        let root = self.root();
        let parent = parent.filter(|parent| self.item(parent).is_some()).unwrap_or(&root);
        self.item(&self.kustomization(parent)?.source)?.revision.clone()
    }

    /// Every item, sources first.
    pub fn items(&self) -> impl Iterator<Item = (&Key, &Item)> {
        self.items.iter()
    }

    /// One source as specified.
    pub fn source(&self, key: &Key) -> Option<&GitRepository> {
        match &self.item(key)?.object {
            Object::GitRepository(source) => Some(source),
            _ => None,
        }
    }

    /// One Kustomization as specified.
    pub fn kustomization(&self, key: &Key) -> Option<&Kustomization> {
        match &self.item(key)?.object {
            Object::Kustomization(kustomization) => Some(kustomization),
            _ => None,
        }
    }

    /// Namespaces that only Flux's own set-aside manifests would have created.
    pub fn set_aside_namespaces(&self) -> Vec<String> {
        let notices = self.notices.values();
        notices.flat_map(|notices| set_aside_namespaces(&notices.set_aside)).collect()
    }

    /// The item a name stands for: the repository's own names of the root pair lead to the root.
    fn resolve(&self, key: &Key) -> Key {
        self.aliases.get(key).unwrap_or(key).clone()
    }

    /// Keys of the Kustomizations that read a source.
    fn readers(&self, source: &Key) -> Vec<Key> {
        let reads = |item: &Item| match &item.object {
            Object::Kustomization(k) => self.resolve(&k.source) == *source,
            _ => false,
        };
        let readers = self.items.iter().filter(|(_, item)| reads(item));
        readers.map(|(key, _)| key.clone()).collect()
    }

    /// The spec that the root is to run with, if the repository states it under a name of its own
    /// and differently from what is in force. Name and source stay the host's: what the root has
    /// labelled is known by them.
    pub fn entry(&self, key: &Key) -> Option<Box<Kustomization>> {
        self.stated.clone().filter(|_| *key == self.root())
    }

    /// Names under which the repository declares the root pair, each with the item it stands for.
    pub fn aliases(&self) -> impl Iterator<Item = (&Key, &Key)> {
        self.aliases.iter()
    }

    /// True for a Kustomization that would render the entry path of the root source again.
    fn is_entry(&self, object: &Kustomization) -> bool {
        self.resolve(&object.source) == self.root.source.key()
            && normal_path(&object.path) == normal_path(&self.root.kustomization.path)
    }

    /// True for a GitRepository that would fetch what the root source fetches already.
    fn is_root_source(&self, object: &GitRepository) -> bool {
        let same_name = object.key() == self.root.source.key();
        let same_remote = normal_url(&object.url) == normal_url(&self.root.source.url)
            && object.reference == self.root.source.reference;
        same_name || same_remote
    }

    /// Whether every Kustomization on the same source has rendered the revision that `key` has:
    /// only then can what it dropped be deleted, because another may just have taken it. What is
    /// not in force any more prunes nothing: its end does.
    pub fn may_prune(&self, key: &Key, revision: &str) -> bool {
        let Some(own) = self.kustomization(key) else { return false };
        let source = self.resolve(&own.source);
        self.readers(&source).into_iter().all(|reader| {
            reader == self.resolve(key)
                || self.items.get(&reader).is_none_or(|item| {
                    !item.active()
                        || item.blocked().is_some()
                        || item.attempted.as_deref() == Some(revision)
                })
        })
    }

    /// True when every Kustomization that runs has rendered the revision its source is at.
    fn rendered(&self) -> bool {
        self.unrendered().is_none()
    }

    /// The first that has not.
    fn unrendered(&self) -> Option<&Key> {
        let behind = |(_, item): &(&Key, &Item)| match &item.object {
            Object::Kustomization(kustomization) => {
                let source = self.items.get(&self.resolve(&kustomization.source));
                let current = source.and_then(|source| source.revision.as_ref());
                let attempted = item.attempted.as_deref();
                item.active()
                    && item.blocked().is_none()
                    && (attempted.is_none() || attempted != current.map(|r| r.id.as_str()))
                    && !self.hangs_from_leaving(item)
            }
            _ => false,
        };
        self.items.iter().find(behind).map(|(key, _)| key)
    }

    /// True for what a parent on its way out has declared: it ends with that one, and its source
    /// may have left already.
    fn hangs_from_leaving(&self, item: &Item) -> bool {
        let above = |key: &&Key| self.items.get(*key).and_then(|item| item.parent.as_ref());
        let parents = std::iter::successors(item.parent.as_ref(), above);
        // Two that declare each other have no end.
        parents.take(self.items.len()).any(|parent| self.leaving.contains_key(parent))
    }

    /// True when it is sure what those that run have in Git: each has rendered what its source is
    /// at, nothing was unreadable, and nothing is on its way out. Those that do not run may be
    /// [`Graph::silent`].
    pub fn complete(&self) -> bool {
        let readable = self.notices.values().all(|notices| notices.problems.is_empty());
        readable && self.contested.is_empty() && self.leaving.is_empty() && self.rendered()
    }

    /// Kustomizations that have not rendered since the start: what they declare is in no graph.
    pub fn silent(&self) -> impl Iterator<Item = &Key> {
        let silent = |item: &Item| {
            matches!(item.object, Object::Kustomization(_)) && item.attempted.is_none()
        };
        self.items.iter().filter(move |(_, item)| silent(item)).map(|(key, _)| key)
    }

    /// Ends of many children at once that wait for a confirmation.
    pub fn cascades(&self) -> impl Iterator<Item = (&Key, &Held)> {
        let together = self.together.iter().map(|(root, held)| (root, held));
        self.cascades.iter().chain(together)
    }

    /// Key of an item by what a person typed: `name`, `namespace/name` or `Kind/namespace/name`.
    pub fn find(&self, said: &str) -> Vec<Key> {
        let parts: Vec<&str> = said.split('/').collect();
        let kind_is = |key: &Key, said: &str| Kind::named(said) == Some(key.kind);
        let matches = |key: &&Key| match parts.as_slice() {
            [name] => key.name == *name,
            [first, name] => key.name == *name && (key.namespace == *first || kind_is(key, first)),
            [kind, namespace, name] => {
                key.name == *name && key.namespace == *namespace && kind_is(key, kind)
            }
            _ => false,
        };
        self.items.keys().filter(matches).cloned().collect()
    }
}

fn normal_path(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

/// A revision of which no more than its name is known.
fn revision(id: &str) -> Revision {
    Revision { id: id.to_owned(), ..Revision::unknown() }
}

fn normal_url(url: &str) -> &str {
    url.trim_end_matches('/').trim_end_matches(".git")
}
