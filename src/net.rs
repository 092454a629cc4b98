//! The one outbound HTTP client: TLS, private CA, proxy, limits.
//!
//! [`install_crypto`] makes ring the process's TLS provider; every entry here calls it, so that no
//! order of start-up can forget it. [`Client`] serves asynchronous callers (remote bases,
//! registries, Cloudflare); [`configure_blocking`] applies the same [`Trust`] and limits to the
//! blocking client that Git's transport builds for itself.
//!
//! A private CA is added to the system's roots, as Flux does with `ca.crt`. Proxies named in the
//! environment are ignored unless [`Trust::proxy_from_env`] is set: a daemon should not change
//! its routes because of a stray variable. A server certificate that is itself in the bundle is
//! believed, as Go does and rustls does not: what `openssl req -x509` makes is a CA that serves.
//! Name and dates are checked as ever. Not done yet: client certificates, and a proxy with its own
//! credentials.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::error::Error as StdError;
use std::sync::{Arc, Once};
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
            NetError::CertificateUntrusted { cause, .. } => Some(remedy(cause).into()),
            NetError::BadCa { .. } => {
                Some("root.credentials.caFile, or ca.crt of a Secret, must be PEM".into())
            }
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
            builder = builder.tls_backend_preconfigured(tls(ca)?);
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
        builder = builder.tls_backend_preconfigured(tls(ca)?);
    }
    Ok(builder)
}

/// TLS that believes the system's CAs and a bundle.
fn tls(ca: &[u8]) -> Result<rustls::ClientConfig, NetError> {
    let bundle = certificates(ca)?;
    let setup = |error: rustls::Error| NetError::Setup { cause: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = Verifier::new_with_extra_roots(bundle.clone(), provider.clone())
        .map_err(|error| NetError::BadCa { cause: error.to_string() })?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Bundled { inner, bundle }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Believes what the bundle's CAs have signed, and the bundle's own certificates.
#[derive(Debug)]
struct Bundled {
    inner: Verifier,
    bundle: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Bundled {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.inner.verify_server_cert(own, between, name, ocsp, now);
        let Err(rustls::Error::InvalidCertificate(why)) = &verdict else { return verdict };
        // Both verdicts come after the dates were found good: webpki looks at these first.
        let only_unsigned = is_ca(why) || *why == CertificateError::UnknownIssuer;
        if only_unsigned && self.bundle.iter().any(|known| known == own) {
            let parsed = rustls::server::ParsedCertificate::try_from(own)?;
            rustls::client::verify_server_name(&parsed, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether a certificate was refused for being a CA's.
fn is_ca(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity")
}

/// What helps against a certificate that is not trusted, by the cause that was told.
pub fn remedy(cause: &str) -> &'static str {
    if cause.contains("valid") || cause.contains("expired") {
        "check the clock of this host (timedatectl), then the dates of the certificate"
    } else if cause.contains("name") {
        "use the host name that the certificate is for in the URL"
    } else {
        "name the CA that signed it, or the certificate itself, in PEM: root.credentials.caFile \
         for the root repository, ca.crt of its Secret for another source"
    }
}

/// The certificates of a PEM bundle; an empty bundle is an error, since it was meant to hold some.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let bundle = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| NetError::BadCa { cause: error.to_string() })?;
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
        Some(rustls::Error::InvalidCertificate(verdict)) => Some(plain(verdict)),
        _ => None,
    })
}

/// A verdict in words of a person.
fn plain(verdict: &CertificateError) -> String {
    use CertificateError::*;
    let text = match verdict {
        UnknownIssuer => "it is signed by nobody that this host knows",
        Expired | ExpiredContext { .. } => "it has expired",
        NotValidYet | NotValidYetContext { .. } => "it is not valid yet",
        NotValidForName | NotValidForNameContext { .. } => "it is for another host name",
        other if is_ca(other) => "it is a CA's own, or self-signed, and not among the known ones",
        other => return other.to_string(),
    };
    text.to_owned()
}

/// The last cause in the chain, which is the one that tells something.
pub fn innermost(error: &(dyn StdError + 'static)) -> String {
    let words = causes(error).last().map(ToString::to_string).unwrap_or_default();
    // rustls adds a link to its own manual, of no use to an operator.
    words.split(": https://docs.rs/").next().unwrap_or_default().to_owned()
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
        assert_eq!(
            certificate_problem(&carried).as_deref(),
            Some("it is signed by nobody that this host knows")
        );
        assert_eq!(certificate_problem(&std::io::Error::other("reset")), None);
    }

    /// A self-signed CA for a host, valid in the given years, as `openssl req -x509` makes one.
    fn self_signed(host: &str, years: (i32, i32)) -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = rcgen::KeyPair::generate().expect("ring makes keys");
        params.self_signed(&key).expect("ring signs")
    }

    #[test]
    fn a_server_certificate_in_the_bundle_is_believed_for_its_name_while_it_is_valid() {
        let good = self_signed("git.lan", (2020, 2099));
        let old = self_signed("git.lan", (2020, 2021));
        let other = self_signed("git.lan", (2020, 2099));
        let bundle = format!("{}{}", good.pem(), old.pem());
        let bundle = certificates(bundle.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner = Verifier::new_with_extra_roots(bundle.clone(), provider).expect("roots");
        let verifier = Bundled { inner, bundle };
        let verdict = |certificate: &rcgen::Certificate, host: &'static str| {
            let name = ServerName::try_from(host).expect("a name");
            let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
            let given = verifier.verify_server_cert(certificate.der(), &[], &name, &[], now);
            given.map(|_| ()).map_err(|error| certificate_problem(&error).unwrap_or_default())
        };
        assert_eq!(verdict(&good, "git.lan"), Ok(()));
        assert_eq!(verdict(&good, "other.lan").unwrap_err(), "it is for another host name");
        assert_eq!(verdict(&old, "git.lan").unwrap_err(), "it has expired");
        let foreign = verdict(&other, "git.lan").unwrap_err();
        assert_eq!(foreign, "it is a CA's own, or self-signed, and not among the known ones");
        assert!(remedy(&foreign).contains("root.credentials.caFile"));
        assert!(remedy("it has expired").contains("clock"));
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
