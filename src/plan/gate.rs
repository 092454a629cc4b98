//! Pure: the drift gate, a digest of the metadata that moves when somebody edits what we own.
//!
//! uid, deletionTimestamp, generation, our Apply entry in `managedFields` with its time, the
//! non-status entries of the managers we take over, and the opt-out annotations. Status writes and
//! other managers' fields leave it alone. An unchanged gate costs no request; a changed one only
//! nominates the object, a dry-run judges it.

use super::writer::{is_ours, is_taken};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Digest of one object's drift-relevant metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gate([u8; 16]);

impl Gate {
    /// The gate of an object, or of its metadata alone.
    pub fn of(object: &Value) -> Self {
        let mut hash = Sha256::new();
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        for key in ["uid", "deletionTimestamp", "generation"] {
            hash.update(metadata.get(key).unwrap_or(&Value::Null).to_string());
            hash.update([0]);
        }
        for map in ["labels", "annotations"] {
            let marks = metadata.get(map).and_then(Value::as_object).into_iter().flatten();
            for (key, value) in marks {
                if key.starts_with("kustomize.toolkit.fluxcd.io/") {
                    hash.update(format!("{map}.{key}={value}\0"));
                }
            }
        }
        let entries = metadata.get("managedFields").and_then(Value::as_array);
        for entry in entries.into_iter().flatten().filter(|entry| counts(entry)) {
            hash.update(entry.to_string());
            hash.update([0]);
        }
        let digest = hash.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Gate(short)
    }
}

/// `kubectl rollout restart` is not drift: its value is carried along.
fn counts(entry: &Value) -> bool {
    is_ours(entry) || is_taken(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"metadata": {"uid": "u", "generation": 1, "resourceVersion": "5",
            "managedFields": [
                {"manager": "kustomize-controller", "operation": "Apply", "time": "t",
                    "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "kube-controller-manager", "operation": "Update",
                    "subresource": "status", "time": "t"}]}})
    }

    #[test]
    fn status_writes_and_foreign_fields_leave_the_gate_alone() {
        let mut moved = object();
        moved["metadata"]["resourceVersion"] = json!("6");
        moved["metadata"]["managedFields"][1]["time"] = json!("later");
        moved["status"] = json!({"replicas": 1});
        moved["metadata"]["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(json!({"manager": "cert-manager", "operation": "Update"}));
        assert_eq!(Gate::of(&moved), Gate::of(&object()));
    }

    #[test]
    fn an_edit_of_ours_moves_it() {
        let edits: [fn(&mut Value); 5] = [
            |o| o["metadata"]["managedFields"][0]["fieldsV1"] = json!({}),
            |o| o["metadata"]["managedFields"][0]["time"] = json!("later"),
            |o| o["metadata"]["managedFields"] = json!([]),
            |o| o["metadata"]["generation"] = json!(2),
            |o| {
                let list = o["metadata"]["managedFields"].as_array_mut().unwrap();
                list.push(json!({"manager": "kubectl-edit", "operation": "Update"}));
            },
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut edited = object();
            edit(&mut edited);
            assert_ne!(Gate::of(&edited), Gate::of(&object()), "edit {number}");
        }
    }
}
