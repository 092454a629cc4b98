//! Pure: what can go wrong between us and an HTTP server, and in which words it is told.

use rustls::CertificateError;
use std::error::Error as StdError;

/// What can go wrong between us and an HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The CA bundle cannot be read.
    #[error("the CA bundle is not usable: {cause}")]
    BadCa {
        /// What is wrong with it.
        cause: String,
    },
    /// The client certificate or its key cannot be used.
    #[error("the client certificate is not usable: {cause}")]
    BadCertificate {
        /// What is wrong with it.
        cause: String,
    },
    /// The Secret of a proxy cannot be used.
    #[error("the proxy is not usable: {cause}")]
    BadProxy {
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
            NetError::BadCertificate { .. } => {
                Some("the Secret needs ca.crt, or tls.crt and tls.key, or all three, in PEM".into())
            }
            NetError::BadProxy { .. } => {
                Some("the Secret needs address, and username and password where wanted".into())
            }
            _ => None,
        }
    }
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

/// Whether a certificate was refused for being a CA's.
pub(super) fn is_ca(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity")
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
}
