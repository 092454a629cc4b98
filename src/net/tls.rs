//! TLS: which server certificates are believed.

use super::error::{NetError, is_ca};
use super::trust::{ClientCertificate, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// TLS by what a [`Trust`] says, or nothing where reqwest's own does: that believes the system's
/// CAs and shows no certificate.
pub(super) fn tls(trust: &Trust) -> Result<Option<rustls::ClientConfig>, NetError> {
    if trust.ca.is_none() && trust.certificate.is_none() && !trust.unverified {
        return Ok(None);
    }
    let setup = |error: rustls::Error| NetError::Setup { cause: error.to_string() };
    let bundle = trust.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = Verifier::new_with_extra_roots(bundle.clone(), provider.clone())
        .map_err(|error| NetError::BadCa { cause: error.to_string() })?;
    let unverified = trust.unverified;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Bundled { inner, bundle, unverified }));
    let mut config = match &trust.certificate {
        None => config.with_no_client_auth(),
        Some(ClientCertificate { chain, key }) => {
            let bad = |cause: String| NetError::BadCertificate { cause };
            let chain = certificates(chain).map_err(|error| match error {
                NetError::BadCa { cause } => bad(format!("tls.crt: {cause}")),
                other => other,
            })?;
            // The parser's words could quote a piece of the key.
            let key = PrivateKeyDer::from_pem_slice(key.expose())
                .map_err(|_| bad("tls.key holds no private key in PEM".into()))?;
            config.with_client_auth_cert(chain, key).map_err(|error| bad(error.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(config))
}

/// Believes what the bundle's CAs have signed, and the bundle's own certificates.
#[derive(Debug)]
struct Bundled {
    inner: Verifier,
    bundle: Vec<CertificateDer<'static>>,
    /// Any certificate will do.
    unverified: bool,
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
        if self.unverified {
            return Ok(ServerCertVerified::assertion());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{certificate_problem, remedy};
    use std::time::Duration;

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
        let verifier = Bundled { inner, bundle, unverified: false };
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
}
