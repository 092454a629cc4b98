//! What is looked at after a cut, as sentences about what is wrong; none is the wish.
//!
//! Nothing here waits or fails: `checks.rs` calls the same functions on damage made by hand.

use super::{Bench, Seen};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl Bench {
    /// What the cluster must hold.
    pub(super) fn wanted(&self) -> BTreeMap<String, Value> {
        let mut wanted = self.side.objects.clone();
        wanted.insert("ConfigMap/stranger".to_owned(), json!({"key": "not yours"}));
        wanted
    }

    /// What the cluster has and Git does not say, and the other way round.
    pub(super) fn difference(&self) -> Vec<String> {
        let (wanted, seen) = (self.wanted(), self.seen());
        let names: BTreeSet<&String> = wanted.keys().chain(seen.keys()).collect();
        let wrong = names.into_iter().filter_map(|name| match (wanted.get(name), seen.get(name)) {
            (Some(wanted), None) => Some(format!("{name} {wanted} is missing")),
            (None, Some(_)) => Some(format!("{name} is left")),
            (Some(wanted), Some((_, seen))) if wanted != seen => {
                Some(format!("{name} is {seen}, not {wanted}"))
            }
            _ => None,
        });
        wrong.collect()
    }

    /// Objects that have another uid than before and should not.
    pub(super) fn made_again(&self, before: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, (uid, _)) in self.seen() {
            let same = before.get(&id).is_none_or(|(old, _)| *old == uid);
            if !same && !self.scenario.recreates.contains(&id.as_str()) {
                wrong.push(format!("{id} was deleted and made again"));
            }
        }
        wrong
    }

    /// Runs that are open though nothing runs, and such of `open` as are not told as interrupted.
    pub(super) fn left_open(&self, open: &BTreeSet<String>) -> Vec<String> {
        let runs = self.world.json(&["history", "--number", "1000"]);
        let of = |verdict: &str| -> BTreeSet<String> {
            let runs = runs.as_array().expect("a list").iter();
            let runs = runs.filter(|run| run["verdict"] == verdict);
            runs.map(|run| run["run"].as_str().expect("a text").to_owned()).collect()
        };
        let (running, closed) = (of("running"), of("interrupted"));
        let running = running.iter().map(|run| format!("run {run} is open"));
        let lost = open.difference(&closed).map(|run| format!("run {run} is not interrupted"));
        running.chain(lost).collect()
    }

    /// Everything in the namespace that somebody declared.
    pub(super) fn seen(&self) -> Seen {
        let namespace = &self.world.namespace;
        let core = |kind, plural: &str| (kind, format!("/api/v1/namespaces/{namespace}/{plural}"));
        let apps = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let lists =
            [core("ConfigMap", "configmaps"), core("Secret", "secrets"), ("Deployment", apps)];
        let mut seen = Seen::new();
        for (kind, path) in lists.iter().chain(&self.side.beside) {
            for object in self.front.list(path) {
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
                let name = text("/metadata/name").expect("every object has one");
                let uid = text("/metadata/uid").expect("every object has one").to_owned();
                if name != "kube-root-ca.crt" {
                    seen.insert(format!("{kind}/{name}"), (uid, values(kind, &object)));
                }
            }
        }
        seen
    }

    /// Runs that the record has open, read from a copy of it: the daemon has it locked otherwise.
    pub(super) fn open_runs(&self) -> BTreeSet<String> {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for name in ["history.db", "history.db-wal"] {
            let _ = std::fs::copy(self.world.path("state").join(name), copy.path().join(name));
        }
        let Ok(db) = rusqlite::Connection::open(copy.path().join("history.db")) else {
            return BTreeSet::new();
        };
        let Ok(mut open) = db.prepare("SELECT id FROM run WHERE verdict IS NULL") else {
            return BTreeSet::new();
        };
        let ids = open.query_map([], |row| row.get::<_, i64>(0)).expect("a table of runs");
        ids.flatten().map(|id| id.to_string()).collect()
    }
}

/// The values of an object that its declaration sets.
fn values(kind: &str, object: &Value) -> Value {
    match kind {
        "ConfigMap" | "Secret" => object["data"].clone(),
        "Deployment" => object["spec"]["template"]["spec"]["containers"][0]["image"].clone(),
        _ => object["spec"].clone(),
    }
}
