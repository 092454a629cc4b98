//! The one outbound HTTP client: TLS, private CA, proxy, limits.
//!
//! [`install_crypto`] makes ring the process's TLS provider; every entry here calls it, so that no
//! order of start-up can forget it. [`Client`] serves asynchronous callers (remote bases,
//! registries, Cloudflare); [`configure_blocking`] applies the same [`Trust`] and limits to the
//! blocking client that Git's transport builds for itself.
//!
//! A private CA is added to the system's roots, as Flux does with `ca.crt`. Proxies named in the
//! environment are ignored unless [`Trust::proxy_from_env`] is set: a daemon should not change
//! its routes because of a stray variable. Not done yet: a server certificate that is itself in
//! the bundle without being a CA (Go accepts it, rustls answers `CaUsedAsEndEntity` or
//! `UnknownIssuer`), client certificates, and a proxy with its own credentials.

use std::error::Error as StdError;
use std::sync::Once;
use std::time::Duration;

/// Limit of one connection attempt, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Whom we believe and how we reach them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM bundle of CAs accepted beside the system's own.
    pub ca: Option<Vec<u8>>,
    /// Whether `HTTPS_PROXY` and its relatives are obeyed.
    pub proxy_from_env: bool,
}

/// What can go wrong between us and an HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The CA bundle cannot be read.
    #[error("the CA bundle is not usable: {cause}")]
    BadCa {
        /// What is wrong with it.
        cause: String,
    },
    /// No client could be built.
    #[error("cannot set up the HTTP client: {cause}")]
    Setup {
        /// reqwest's own words.
        cause: String,
    },
    /// The server's certificate is not signed by anybody we know, or not for this name or date.
    #[error("{host}: the server's certificate is not trusted: {cause}")]
    CertificateUntrusted {
        /// Host of the request.
        host: String,
        /// rustls' verdict.
        cause: String,
    },
    /// No answer: name, connection or time.
    #[error("{host}: {cause}")]
    Unreachable {
        /// Host of the request.
        host: String,
        /// The innermost cause.
        cause: String,
    },
    /// An answer other than success.
    #[error("{host} answered HTTP status {status}")]
    Status {
        /// Host of the request.
        host: String,
        /// The status code.
        status: u16,
    },
    /// The body is longer than the caller allows.
    #[error("{host}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// Host of the request.
        host: String,
        /// The limit in bytes.
        limit: usize,
    },
}

impl NetError {
    /// Whether the same request may succeed later.
    pub fn retry(&self) -> bool {
        match self {
            NetError::Unreachable { .. } => true,
            NetError::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            NetError::CertificateUntrusted { .. } => {
                Some("put the CA that signed it under the key ca.crt, or check the clock".into())
            }
            NetError::BadCa { .. } => Some("ca.crt must hold PEM certificates".into()),
            _ => None,
        }
    }
}

/// Makes ring the TLS provider of this process; later calls do nothing.
pub fn install_crypto() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error means that somebody else installed one already: then that one stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// An asynchronous HTTP client. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client that gives up a request, its body included, after `timeout`.
    pub fn new(trust: &Trust, timeout: Duration) -> Result<Self, NetError> {
        install_crypto();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("gitopsd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout);
        if !trust.proxy_from_env {
            builder = builder.no_proxy();
        }
        if let Some(ca) = &trust.ca {
            builder = builder.tls_certs_merge(certificates(ca)?);
        }
        let http = builder.build().map_err(|error| NetError::Setup { cause: innermost(&error) })?;
        Ok(Client { http })
    }

    /// The client underneath, for requests other than a plain GET.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The body of a GET, refused above `max_bytes` before it is held in memory.
    pub async fn get_limited(&self, url: &str, max_bytes: usize) -> Result<Vec<u8>, NetError> {
        let answer = self.http.get(url).send().await.map_err(failed)?;
        let host = answer.url().host_str().unwrap_or_default().to_owned();
        if !answer.status().is_success() {
            return Err(NetError::Status { host, status: answer.status().as_u16() });
        }
        read_limited(answer, max_bytes).await
    }
}

/// Reads the body of an answer up to `max_bytes`.
pub async fn read_limited(
    mut answer: reqwest::Response,
    max_bytes: usize,
) -> Result<Vec<u8>, NetError> {
    let host = answer.url().host_str().unwrap_or_default().to_owned();
    if answer.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(NetError::TooLarge { host, limit: max_bytes });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(NetError::TooLarge { host, limit: max_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Puts our trust and limits on a blocking client. `timeout` bounds the wait for the head of an
/// answer and for each further piece of its body, not the whole exchange.
pub fn configure_blocking(
    builder: reqwest::blocking::ClientBuilder,
    trust: &Trust,
    timeout: Duration,
) -> Result<reqwest::blocking::ClientBuilder, NetError> {
    install_crypto();
    let mut builder = builder.connect_timeout(CONNECT_TIMEOUT.min(timeout)).timeout(timeout);
    if !trust.proxy_from_env {
        builder = builder.no_proxy();
    }
    if let Some(ca) = &trust.ca {
        builder = builder.tls_certs_merge(certificates(ca)?);
    }
    Ok(builder)
}

/// The certificates of a PEM bundle; an empty bundle is an error, since it was meant to hold some.
fn certificates(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, NetError> {
    let bundle = reqwest::Certificate::from_pem_bundle(pem)
        .map_err(|error| NetError::BadCa { cause: innermost(&error) })?;
    if bundle.is_empty() {
        return Err(NetError::BadCa { cause: "it holds no certificate".into() });
    }
    Ok(bundle)
}

/// Names what made a request fail.
fn failed(error: reqwest::Error) -> NetError {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let error = error.without_url();
    match certificate_problem(&error) {
        Some(cause) => NetError::CertificateUntrusted { host, cause },
        None if error.is_timeout() => NetError::Unreachable { host, cause: "timed out".into() },
        None => NetError::Unreachable { host, cause: innermost(&error) },
    }
}

/// rustls' verdict on the server's certificate, if that is what stopped the connection.
pub fn certificate_problem(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(verdict)) => Some(verdict.to_string()),
        _ => None,
    })
}

/// The last cause in the chain, which is the one that tells something.
pub fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// An error and its causes, outermost first. Unlike `source()` alone this looks inside
/// `io::Error`, which hides the error that it carries. At most 32, in case of a loop.
pub fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let next = |error: &&'a (dyn StdError + 'static)| -> Option<&'a (dyn StdError + 'static)> {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(carried) => Some(carried),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), next).take(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_on_a_certificate_is_found_inside_an_io_error() {
        let verdict = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let carried = std::io::Error::other(std::io::Error::other(verdict));
        assert_eq!(certificate_problem(&carried).as_deref(), Some("UnknownIssuer"));
        assert_eq!(certificate_problem(&std::io::Error::other("reset")), None);
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for pem in [&b""[..], b"not a certificate"] {
            let trust = Trust { ca: Some(pem.to_vec()), proxy_from_env: false };
            let error = Client::new(&trust, Duration::from_secs(1)).unwrap_err();
            assert!(matches!(error, NetError::BadCa { .. }), "{error}");
            assert!(!error.retry());
        }
    }
}
