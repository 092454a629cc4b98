//! Pure: the last changes to a manifest before it is compared and applied.
//!
//! Owner labels, common metadata, and the normalisation that Flux does as it applies:
//! `stringData` is folded into `data`, `status` and server-side metadata go. What would fight the
//! cluster for ever is left out with a notice.

use super::trim::{place, without_bundle};
use crate::flux::{Key, Kind, Kustomization};
use crate::render::Manifest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Field manager of all our writes: Flux's own, so that moving either way churns no object.
pub const MANAGER: &str = "kustomize-controller";

/// The Kustomization that owns an object, as its labels say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Namespace of the Kustomization.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// Label key of the owner's name.
    pub const NAME_LABEL: &'static str = "kustomize.toolkit.fluxcd.io/name";
    /// Label key of the owner's namespace.
    pub const NAMESPACE_LABEL: &'static str = "kustomize.toolkit.fluxcd.io/namespace";

    /// The owner that a Kustomization is.
    pub fn of(kustomization: &Kustomization) -> Self {
        Owner { namespace: kustomization.namespace.clone(), name: kustomization.name.clone() }
    }

    /// The owner that a Kustomization's key names.
    pub fn at(key: &Key) -> Self {
        Owner { namespace: key.namespace.clone(), name: key.name.clone() }
    }

    /// The owner that is printed as `namespace/name`.
    pub fn parse(printed: &str) -> Option<Self> {
        let (namespace, name) = printed.split_once('/')?;
        Some(Owner { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The edge, which no Kustomization can be called: neither namespaces nor names have capitals.
    pub fn edge() -> Self {
        Owner { namespace: "Host".to_owned(), name: "edge".to_owned() }
    }

    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(Kind::Kustomization, &self.namespace, &self.name)
    }

    /// The owner that an object's labels name.
    pub fn on(object: &Value) -> Option<Self> {
        let labels = object.pointer("/metadata/labels")?;
        let text = |key| labels.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Owner { namespace: text(Self::NAMESPACE_LABEL)?, name: text(Self::NAME_LABEL)? })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Writes the owner labels. A shared object carries those of the first of its owners, so that its
/// claimants do not write over each other for ever.
pub fn label(manifest: &mut Manifest, owner: &Owner) {
    manifest.edit(|body| {
        let labels = ensure_entry(ensure_map(body, "metadata"), "labels");
        labels.insert(Owner::NAME_LABEL.into(), json!(owner.name));
        labels.insert(Owner::NAMESPACE_LABEL.into(), json!(owner.namespace));
    });
}

/// Finishes one manifest, all but the owner labels. Returns notices on what was left out.
pub fn desired(manifest: &mut Manifest, kustomization: &Kustomization) -> Vec<String> {
    let mut notices = Vec::new();
    let place = place(manifest);
    let id = manifest.id.to_string();
    manifest.edit(|body| {
        if let Some(object) = body.as_object_mut()
            && object.get("kind").and_then(Value::as_str) != Some("CustomResourceDefinition")
        {
            object.remove("status");
        }
        let metadata = ensure_map(body, "metadata");
        for field in ["creationTimestamp", "resourceVersion", "uid", "generation", "managedFields"]
        {
            metadata.remove(field);
        }
        merge(metadata, "labels", &kustomization.common_labels);
        merge(metadata, "annotations", &kustomization.common_annotations);
        if id.starts_with("Secret/") {
            fold_string_data(body);
        }
        if body.get("aggregationRule").is_some_and(Value::is_object)
            && let Some(object) = body.as_object_mut()
            && object.remove("rules").is_some_and(|rules| rules != json!([]))
        {
            notices.push(format!(
                "{place}: rules are left out, the API server fills them by aggregationRule"
            ));
        }
        without_bundle(body, &place, &mut notices);
    });
    notices
}

fn ensure_map<'a>(body: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !body.is_object() {
        *body = json!({});
    }
    // Invariant: made an object just above.
    ensure_entry(body.as_object_mut().expect("an object"), key)
}

fn ensure_entry<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let entry = map.entry(key).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    // Invariant: made an object just above.
    entry.as_object_mut().expect("an object")
}

fn merge(
    metadata: &mut Map<String, Value>,
    key: &str,
    extra: &std::collections::BTreeMap<String, String>,
) {
    if extra.is_empty() {
        return;
    }
    let target = ensure_entry(metadata, key);
    for (name, value) in extra {
        target.insert(name.clone(), json!(value));
    }
}

/// Folds `stringData` into `data`. What is no text stays where it is, so that the server names its
/// key as it refuses the object: left out, a `PORT: 5432` without quotes would vanish unseen.
fn fold_string_data(body: &mut Value) {
    let Some(object) = body.as_object_mut() else { return };
    let strings = match object.remove("stringData") {
        None | Some(Value::Null) => return,
        Some(Value::Object(strings)) => strings,
        Some(other) => {
            object.insert("stringData".to_owned(), other);
            return;
        }
    };
    // A key without a value is empty text, as in Flux.
    let (texts, others): (Map<String, Value>, Map<String, Value>) =
        strings.into_iter().partition(|(_, value)| value.is_string() || value.is_null());
    let data = ensure_entry(object, "data");
    for (key, value) in texts {
        data.insert(key, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
    }
    if !others.is_empty() {
        object.insert("stringData".to_owned(), Value::Object(others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::{GitReference, root};
    use std::time::Duration;

    fn owner() -> Kustomization {
        let mut owner = root(
            "https://git.example/r",
            GitReference::Branch("main".into()),
            "clusters/x",
            Duration::from_secs(60),
        )
        .kustomization;
        owner.common_labels.insert("team".into(), "games".into());
        owner
    }

    #[test]
    fn a_secret_is_labelled_and_its_string_data_folded() {
        let mut manifest = Manifest::new(
            json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "n", "creationTimestamp": null},
                "data": {"a": "MQ=="}, "stringData": {"b": "2"}}),
            None,
            false,
        );
        assert_eq!(desired(&mut manifest, &owner()), Vec::<String>::new());
        label(&mut manifest, &Owner::of(&owner()));
        assert_eq!(
            manifest.body(),
            &json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "n", "labels": {
                    "team": "games",
                    "kustomize.toolkit.fluxcd.io/name": "flux-system",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}},
                "data": {"a": "MQ==", "b": "Mg=="}})
        );
    }

    #[test]
    fn what_is_no_text_in_string_data_is_left_for_the_server_to_refuse() {
        for (strings, expected) in [
            (
                json!({"PORT": 5432, "USER": "u", "EMPTY": null}),
                json!({"data": {"USER": "dQ==", "EMPTY": ""}, "stringData": {"PORT": 5432}}),
            ),
            (json!({"TLS": true}), json!({"data": {}, "stringData": {"TLS": true}})),
            (json!(["a"]), json!({"stringData": ["a"]})),
            (json!(null), json!({})),
        ] {
            let mut manifest = Manifest::new(
                json!({"apiVersion": "v1", "kind": "Secret",
                    "metadata": {"name": "s", "namespace": "n"}, "stringData": strings}),
                None,
                false,
            );
            desired(&mut manifest, &owner());
            let mut body = manifest.body().clone();
            for field in ["apiVersion", "kind", "metadata"] {
                body.as_object_mut().unwrap().remove(field);
            }
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn rules_beside_an_aggregation_rule_are_left_out_and_said() {
        let mut manifest = Manifest::new(
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": "view-all"}, "aggregationRule": {"clusterRoleSelectors": []},
                "rules": [{"verbs": ["get"]}]}),
            None,
            false,
        );
        assert_eq!(desired(&mut manifest, &owner()).len(), 1);
        assert_eq!(manifest.body().get("rules"), None);
    }
}
