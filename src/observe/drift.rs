//! One metadata watch per managed kind, or of a single object, and what it tells.
//!
//! A watch of a kind sees what carries an owner's label; that of a single object, such as a
//! ConfigMap that others own and values are read from, sees it whoever owns it. Of few kinds all
//! objects are of interest.
//!
//! A watch lists first, then follows. It renews itself every 290 s, which is all that an idle
//! cluster costs. It lists again when the server says that its place is lost, and after every
//! connection that could not be renewed at once: the server may have restarted, and a datastore
//! that lost its last commits answers a resourceVersion from the future with silence.
//!
//! Nothing is ever left out silently: objects that vanished between two lists are told as
//! deleted, and a subscriber that falls behind reads [`Notice::Missed`] and asks for a list.

use super::Observer;
use crate::cluster::{Cluster, ClusterError, Resource, Select, WatchEvent};
use crate::plan::{Gate, Owner};
use crate::render::ObjectId;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

/// Pause after the first failure, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that ended in good order before this time counts as a failure: a server that is
/// shutting down ends each one at once.
const SHORT: Duration = Duration::from_secs(1);

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is new.
    Added,
    /// It has changed.
    Modified,
    /// It is gone, or has lost the label: a GET tells which.
    Deleted,
    /// It was there when the kind was listed.
    Listed,
}

/// One object as a watch saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The object.
    pub id: ObjectId,
    /// `group/version` of the watch.
    pub api_version: String,
    /// What happened to it.
    pub event: Event,
    /// The object without spec and status. Of an object that vanished between two lists only
    /// name and uid, and the resourceVersion of the list that lacks it.
    pub metadata: Arc<Value>,
    /// Its drift gate.
    pub gate: Gate,
}

/// What the observer tells its subscribers.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// One event.
    Seen(Seen),
    /// A kind was listed: at the start, after an outage, or because it was asked for.
    Listed {
        /// The kind.
        resource: Arc<Resource>,
        /// Everything there is, and as deleted what was there before and is no more.
        objects: Arc<Vec<Seen>>,
        /// The server's resourceVersion fell: its datastore has lost commits.
        rewound: bool,
    },
    /// A kind, or a single object, cannot be watched at present.
    Outage {
        /// What was followed: `Deployment.apps`, or `Secret/apps/values`.
        followed: String,
        /// Why.
        error: ClusterError,
    },
    /// It can again, by the same name; a [`Notice::Listed`] follows.
    Back(String),
    /// This subscriber was too slow for so many notices: [`Observer::relist`] tells all again.
    Missed(u64),
}

/// A subscription to notices.
pub struct Notices(pub(super) broadcast::Receiver<Notice>);

impl Notices {
    /// The next notice; `None` when the observer is gone. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Notice::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Namespace and name.
type Name = (String, String);

/// What a watch knows: uid by name; `None` before the first list and during an outage.
pub(super) type Known = Arc<Mutex<Option<HashMap<Name, String>>>>;

/// Which objects of a kind a watch follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Those that carry an owner's label.
    Owned,
    /// The one with this namespace and name, whoever owns it.
    One(String, String),
    /// All of them, whoever owns them.
    All,
}

/// The watch of one kind, run as a task of its own.
pub(super) struct Follower {
    pub(super) cluster: Cluster,
    pub(super) resource: Arc<Resource>,
    pub(super) reach: Reach,
    pub(super) known: Known,
    pub(super) out: broadcast::Sender<Notice>,
    /// Counts the requests for a new list.
    pub(super) lists: watch::Receiver<u64>,
    /// Wakes those that pause when one of them gets through again.
    pub(super) through: Arc<Notify>,
}

/// How a round of listing and following ended, short of an error.
enum End {
    /// The server ended the watch in good order.
    Renew,
    /// A new list is wanted.
    List,
}

/// Where a round failed.
enum Failure {
    /// Listing, or opening the watch.
    Opening(ClusterError),
    /// In the middle of an open watch.
    Following(ClusterError),
}

/// What stays between rounds.
#[derive(Default)]
struct Place {
    /// Where to go on; empty asks for a list.
    version: String,
    /// The last list's or event's version, to see it fall.
    highest: u64,
    /// Objects at the last list and since, also through an outage.
    objects: HashMap<Name, String>,
    out: bool,
}

impl Follower {
    /// Runs until its kind is gone from the server or it is aborted.
    pub(super) async fn run(mut self) {
        let mut place = Place::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let (begun, mut busy) = (Instant::now(), Duration::ZERO);
            let ended = self.round(&mut place).await;
            let long = begun.elapsed() >= SHORT;
            if long {
                pause = FIRST_PAUSE;
            }
            match ended {
                Ok(End::Renew) if long => continue,
                Ok(End::Renew) => {}
                Ok(End::List) => {
                    place.version.clear();
                    continue;
                }
                // Renewing it at once shows whether the server is still the same.
                Err(Failure::Following(error)) if long && error.outage() => continue,
                Err(Failure::Opening(ClusterError::NotFound { kind, .. })) if kind.is_empty() => {
                    self.vanish(&mut place);
                    return;
                }
                Err(Failure::Opening(ClusterError::Expired(_)))
                | Err(Failure::Following(ClusterError::Expired(_))) => place.version.clear(),
                Err(Failure::Opening(error) | Failure::Following(error)) => {
                    if let ClusterError::TooMany { retry_after, .. } = error {
                        busy = retry_after;
                    }
                    self.outage(&mut place, error);
                }
            }
            // Whoever else gets through: this one was told when to come back.
            tokio::time::sleep(busy).await;
            let through = self.through.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                () = through.notified() => {}
            }
        }
    }

    /// Lists if need be, then follows until the watch ends.
    async fn round(&mut self, place: &mut Place) -> Result<End, Failure> {
        self.lists.mark_unchanged();
        if place.version.is_empty() {
            self.list(place).await.map_err(Failure::Opening)?;
        }
        let fields = self.fields();
        let select = self.select(&fields);
        let opened = self.cluster.watch_metadata(&self.resource, select, &place.version).await;
        let mut watch = opened.map_err(Failure::Opening)?;
        self.back(place);
        loop {
            let event = tokio::select! {
                event = watch.next() => event.map_err(Failure::Following)?,
                asked = self.lists.changed() => match asked {
                    Ok(()) => return Ok(End::List),
                    // The observer is gone, and this task with it in a moment.
                    Err(_) => std::future::pending().await,
                },
            };
            match event {
                None => return Ok(End::Renew),
                Some(event) => self.take(place, event),
            }
        }
    }

    fn followed(&self) -> String {
        followed(&self.resource, &self.reach)
    }

    fn fields(&self) -> String {
        match &self.reach {
            Reach::One(_, name) => format!("metadata.name={name}"),
            Reach::Owned | Reach::All => String::new(),
        }
    }

    fn select<'a>(&'a self, fields: &'a str) -> Select<'a> {
        match &self.reach {
            Reach::One(namespace, _) => {
                Select { namespace: Some(namespace), fields, ..Select::default() }
            }
            Reach::Owned => Select { labels: Owner::NAME_LABEL, ..Select::default() },
            Reach::All => Select::default(),
        }
    }

    async fn list(&self, place: &mut Place) -> Result<(), ClusterError> {
        let fields = self.fields();
        let select = self.select(&fields);
        let list = self.cluster.list_metadata(&self.resource, select).await?;
        self.back(place);
        let mut gone = std::mem::take(&mut place.objects);
        let mut objects = Vec::with_capacity(list.items.len());
        for item in list.items {
            let seen = self.seen(Event::Listed, item);
            let (name, uid) = entry(&seen);
            gone.remove(&name);
            place.objects.insert(name, uid);
            objects.push(seen);
        }
        // As of this list: what a run finds out later is newer.
        let at = list.resource_version.as_str();
        objects.extend(gone.into_iter().map(|(name, uid)| self.lost(name, uid, at)));
        let version = list.resource_version.parse().unwrap_or(0);
        let rewound = version < place.highest;
        place.highest = version;
        place.version = list.resource_version;
        self.publish_known(Some(&place.objects));
        let (resource, objects) = (self.resource.clone(), Arc::new(objects));
        self.tell(Notice::Listed { resource, objects, rewound });
        Ok(())
    }

    fn take(&self, place: &mut Place, event: WatchEvent) {
        let (event, object) = match event {
            WatchEvent::Added(object) => (Event::Added, object),
            WatchEvent::Modified(object) => (Event::Modified, object),
            WatchEvent::Deleted(object) => (Event::Deleted, object),
            WatchEvent::Bookmark(version) => return place.reach(version),
        };
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        place.reach(version.unwrap_or_default().to_owned());
        let seen = self.seen(event, object);
        let (name, uid) = entry(&seen);
        // Invariant: no code panics while it holds the lock.
        let mut known = self.known.lock().expect("an unpoisoned lock");
        let known = known.get_or_insert_default();
        if event == Event::Deleted {
            place.objects.remove(&name);
            known.remove(&name);
        } else {
            place.objects.insert(name.clone(), uid.clone());
            known.insert(name, uid);
        }
        self.tell(Notice::Seen(seen));
    }

    fn outage(&self, place: &mut Place, error: ClusterError) {
        place.version.clear();
        self.publish_known(None);
        if !std::mem::replace(&mut place.out, true) {
            self.tell(Notice::Outage { followed: self.followed(), error });
        }
    }

    fn back(&self, place: &mut Place) {
        if std::mem::replace(&mut place.out, false) {
            self.tell(Notice::Back(self.followed()));
            self.through.notify_waiters();
        }
    }

    /// The kind itself is gone, and its objects with it.
    fn vanish(&self, place: &mut Place) {
        self.publish_known(None);
        let gone = std::mem::take(&mut place.objects);
        let at = place.version.as_str();
        let objects = gone.into_iter().map(|(name, uid)| self.lost(name, uid, at)).collect();
        let (resource, objects) = (self.resource.clone(), Arc::new(objects));
        self.tell(Notice::Listed { resource, objects, rewound: false });
    }

    fn seen(&self, event: Event, metadata: Value) -> Seen {
        Seen {
            id: ObjectId::of(&metadata),
            api_version: self.resource.api_version(),
            event,
            gate: Gate::of(&metadata),
            metadata: Arc::new(metadata),
        }
    }

    fn lost(&self, (namespace, name): Name, uid: String, version: &str) -> Seen {
        let mut metadata = json!({"name": name, "uid": uid, "resourceVersion": version});
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        let object = json!({"apiVersion": self.resource.api_version(),
            "kind": self.resource.kind, "metadata": metadata});
        self.seen(Event::Deleted, object)
    }

    fn publish_known(&self, objects: Option<&HashMap<Name, String>>) {
        // Invariant: no code panics while it holds the lock.
        *self.known.lock().expect("an unpoisoned lock") = objects.cloned();
    }

    fn tell(&self, notice: Notice) {
        // Nobody listening is no error: the next subscriber asks for a list.
        let _ = self.out.send(notice);
    }
}

impl Place {
    fn reach(&mut self, version: String) {
        if version.is_empty() {
            return;
        }
        self.highest = self.highest.max(version.parse().unwrap_or(0));
        self.version = version;
    }
}

/// Each watch has a name of its own: several may follow objects of one kind.
fn followed(resource: &Resource, reach: &Reach) -> String {
    let kind = match resource.group.as_str() {
        "" => resource.kind.clone(),
        group => format!("{}.{group}", resource.kind),
    };
    match reach {
        Reach::One(namespace, name) => ObjectId {
            namespace: namespace.clone(),
            name: name.clone(),
            group: resource.group.clone(),
            kind: resource.kind.clone(),
        }
        .to_string(),
        Reach::Owned => kind,
        Reach::All => format!("every {kind}"),
    }
}

fn entry(seen: &Seen) -> (Name, String) {
    let uid = seen.metadata.pointer("/metadata/uid").and_then(Value::as_str);
    ((seen.id.namespace.clone(), seen.id.name.clone()), uid.unwrap_or_default().to_owned())
}

impl Observer {
    /// True while a watch tells of every change of this object: its kind is watched, the object
    /// carries the owner's label, and the connection stands.
    pub(super) fn covers(&self, id: &ObjectId) -> bool {
        self.known_of(id).is_some_and(|known| {
            // Invariant: no code panics while it holds the lock.
            let known = known.lock().expect("an unpoisoned lock");
            let name = (id.namespace.clone(), id.name.clone());
            known.as_ref().is_some_and(|objects| objects.contains_key(&name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_of_one_kind_are_told_apart() {
        let resource = |group: &str, kind: &str| Resource {
            group: group.into(),
            version: "v1".into(),
            plural: String::new(),
            kind: kind.into(),
            namespaced: true,
        };
        let one = Reach::One("apps".into(), "values".into());
        let secrets = resource("", "Secret");
        assert_eq!(followed(&secrets, &Reach::Owned), "Secret");
        assert_eq!(followed(&secrets, &one), "Secret/apps/values");
        let other = resource("example.org", "Secret");
        assert_eq!(followed(&other, &Reach::Owned), "Secret.example.org");
        assert_eq!(followed(&other, &Reach::All), "every Secret.example.org");
    }
}
