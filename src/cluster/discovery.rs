//! Which kinds the server has, and where.
//!
//! [`Cluster::resource`] asks per group and version, the first time one of its kinds is wanted,
//! and keeps the answer: an idle daemon asks nothing. A kind that is missing may have come with a
//! CRD in the meantime, so a miss asks again, at most once a second per group and version;
//! [`Cluster::forget`] lifts that after a CRD was applied. [`Cluster::everything`] reads the
//! aggregated discovery (two requests) for what has to know every kind.

use super::client::{Call, Cluster};
use super::error::ClusterError;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A miss is asked again after this time.
const MISS: Duration = Duration::from_secs(1);

/// Most group-versions kept: a full cluster has about 60.
const KEPT: usize = 1024;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, application/json";

/// One endpoint: where the objects of a kind live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `deployments`.
    pub plural: String,
    /// `Deployment`.
    pub kind: String,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// True for core Secrets, whose values must not be repeated.
    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && self.plural == "secrets"
    }

    /// Path of the collection in a namespace, of all namespaces, or of a cluster-scoped kind.
    pub(super) fn collection(&self, namespace: Option<&str>) -> String {
        let root = root(&self.api_version());
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{root}/namespaces/{}/{}", segment(namespace), self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    /// Path of one object.
    pub(super) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), segment(name))
    }
}

/// Every kind that the server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Kinds that can be listed, watched and deleted, each in its group's preferred version.
    pub resources: Vec<Resource>,
    /// `group/version`s whose own server did not answer: their kinds are unknown or out of date.
    pub failed: Vec<String>,
}

/// What is known of each `group/version`.
#[derive(Default)]
pub(super) struct Served {
    versions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Version>>>>,
}

#[derive(Default)]
struct Version {
    asked: Option<Instant>,
    kinds: HashMap<String, Resource>,
}

impl Served {
    fn version(&self, api_version: &str) -> Arc<tokio::sync::Mutex<Version>> {
        // Invariant: no code panics while it holds the lock.
        let mut versions = self.versions.lock().expect("an unpoisoned lock");
        if versions.len() >= KEPT {
            versions.clear();
        }
        versions.entry(api_version.to_owned()).or_default().clone()
    }
}

impl Cluster {
    /// The endpoint of a kind, or `None` when the server does not have it.
    pub async fn resource(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<Option<Resource>, ClusterError> {
        let version = self.inner.served.version(api_version);
        // Held while asking, so that many objects of one new group ask once.
        let mut version = version.lock().await;
        if let Some(found) = version.kinds.get(kind) {
            return Ok(Some(found.clone()));
        }
        if version.asked.is_some_and(|asked| asked.elapsed() < MISS) {
            return Ok(None);
        }
        match self.call(Call::get(root(api_version))).await {
            Ok(answer) if answer.body.get("resources").is_none() => {
                return Err(ClusterError::Garbled(format!("{api_version}: no list of kinds")));
            }
            Ok(answer) => version.kinds = read_list(api_version, &answer.body),
            Err(ClusterError::NotFound { .. }) => version.kinds.clear(),
            Err(error) => return Err(error),
        }
        version.asked = Some(Instant::now());
        Ok(version.kinds.get(kind).cloned())
    }

    /// Forgets what discovery has said: for use after CRDs or the server's version changed.
    pub fn forget(&self) {
        // Invariant: no code panics while it holds the lock.
        self.inner.served.versions.lock().expect("an unpoisoned lock").clear();
    }

    /// The endpoint of a kind in whatever version the server prefers.
    ///
    /// `None` is sure: a group whose own server does not answer is an error.
    pub async fn any_version(
        &self,
        group: &str,
        kind: &str,
    ) -> Result<Option<Resource>, ClusterError> {
        let all = self.everything().await?;
        let found = all.resources.into_iter().find(|r| r.group == group && r.kind == kind);
        let unsure = all.failed.iter().any(|version| version.split('/').next() == Some(group));
        match found {
            None if unsure => Err(ClusterError::Server {
                status: 503,
                message: format!("the server of API group {group} does not answer"),
            }),
            found => Ok(found),
        }
    }

    /// Every kind that can be listed, watched and deleted.
    pub async fn everything(&self) -> Result<Discovered, ClusterError> {
        let mut all = Discovered::default();
        for path in ["/api", "/apis"] {
            let answer = self.call(Call::get(path).accept(AGGREGATED)).await?;
            if answer.body.get("kind").and_then(Value::as_str) != Some("APIGroupDiscoveryList") {
                return Err(ClusterError::Unreadable(
                    "aggregated discovery is missing: Kubernetes 1.30 or later is needed".into(),
                ));
            }
            read_groups(&answer.body, &mut all);
        }
        all.resources.sort();
        Ok(all)
    }
}

/// `/api/v1`, `/apis/apps/v1`.
fn root(api_version: &str) -> String {
    match api_version.split_once('/') {
        Some((group, version)) => format!("/apis/{}/{}", segment(group), segment(version)),
        None => format!("/api/{}", segment(api_version)),
    }
}

/// Percent-encodes a path segment or the value of a query parameter.
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Kinds of an `APIResourceList`, without subresources.
fn read_list(api_version: &str, list: &Value) -> HashMap<String, Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut kinds = HashMap::new();
    for entry in list.get("resources").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let (plural, kind) = (text("name"), text("kind"));
        if plural.is_empty() || plural.contains('/') {
            continue;
        }
        let resource = Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced: entry.get("namespaced") == Some(&Value::Bool(true)),
        };
        kinds.entry(kind.to_owned()).or_insert(resource);
    }
    kinds
}

/// Adds the groups of an `APIGroupDiscoveryList`; versions come in the order of preference.
fn read_groups(list: &Value, all: &mut Discovered) {
    fn array<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
        value.get(key).and_then(Value::as_array).into_iter().flatten()
    }
    fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
    for group in array(list, "items") {
        let name = text(group, "/metadata/name");
        let mut seen = BTreeSet::new();
        for version in array(group, "versions") {
            let number = text(version, "/version");
            if text(version, "/freshness") == "Stale" {
                all.failed.push(format!("{name}/{number}"));
            }
            for entry in array(version, "resources") {
                let has = |verb: &str| array(entry, "verbs").any(|v| v.as_str() == Some(verb));
                let kind = text(entry, "/responseKind/kind");
                let usable = ["list", "watch", "delete"].into_iter().all(has);
                if usable && seen.insert(kind) {
                    all.resources.push(Resource {
                        group: name.to_owned(),
                        version: number.to_owned(),
                        plural: text(entry, "/resource").to_owned(),
                        kind: kind.to_owned(),
                        namespaced: text(entry, "/scope") == "Namespaced",
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployments() -> Resource {
        Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            kind: "Deployment".into(),
            namespaced: true,
        }
    }

    #[test]
    fn paths_are_the_servers() {
        assert_eq!(
            deployments().object("prod", "web"),
            "/apis/apps/v1/namespaces/prod/deployments/web"
        );
        assert_eq!(deployments().collection(None), "/apis/apps/v1/deployments");
        let roles = Resource {
            group: "".into(),
            plural: "namespaces".into(),
            kind: "Namespace".into(),
            namespaced: false,
            ..deployments()
        };
        assert_eq!(roles.object("stray", "system:a b"), "/api/v1/namespaces/system:a%20b");
    }

    #[test]
    fn a_list_of_resources_is_read_without_subresources() {
        let list = json!({"resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": true},
            {"name": "deployments/scale", "kind": "Scale", "namespaced": true}]});
        let expected: HashMap<_, _> = [("Deployment".to_owned(), deployments())].into();
        assert_eq!(read_list("apps/v1", &list), expected);
    }

    #[test]
    fn aggregated_discovery_gives_the_preferred_version_and_names_dead_servers() {
        let resource = |kind: &str, verbs: Value| {
            json!({"resource": "deployments", "scope": "Namespaced", "verbs": verbs,
                "responseKind": {"group": "", "version": "", "kind": kind}})
        };
        let all = json!(["list", "watch", "delete", "get"]);
        let list = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "freshness": "Current", "resources": [
                    resource("Deployment", all.clone()), resource("Review", json!(["create"]))]},
                {"version": "v1beta1", "freshness": "Current", "resources": [
                    resource("Deployment", all)]}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [
                {"version": "v1beta1", "freshness": "Stale", "resources": []}]}]});
        let mut found = Discovered::default();
        read_groups(&list, &mut found);
        let expected = Discovered {
            resources: vec![deployments()],
            failed: vec!["metrics.k8s.io/v1beta1".into()],
        };
        assert_eq!(found, expected);
    }
}
