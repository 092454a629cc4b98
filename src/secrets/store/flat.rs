//! Pure: SOPS metadata flattened into `a__list_0__map_b` keys, as dotenv and INI carry it.

use super::{Node, Scalar};
use crate::secrets::SecretsError;
use serde_json::{Map, Value};

/// Most entries of one list: a file with more recipients than this does not exist.
const MAX_ENTRIES: usize = 1000;

/// Rebuilds the metadata from its flattened keys.
///
/// Values stay text: whoever reads the metadata takes `"2"` and `"true"` for what they mean.
pub(super) fn unflatten(entries: &[(String, Node)]) -> Result<Value, SecretsError> {
    let mut root = Value::Object(Map::new());
    for (key, node) in entries {
        let Node::Leaf(Scalar::Text(text)) = node else { continue };
        let text = String::from_utf8_lossy(text).replace("\\n", "\n");
        place(&mut root, key, Value::String(text)).ok_or_else(|| bad(key, "contradicts others"))?;
    }
    Ok(root)
}

/// One step of a flattened key.
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(key: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for (at, list) in key.split("__list_").enumerate() {
        for (nth, map) in list.split("__map_").enumerate() {
            if at > 0 && nth == 0 {
                let index = map.parse().ok().filter(|index| *index < MAX_ENTRIES)?;
                steps.push(Step::Index(index));
            } else {
                steps.push(Step::Key(map));
            }
        }
    }
    Some(steps)
}

/// Puts a value where the key says; `None` where something of another shape is there already.
fn place(root: &mut Value, key: &str, value: Value) -> Option<()> {
    let mut node = root;
    for step in steps(key)? {
        node = match step {
            Step::Key(key) => {
                if node.is_null() {
                    *node = Value::Object(Map::new());
                }
                node.as_object_mut()?.entry(key).or_insert(Value::Null)
            }
            Step::Index(index) => {
                if node.is_null() {
                    *node = Value::Array(Vec::new());
                }
                let list = node.as_array_mut()?;
                if list.len() <= index {
                    list.resize(index + 1, Value::Null);
                }
                &mut list[index]
            }
        };
    }
    if !node.is_null() {
        return None;
    }
    *node = value;
    Some(())
}

/// A metadata error below `sops`.
pub(super) fn bad(field: &str, problem: &str) -> SecretsError {
    SecretsError::Metadata { field: field.to_owned(), problem: problem.to_owned() }
}
