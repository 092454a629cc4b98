//! The one outbound HTTP client: TLS, private CA, proxy, limits.
//!
//! [`install_crypto`] makes ring the process's TLS provider; every entry here calls it, so that no
//! order of start-up can forget it. [`Client`] serves asynchronous callers (remote bases,
//! registries, Cloudflare); [`configure_blocking`] applies the same [`Trust`] and limits to the
//! blocking client that Git's transport builds for itself.
//!
//! A private CA is added to the system's roots, as Flux does with `ca.crt`. A server certificate
//! that is itself in the bundle is believed, as Go does and rustls does not: what `openssl req
//! -x509` makes is a CA that serves. Name and dates are checked as ever. A client certificate is
//! shown to any server that asks for one; that proves who we are and gives nothing away. Proxies
//! named in the environment are ignored unless [`Trust::proxy_from_env`] is set: a daemon should
//! not change its routes because of a stray variable.

mod error;
mod tls;
mod trust;

pub use error::{NetError, causes, certificate_problem, innermost, remedy};
pub use trust::{ClientCertificate, Proxy, Trust};

use std::sync::Once;
use std::time::Duration;
use tls::tls;

/// Limit of one connection attempt, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

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
        Client::build(builder(), trust, timeout)
    }

    /// The same, but an answer that redirects is handed to the caller, who knows which
    /// credentials may go where.
    pub fn without_redirects(trust: &Trust, timeout: Duration) -> Result<Self, NetError> {
        Client::build(builder().redirect(reqwest::redirect::Policy::none()), trust, timeout)
    }

    fn build(
        builder: reqwest::ClientBuilder,
        trust: &Trust,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        install_crypto();
        let mut builder = builder.connect_timeout(CONNECT_TIMEOUT.min(timeout)).timeout(timeout);
        builder = match proxy(trust)? {
            Some(proxy) => builder.proxy(proxy),
            None if trust.proxy_from_env => builder,
            None => builder.no_proxy(),
        };
        if let Some(tls) = tls(trust)? {
            builder = builder.tls_backend_preconfigured(tls);
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
    builder = match proxy(trust)? {
        Some(proxy) => builder.proxy(proxy),
        None if trust.proxy_from_env => builder,
        None => builder.no_proxy(),
    };
    if let Some(tls) = tls(trust)? {
        builder = builder.tls_backend_preconfigured(tls);
    }
    Ok(builder)
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().user_agent(concat!("gitopsd/", env!("CARGO_PKG_VERSION")))
}

/// The proxy that was named, for every request.
fn proxy(trust: &Trust) -> Result<Option<reqwest::Proxy>, NetError> {
    let Some(Proxy { address, login }) = &trust.proxy else { return Ok(None) };
    let bad = |error: reqwest::Error| NetError::BadProxy { cause: innermost(&error.without_url()) };
    let mut proxy = reqwest::Proxy::all(address).map_err(bad)?;
    if let Some((user, password)) = login {
        // Read from text by `Proxy::from_secret`.
        proxy = proxy.basic_auth(user, &String::from_utf8_lossy(password.expose()));
    }
    Ok(Some(proxy))
}

/// Names what made a request fail.
pub fn failed(error: reqwest::Error) -> NetError {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let error = error.without_url();
    match certificate_problem(&error) {
        Some(cause) => NetError::CertificateUntrusted { host, cause },
        None if error.is_timeout() => NetError::Unreachable { host, cause: "timed out".into() },
        None => NetError::Unreachable { host, cause: innermost(&error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for pem in [&b""[..], b"not a certificate"] {
            let trust = Trust { ca: Some(pem.to_vec()), ..Trust::default() };
            let error = Client::new(&trust, Duration::from_secs(1)).unwrap_err();
            assert!(matches!(error, NetError::BadCa { .. }), "{error}");
            assert!(!error.retry());
        }
    }
}
