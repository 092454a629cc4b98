//! Keys and credentials of one run: from the cluster's Secrets, else from the host.
//!
//! The root's credentials are the host's, which `gitopsd init` and `gitopsd check` have tried; only
//! where the host has none is the Secret of Flux's bootstrap asked. Any other source's are those of
//! its Secret. Host credentials stand in for a Secret that is not there only where scheme, host and
//! port of the source equal the root's: a repository must not send the host's password, or have its
//! files opened with the host's key, by naming a Secret that does not exist.

use super::{Connection, Failure, Pipeline, Retry, Step, lock};
use crate::flux::{GitRepository, Kustomization, is_root_source};
use crate::registry::Mirrors;
use crate::secrets::{Keyring, Plaintext};
use crate::source::{Auth, Credential};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the host itself holds.
pub struct HostSecrets {
    /// Age identities.
    pub keyring: Arc<Keyring>,
    /// Credentials of the root source.
    pub git: Credential,
    /// k3s's mirrors and credentials of image registries.
    pub mirrors: Mirrors,
}

/// A source's credential as it was read last.
#[derive(Clone)]
pub(super) struct Known {
    /// Name of the Secret.
    name: String,
    credential: Credential,
    /// It has not failed since.
    fresh: bool,
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<(String, String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_port = authority.rsplit('@').next()?;
    let default = match scheme {
        "https" => "443",
        "http" => "80",
        _ => "22",
    };
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (host_port, default),
    };
    Some((scheme.to_ascii_lowercase(), host.to_ascii_lowercase(), port.to_owned()))
}

fn same_origin(a: &str, b: &str) -> bool {
    matches!((origin(a), origin(b)), (Some(a), Some(b)) if a == b)
}

impl Pipeline {
    /// Credentials of a source, by the rule above.
    pub(super) async fn credential(&self, source: &GitRepository) -> Result<Credential, Failure> {
        let trusted = same_origin(&source.url, &self.settings.root_url);
        let Some(name) = &source.secret_ref else {
            // User and password may stand in the URL itself.
            return Credential::from_secret(&source.url, &BTreeMap::new()).map_err(|cause| {
                Failure::new(Step::Fetch, "AuthenticationFailed", cause.to_string())
                    .object(source.key())
                    .hint(cause.hint())
            });
        };
        let fallback = || self.host.git.clone();
        let root = trusted && is_root_source(&source.key());
        if root && !matches!(self.host.git.auth, Auth::None) {
            // A Secret that Flux has left may be of another remote, or of another time.
            return Ok(fallback());
        }
        let known = lock(&self.credentials).get(&source.key()).cloned();
        let known = known.filter(|known| known.name == *name);
        if let Some(Known { fresh: true, credential, .. }) = known {
            return Ok(credential);
        }
        let Some(connection) = self.connection() else {
            return if trusted {
                Ok(fallback())
            } else {
                Err(no_secret(source, name, "the API server is not reachable").retry(Retry::Soon))
            };
        };
        let found = match secret(&connection, &source.namespace, name).await {
            Ok(found) => found,
            // Git needs no API server: the credential that was read last serves meanwhile.
            Err(failure) if failure.retry == Retry::Soon => {
                let known = known.map(|known| known.credential);
                return known.or_else(|| trusted.then(fallback)).ok_or(failure);
            }
            Err(failure) => return Err(failure),
        };
        let credential = match found {
            Some(data) => {
                let data = data.into_iter().map(|(k, v)| (k, v.expose().to_vec())).collect();
                let read = Credential::from_secret(&source.url, &data).map_err(|cause| {
                    let cause = format!("Secret {}/{name}: {cause}", source.namespace);
                    Failure::new(Step::Fetch, "AuthenticationFailed", cause).object(source.key())
                })?;
                // A private CA that the host names counts with whatever proof.
                let ca = self.host.git.ca.clone().filter(|_| root).or(read.ca);
                Credential { ca, auth: read.auth }
            }
            None if trusted => fallback(),
            None => return Err(no_secret(source, name, "it does not exist")),
        };
        let known = Known { name: name.clone(), credential: credential.clone(), fresh: true };
        lock(&self.credentials).insert(source.key(), known);
        Ok(credential)
    }

    /// After a poll that failed, the next one reads the Secret again.
    pub(super) fn doubt(&self, source: &GitRepository) {
        if let Some(known) = lock(&self.credentials).get_mut(&source.key()) {
            known.fresh = false;
        }
    }

    /// Keys that open what a Kustomization's source seals. Those that were read last are good
    /// enough (`remembered`) to see that nothing has changed; nothing is opened with them.
    pub(super) async fn keyring(
        &self,
        kustomization: &Kustomization,
        url: &str,
        remembered: bool,
    ) -> Result<Arc<Keyring>, Failure> {
        let Some(decryption) = &kustomization.decryption else {
            return Ok(Arc::new(Keyring::empty()));
        };
        let trusted = same_origin(url, &self.settings.root_url);
        let mut keys = Keyring::empty();
        if trusted {
            keys.merge((*self.host.keyring).clone());
        }
        let (Some(name), Some(connection)) = (&decryption.secret_ref, self.connection()) else {
            return Ok(Arc::new(keys));
        };
        if remembered
            && let Some((from, keys)) = lock(&self.keyrings).get(&kustomization.key())
            && from == name
        {
            return Ok(keys.clone());
        }
        let found = secret(&connection, &kustomization.namespace, name).await?;
        for (key, value) in found.iter().flatten() {
            if !key.ends_with(".agekey") {
                continue;
            }
            let parsed = Keyring::parse(value.expose()).map_err(|cause| {
                let cause = format!("Secret {}/{name}: {key}: {cause}", kustomization.namespace);
                Failure::new(Step::Open, "BuildFailed", cause).object(kustomization.key())
            })?;
            keys.merge(parsed);
        }
        if found.is_none() && !trusted {
            let cause = format!(
                "decryption Secret {}/{name} does not exist, and the host's own key opens only \
                 sources on the root's server",
                kustomization.namespace
            );
            return Err(Failure::new(Step::Open, "BuildFailed", cause).object(kustomization.key()));
        }
        let keys = Arc::new(keys);
        lock(&self.keyrings).insert(kustomization.key(), (name.clone(), keys.clone()));
        Ok(keys)
    }
}

fn no_secret(source: &GitRepository, name: &str, why: &str) -> Failure {
    let cause = format!("Secret {}/{name} with the credentials: {why}", source.namespace);
    let hint = "create it, or seal it in the flux-config repository; the host's own credentials \
                stand in only for the root's server"
        .to_owned();
    Failure::new(Step::Fetch, "AuthenticationFailed", cause).object(source.key()).hint(Some(hint))
}

/// Keys and values of a Secret or ConfigMap.
pub(super) type Data = BTreeMap<String, Plaintext>;

pub(super) async fn secret(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<Option<Data>, Failure> {
    let Some(object) = read(connection, "Secret", namespace, name).await? else { return Ok(None) };
    Ok(Some(decoded(&object)))
}

/// The values of a Secret.
pub(super) fn decoded(object: &Value) -> Data {
    let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
    let decoded = data.filter_map(|(key, value)| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), Plaintext::new(bytes)))
    });
    decoded.collect()
}

pub(super) async fn read(
    connection: &Connection,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Failure> {
    let failed = |error: crate::cluster::ClusterError| {
        super::write::cluster_failure(Step::Open, &error)
            .object(format!("{kind}/{namespace}/{name}"))
    };
    let cluster = &connection.cluster;
    let Some(resource) = cluster.resource("v1", kind).await.map_err(failed)? else {
        return Ok(None);
    };
    cluster.get(&resource, namespace, name).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://git.example/a", "https://git.example:443/b.git", true),
            ("https://user@git.example/a", "https://GIT.example/b", true),
            ("ssh://git@git.example/a", "ssh://git.example:22/b", true),
            ("https://git.example/a", "http://git.example/a", false),
            ("https://git.example/a", "https://git.example:8443/a", false),
            ("https://git.example/a", "https://git.example.evil/a", false),
            ("https://git.example@evil/a", "https://git.example/a", false),
        ] {
            assert_eq!(same_origin(a, b), same, "{a} {b}");
        }
    }
}
