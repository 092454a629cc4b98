//! Pure: one object as it is printed, with secret values masked.
//!
//! Values of a Secret become `***` whatever they are. In other objects that were opened from a
//! sealed file, and wherever a variable holds a secret, the values themselves are looked for;
//! apiVersion, kind and names are left alone, because a file that is sealed whole counts its own
//! name among its secrets.

use crate::render::{Manifest, Redactor};
use serde_json::Value;

const MASK: &str = "***";

/// What is masked.
pub struct Masks {
    /// Values that were opened; looked for in objects from sealed files.
    pub opened: Redactor,
    /// Secret values that were substituted; looked for everywhere.
    pub substituted: Redactor,
}

impl Masks {
    /// The object to print.
    pub fn apply(&self, manifest: &Manifest) -> Value {
        let mut body = manifest.body().clone();
        if manifest.id.group.is_empty() && manifest.id.kind == "Secret" {
            for field in ["data", "stringData"] {
                if let Some(values) = body.get_mut(field).and_then(Value::as_object_mut) {
                    values.values_mut().for_each(|value| *value = Value::from(MASK));
                }
            }
        }
        let mut redactors = vec![&self.substituted];
        if manifest.sensitive {
            redactors.push(&self.opened);
        }
        mask(&mut body, "", &redactors);
        body
    }
}

fn mask(value: &mut Value, path: &str, redactors: &[&Redactor]) {
    let identity = matches!(
        path,
        "/apiVersion" | "/kind" | "/type" | "/metadata/name" | "/metadata/namespace"
    ) || path == "/metadata/labels";
    if identity {
        return;
    }
    match value {
        Value::String(text) => {
            for redactor in redactors {
                let masked = redactor.mask(text);
                if masked != *text {
                    *text = masked;
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| mask(item, "/*", redactors));
        }
        Value::Object(map) => {
            for (key, item) in map {
                mask(item, &format!("{path}/{key}"), redactors);
            }
        }
        // What was substituted may read as a number.
        Value::Number(_) => {
            let text = value.to_string();
            if redactors.iter().any(|redactor| redactor.mask(&text) != text) {
                *value = Value::from(MASK);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn masks(opened: &[&str], substituted: &[&str]) -> Masks {
        let redactor = |values: &[&str]| {
            let mut redactor = Redactor::default();
            values.iter().for_each(|value| redactor.add(value.as_bytes()));
            redactor
        };
        Masks { opened: redactor(opened), substituted: redactor(substituted) }
    }

    #[test]
    fn every_value_of_a_secret_is_masked_and_its_keys_and_names_stay() {
        let secret = Manifest::new(
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": "blaster-env", "namespace": "web"},
                "data": {"short": "YQ==", "token": "aHVudGVyMg=="}}),
            None,
            true,
        );
        assert_eq!(
            masks(&["hunter2", "blaster-env", "Secret"], &[]).apply(&secret),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": "blaster-env", "namespace": "web"},
                "data": {"short": "***", "token": "***"}})
        );
    }

    #[test]
    fn opened_values_are_masked_in_what_was_sealed_and_substituted_ones_everywhere() {
        let object = |opened| {
            let body = json!({"apiVersion": "example.org/v1", "kind": "Store",
                "metadata": {"name": "hunter2", "annotations": {"a": "hunter2"}},
                "spec": {"url": "https://u:hunter2@h", "list": ["other-secret"], "pin": 83920174}});
            Manifest::new(body, None, opened)
        };
        let masks = masks(&["hunter2"], &["other-secret", "83920174"]);
        let sealed = masks.apply(&object(true));
        assert_eq!(
            sealed,
            json!({"apiVersion": "example.org/v1", "kind": "Store",
                "metadata": {"name": "hunter2", "annotations": {"a": "***"}},
                "spec": {"url": "https://u:***@h", "list": ["***"], "pin": "***"}})
        );
        assert_eq!(masks.apply(&object(false))["spec"]["url"], "https://u:hunter2@h");
        assert_eq!(masks.apply(&object(false))["spec"]["list"], json!(["***"]));
    }
}
