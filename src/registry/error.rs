//! Pure: what can go wrong with a registry, what to do about it and whether time heals it.
//!
//! Causes are texts in which no credential can be: they are ours, or a server's after it was
//! searched for what we sent (`exchange.rs`).

use crate::net::NetError;
use std::time::Duration;

/// A failure of a scan or of a look at a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No answer: name, connection or a broken exchange.
    #[error("cannot reach {registry}: {cause}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// Why.
        cause: String,
    },
    /// The server's certificate is not signed by anybody we know, or not for this name or date.
    #[error("the certificate of {registry} is not trusted: {cause}")]
    CertificateUntrusted {
        /// Host and port.
        registry: String,
        /// The verdict.
        cause: String,
    },
    /// The whole took longer than `spec.timeout`.
    #[error("{registry} took longer than {} s", after.as_secs_f64().round())]
    Timeout {
        /// Host and port.
        registry: String,
        /// The limit.
        after: Duration,
    },
    /// The registry wants credentials and there are none for it.
    #[error("{registry} wants credentials for {path}, and there are none for it")]
    CredentialsMissing {
        /// Host and port.
        registry: String,
        /// Path of the repository.
        path: String,
    },
    /// The registry or its token service refused the credentials.
    #[error("{registry} refused the credentials: {cause}")]
    CredentialsRefused {
        /// Host and port.
        registry: String,
        /// What it said.
        cause: String,
    },
    /// The registry knows us and does not let us see the repository.
    #[error("{registry} denies access to {path}: {cause}")]
    Denied {
        /// Host and port.
        registry: String,
        /// Path of the repository.
        path: String,
        /// What it said.
        cause: String,
    },
    /// Credentials would have to be sent in the clear.
    #[error("{registry} speaks plain HTTP, over which no credentials are sent")]
    PlainCredentials {
        /// Host and port.
        registry: String,
    },
    /// The registry has no such repository.
    #[error("{registry} has no repository {path}, or none that these credentials may see")]
    NoSuchRepository {
        /// Host and port.
        registry: String,
        /// Path of the repository.
        path: String,
    },
    /// The repository has no such tag.
    #[error("{registry} has no tag {tag} in {path}")]
    NoSuchTag {
        /// Host and port.
        registry: String,
        /// Path of the repository.
        path: String,
        /// The tag.
        tag: String,
    },
    /// The registry wants fewer requests.
    #[error(
        "{registry} wants fewer requests (HTTP status 429){}",
        after.map(|after| format!(", none before {} s", after.as_secs())).unwrap_or_default()
    )]
    RateLimited {
        /// Host and port.
        registry: String,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// Any other status.
    #[error("{registry} answered HTTP status {status}{}", colon(cause))]
    Status {
        /// Host and port.
        registry: String,
        /// The status code.
        status: u16,
        /// What it said, possibly nothing.
        cause: String,
    },
    /// The body is of another kind than the protocol has.
    #[error("{registry} answered with {found} where a registry answers with JSON")]
    WrongContentType {
        /// Host and port.
        registry: String,
        /// The content type.
        found: String,
    },
    /// An answer that the protocol does not have.
    #[error("unexpected answer from {registry}: {cause}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// What was unexpected.
        cause: String,
    },
    /// More than we are ready to read.
    #[error("{registry} answered with more than {limit} {what}")]
    TooMuch {
        /// Host and port.
        registry: String,
        /// The limit.
        limit: usize,
        /// `bytes in one page`, `bytes`, `pages`, `tags`.
        what: &'static str,
    },
    /// The list of tags never ends.
    #[error("{registry} lists tags without end: {cause}")]
    Endless {
        /// Host and port.
        registry: String,
        /// How that shows.
        cause: String,
    },
    /// A redirect or a next page that leads where we do not go.
    #[error("{registry} leads elsewhere: {cause}")]
    Astray {
        /// Host and port.
        registry: String,
        /// Where, and why not there.
        cause: String,
    },
    /// The docker config of a Secret cannot be used.
    #[error("the registry credentials are not usable: {cause}")]
    BadDockerConfig {
        /// Which key is wrong and how.
        cause: String,
    },
    /// CA, client certificate or proxy cannot be used.
    #[error("cannot set up the connection to {registry}: {cause}")]
    Setup {
        /// Host and port.
        registry: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A file that registries.yaml names cannot be read.
    #[error("{path}, which registries.yaml names for {registry}: {cause}")]
    File {
        /// The key below `configs`.
        registry: String,
        /// The file.
        path: String,
        /// The system's words.
        cause: String,
    },
    /// Neither a mirror nor the registry gave an answer.
    #[error("{}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Everywhere {
        /// In the order in which they were asked; at least two.
        failures: Vec<RegistryError>,
    },
}

/// Whether a server ended the connection for want of a client certificate: what Go's says, and
/// what TLS 1.3 has for it.
fn is_about_ours(cause: &str) -> bool {
    ["BadCertificate", "CertificateRequired"].iter().any(|alert| cause.contains(alert))
}

fn colon(cause: &str) -> String {
    if cause.is_empty() { String::new() } else { format!(": {cause}") }
}

impl RegistryError {
    /// Whether the same request may succeed later without anybody changing anything here.
    pub fn retry(&self) -> bool {
        use RegistryError::*;
        match self {
            BadDockerConfig { .. } | Setup { .. } | PlainCredentials { .. } => false,
            Everywhere { failures } => failures.iter().any(RegistryError::retry),
            // What a registry says or lacks today it may say or have tomorrow: somebody pushes the
            // repository, grants the access, renews the certificate, mends the proxy before it.
            _ => true,
        }
    }

    /// How long the registry asked us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::RateLimited { after, .. } => *after,
            RegistryError::Everywhere { failures } => {
                failures.iter().filter_map(RegistryError::retry_after).max()
            }
            _ => None,
        }
    }

    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        use RegistryError::*;
        let text = match self {
            Unreachable { cause, .. } if cause.contains("InvalidContentType") => {
                "if this registry speaks plain HTTP, set spec.insecure: true".into()
            }
            Unreachable { cause, .. } if is_about_ours(cause) => {
                "it wants a client certificate: tls.crt and tls.key in the Secret of \
                 spec.certSecretRef"
                    .into()
            }
            CertificateUntrusted { cause, .. } if cause.contains("signed") => {
                "name the CA that signed it, in PEM: ca.crt in the Secret of spec.certSecretRef, \
                 or tls.ca_file in k3s's registries.yaml"
                    .into()
            }
            CertificateUntrusted { cause, .. } => crate::net::remedy(cause).into(),
            Timeout { .. } => "raise spec.timeout if the registry is known to be slow".into(),
            CredentialsMissing { registry, .. } if registry.starts_with("mirror ") => {
                "write its auth below configs in k3s's registries.yaml".into()
            }
            CredentialsMissing { registry, .. } => format!(
                "name a Secret of type kubernetes.io/dockerconfigjson with an entry for \
                 {registry} in spec.secretRef"
            ),
            CredentialsRefused { .. } => "renew the Secret of spec.secretRef: kubectl create \
                 secret docker-registry; a token may have expired"
                .into(),
            Denied { .. } => "give the user of spec.secretRef the right to pull it".into(),
            PlainCredentials { .. } => {
                "serve the registry over TLS, or set spec.insecure: true".into()
            }
            NoSuchRepository { .. } => "check spec.image, and push a first tag".into(),
            RateLimited { .. } => {
                "scan less often (spec.interval), or with credentials (spec.secretRef)".into()
            }
            WrongContentType { .. } => {
                "spec.image must name a registry, not a web page or a proxy's login form".into()
            }
            Astray { .. } => "write the host that it leads to into spec.image".into(),
            TooMuch { what: "tags", .. } => "delete old tags in the registry".into(),
            BadDockerConfig { .. } => "make it anew: kubectl create secret docker-registry".into(),
            Setup { hint, .. } => return hint.clone(),
            File { .. } => "the user gitopsd must be able to read it".into(),
            Everywhere { failures } => return failures.iter().rev().find_map(RegistryError::hint),
            _ => return None,
        };
        Some(text)
    }

    /// The error of a request to `registry` that found no answer.
    pub(super) fn of_net(registry: &str, error: NetError) -> RegistryError {
        let registry = registry.to_owned();
        let hint = error.hint();
        match error {
            NetError::CertificateUntrusted { cause, .. } => {
                RegistryError::CertificateUntrusted { registry, cause }
            }
            NetError::Unreachable { cause, .. } => RegistryError::Unreachable { registry, cause },
            NetError::Status { status, .. } => {
                RegistryError::Status { registry, status, cause: String::new() }
            }
            NetError::TooLarge { limit, .. } => {
                RegistryError::TooMuch { registry, limit, what: "bytes in one answer" }
            }
            other => RegistryError::Setup { registry, cause: other.to_string(), hint },
        }
    }
}
