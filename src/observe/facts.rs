//! Gathers what is known around an object that is not ready, for [`cause()`] to read.
//!
//! A failed health check is rare and somebody waits for its reason, so this may ask: at most one
//! object, one list each of ReplicaSets, pods and events, and sixteen references of a pod.

use super::Observer;
use super::cause::{Cause, Facts, cause, hopeless};
use crate::cluster::{Cluster, ClusterError, Resource, Select};
use crate::render::ObjectId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most ReplicaSets and pods that are read: ten revisions are kept by default, and the reason is
/// the same in every pod.
const LISTED: usize = 50;

/// Most warnings of a namespace that are read. The server forgets them after an hour.
const EVENTS: usize = 500;

/// Most references of pods that are looked for.
const REFERENCES: usize = 16;

impl Observer {
    /// The most telling reason why an object is not ready, if the cluster holds one.
    ///
    /// The sentence may cite what containers wrote: mask it before it is shown.
    pub async fn cause_of(
        &self,
        id: &ObjectId,
        api_version: &str,
    ) -> Result<Option<Cause>, ClusterError> {
        Ok(cause(&self.facts(id, api_version).await?))
    }

    /// True when it is certain that an object does not get ready by waiting. What cannot be asked
    /// after is not certain.
    pub async fn hopeless(&self, id: &ObjectId, api_version: &str) -> bool {
        self.facts(id, api_version).await.is_ok_and(|facts| hopeless(&facts))
    }

    async fn facts(&self, id: &ObjectId, api_version: &str) -> Result<Facts, ClusterError> {
        let cluster = self.cluster();
        let mut facts = Facts::default();
        let live = match cluster.resource(api_version, &id.kind).await? {
            Some(resource) => cluster.get(&resource, &id.namespace, &id.name).await?,
            None => None,
        };
        facts.object = live.unwrap_or_else(|| {
            json!({"apiVersion": api_version, "kind": id.kind,
                "metadata": {"namespace": id.namespace, "name": id.name}})
        });
        let selector = selector(&facts.object);
        match (id.group.as_str(), id.kind.as_str(), selector) {
            ("", "Pod", _) => facts.pods.push(facts.object.clone()),
            ("apps" | "batch", kind, Some(labels)) => {
                let select = Select { namespace: Some(&id.namespace), labels: &labels, fields: "" };
                if kind == "Deployment" {
                    let sets = core("apps", "replicasets", "ReplicaSet");
                    let sets = cluster.list_some(&sets, select, LISTED).await?;
                    let uid = text(&facts.object, "/metadata/uid").to_owned();
                    facts.replica_sets = sets.into_iter().filter(|s| owned(s, &uid)).collect();
                }
                let pods = core("", "pods", "Pod");
                facts.pods = cluster.list_some(&pods, select, LISTED).await?;
            }
            _ => {}
        }
        facts.events = events(cluster, &facts).await?;
        facts.missing = missing(cluster, &facts).await?;
        Ok(facts)
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// An endpoint of a built-in kind, which needs no discovery.
fn core(group: &str, plural: &str, kind: &str) -> Resource {
    Resource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        namespaced: true,
    }
}

fn owned(object: &Value, uid: &str) -> bool {
    array(object, "/metadata/ownerReferences").any(|owner| text(owner, "/uid") == uid)
}

/// `spec.selector` as a label selector; `None` when it is absent or empty, which would be all.
fn selector(object: &Value) -> Option<String> {
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in array(object, "/spec/selector/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = array(expression, "/values").filter_map(Value::as_str).collect();
        let values = values.join(",");
        terms.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

/// Warnings about the object, its ReplicaSets, its pods and their claims.
async fn events(cluster: &Cluster, facts: &Facts) -> Result<Vec<Value>, ClusterError> {
    let namespace = text(&facts.object, "/metadata/namespace");
    // Events about cluster-scoped objects stand in `default`.
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let select = Select { namespace: Some(namespace), labels: "", fields: "type!=Normal" };
    let all = cluster.list_some(&core("", "events", "Event"), select, EVENTS).await?;
    let around = [&facts.object].into_iter().chain(&facts.replica_sets).chain(&facts.pods);
    let uids: BTreeSet<&str> = around.map(|object| text(object, "/metadata/uid")).collect();
    let claims: BTreeSet<&str> = facts
        .pods
        .iter()
        .flat_map(|pod| array(pod, "/spec/volumes"))
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .collect();
    let about = |event: &Value| {
        let (uid, kind) = (text(event, "/involvedObject/uid"), text(event, "/involvedObject/kind"));
        (!uid.is_empty() && uids.contains(uid))
            || (kind == "PersistentVolumeClaim"
                && claims.contains(text(event, "/involvedObject/name")))
    };
    Ok(all.into_iter().filter(about).collect())
}

/// What a pod that does not get going refers to and is not there.
async fn missing(cluster: &Cluster, facts: &Facts) -> Result<Vec<String>, ClusterError> {
    let pending = |pod: &&Value| text(pod, "/status/phase") == "Pending";
    let spec = match facts.pods.iter().find(pending) {
        Some(pod) => pod.get("spec"),
        // Without any pod, its creation may have been refused for what the template names.
        None if facts.pods.is_empty() => facts.object.pointer("/spec/template/spec"),
        None => None,
    };
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let namespace = text(&facts.object, "/metadata/namespace");
    let mut missing = Vec::new();
    for ((kind, name), plural) in references(spec).into_iter().take(REFERENCES) {
        let resource = core("", plural, kind);
        match cluster.get_metadata(&resource, namespace, &name).await {
            Ok(None) => missing.push(format!("{kind}/{namespace}/{name}")),
            Ok(Some(_)) | Err(ClusterError::Forbidden(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Kind and name → plural of what a pod cannot do without; optional references are left out.
fn references(spec: &Value) -> BTreeMap<(&'static str, String), &'static str> {
    const CONFIG: (&str, &str) = ("ConfigMap", "configmaps");
    const SECRET: (&str, &str) = ("Secret", "secrets");
    const CLAIM: (&str, &str) = ("PersistentVolumeClaim", "persistentvolumeclaims");
    let mut found = BTreeMap::new();
    let mut add = |(kind, plural): (&'static str, &'static str), from: Option<&Value>, key| {
        let Some(from) = from else { return };
        let name = from.get(key).and_then(Value::as_str).unwrap_or_default();
        if !name.is_empty() && from.get("optional") != Some(&Value::Bool(true)) {
            found.insert((kind, name.to_owned()), plural);
        }
    };
    for container in array(spec, "/containers").chain(array(spec, "/initContainers")) {
        for from in array(container, "/envFrom") {
            add(CONFIG, from.get("configMapRef"), "name");
            add(SECRET, from.get("secretRef"), "name");
        }
        for variable in array(container, "/env") {
            add(CONFIG, variable.pointer("/valueFrom/configMapKeyRef"), "name");
            add(SECRET, variable.pointer("/valueFrom/secretKeyRef"), "name");
        }
    }
    for volume in array(spec, "/volumes") {
        add(CONFIG, volume.get("configMap"), "name");
        add(SECRET, volume.get("secret"), "secretName");
        add(CLAIM, volume.get("persistentVolumeClaim"), "claimName");
        for source in array(volume, "/projected/sources") {
            add(CONFIG, source.get("configMap"), "name");
            add(SECRET, source.get("secret"), "name");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_written_as_the_server_reads_it() {
        let object = json!({"spec": {"selector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector(&object).as_deref(), Some("app=web,tier in (a,b),!old"));
        assert_eq!(selector(&json!({"spec": {"selector": {}}})), None);
    }

    #[test]
    fn references_that_a_pod_cannot_do_without_are_found_once() {
        let spec = json!({
            "containers": [{
                "envFrom": [{"secretRef": {"name": "db"}},
                    {"configMapRef": {"name": "extra", "optional": true}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "db", "key": "k"}}}]}],
            "volumes": [{"secret": {"secretName": "tls"}},
                {"persistentVolumeClaim": {"claimName": "data"}},
                {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]});
        let expected: BTreeMap<_, _> = [
            (("ConfigMap", "kube-root-ca.crt".to_owned()), "configmaps"),
            (("PersistentVolumeClaim", "data".to_owned()), "persistentvolumeclaims"),
            (("Secret", "db".to_owned()), "secrets"),
            (("Secret", "tls".to_owned()), "secrets"),
        ]
        .into();
        assert_eq!(references(&spec), expected);
    }
}
