//! Keeps the connection to the API server: finds it, knows it again, and refuses two owners.
//!
//! Waits without noise while the server is away, reads the kubeconfig again each time (k3s
//! rewrites it), and hands over a connection only after it is known which cluster answers, that no
//! live Flux controllers run in it, and that no other machine owns it.

use super::owner::{Machine, Standing, own, standing, take_over};
use crate::cluster::{Cluster, ClusterError, Limits, Select};
use crate::pipeline::Connection;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// First and longest pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Largest kubeconfig; k3s writes 3 KiB.
const KUBECONFIG: u64 = 1 << 20;

/// What became of the connection.
pub enum Link {
    /// The server answers, and it is the cluster that it should be.
    Up {
        /// The connection.
        connection: Arc<Connection>,
        /// Uid of `kube-system`.
        identity: String,
        /// Version of the server.
        version: String,
        /// It was another machine's until now, as a person has said.
        taken: bool,
    },
    /// The server behind a connection, by its number, is out of reach.
    Lost {
        /// The connection.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The server behind a connection, by its number, was asked and has not answered yet.
    Silent(u64),
    /// It has answered.
    Heard(u64),
    /// No connection yet; told when the reason changes.
    Down(Reason),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server does not answer as it should, in a sentence.
    Away(String),
    /// Flux's own controllers run in it, in a sentence.
    Flux(String),
    /// It is another machine's.
    Owned(super::owner::Other),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Away(why) | Reason::Flux(why) => f.write_str(why),
            Reason::Owned(other) => other.fmt(f),
        }
    }
}

/// Where the connection is looked for.
#[derive(Clone)]
pub struct Target {
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// Bounds of the client.
    pub limits: Limits,
    /// Uid of the cluster that the history was made on, if there was one.
    pub known: Option<String>,
    /// Whether others own objects in it as we do: then no machine owns it.
    pub shared: bool,
    /// This machine.
    pub machine: Machine,
    /// The machine that the cluster may be taken over from, by its id.
    pub agreed: watch::Receiver<Option<String>>,
}

/// Tries until there is a connection, then ends. The loop starts it again after an outage.
pub async fn connect(mut target: Target, links: mpsc::Sender<Link>) {
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    // What was said before is read with the first attempt.
    target.agreed.mark_unchanged();
    loop {
        match attempt(&target).await {
            Ok(link) => {
                // The loop is gone only when the daemon ends.
                let _ = links.send(link).await;
                return;
            }
            Err(reason) => {
                if told.as_ref() != Some(&reason) {
                    told = Some(reason.clone());
                    if links.send(Link::Down(reason)).await.is_err() {
                        return;
                    }
                }
            }
        }
        // A word of a person is acted upon at once. Without a sender the daemon has ended.
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            Ok(()) = target.agreed.changed() => {}
        }
    }
}

async fn attempt(target: &Target) -> Result<Link, Reason> {
    let bytes = kubeconfig(target).await.map_err(Reason::Away)?;
    let cluster = Cluster::connect(&bytes, target.limits).await.map_err(away)?;
    let identity = cluster.identity().await.map_err(away)?;
    let version = cluster.version().await.map_err(away)?;
    if let Some(live) = live_flux(&cluster).await.map_err(away)? {
        return Err(Reason::Flux(format!(
            "Flux's own {live} runs in this cluster, and nothing may have two owners; hand over \
             with: kubectl -n flux-system scale deployment --all --replicas=0"
        )));
    }
    let known = target.known.as_ref().is_none_or(|known| *known == identity);
    let taken = !target.shared && settle(&cluster, target, known).await?;
    let connection = Arc::new(Connection::new(cluster, !known && !taken, target.shared));
    Ok(Link::Up { connection, identity, version, taken })
}

fn away(error: ClusterError) -> Reason {
    Reason::Away(match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// Sees to it that the cluster is this machine's; true when it has just been taken over. One that
/// is not `known` is not marked before a person has confirmed it.
async fn settle(cluster: &Cluster, target: &Target, known: bool) -> Result<bool, Reason> {
    let machine = &target.machine;
    match standing(cluster, machine).await.map_err(away)? {
        Standing::Nobodys if known => own(cluster, machine).await.map_err(away).map(|()| false),
        Standing::Nobodys | Standing::Ours => Ok(false),
        Standing::Others(other, version) if target.agreed.borrow().as_ref() == Some(&other.id) => {
            take_over(cluster, machine, &version).await.map_err(away).map(|()| true)
        }
        Standing::Others(other, _) => Err(Reason::Owned(other)),
    }
}

async fn kubeconfig(target: &Target) -> Result<Vec<u8>, String> {
    let path = target.kubeconfig.display();
    let size = tokio::fs::metadata(&target.kubeconfig)
        .await
        .map_err(|e| format!("kubeconfig {path}: {e}; is k3s installed and started?"))?
        .len();
    if size > KUBECONFIG {
        return Err(format!("kubeconfig {path} has {size} bytes, more than {KUBECONFIG}"));
    }
    tokio::fs::read(&target.kubeconfig).await.map_err(|error| match error.kind() {
        // k3s keeps it for root; the unit's helper hands it over.
        ErrorKind::PermissionDenied => {
            format!("kubeconfig {path}: {error}; hand it over: systemctl reload gitopsd")
        }
        _ => format!("kubeconfig {path}: {error}"),
    })
}

/// What writes to the cluster or to Git as we do; flux-operator also starts the others again.
const CONTROLLERS: [&str; 5] = [
    "flux-operator",
    "kustomize-controller",
    "helm-controller",
    "source-controller",
    "image-automation-controller",
];

/// How the parts of Flux are labelled, and how flux-operator is.
const LABELS: [&str; 2] =
    ["app.kubernetes.io/part-of=flux", "app.kubernetes.io/name=flux-operator"];

/// A Flux controller that is scaled above 0, if there is one; flux-operator comes first.
pub async fn live_flux(cluster: &Cluster) -> Result<Option<String>, ClusterError> {
    let Some(deployments) = cluster.resource("apps/v1", "Deployment").await? else {
        return Ok(None);
    };
    let mut live = Vec::new();
    for labels in LABELS {
        let select = Select { labels, ..Select::default() };
        for object in cluster.list(&deployments, select).await?.items {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            if replicas > 0 {
                live.extend(CONTROLLERS.iter().position(|controller| *controller == name));
            }
        }
    }
    Ok(live.into_iter().min().map(|at| CONTROLLERS[at].to_owned()))
}
