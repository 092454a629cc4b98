//! Which machine owns the cluster: the ConfigMap `kube-system/gitopsd-owner`, written once.
//!
//! | key | what |
//! |---|---|
//! | `machine` | a keyed hash, 32 hexadecimal digits, that no other machine has |
//! | `host` | the machine's name when it was written |
//! | `since` | when that was, RFC 3339 in UTC |
//! | `repository` | URL of the root |
//!
//! It is read with each new connection, whenever its watch tells of it, and once a day. Absent, it
//! is made; ours, it is left as it is for ever; of another machine, nothing is written to the
//! cluster, since two owners would undo each other, until that machine's mark goes away or a
//! person says `gitopsd confirm cluster`. It is in no inventory: it is neither healed nor pruned.

use crate::cluster::{Cluster, ClusterError, Resource};
use crate::observe::Observer;
use crate::plan::MANAGER;
use crate::render::ObjectId;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::path::Path;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "gitopsd-owner";

/// Longest text that is shown of what another machine wrote: a host name has 253 at most, and a
/// URL that is longer is known by its beginning.
const SHOWN: usize = 253;

/// The machine that the daemon runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    id: String,
    host: String,
    repository: String,
}

impl Machine {
    /// Learns what this machine is called. Without a machine id it is known by the host key.
    pub(super) fn here(host_key: &[u8], repository: &str) -> Self {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        // Not from /proc/sys, which the unit hides.
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let repository = repository.to_owned();
        Machine { id: identity(&read("/etc/machine-id"), host_key), host, repository }
    }

    /// What stands for this machine in names at a provider: the first 8 digits of its hash.
    pub(super) fn suffix(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }

    fn data(&self) -> Value {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"machine": self.id, "host": self.host, "since": now, "repository": self.repository})
    }
}

/// A hash that only this application makes, so that the machine id itself, which is
/// confidential (machine-id(5)), never leaves the host and cannot be compared with that of others.
fn identity(machine_id: &str, host_key: &[u8]) -> String {
    let id = machine_id.trim();
    // `uninitialized` stands there during a first boot.
    let known = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = if known { id.as_bytes() } else { host_key };
    // Invariant: HMAC takes keys of any length.
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any key length");
    mac.update(b"gitopsd: owner of a cluster");
    mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another machine, as its mark tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The hash of its identity.
    pub id: String,
    host: String,
    since: String,
    repository: String,
}

impl Other {
    fn of(mark: &Value) -> Self {
        // Whoever may write the mark could put control sequences for a terminal into it.
        let text = |key: &str| -> String {
            let text = mark.pointer(&format!("/data/{key}")).and_then(Value::as_str);
            let shown = text.unwrap_or_default().chars().filter(|char| !char.is_control());
            let shown: String = shown.take(SHOWN).collect();
            if shown.is_empty() { "unknown".to_owned() } else { shown }
        };
        Other {
            id: text("machine"),
            host: text("host"),
            since: text("since"),
            repository: text("repository"),
        }
    }
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Other { host, since, repository, .. } = self;
        write!(
            f,
            "gitopsd on host {host} owns this cluster since {since}, from {repository}, and nothing \
             may have two owners; stop it there, then take the cluster over with: gitopsd confirm \
             cluster"
        )
    }
}

/// Who owns the cluster, as far as we are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has said so.
    Nobodys,
    /// This machine.
    Ours,
    /// Another machine, as this version of the mark says.
    Others(Other, String),
}

fn judge(mark: Option<&Value>, machine: &Machine) -> Standing {
    match mark {
        None => Standing::Nobodys,
        Some(mark) => match Other::of(mark) {
            other if other.id == machine.id => Standing::Ours,
            other => {
                let version = mark.pointer("/metadata/resourceVersion").and_then(Value::as_str);
                Standing::Others(other, version.unwrap_or_default().to_owned())
            }
        },
    }
}

fn marks() -> Resource {
    Resource {
        group: String::new(),
        version: "v1".to_owned(),
        plural: "configmaps".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespaced: true,
    }
}

/// Has changes of the mark told: whoever takes the cluster over may not know that we still run.
pub fn follow(observer: &Observer) {
    observer.watch_one(&marks(), NAMESPACE, NAME);
}

/// Whether an object is the mark.
pub fn is_mark(id: &ObjectId) -> bool {
    (id.kind.as_str(), id.namespace.as_str(), id.name.as_str()) == ("ConfigMap", NAMESPACE, NAME)
        && id.group.is_empty()
}

/// Reads who owns the cluster.
pub async fn standing(cluster: &Cluster, machine: &Machine) -> Result<Standing, ClusterError> {
    Ok(judge(cluster.get(&marks(), NAMESPACE, NAME).await?.as_ref(), machine))
}

/// Makes the mark where there is none. Of two that do so at once the second is refused.
pub async fn own(cluster: &Cluster, machine: &Machine) -> Result<(), ClusterError> {
    let mark = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "gitopsd"},
        },
        "data": machine.data(),
    });
    cluster.create(&marks(), &mark, MANAGER).await
}

/// Puts our name in place of another machine's in this version of the mark and no other.
pub async fn take_over(
    cluster: &Cluster,
    machine: &Machine,
    version: &str,
) -> Result<(), ClusterError> {
    let mark = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}});
    let patch = [
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}),
        json!({"op": "add", "path": "/data", "value": machine.data()}),
    ];
    cluster.json_patch(&marks(), &mark, &patch, MANAGER).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str) -> Machine {
        Machine { id: id.into(), host: "box".into(), repository: "https://git/r".into() }
    }

    #[test]
    fn a_machine_is_known_by_a_hash_of_its_id_and_without_one_by_the_host_key() {
        let id = "0123456789abcdef0123456789abcdef";
        let known = identity(&format!("{id}\n"), b"key");
        assert_eq!(known.len(), 32);
        assert_eq!(known, identity(id, b"another key"));
        assert!(!known.contains(&id[..8]));
        assert_ne!(known, identity("1123456789abcdef0123456789abcdef", b"key"));
        for none in ["", "uninitialized\n"] {
            assert_eq!(identity(none, b"key"), identity("", b"key"));
            assert_ne!(identity(none, b"key"), identity(none, b"another key"));
            assert_ne!(identity(none, b"key"), known);
        }
    }

    #[test]
    fn the_mark_of_another_machine_or_none_that_can_be_read_is_not_ours() {
        let mark = json!({"data": machine("us").data()});
        assert_eq!(judge(None, &machine("us")), Standing::Nobodys);
        assert_eq!(judge(Some(&mark), &machine("us")), Standing::Ours);
        let Standing::Others(other, _) = judge(Some(&mark), &machine("them")) else {
            panic!("it is another's")
        };
        assert!(other.to_string().starts_with("gitopsd on host box owns this cluster since 2"));
        let other = |host: &str| {
            let unknown = || "unknown".to_owned();
            let (since, repository) = (unknown(), unknown());
            let other = Other { id: unknown(), host: host.to_owned(), since, repository };
            Standing::Others(other, String::new())
        };
        assert_eq!(judge(Some(&json!({})), &machine("us")), other("unknown"));
        let odd = json!({"data": {"host": format!("a\u{1b}[2J{}", "b".repeat(300))}});
        assert_eq!(
            judge(Some(&odd), &machine("us")),
            other(&format!("a[2J{}", "b".repeat(SHOWN - 4)))
        );
    }
}
