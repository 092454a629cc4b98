//! Pure: the types on the wire, in version 1.
//!
//! Fields are only ever added; a reader ignores what it does not know. A change of meaning is a
//! new [`VERSION`] and a new path.

use crate::graph::Summary;
use crate::pipeline::EdgeView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zeroize::Zeroize;

/// Version of everything under `/v1/`.
pub const VERSION: u32 = 1;

/// The state of the daemon: `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// The process.
    pub daemon: DaemonView,
    /// Its connection to the API server.
    pub cluster: ClusterView,
    /// True when every item is ready or suspended, the API server answers, and the edge, where
    /// there is one, is reachable.
    pub ready: bool,
    /// The STATUS line of systemd.
    pub line: String,
    /// Grows with every change of this document; starts anew with the process.
    pub serial: u64,
    /// Sources, Kustomizations, and what is not acted upon.
    pub summary: Summary,
    /// Deletions that wait for a confirmation.
    #[serde(default)]
    pub held: Vec<HeldView>,
    /// Kustomizations that left Git and are being ended, `namespace/name`.
    #[serde(default)]
    pub ending: Vec<String>,
    /// What the host has stopped, beside `spec.suspend`.
    #[serde(default)]
    pub suspended: Vec<SuspendView>,
    /// The way to the box from outside, where one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeView>,
}

impl Document {
    /// The document of a daemon that knows nothing but itself yet.
    pub fn starting(daemon: DaemonView, cluster: ClusterView) -> Self {
        Document {
            version: VERSION,
            daemon,
            cluster,
            ready: false,
            line: "starting".to_owned(),
            serial: 0,
            summary: Summary {
                items: Vec::new(),
                unsupported: Vec::new(),
                set_aside: Vec::new(),
                problems: Vec::new(),
            },
            held: Vec::new(),
            ending: Vec::new(),
            suspended: Vec::new(),
            edge: None,
        }
    }
}

/// The daemon's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Start, Unix milliseconds.
    pub started_ms: i64,
    /// The main configuration file.
    pub config_path: String,
    /// Child processes that rendering has started so far.
    #[serde(default)]
    pub render_children: u64,
}

/// The connection to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// True while requests succeed.
    pub connected: bool,
    /// URL of the kubeconfig.
    pub server: String,
    /// `v1.33.4+k3s1`; empty when never connected.
    pub version: String,
    /// Why there is no connection, and what to do; empty when there is one.
    pub message: String,
    /// Kinds, and single objects, that cannot be watched, with the reason: drift shows late.
    #[serde(default)]
    pub blind: BTreeMap<String, String>,
}

impl HeldView {
    /// What waits, why, and how it goes on, in a sentence.
    pub fn sentence(&self) -> String {
        let HeldView { objects, reason, digest, .. } = self;
        let first = objects.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = objects.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("deleting {first}{more} is held: {reason}; to delete: gitopsd confirm {digest}")
    }
}

/// Deletions of one Kustomization that wait for `gitopsd confirm DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    /// The Kustomization, `namespace/name`.
    pub owner: String,
    /// Names the set of objects.
    pub digest: String,
    /// Why they are held.
    pub reason: String,
    /// The objects, `Kind/namespace/name`.
    pub objects: Vec<String>,
}

/// One item that the host has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspendView {
    /// `Kind/namespace/name`.
    pub object: String,
    /// End, Unix milliseconds; without one it is shown as overdue after a day.
    pub until_ms: Option<i64>,
    /// What the operator said.
    pub reason: String,
    /// Who it was.
    pub by: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
}

/// Body of `POST /v1/reconcile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileAsk {
    /// `name`, `namespace/name` or `Kind/namespace/name`; everything when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Ask the source first.
    #[serde(default)]
    pub with_source: bool,
    /// The name is that of an image object: from its registry to what runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image: bool,
}

/// Body of `POST /v1/suspend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspendAsk {
    /// As in [`ReconcileAsk::name`].
    pub name: String,
    /// End, Unix milliseconds.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Shown in `status`.
    #[serde(default)]
    pub reason: String,
}

/// Body of `POST /v1/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeAsk {
    /// As in [`ReconcileAsk::name`].
    pub name: String,
}

/// Body of `POST /v1/confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmAsk {
    /// Digest of a delete set, as `status` names it.
    pub digest: String,
}

/// Body of `POST /v1/edge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeAsk {
    /// Compare and put right now.
    Reconcile,
    /// Take it away, until it is asked for again.
    Down,
    /// Bring it up again.
    Up,
    /// Give the tunnel another secret, and its connectors another token.
    Rotate,
}

/// Body of `POST /v1/reload`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadAsk {
    /// Credentials by id as they are now on the host, in base64; an empty one is no longer there.
    /// An id that is not named stays as it is.
    #[serde(default)]
    pub credentials: BTreeMap<String, Handed>,
}

/// A credential on its way from root's helper to the daemon, over a socket that only root may
/// write commands to. It is never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handed(String);

impl Handed {
    /// Wraps base64.
    pub fn new(base64: String) -> Self {
        Handed(base64)
    }

    /// The base64.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Answer to every command that was taken.
///
/// For a reconcile it is given after a [`Document`] has been published in which the runs are
/// under way (or over), so that whoever follows never sees the state from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The items concerned, `Kind/namespace/name`.
    pub keys: Vec<String>,
}

/// Body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong, one sentence.
    pub error: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One run: `GET /v1/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Names the run.
    pub run: String,
    /// The Kustomization, `namespace/name`.
    pub owner: String,
    /// Why it ran.
    pub trigger: String,
    /// Revision that was tried.
    pub revision: String,
    /// Author of its commit.
    pub author: String,
    /// Subject of its commit.
    pub subject: String,
    /// Unix milliseconds.
    pub started_ms: i64,
    /// Unix milliseconds; `None` while it runs.
    pub finished_ms: Option<i64>,
    /// `running`, `succeeded`, `failed`, `cancelled` or `interrupted`.
    pub verdict: String,
    /// One sentence.
    pub message: String,
    /// Objects written or deleted.
    pub changes: u64,
    /// Images that an automation had committed in this revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ReplacedView>,
}

/// One image that an automation replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedView {
    /// The policy that chose it, `namespace/name`.
    pub policy: String,
    /// The automation that committed it, `namespace/name`.
    pub automation: String,
    /// File in Git, with the line.
    pub file: String,
    /// What stood there.
    pub old: String,
    /// What stands there now.
    pub new: String,
}

/// One run in full: `GET /v1/history/RUN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// What was written or deleted, in order.
    pub objects: Vec<ChangeView>,
    /// Time of each step in microseconds, in order.
    pub steps: Vec<(String, u64)>,
}

/// One object that a run wrote or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// `Kind/namespace/name`.
    pub object: String,
    /// `created`, `configured`, `recreated`, `deleted`, …
    pub action: String,
    /// File in Git.
    pub file: Option<String>,
    /// What differed, masked, a line each.
    pub lines: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_survives_the_wire() {
        let daemon = DaemonView {
            version: "0.1.0".into(),
            pid: 7,
            started_ms: 1,
            config_path: "/etc/gitopsd/config.yaml".into(),
            render_children: 2,
        };
        let cluster = ClusterView { connected: true, ..ClusterView::default() };
        let document = Document {
            serial: 3,
            held: vec![HeldView {
                owner: "flux-system/apps".into(),
                digest: "ab12".into(),
                reason: "PersistentVolumeClaim".into(),
                objects: vec!["PersistentVolumeClaim/web/data".into()],
            }],
            ..Document::starting(daemon, cluster)
        };
        let text = serde_json::to_string(&document).expect("plain data");
        let read: Document = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read, document);
    }

    #[test]
    fn a_later_daemon_may_add_fields_and_a_command_with_a_wrong_field_is_refused() {
        let accepted: Accepted =
            serde_json::from_value(json!({"keys": ["a"], "later": 1})).expect("unknown field");
        assert_eq!(accepted.keys, ["a"]);
        assert!(serde_json::from_value::<ReconcileAsk>(json!({"withSource": true})).is_err());
    }
}
