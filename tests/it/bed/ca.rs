//! A private CA and what it signs: certificates of servers on loopback, and of clients.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::sync::Arc;

/// A CA of the test's own.
pub struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate and its key, both PEM.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Ca {
        let make = || -> Result<Ca, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let pem = params.self_signed(&key)?.pem();
            Ok(Ca { params, key, pem })
        };
        make().expect("ring makes keys and certificates")
    }

    /// The CA's own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's, for 127.0.0.1 and localhost.
    pub fn server(&self) -> Signed {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's.
    pub fn client(&self, name: &str) -> Signed {
        self.sign(vec![name.to_owned()], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: Vec<String>, purpose: ExtendedKeyUsagePurpose) -> Signed {
        let make = || -> Result<Signed, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(names)?;
            params.extended_key_usages = vec![purpose];
            let issuer = Issuer::from_params(&self.params, &self.key);
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok(Signed { certificate, key: key.serialize_pem() })
        };
        make().expect("ring makes keys and certificates")
    }
}

impl Signed {
    /// TLS for a server of ours that asks its clients for nothing.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("rcgen writes PEM")],
                key.expect("rcgen writes PEM"),
            )
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }
}
