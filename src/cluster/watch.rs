//! One watch of a kind's metadata: a line of JSON per event.

use super::client::{Call, Cluster, Heard};
use super::discovery::{Resource, segment};
use super::error::{ClusterError, from_event};
use super::objects::{ONE_METADATA, Select};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The server ends a watch after this time; it refuses 295 s and more with our client's limits.
const LENGTH: Duration = Duration::from_secs(290);

/// A watch that has not ended this long after that is dead: nobody closes a frozen connection.
const GRACE: Duration = Duration::from_secs(15);

/// Longest event: metadata of one object, whose managedFields are bounded with the object by
/// 1.5 MiB; twice that and the envelope.
const LINE: usize = 4 << 20;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// An object is new to the selection.
    Added(Value),
    /// An object has changed.
    Modified(Value),
    /// An object is gone, or no longer selected.
    Deleted(Value),
    /// Nothing has happened up to this resourceVersion.
    Bookmark(String),
}

/// An open watch.
pub struct Watch {
    body: Body,
    resource: Resource,
    buffer: Vec<u8>,
    scanned: usize,
    deadline: Instant,
    heard: Arc<Heard>,
}

impl Cluster {
    /// Watches the metadata of the selected objects of a kind, from a resourceVersion on.
    pub async fn watch_metadata(
        &self,
        resource: &Resource,
        select: Select<'_>,
        from: &str,
    ) -> Result<Watch, ClusterError> {
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            resource.collection(select.namespace),
            LENGTH.as_secs(),
            segment(from),
        );
        for (key, selector) in [("labelSelector", select.labels), ("fieldSelector", select.fields)]
        {
            if !selector.is_empty() {
                path.push_str(&format!("&{key}={}", segment(selector)));
            }
        }
        let body = self.stream(&Call::get(path).accept(ONE_METADATA)).await?;
        let deadline = Instant::now() + LENGTH + GRACE;
        let (resource, buffer) = (resource.clone(), Vec::new());
        let heard = self.inner.heard.clone();
        Ok(Watch { body, resource, buffer, scanned: 0, deadline, heard })
    }
}

impl Watch {
    /// The next event; `None` when the server has ended the watch in good order.
    ///
    /// Cancelling it loses nothing. [`ClusterError::Expired`] asks for a new list.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ClusterError> {
        loop {
            if let Some(line) = self.line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return read(&self.resource, &line).map(Some);
            }
            if self.buffer.len() > LINE {
                let message = format!("an event of {} MiB or more", LINE >> 20);
                return Err(ClusterError::Unreadable(message));
            }
            let frame = tokio::time::timeout_at(self.deadline, self.body.frame()).await;
            match frame {
                Err(_) => {
                    let what = format!("WATCH {}", self.resource.plural);
                    return Err(ClusterError::Timeout { what, limit: LENGTH + GRACE });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(ClusterError::Unreachable(super::client::chain(&error)));
                }
                Ok(Some(Ok(frame))) => {
                    self.heard.note();
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// Takes one whole line out of the buffer.
    fn line(&mut self) -> Option<Vec<u8>> {
        let found = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found else {
            self.scanned = self.buffer.len();
            return None;
        };
        let end = self.scanned + at + 1;
        self.scanned = 0;
        let line = self.buffer.drain(..end).collect();
        if self.buffer.is_empty() {
            self.buffer.shrink_to(64 << 10);
        }
        Some(line)
    }
}

fn read(resource: &Resource, line: &[u8]) -> Result<WatchEvent, ClusterError> {
    let mut event: Value = serde_json::from_slice(line)
        .map_err(|error| ClusterError::Garbled(format!("an event: {error}")))?;
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut object = event.get_mut("object").map(Value::take).unwrap_or_default();
    if kind == "ERROR" {
        return Err(from_event(&object));
    }
    if let Some(fields) = object.as_object_mut() {
        // The envelope says PartialObjectMetadata.
        fields.insert("apiVersion".to_owned(), json!(resource.api_version()));
        fields.insert("kind".to_owned(), json!(resource.kind));
    }
    match kind.as_str() {
        "ADDED" => Ok(WatchEvent::Added(object)),
        "MODIFIED" => Ok(WatchEvent::Modified(object)),
        "DELETED" => Ok(WatchEvent::Deleted(object)),
        "BOOKMARK" => {
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            Ok(WatchEvent::Bookmark(version.unwrap_or_default().to_owned()))
        }
        other => Err(ClusterError::Garbled(format!("an event of type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Resource {
        Resource {
            group: String::new(),
            version: "v1".into(),
            plural: "pods".into(),
            kind: "Pod".into(),
            namespaced: true,
        }
    }

    fn event(line: &str) -> Result<WatchEvent, ClusterError> {
        read(&pods(), line.as_bytes())
    }

    #[test]
    fn events_carry_the_kind_that_was_asked_for() {
        let line = r#"{"type":"ADDED","object":{"kind":"PartialObjectMetadata",
            "apiVersion":"meta.k8s.io/v1","metadata":{"name":"a"}}}"#;
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
        assert_eq!(event(line), Ok(WatchEvent::Added(pod)));
    }

    #[test]
    fn an_expired_version_and_a_bookmark_are_told_apart() {
        let expired =
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert_eq!(event(expired), Err(ClusterError::Expired("too old".into())));
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#;
        assert_eq!(event(mark), Ok(WatchEvent::Bookmark("7".into())));
    }

    #[tokio::test]
    async fn lines_are_put_together_from_pieces() {
        let text: &[u8] = b"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"1\"}}}\n\n{\"type\"";
        let mut watch = Watch {
            body: Body::from(text.to_vec()),
            resource: pods(),
            buffer: Vec::new(),
            scanned: 0,
            deadline: Instant::now() + GRACE,
            heard: Arc::new(Heard::now()),
        };
        assert_eq!(watch.next().await, Ok(Some(WatchEvent::Bookmark("1".into()))));
        assert_eq!(watch.next().await, Ok(None));
    }
}
