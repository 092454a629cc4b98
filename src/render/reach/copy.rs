//! Pure: entries outside the source, once their copies lie in the workspace.
//!
//! kustomize runs without a network, so a kustomization file that names a URL is written anew
//! with the copy's path in its place.

use super::{Node, Place, Unreachable, Walk};
use crate::render::remote::DIR;
use serde_json::Value;

/// Fields whose entries kustomize fetches when they are URLs.
const LISTS: [&str; 9] = [
    "resources",
    "bases",
    "components",
    "crds",
    "configurations",
    "transformers",
    "generators",
    "validators",
    "patchesStrategicMerge",
];

/// Lists of objects with a `path` of that kind.
const PATHS: [&str; 3] = ["patches", "patchesJson6902", "replacements"];

impl Walk<'_> {
    /// What the copy of an entry is; notes that its kustomization file must name the copy. `None`
    /// where the fetched repository lacks the path, which is told.
    pub(super) fn copied(
        &mut self,
        place: &Place<'_>,
        entry: &str,
        path: &str,
    ) -> Result<Option<Node>, Unreachable> {
        let Some(node) = (self.view.entry)(path)? else {
            let message = format!("{entry} was fetched, and there is no such path in it");
            self.reach.problems.push(place.problem(entry, message));
            // The caller must not take it for one that is still to be fetched.
            return Ok(Some(Node::File { id: String::new(), size: 0 }));
        };
        let up = place.dir.split('/').filter(|part| !part.is_empty()).count();
        let relative = format!("{}{path}", "../".repeat(up));
        let copies = self.copies.entry(place.file.to_owned()).or_default();
        copies.push((entry.to_owned(), relative));
        Ok(Some(node))
    }
}

/// True for a path by which the copy of a repository would name files that are not its own.
pub(super) fn leaves(from: &str, path: &str) -> bool {
    let home = |path: &str| {
        let below = path.strip_prefix(DIR)?.strip_prefix('/')?;
        below.split('/').next().map(str::to_owned)
    };
    home(from).is_some() && home(from) != home(path)
}

/// Puts copies in the place of entries.
pub(super) fn rewrite(content: &mut Value, copies: &[(String, String)]) {
    let put = |value: &mut Value| {
        let found = copies.iter().find(|(entry, _)| value.as_str() == Some(entry));
        if let Some((_, copy)) = found {
            *value = Value::String(copy.clone());
        }
    };
    for field in LISTS {
        let list = content.get_mut(field).and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(put);
    }
    for field in PATHS {
        let list = content.get_mut(field).and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(|entry| entry.get_mut("path")).for_each(put);
    }
    content.pointer_mut("/openapi/path").into_iter().for_each(put);
}
