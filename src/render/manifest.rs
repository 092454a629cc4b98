//! Pure: one desired object, its identity, and the file in Git that it came from.

use super::Redactor;
use serde_json::Value;
use std::fmt;

/// Identity of an object without its API version: two versions of one object are one object.
///
/// Printed `Kind/namespace/name` (cluster-scoped: `Kind/name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

impl ObjectId {
    /// Flux's inventory id `<namespace>_<name>_<group>_<Kind>`; in names of RBAC kinds `:` is
    /// written `__` (Flux: Kustomization, Prune).
    pub fn inventory(&self) -> String {
        let name = if self.is_rbac() { self.name.replace(':', "__") } else { self.name.clone() };
        format!("{}_{}_{}_{}", self.namespace, name, self.group, self.kind)
    }

    /// Reads an inventory id; `None` when it has not four parts.
    pub fn parse_inventory(id: &str) -> Option<Self> {
        let (namespace, rest) = id.split_once('_')?;
        let (rest, kind) = rest.rsplit_once('_')?;
        let (name, group) = rest.rsplit_once('_')?;
        let mut parsed = ObjectId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
        };
        if parsed.is_rbac() {
            parsed.name = parsed.name.replace("__", ":");
        }
        (!parsed.name.is_empty() && !parsed.kind.is_empty()).then_some(parsed)
    }

    /// The identity a manifest states.
    pub fn of(manifest: &Value) -> Self {
        let text = |pointer| {
            manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let api_version = text("/apiVersion");
        ObjectId {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            group: api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: text("/kind"),
        }
    }

    fn is_rbac(&self) -> bool {
        self.group == "rbac.authorization.k8s.io"
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The file in Git that a manifest came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Path from the root of the source.
    pub file: String,
    /// Line of the document's first key, from 1, when known.
    pub line: Option<u32>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One desired object.
///
/// Its body may hold opened secrets, so it has no `Serialize`, and `Debug` prints the identity.
#[derive(Clone, PartialEq)]
pub struct Manifest {
    /// Identity as stated; the namespace of a namespaced object may still be empty here.
    pub id: ObjectId,
    /// `group/version`, or `version`.
    pub api_version: String,
    /// Where it comes from, when the engine can tell.
    pub origin: Option<Origin>,
    /// True for Secrets and for whatever was opened from a sealed file.
    pub sensitive: bool,
    body: Value,
}

impl Manifest {
    /// A manifest from its JSON body.
    pub fn new(body: Value, origin: Option<Origin>, opened: bool) -> Self {
        let id = ObjectId::of(&body);
        let api_version =
            body.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let sensitive = opened || (id.group.is_empty() && id.kind == "Secret");
        Manifest { id, api_version, origin, sensitive, body }
    }

    /// The object as it would be applied.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Changes the body; identity and version follow it.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.body);
        self.id = ObjectId::of(&self.body);
        if let Some(version) = self.body.get("apiVersion").and_then(Value::as_str) {
            version.clone_into(&mut self.api_version);
        }
    }

    /// Marks an object that a secret value has reached: it is as sensitive as the Secret.
    pub fn guard(&mut self, secrets: &Redactor) {
        if !self.sensitive {
            let text = self.body.to_string();
            self.sensitive = secrets.mask(&text) != text;
        }
    }

    /// A label or annotation (`labels`, `annotations`), if it is a string.
    pub fn metadata(&self, map: &str, key: &str) -> Option<&str> {
        self.body.get("metadata")?.get(map)?.get(key)?.as_str()
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({} {})", self.api_version, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inventory_ids_are_fluxs_and_read_back() {
        for (namespace, name, group, kind, expected) in [
            ("default", "podinfo", "", "Service", "default_podinfo__Service"),
            ("", "web", "", "Namespace", "_web__Namespace"),
            ("prod", "a.b-c", "apps", "Deployment", "prod_a.b-c_apps_Deployment"),
            (
                "",
                "system:aggregate",
                "rbac.authorization.k8s.io",
                "ClusterRole",
                "_system__aggregate_rbac.authorization.k8s.io_ClusterRole",
            ),
        ] {
            let id = ObjectId {
                namespace: namespace.into(),
                name: name.into(),
                group: group.into(),
                kind: kind.into(),
            };
            assert_eq!(id.inventory(), expected);
            assert_eq!(ObjectId::parse_inventory(expected), Some(id));
        }
        assert_eq!(ObjectId::parse_inventory("no-parts"), None);
    }

    #[test]
    fn an_object_that_a_secret_value_has_reached_is_sensitive() {
        let mut secrets = Redactor::default();
        secrets.add(b"hunter2");
        for (value, sensitive) in [("a hunter2", true), ("harmless", false)] {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "c"}, "data": {"k": value}});
            let mut manifest = Manifest::new(body, None, false);
            manifest.guard(&secrets);
            assert_eq!(manifest.sensitive, sensitive, "{value}");
        }
    }

    #[test]
    fn debug_never_prints_a_body() {
        let body = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s"}, "stringData": {"k": "hunter2"}});
        assert_eq!(format!("{:?}", Manifest::new(body, None, false)), "Manifest(v1 Secret/s)");
    }
}
