//! Builds kept in memory, bounded by their size.
//!
//! An entry is found by the digest of all inputs. Results that hold a Secret or anything opened
//! never enter: healing such a Kustomization builds it again. The bound is on an estimate, three
//! times the text of the build: measured, a JSON tree takes two to three times its text.

use super::{Manifest, Warning};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// What is kept of one build.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Digest of its inputs.
    pub digest: String,
    /// Its objects.
    pub manifests: Arc<Vec<Manifest>>,
    /// Its warnings.
    pub warnings: Vec<Warning>,
    /// Bytes of the build's text.
    pub text: usize,
}

/// Least recently used entries go first.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    entries: Mutex<VecDeque<Entry>>,
}

impl Cache {
    /// A cache of at most `limit` estimated bytes.
    pub fn new(limit: usize) -> Self {
        Cache { limit, entries: Mutex::new(VecDeque::new()) }
    }

    /// The entry of a digest, which becomes the youngest.
    pub fn get(&self, digest: &str) -> Option<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|entry| entry.digest == digest)?;
        let entry = entries.remove(at)?;
        entries.push_back(entry.clone());
        Some(entry)
    }

    /// Keeps a build, unless it is sensitive or larger than the whole cache.
    pub fn put(&self, entry: Entry) {
        if entry.manifests.iter().any(|manifest| manifest.sensitive) || weigh(&entry) > self.limit {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|kept| kept.digest != entry.digest);
        entries.push_back(entry);
        while entries.iter().map(weigh).sum::<usize>() > self.limit {
            entries.pop_front();
        }
    }
}

fn weigh(entry: &Entry) -> usize {
    // 1 KiB for what an entry costs without objects.
    entry.text.saturating_mul(3).saturating_add(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(digest: &str, kind: &str, text: usize) -> Entry {
        let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}});
        let manifests = Arc::new(vec![Manifest::new(body, None, false)]);
        Entry { digest: digest.into(), manifests, warnings: Vec::new(), text }
    }

    #[test]
    fn the_least_used_go_first_and_secrets_never_enter() {
        let cache = Cache::new(3 * (3 * 1000 + 1024));
        for digest in ["a", "b", "c"] {
            cache.put(entry(digest, "ConfigMap", 1000));
        }
        assert!(cache.get("a").is_some());
        cache.put(entry("d", "ConfigMap", 1000));
        cache.put(entry("s", "Secret", 10));
        cache.put(entry("huge", "ConfigMap", 1 << 20));
        let kept: Vec<_> = ["a", "b", "c", "d", "s", "huge"]
            .into_iter()
            .filter(|d| cache.get(d).is_some())
            .collect();
        assert_eq!(kept, ["a", "c", "d"]);
    }
}
