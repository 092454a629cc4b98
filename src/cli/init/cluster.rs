//! The cluster: is it there, does it answer, does it already have an owner.

use super::tell::{Halt, Teller};
use crate::cluster::{Cluster, ClusterError, Limits};
use crate::config::Config;
use crate::daemon::live_flux;
use crate::secrets::Plaintext;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const WHAT: &str = "cluster";

/// What the unit hands over to the service.
const K3S: &str = "/etc/rancher/k3s/k3s.yaml";

/// Largest kubeconfig; k3s writes 3 KiB.
const KUBECONFIG: u64 = 1 << 20;

/// What brings k3s to a box, in one line, without what the repository may bring itself.
const INSTALL: &str = "install k3s: curl -sfL https://get.k3s.io | sh -   or name another \
                       cluster's kubeconfig: --kubeconfig FILE";

/// Finds the cluster that the configuration names, and makes sure that nobody else owns it.
pub async fn find(config: &Config, teller: &Teller<'_>) -> Result<Cluster, Halt> {
    let path = &config.cluster.kubeconfig;
    let shown = path.display();
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > KUBECONFIG => {
            let fix = "name the right file: --kubeconfig FILE";
            return Err(Halt::at(WHAT, format!("{shown} is too large for a kubeconfig"), fix));
        }
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| {
        let fix = match error.kind() {
            ErrorKind::NotFound if Path::new("/usr/local/bin/k3s").exists() => {
                "k3s is installed but has not run: systemctl start k3s"
            }
            ErrorKind::NotFound => INSTALL,
            _ => "only root may read it: sudo gitopsd init",
        };
        Halt::at(WHAT, format!("kubeconfig {shown}: {error}"), fix)
    })?;
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if path != Path::new(K3S) && mode.is_ok_and(|mode| mode & 0o004 == 0) {
        // The unit hands over k3s's own only.
        let found = format!("{shown} may be closed to the service, which runs as user gitopsd");
        teller.warn(WHAT, found, &format!("let it: setfacl -m u:gitopsd:r {shown}"))?;
    }
    let stopped = |error: ClusterError| {
        let fix = error.hint().unwrap_or_else(|| "is it running? systemctl status k3s".to_owned());
        Halt::at(WHAT, error.to_string(), fix)
    };
    let cluster = Cluster::connect(&bytes, Limits::default()).await.map_err(stopped)?;
    cluster.ready().await.map_err(stopped)?;
    let version = cluster.version().await.map_err(stopped)?;
    teller.done(WHAT, format!("{} answers, version {version}", cluster.server()))?;
    if let Some(live) = live_flux(&cluster).await.map_err(stopped)? {
        let found = format!("Flux's own {live} runs in it, and nothing may have two owners");
        return Err(Halt::at("owner", found, HAND_OVER));
    }
    teller.done("owner", "no Flux controllers run in it")?;
    Ok(cluster)
}

/// The way from Flux to here: its controllers stop, its custom resources stay.
const HAND_OVER: &str = "hand over: stop Flux's controllers, then run this again:
         kubectl -n flux-system scale deployment --all --replicas=0
       Leave Flux's custom resources where they are: deleting them deletes the workloads.
       What Flux applied is taken over as it is; to go back, scale them to 1 again";

/// The age keys that Flux had in this cluster: every `*.agekey` of `flux-system/sops-age`.
pub async fn flux_keys(cluster: &Cluster) -> Result<Option<Plaintext>, ClusterError> {
    let Some(secrets) = cluster.resource("v1", "Secret").await? else { return Ok(None) };
    let Some(secret) = cluster.get(&secrets, "flux-system", "sops-age").await? else {
        return Ok(None);
    };
    let mut keys = zeroize::Zeroizing::new(Vec::with_capacity(4 << 10));
    let data = secret.pointer("/data").and_then(Value::as_object);
    for (name, value) in data.into_iter().flatten() {
        let decoded = value.as_str().and_then(|value| STANDARD.decode(value).ok());
        if let Some(decoded) = decoded.filter(|_| name.ends_with(".agekey")) {
            keys.extend_from_slice(&zeroize::Zeroizing::new(decoded));
            keys.push(b'\n');
        }
    }
    Ok((!keys.is_empty()).then(|| keys.into()))
}
