//! Variables of `postBuild`: read once, and again when a watch says that they have changed.
//!
//! A ConfigMap or Secret of `substituteFrom` may be anybody's, so each has a watch of its own. As
//! long as that is in force, what was read last is good: a pass that changes nothing asks for
//! nothing. For this the values live in memory between runs, as plaintext that cannot be printed;
//! they are wiped, and the watch ends, with the last Kustomization that uses them.

use super::inputs::{Data, decoded, read};
use super::{Connection, Failure, Pipeline, Retry, Step, lock};
use crate::flux::Kustomization;
use crate::observe::{Event, Seen};
use crate::plan::Owner;
use crate::render::{ObjectId, Redactor, Variables};
use crate::secrets::Plaintext;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One ConfigMap or Secret.
struct Read {
    known: Known,
    /// Keys of what is known that held a secret which was handed on. Whoever wrote it may have
    /// written something else since, and what is known is not yet known to be old.
    handed: BTreeSet<String>,
    /// The Kustomizations that use it.
    users: BTreeSet<Owner>,
}

/// How much is known of one.
enum Known {
    /// It has to be read, or read again.
    Stale,
    /// The read of this number is under way; what a later one finds is newer.
    Reading(u64),
    /// Its resourceVersion, empty when it was not there, and what it held.
    Data(String, Option<Arc<Data>>),
}

/// What was read, by object.
#[derive(Default)]
pub(super) struct Values {
    read: HashMap<ObjectId, Read>,
    reads: u64,
}

impl Values {
    /// What is known of an object that somebody uses; the number of the read that is due when
    /// that is not good any more, or nothing tells of its changes.
    fn ask(
        &mut self,
        id: &ObjectId,
        user: &Owner,
        watched: bool,
    ) -> Result<Option<Arc<Data>>, u64> {
        let fresh =
            || Read { known: Known::Stale, handed: BTreeSet::new(), users: BTreeSet::new() };
        let read = self.read.entry(id.clone()).or_insert_with(fresh);
        read.users.insert(user.clone());
        if watched && let Known::Data(_, data) = &read.known {
            return Ok(data.clone());
        }
        self.reads += 1;
        read.known = Known::Reading(self.reads);
        Err(self.reads)
    }

    /// Takes in what a read found, unless it was overtaken: by a notice, or by a later read.
    fn found(&mut self, id: &ObjectId, number: u64, version: String, data: Option<Arc<Data>>) {
        if let Some(read) = self.read.get_mut(id)
            && matches!(read.known, Known::Reading(of) if of == number)
        {
            read.known = Known::Data(version, data);
            read.handed.clear();
        }
    }

    /// Whether a key holds a secret that was handed on: now, or when what is known was read.
    fn handed(&mut self, id: &ObjectId, key: &str, now: bool) -> bool {
        let Some(read) = self.read.get_mut(id) else { return now };
        if now {
            read.handed.insert(key.to_owned());
        }
        read.handed.contains(key)
    }

    /// A watch saw this version of an object: who has to read it again.
    fn seen(&mut self, id: &ObjectId, now: &str) -> Vec<Owner> {
        let Some(read) = self.read.get_mut(id) else { return Vec::new() };
        if matches!(&read.known, Known::Data(version, _) if version == now) {
            return Vec::new();
        }
        let news = !matches!(read.known, Known::Stale);
        read.known = Known::Stale;
        if news { read.users.iter().cloned().collect() } else { Vec::new() }
    }

    /// Nothing that was read counts any more.
    pub(super) fn doubt(&mut self) {
        self.read.values_mut().for_each(|read| read.known = Known::Stale);
    }

    /// Forgets everything, with the watches that went with a connection.
    pub(super) fn clear(&mut self) {
        self.read.clear();
    }

    /// A Kustomization uses only these from now on. Answers what nobody uses any more.
    fn keep(&mut self, user: &Owner, ids: &BTreeSet<ObjectId>) -> Vec<ObjectId> {
        let mut unused = Vec::new();
        self.read.retain(|id, read| {
            if !ids.contains(id) && read.users.remove(user) && read.users.is_empty() {
                unused.push(id.clone());
            }
            !read.users.is_empty()
        });
        unused
    }
}

impl Pipeline {
    /// Variables of `postBuild`: `substituteFrom` in order, then the inline ones. Values of
    /// Secrets are added to the redactor, and those of ConfigMaps that hand a secret on.
    pub(super) async fn variables(
        &self,
        kustomization: &Kustomization,
        redactor: &mut Redactor,
    ) -> Result<Variables, Failure> {
        let mut variables = Variables::default();
        let owner = Owner::of(kustomization);
        self.use_values(&owner, &used(kustomization));
        let Some(post_build) = &kustomization.post_build else { return Ok(variables) };
        let wrong = |cause: String| {
            Failure::new(Step::Substitute, "BuildFailed", cause).object(kustomization.key())
        };
        for from in &post_build.substitute_from {
            let place = format!("{} {}/{}", from.kind, kustomization.namespace, from.name);
            let connection = self.connection().ok_or_else(|| {
                wrong(format!("{place} cannot be read: the API server is not reachable"))
                    .retry(Retry::Soon)
            })?;
            if !matches!(from.kind.as_str(), "Secret" | "ConfigMap") {
                let kind = &from.kind;
                return Err(wrong(format!(
                    "substituteFrom: {kind:?} is not a ConfigMap or Secret"
                )));
            }
            let id = object(kustomization, &from.kind, &from.name);
            let Some(data) = self.values(&connection, id.clone(), &owner).await? else {
                if from.optional {
                    continue;
                }
                return Err(wrong(format!("{place} does not exist"))
                    .hint(Some("create it, or set optional: true".into())));
            };
            for (key, value) in data.iter() {
                let handed = lock(&self.handed).has(&id, key);
                if from.kind == "Secret" || lock(&self.values).handed(&id, key, handed) {
                    redactor.add(value.expose());
                }
                let text = String::from_utf8_lossy(value.expose()).into_owned();
                variables.insert(key, &text).map_err(|e| wrong(format!("{place}: {e}")))?;
            }
        }
        let inserted = variables.inline(post_build, redactor);
        inserted.map_err(|e| wrong(format!("postBuild.substitute: {e}")))?;
        Ok(variables)
    }

    /// One ConfigMap or Secret, `None` when it is not there.
    async fn values(
        &self,
        connection: &Connection,
        id: ObjectId,
        user: &Owner,
    ) -> Result<Option<Arc<Data>>, Failure> {
        let failed =
            |error| super::write::cluster_failure(Step::Open, &error).object(id.to_string());
        let resource = connection.cluster.resource("v1", &id.kind).await.map_err(failed)?;
        let Some(resource) = resource else { return Ok(None) };
        let watched = connection.observer.watches_one(&id);
        let number = match lock(&self.values).ask(&id, user, watched) {
            Ok(data) => return Ok(data),
            Err(number) => number,
        };
        connection.observer.watch_one(&resource, &id.namespace, &id.name);
        let found = read(connection, &id.kind, &id.namespace, &id.name).await?;
        let data = found.as_ref().map(|object| Arc::new(content(&id.kind, object)));
        let version = found.as_ref().map(version).unwrap_or_default();
        lock(&self.values).found(&id, number, version, data.clone());
        Ok(data)
    }

    /// A Kustomization uses only these objects from now on; none, when it has ended.
    pub(super) fn use_values(&self, user: &Owner, ids: &BTreeSet<ObjectId>) {
        let unused = lock(&self.values).keep(user, ids);
        if let Some(connection) = self.connection() {
            unused.iter().for_each(|id| connection.observer.unwatch_one(id));
        }
    }

    /// A watch saw an object: who has to read its values again.
    pub fn values_seen(&self, seen: &Seen) -> Vec<Owner> {
        let now = match seen.event {
            Event::Deleted => String::new(),
            _ => version(&seen.metadata),
        };
        lock(&self.values).seen(&seen.id, &now)
    }
}

fn object(kustomization: &Kustomization, kind: &str, name: &str) -> ObjectId {
    ObjectId {
        namespace: kustomization.namespace.clone(),
        name: name.to_owned(),
        group: String::new(),
        kind: kind.to_owned(),
    }
}

/// The objects that a Kustomization substitutes from.
fn used(kustomization: &Kustomization) -> BTreeSet<ObjectId> {
    let from = kustomization.post_build.iter().flat_map(|post_build| &post_build.substitute_from);
    from.map(|from| object(kustomization, &from.kind, &from.name)).collect()
}

fn version(object: &Value) -> String {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

fn content(kind: &str, object: &Value) -> Data {
    if kind == "Secret" {
        return decoded(object);
    }
    let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
    let texts = data.filter_map(|(key, value)| {
        Some((key.clone(), Plaintext::new(value.as_str()?.as_bytes().to_vec())))
    });
    texts.collect::<BTreeMap<String, Plaintext>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "n".into(), name: name.into() }
    }

    fn id() -> ObjectId {
        ObjectId {
            namespace: "n".into(),
            name: "values".into(),
            group: String::new(),
            kind: "Secret".into(),
        }
    }

    fn data(value: &str) -> Option<Arc<Data>> {
        Some(Arc::new([("key".to_owned(), Plaintext::new(value.into()))].into()))
    }

    fn ask(values: &mut Values, user: &str) -> Result<Option<String>, u64> {
        let found = values.ask(&id(), &owner(user), true)?;
        Ok(found.map(|data| String::from_utf8_lossy(data["key"].expose()).into_owned()))
    }

    #[test]
    fn what_was_a_secret_when_it_was_read_stays_one_until_it_is_read_again() {
        let mut values = Values::default();
        let first = ask(&mut values, "a").unwrap_err();
        values.found(&id(), first, "1".into(), data("swordfish"));
        assert!(!values.handed(&id(), "other", false));
        assert!(values.handed(&id(), "key", true), "it is noted");
        assert!(values.handed(&id(), "key", false), "written without it, and not yet seen");
        values.seen(&id(), "2");
        let second = ask(&mut values, "a").unwrap_err();
        assert!(values.handed(&id(), "key", false));
        values.found(&id(), second, "2".into(), data("nothing"));
        assert!(!values.handed(&id(), "key", false));
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_kept() {
        let mut values = Values::default();
        let first = ask(&mut values, "a").unwrap_err();
        assert_eq!(values.seen(&id(), "2"), [owner("a")], "the first answer may be old by now");
        let second = ask(&mut values, "b").unwrap_err();
        values.found(&id(), second, "2".into(), data("new"));
        values.found(&id(), first, "1".into(), data("old"));
        assert_eq!(ask(&mut values, "a"), Ok(Some("new".into())));
        assert_eq!(values.seen(&id(), "2"), [], "it is known");
        assert_eq!(values.seen(&id(), "3"), [owner("a"), owner("b")]);
        assert_eq!(values.seen(&id(), "4"), [], "they are told already");
        values.doubt();
        assert!(ask(&mut values, "a").is_err(), "everything is compared");
    }

    #[test]
    fn values_go_with_the_last_that_uses_them() {
        let mut values = Values::default();
        let number = ask(&mut values, "a").unwrap_err();
        values.found(&id(), number, "1".into(), data("x"));
        assert_eq!(ask(&mut values, "b"), Ok(Some("x".into())));
        assert_eq!(values.keep(&owner("a"), &[id()].into()), []);
        assert_eq!(values.keep(&owner("a"), &BTreeSet::new()), [], "b uses them still");
        assert_eq!(values.keep(&owner("b"), &BTreeSet::new()), [id()]);
        assert!(values.read.is_empty());
    }
}
