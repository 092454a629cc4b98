//! Pure: whom we believe, how we reach them, and the Secrets that say so (Flux: ImageRepository).
//!
//! Errors name the keys of a Secret, never their values.

use super::error::NetError;
use crate::secrets::Plaintext;
use std::collections::BTreeMap;

/// Longest address of a proxy, as Flux has it.
const ADDRESS_LIMIT: usize = 2048;

/// Whom we believe and how we reach them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM bundle of CAs accepted beside the system's own.
    pub ca: Option<Vec<u8>>,
    /// What we show to a server that asks who we are.
    pub certificate: Option<ClientCertificate>,
    /// The proxy for every request; the environment's does not count then.
    pub proxy: Option<Proxy>,
    /// Whether `HTTPS_PROXY` and its relatives are obeyed.
    pub proxy_from_env: bool,
    /// Any certificate is taken for good. Only where the operator wrote so for this very host
    /// (`insecure_skip_verify` in k3s's registries.yaml).
    pub unverified: bool,
}

/// A client certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate, then those between it and its CA.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Plaintext,
}

/// An HTTP, HTTPS or SOCKS5 proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://host:port`, without user and password.
    pub address: String,
    /// User and password.
    pub login: Option<(String, Plaintext)>,
}

impl Trust {
    /// Adds what a `certSecretRef` holds: `ca.crt`, and `tls.crt` with `tls.key`; the older names
    /// `caFile`, `certFile` and `keyFile` count where those are absent, as in Flux.
    pub fn add_certificates(&mut self, data: &BTreeMap<String, Vec<u8>>) -> Result<(), NetError> {
        let ca = said(data, ["ca.crt", "caFile"]);
        let chain = said(data, ["tls.crt", "certFile"]);
        let key = said(data, ["tls.key", "keyFile"]);
        let refuse = |cause: &str| Err(NetError::BadCertificate { cause: cause.to_owned() });
        self.certificate = match (chain, key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain, key: Plaintext::new(key) }),
            (None, None) => None,
            (Some(_), None) => return refuse("tls.crt is there, but tls.key is missing"),
            (None, Some(_)) => return refuse("tls.key is there, but tls.crt is missing"),
        };
        if ca.is_none() && self.certificate.is_none() {
            return refuse("the Secret has neither ca.crt nor tls.crt and tls.key");
        }
        self.ca = ca;
        Ok(())
    }

    /// Adds what a `proxySecretRef` holds.
    pub fn add_proxy(&mut self, data: &BTreeMap<String, Vec<u8>>) -> Result<(), NetError> {
        self.proxy = Some(Proxy::from_secret(data)?);
        Ok(())
    }
}

impl Proxy {
    /// Reads `address`, `username` and `password` (Flux: GitRepository, Proxy). User and password
    /// in the address count where the Secret has no `username`.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Proxy, NetError> {
        let refuse = |cause: &str| Err(NetError::BadProxy { cause: cause.to_owned() });
        let Some(address) = said(data, ["address", "address"]) else {
            return refuse("the key address is missing");
        };
        if address.len() > ADDRESS_LIMIT {
            return refuse("address is longer than 2048 bytes");
        }
        let Ok(address) = String::from_utf8(address) else {
            return refuse("address is not UTF-8 text");
        };
        let (mut address, inside) = part(address.trim());
        if !["http://", "https://", "socks5://"].iter().any(|known| address.starts_with(known)) {
            return refuse("address must begin with http://, https:// or socks5://");
        }
        address.truncate(address.trim_end_matches('/').len());
        let user = said(data, ["username", "username"]).map(String::from_utf8);
        let password = said(data, ["password", "password"]);
        let login = match (user, password) {
            (None, None) => inside,
            (None, Some(_)) => return refuse("password is there, but username is missing"),
            (Some(Err(_)), _) => return refuse("username is not UTF-8 text"),
            (Some(Ok(user)), password) => {
                let password = password.unwrap_or_default();
                if std::str::from_utf8(&password).is_err() {
                    return refuse("password is not UTF-8 text");
                }
                Some((user, Plaintext::new(password)))
            }
        };
        Ok(Proxy { address, login })
    }
}

/// An address and the login that was written into it.
fn part(address: &str) -> (String, Option<(String, Plaintext)>) {
    let whole = || (address.to_owned(), None);
    let Some((scheme, rest)) = address.split_once("://") else { return whole() };
    let Some((login, host)) = rest.rsplit_once('@') else { return whole() };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let login = (user.to_owned(), Plaintext::new(password.as_bytes().to_vec()));
    (format!("{scheme}://{host}"), Some(login))
}

/// The value of the first of two keys that is there and not empty.
fn said(data: &BTreeMap<String, Vec<u8>>, keys: [&str; 2]) -> Option<Vec<u8>> {
    keys.iter().filter_map(|key| data.get(*key)).find(|value| !value.is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
    }

    #[test]
    fn the_newer_keys_of_a_certificate_secret_win_and_halves_are_refused() {
        let mut trust = Trust::default();
        let all = [("ca.crt", "new"), ("caFile", "old"), ("certFile", "c"), ("tls.key", "k")];
        trust.add_certificates(&data(&all)).unwrap();
        let certificate = trust.certificate.as_ref().unwrap();
        assert_eq!(trust.ca.as_deref(), Some(&b"new"[..]));
        assert_eq!((&certificate.chain[..], certificate.key.expose()), (&b"c"[..], &b"k"[..]));
        for (pairs, expected) in [
            (&[("tls.crt", "c")][..], "tls.key is missing"),
            (&[("tls.key", "k")], "tls.crt is missing"),
            (&[("username", "u")], "neither ca.crt"),
        ] {
            let error = Trust::default().add_certificates(&data(pairs)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_proxy_comes_with_its_login_and_shows_no_password() {
        let read = |pairs: &[(&str, &str)]| Proxy::from_secret(&data(pairs));
        let login = |proxy: &Proxy| {
            let (user, password) = proxy.login.as_ref()?;
            Some(format!("{user}:{}", String::from_utf8_lossy(password.expose())))
        };
        for (pairs, address, expected) in [
            (&[("address", "http://p:3128/")][..], "http://p:3128", None),
            (&[("address", "socks5://a:hunter2@p:1080")], "socks5://p:1080", Some("a:hunter2")),
            (
                &[("address", "https://a:b@p"), ("username", "u"), ("password", "hunter2")],
                "https://p",
                Some("u:hunter2"),
            ),
        ] {
            let proxy = read(pairs).unwrap();
            assert_eq!((proxy.address.as_str(), login(&proxy).as_deref()), (address, expected));
            assert!(!format!("{proxy:?}").contains("hunter2"));
        }
        for (pairs, expected) in [
            (&[("username", "u")][..], "address is missing"),
            (&[("address", "p:3128")], "must begin with"),
            (&[("address", "http://p"), ("password", "hunter2")], "username is missing"),
        ] {
            let error = read(pairs).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
