//! Pure: the three kinds of `image.toolkit.fluxcd.io` (Flux: image automation).
//!
//! An [`ImageRepository`] names an image whose tags are listed, an [`ImagePolicy`] chooses one of
//! them, an [`ImageUpdateAutomation`] writes the chosen ones into a Git branch. v1beta1, v1beta2
//! and v1 are read alike: the fields of the later versions are additions.

mod automation;
mod policy;
mod refspec;
mod repository;

pub use automation::{
    Author, ImageUpdateAutomation, LabelSelector, PushRefspec, SigningKey, SigningKind,
};
pub use policy::{DigestReflection, Direction, ImagePolicy, TagFilter, TagOrder};
pub use refspec::{push_destination, valid_ref};
pub use repository::{AccessFrom, ImageRepository};

use super::Reader;
use super::known::key;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Namespace and name of an object whose kind is known, printed `flux-system/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Its namespace, never empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

/// Fields of a nested part that nothing here knows; each is named as unsupported.
type Rest = BTreeMap<String, Value>;

fn name_others(reader: &mut Reader<'_>, path: &str, rest: &Rest) {
    for (name, value) in rest {
        if !value.is_null() {
            reader.unsupported_field(&format!("{path}.{}", key(name)), false);
        }
    }
}

/// The labels of a manifest; values that are no strings are left out.
fn labels(manifest: &Value) -> BTreeMap<String, String> {
    let Some(labels) = manifest.pointer("/metadata/labels").and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    let strings = labels.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    strings.collect()
}

#[cfg(test)]
mod tests;
