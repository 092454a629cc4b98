//! Keeps the connection to the API server: finds it, knows it again, and refuses two owners.
//!
//! Waits without noise while the server is away, reads the kubeconfig again each time (k3s
//! rewrites it), and hands over a connection only after it is known which cluster answers and that
//! no live Flux controllers run in it.

use crate::cluster::{Cluster, ClusterError, Limits, Select};
use crate::pipeline::Connection;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

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
    /// No connection yet, with the reason in a sentence; told when the reason changes.
    Down(String),
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
    /// Whether others own objects in it as we do.
    pub shared: bool,
}

/// Tries until there is a connection, then ends. The loop starts it again after an outage.
pub async fn connect(target: Target, links: mpsc::Sender<Link>) {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        match attempt(&target).await {
            Ok(link) => {
                // The loop is gone only when the daemon ends.
                let _ = links.send(link).await;
                return;
            }
            Err(reason) => {
                if reason != told {
                    told.clone_from(&reason);
                    if links.send(Link::Down(reason)).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(target: &Target) -> Result<Link, String> {
    let path = target.kubeconfig.display();
    let size = tokio::fs::metadata(&target.kubeconfig)
        .await
        .map_err(|e| format!("kubeconfig {path}: {e}; is k3s installed and started?"))?
        .len();
    if size > KUBECONFIG {
        return Err(format!("kubeconfig {path} has {size} bytes, more than {KUBECONFIG}"));
    }
    let bytes = tokio::fs::read(&target.kubeconfig).await.map_err(|error| match error.kind() {
        // k3s keeps it for root; the unit's helper hands it over.
        ErrorKind::PermissionDenied => {
            format!("kubeconfig {path}: {error}; hand it over: systemctl reload gitopsd")
        }
        _ => format!("kubeconfig {path}: {error}"),
    })?;
    let said = |error: ClusterError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    let cluster = Cluster::connect(&bytes, target.limits).await.map_err(said)?;
    let identity = cluster.identity().await.map_err(said)?;
    let version = cluster.version().await.map_err(said)?;
    if let Some(live) = live_flux(&cluster).await.map_err(said)? {
        return Err(format!(
            "Flux's own {live} runs in this cluster, and nothing may have two owners; hand over \
             with: kubectl -n flux-system scale deployment --all --replicas=0"
        ));
    }
    let stranger = target.known.as_ref().is_some_and(|known| *known != identity);
    let connection = Arc::new(Connection::new(cluster, stranger, target.shared));
    Ok(Link::Up { connection, identity, version })
}

/// A Flux controller that is scaled above 0, if there is one.
pub async fn live_flux(cluster: &Cluster) -> Result<Option<String>, ClusterError> {
    let Some(deployments) = cluster.resource("apps/v1", "Deployment").await? else {
        return Ok(None);
    };
    let select = Select { labels: "app.kubernetes.io/part-of=flux", ..Select::default() };
    let found = cluster.list(&deployments, select).await?;
    let live = found.items.iter().find(|object| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        matches!(name, "kustomize-controller" | "helm-controller" | "source-controller")
            && replicas > 0
    });
    let name = live.and_then(|object| object.pointer("/metadata/name"));
    Ok(name.and_then(Value::as_str).map(str::to_owned))
}
