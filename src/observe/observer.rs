//! The watches of one cluster: started on demand, stopped with the [`Observer`].

use super::drift::{Follower, Known, Notice, Notices, Reach};
use crate::cluster::{Cluster, Resource};
use crate::render::ObjectId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Notices kept for a slow subscriber, a few KiB each; who falls behind further is told so. A
/// whole list is one notice.
const KEPT: usize = 1024;

/// Longest wait for the first list of a kind, and how often that is looked at: a list takes some
/// 10 ms, and one that is refused must not hold up a run.
const LIST: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// Watches a cluster. Clones share the watches, which end with the last of them.
#[derive(Clone)]
pub struct Observer {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    out: broadcast::Sender<Notice>,
    lists: watch::Sender<u64>,
    through: Arc<Notify>,
    followers: Mutex<HashMap<Followed, Running>>,
}

/// What a watch follows.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Followed {
    /// The version makes no difference to metadata.
    group: String,
    kind: String,
    reach: Reach,
}

impl Followed {
    fn one(id: &ObjectId) -> Self {
        let reach = Reach::One(id.namespace.clone(), id.name.clone());
        Followed { group: id.group.clone(), kind: id.kind.clone(), reach }
    }
}

struct Running {
    task: JoinHandle<()>,
    known: Known,
}

impl Observer {
    /// An observer that watches nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        let (out, _) = broadcast::channel(KEPT);
        let (lists, _) = watch::channel(0);
        let (through, followers) = (Arc::default(), Mutex::default());
        Observer { inner: Arc::new(Inner { cluster, out, lists, through, followers }) }
    }

    /// Watches the objects of a kind that carry an owner's label, unless that is done already.
    ///
    /// The first notice is a [`Notice::Listed`]. The watch survives outages; it ends with the last
    /// clone of this observer, or when the server has the kind no more. Must run inside tokio. True
    /// when the watch begins now.
    pub fn watch(&self, resource: &Resource) -> bool {
        self.follow(resource, Reach::Owned)
    }

    /// Waits until watches that have just begun know what there is, for a second at most: from then on
    /// they tell of every deletion. One that ends, as its kind is gone, is not waited for.
    pub async fn listed(&self, resources: &[Resource]) {
        let waits = |resource: &Resource| {
            let (group, kind) = (resource.group.clone(), resource.kind.clone());
            let key = Followed { group, kind, reach: Reach::Owned };
            self.followers().get(&key).is_some_and(|running| {
                // Invariant: no code panics while it holds the lock.
                let known = running.known.lock().expect("an unpoisoned lock");
                known.is_none() && !running.task.is_finished()
            })
        };
        let deadline = Instant::now() + LIST;
        while resources.iter().any(waits) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Watches one object, whoever owns it, unless that is done already.
    pub fn watch_one(&self, resource: &Resource, namespace: &str, name: &str) {
        self.follow(resource, Reach::One(namespace.to_owned(), name.to_owned()));
    }

    /// Watches every object of a kind, whoever owns it, unless that is done already.
    pub fn watch_all(&self, resource: &Resource) {
        self.follow(resource, Reach::All);
    }

    /// True while a watch of this one object is in force: what was read since has not changed
    /// without a notice.
    pub fn watches_one(&self, id: &ObjectId) -> bool {
        self.followers().get(&Followed::one(id)).is_some_and(|running| {
            // Invariant: no code panics while it holds the lock.
            running.known.lock().expect("an unpoisoned lock").is_some()
        })
    }

    /// Ends the watch of one object, which nobody is told of any more.
    pub fn unwatch_one(&self, id: &ObjectId) {
        let Some(running) = self.followers().remove(&Followed::one(id)) else { return };
        running.task.abort();
        // Invariant: no code panics while it holds the lock.
        if running.known.lock().expect("an unpoisoned lock").is_none() {
            // An outage of it was perhaps told, and nobody else would take that back.
            let _ = self.inner.out.send(Notice::Back(id.to_string()));
        }
    }

    fn follow(&self, resource: &Resource, reach: Reach) -> bool {
        let (group, kind) = (resource.group.clone(), resource.kind.clone());
        let key = Followed { group, kind, reach: reach.clone() };
        let mut followers = self.followers();
        if followers.get(&key).is_some_and(|running| !running.task.is_finished()) {
            return false;
        }
        let known = Known::default();
        let follower = Follower {
            cluster: self.inner.cluster.clone(),
            resource: Arc::new(resource.clone()),
            reach,
            known: known.clone(),
            out: self.inner.out.clone(),
            lists: self.inner.lists.subscribe(),
            through: self.inner.through.clone(),
        };
        let task = tokio::spawn(follower.run());
        followers.insert(key, Running { task, known });
        true
    }

    /// Hears every notice from now on.
    pub fn subscribe(&self) -> Notices {
        Notices(self.inner.out.subscribe())
    }

    /// Lists every watched kind again: after [`Notice::Missed`], and to verify everything.
    pub fn relist(&self) {
        self.inner.lists.send_modify(|count| *count += 1);
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// What the watch of an object's kind knows.
    pub(super) fn known_of(&self, id: &ObjectId) -> Option<Known> {
        let (group, kind) = (id.group.clone(), id.kind.clone());
        let key = Followed { group, kind, reach: Reach::Owned };
        self.followers().get(&key).map(|running| running.known.clone())
    }

    fn followers(&self) -> std::sync::MutexGuard<'_, HashMap<Followed, Running>> {
        // Invariant: no code panics while it holds the lock.
        self.inner.followers.lock().expect("an unpoisoned lock")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Invariant: no code panics while it holds the lock.
        for running in self.followers.get_mut().expect("an unpoisoned lock").values() {
            running.task.abort();
        }
    }
}
