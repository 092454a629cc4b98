//! Pure: what an apply would change, masked where the object is sensitive.
//!
//! Compares the live object with the answer to a dry-run, leaving out what the server keeps for
//! itself (`status`, `managedFields`, versions), so that a defaulted or rewritten field is no
//! difference (Flux: Kustomization, Apply).

use serde_json::Value;
use std::fmt;

/// Longest value shown; longer ones are cut at a character.
const SHOWN: usize = 200;

/// Most differences kept of one object: enough for a person, bounded for the database.
const KEPT: usize = 100;

/// Annotation with kubectl's copy of the whole object, the data of a Secret included.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `spec.template.spec.containers[0].image`.
    pub path: String,
    /// Value before, as compact JSON; `None` when the field is new; `***` when masked.
    pub before: Option<String>,
    /// Value after, as compact JSON; `None` when the field goes; `***` when masked.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {}: {after}", self.path),
            (Some(before), None) => write!(f, "- {}: {before}", self.path),
            (before, after) => {
                let text = |side: &Option<String>| side.clone().unwrap_or_default();
                write!(f, "~ {}: {} -> {}", self.path, text(before), text(after))
            }
        }
    }
}

/// Every difference between the live object and what it would become, at most 100.
///
/// With `masked`, values below `data`, `stringData` and anything outside `metadata` are `***`.
pub fn differences(live: &Value, wanted: &Value, masked: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    let empty = Value::Null;
    let keys = |object: &Value| -> Vec<String> {
        object.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let mut sections = keys(live);
    sections.extend(keys(wanted));
    sections.sort();
    sections.dedup();
    for section in sections {
        match section.as_str() {
            "status" | "apiVersion" | "kind" => {}
            "metadata" => {
                for map in ["labels", "annotations"] {
                    let side = |object: &Value| {
                        let side = object.pointer(&format!("/metadata/{map}"));
                        let mut side = side.cloned().unwrap_or_default();
                        if let Some(side) = side.as_object_mut() {
                            side.remove(LAST_APPLIED);
                        }
                        side
                    };
                    let path = format!("metadata.{map}");
                    let masked = masked && map == "annotations";
                    let walk = Walk { masked, item: false };
                    walk.go(&path, &side(live), &side(wanted), &mut found);
                }
            }
            name => {
                let before = live.get(name).unwrap_or(&empty);
                let after = wanted.get(name).unwrap_or(&empty);
                Walk { masked, item: false }.go(name, before, after, &mut found);
            }
        }
    }
    found.truncate(KEPT);
    found
}

/// How two values are compared.
#[derive(Clone, Copy)]
struct Walk {
    masked: bool,
    /// They stand in an item of a list.
    item: bool,
}

impl Walk {
    fn go(self, path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
        if self.same(before, after) || found.len() > KEPT {
            return;
        }
        match (before, after) {
            (Value::Object(old), Value::Object(new)) => {
                let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    let side = |map: &serde_json::Map<String, Value>| {
                        map.get(key).cloned().unwrap_or_default()
                    };
                    self.go(&join(path, key), &side(old), &side(new), found);
                }
            }
            (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
                let inside = Walk { item: true, ..self };
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    inside.go(&format!("{path}[{index}]"), old, new, found);
                }
            }
            _ => found.push(Difference {
                path: path.to_owned(),
                before: shown(before, self.masked),
                after: shown(after, self.masked),
            }),
        }
    }

    /// Absent, null and empty containers are the same to the API server's `omitempty`.
    ///
    /// Not so an empty map in an item of a list: `namespaceSelector: {}` selects all namespaces,
    /// and none that is there selects something else. Elsewhere our entry in `managedFields` tells
    /// that such a field has come or gone; of a list that is owned as a whole nothing else does.
    fn same(self, a: &Value, b: &Value) -> bool {
        a == b || (self.blank(a) && self.blank(b))
    }

    fn blank(self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty() && !self.item,
            Value::Array(list) => list.is_empty(),
            _ => false,
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if key.contains(['.', '/']) { format!("{path}[{key:?}]") } else { format!("{path}.{key}") }
}

fn shown(value: &Value, masked: bool) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if masked {
        return Some("***".to_owned());
    }
    let mut text = value.to_string();
    if text.len() > SHOWN {
        let cut = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Redactor;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_the_server_keeps_for_itself_is_no_difference() {
        let live = json!({"metadata": {"resourceVersion": "1", "managedFields": [1]},
            "spec": {"a": 1, "list": []}, "status": {"x": 1}});
        let wanted = json!({"metadata": {"resourceVersion": "2", "managedFields": [2]},
            "spec": {"a": 1}, "status": {"x": 2}});
        assert_eq!(differences(&live, &wanted, false), []);
    }

    #[test]
    fn an_empty_map_in_an_item_of_a_list_has_a_meaning() {
        let policy = |peer: Value| json!({"spec": {"ingress": [{"from": [peer]}]}});
        let told = |before: Value, after: Value| -> Vec<String> {
            let found = differences(&policy(before), &policy(after), false);
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told(json!({"namespaceSelector": {}}), json!({"podSelector": {}})),
            [
                "- spec.ingress[0].from[0].namespaceSelector: {}",
                "+ spec.ingress[0].from[0].podSelector: {}",
            ]
        );
        let both = json!({"namespaceSelector": {}, "podSelector": {}});
        assert_eq!(told(both.clone(), json!({"podSelector": {}})).len(), 1);
        assert_eq!(told(both.clone(), both), Vec::<String>::new());
        // Go writes a list without items as it likes.
        let empty = told(json!({"ports": null, "x": 1}), json!({"ports": [], "x": 1}));
        assert_eq!(empty, Vec::<String>::new());
        let outside = (json!({"spec": {"a": {}}}), json!({"spec": {}}));
        assert_eq!(differences(&outside.0, &outside.1, false), []);
    }

    #[test]
    fn each_field_is_named_with_both_values() {
        let live = json!({"metadata": {"labels": {"a/b": "1"}},
            "spec": {"containers": [{"image": "x:1"}], "gone": true}});
        let wanted = json!({"metadata": {"labels": {"a/b": "2"}},
            "spec": {"containers": [{"image": "x:2"}], "new": {"k": 1}}});
        let told: Vec<String> =
            differences(&live, &wanted, false).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                r#"~ metadata.labels["a/b"]: "1" -> "2""#,
                r#"~ spec.containers[0].image: "x:1" -> "x:2""#,
                "- spec.gone: true",
                r#"+ spec.new: {"k":1}"#,
            ]
        );
    }

    #[test]
    fn a_masked_object_shows_paths_only() {
        let live = json!({"data": {"token": "b2xk"}, "metadata": {"labels": {"a": "1"}}});
        let wanted =
            json!({"data": {"token": "bmV3", "key": "eA=="}, "metadata": {"labels": {"a": "2"}}});
        let told: Vec<String> =
            differences(&live, &wanted, true).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["+ data.key: ***", "~ data.token: *** -> ***", r#"~ metadata.labels.a: "1" -> "2""#]
        );
    }

    /// A value that is written into a field, a key or a text within, after some other text.
    fn carried(place: usize, before: &str, value: &str) -> Value {
        let text = format!("{before}{value}");
        match place {
            0 => json!({"spec": {"field": text}}),
            1 => json!({"spec": {"list": [text, 1]}}),
            2 => json!({"spec": {"map": {text: {"a": 1}, "b.c": 2}}}),
            3 => json!({"data": {"file.json": json!({"inside": text}).to_string()}}),
            4 => json!({"data": {"key": STANDARD.encode(text)}}),
            5 => json!({"metadata": {"annotations": {"example.org/a": text}}}),
            6 => json!({"metadata": {"labels": {"a": text}}}),
            7 => json!({"spec": {(text): "key"}}),
            _ => {
                json!([{"bare": text}, text]).as_array().map(|list| json!({"spec": list})).unwrap()
            }
        }
    }

    fn text(differences: &[Difference]) -> String {
        differences.iter().map(|difference| format!("{difference}\n")).collect()
    }

    proptest! {
        #[test]
        fn no_secret_value_survives_in_a_redacted_diff_however_it_is_cut(
            value in "[a-z][a-z0-9\"\\\\<é \n]{8,300}[a-z]",
            before in "[A-Z ]{0,240}",
            place in 0usize..9,
            old in any::<bool>(),
        ) {
            let mut redactor = Redactor::default();
            redactor.add(value.as_bytes());
            let (with, without) = (carried(place, &before, &value), json!({"spec": {"x": 1}}));
            let (live, wanted) = if old { (with, without) } else { (without, with) };
            let masked = redactor.mask(&text(&differences(&live, &wanted, false)));
            let json = json!(value).to_string();
            let twice = json!(json).to_string();
            let start = |text: &str| text.trim_matches(['"', '\\']).chars().take(6).collect();
            let starts: [String; 3] = [start(&value), start(&json), start(&twice)];
            for needle in [value.clone(), STANDARD.encode(&value)].into_iter().chain(starts) {
                prop_assert!(!masked.contains(&needle), "{needle:?} in {masked:?}");
            }
        }

        #[test]
        fn a_masked_diff_has_no_value_of_any_section_but_labels(
            value in "[a-z][a-z0-9\"\\\\ \n]{5,60}",
            other in "[a-z]{1,8}",
            place in 0usize..6,
        ) {
            prop_assume!(place != 2, "a key is a name");
            let live = carried(place, "", &value);
            let wanted = carried(place, "", &other);
            for (live, wanted) in [(&live, &wanted), (&wanted, &live), (&live, &json!({}))] {
                let found = differences(live, wanted, true);
                let shown = found.iter().flat_map(|d| [&d.before, &d.after]).flatten();
                prop_assert!(shown.into_iter().all(|side| side == "***"), "{found:?}");
                let text = text(&found);
                prop_assert!(!text.contains(&value), "{text:?}");
            }
        }
    }
}
