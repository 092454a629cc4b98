//! Pure: the data of a Git Secret as typed credentials (Flux: GitRepository, Secret).
//!
//! Which keys count follows from the URL's scheme, as in Flux. What Flux would understand and we
//! do not yet (client certificates, GitHub Apps) is refused by name: going on without it would
//! end in an error that blames the wrong thing. Errors name keys, never values.

use super::error::{SourceError, split_userinfo};
use crate::secrets::Plaintext;
use std::collections::BTreeMap;

/// How we prove who we are, and whose certificates we believe.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// The proof.
    pub auth: Auth,
    /// PEM bundle from `ca.crt`, believed beside the system's own.
    pub ca: Option<Vec<u8>>,
}

/// One way to prove who we are.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// None: a public repository.
    #[default]
    None,
    /// User and password or access token, for https (and http, as in Flux).
    Basic {
        /// The user, never empty.
        user: String,
        /// Password or token.
        password: Plaintext,
    },
    /// `Authorization: Bearer`, for https.
    Bearer(Plaintext),
    /// Key and known hosts, for ssh.
    Ssh {
        /// Private key in OpenSSH or PEM form.
        identity: Plaintext,
        /// Lines of `known_hosts`.
        known_hosts: Vec<u8>,
        /// Passphrase of the key.
        password: Option<Plaintext>,
    },
}

impl Credential {
    /// Reads the decoded `data` of the Secret that belongs to `url`; an empty map means no Secret.
    ///
    /// User and password in the URL count when the Secret has neither, as in Flux.
    pub fn from_secret(
        url: &str,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Credential, SourceError> {
        if let Some(key) = data.keys().find(|key| key.starts_with("githubApp")) {
            return refuse(&format!("{key}: GitHub Apps are not supported yet, use a token"));
        }
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("ssh") => ssh(data),
            Some("http" | "https") => http(url, data),
            _ => refuse("the URL must begin with https://, http:// or ssh://"),
        }
    }
}

fn ssh(data: &BTreeMap<String, Vec<u8>>) -> Result<Credential, SourceError> {
    let identity = required(data, "identity", "ssh")?;
    let known_hosts = required(data, "known_hosts", "ssh")?;
    if !contains(&identity, b"PRIVATE KEY-----") {
        return refuse("identity is not a private key");
    }
    let password = said(data, "password").map(Plaintext::new);
    let auth = Auth::Ssh { identity: Plaintext::new(identity), known_hosts, password };
    Ok(Credential { auth, ca: None })
}

fn http(url: &str, data: &BTreeMap<String, Vec<u8>>) -> Result<Credential, SourceError> {
    // The legacy spelling loses, as in Flux.
    let ca = said(data, "ca.crt").or_else(|| said(data, "caFile"));
    if said(data, "tls.crt").is_some() || said(data, "tls.key").is_some() {
        return refuse("tls.crt and tls.key: client certificates are not supported yet");
    }
    let user = said(data, "username");
    let password = said(data, "password");
    let token = said(data, "bearerToken");
    let auth = match (user, password, token) {
        (None, Some(_), None) => return refuse("password is there, but username is missing"),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            return refuse("bearerToken excludes username and password");
        }
        (None, None, Some(token)) => {
            header_safe("bearerToken", &token)?;
            Auth::Bearer(Plaintext::new(token))
        }
        (Some(user), password, None) => {
            let password = password.unwrap_or_default();
            header_safe("username", &user)?;
            header_safe("password", &password)?;
            let user = text("username", user)?;
            if user.contains(':') {
                return refuse("username must not contain a colon");
            }
            Auth::Basic { user, password: Plaintext::new(text("password", password)?.into()) }
        }
        (None, None, None) => from_url(url)?,
    };
    Ok(Credential { auth, ca })
}

/// `https://user:password@host/`; a user alone is a token, as with git itself.
fn from_url(url: &str) -> Result<Auth, SourceError> {
    let Some((_, userinfo, _)) = split_userinfo(url) else { return Ok(Auth::None) };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let user = text("the URL's user", unescape(user))?;
    let password = text("the URL's password", unescape(password))?;
    if user.is_empty() {
        return Ok(Auth::None);
    }
    Ok(Auth::Basic { user, password: Plaintext::new(password.into()) })
}

/// The value of a key, empty values counting as absent.
fn said(data: &BTreeMap<String, Vec<u8>>, key: &str) -> Option<Vec<u8>> {
    data.get(key).filter(|value| !value.is_empty()).cloned()
}

fn required(
    data: &BTreeMap<String, Vec<u8>>,
    key: &str,
    scheme: &str,
) -> Result<Vec<u8>, SourceError> {
    match said(data, key) {
        Some(value) => Ok(value),
        None if data.is_empty() => {
            refuse("an ssh URL needs a Secret with the keys identity and known_hosts")
        }
        None => refuse(&format!("{key} is missing, which an {scheme} URL needs")),
    }
}

/// A line break at the end comes from `echo` into a file and ends as a refusal by the server that
/// nobody can explain; it is named here instead.
fn header_safe(key: &str, value: &[u8]) -> Result<(), SourceError> {
    if value.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return refuse(&format!("{key} contains a line break (written with echo? use echo -n)"));
    }
    Ok(())
}

fn text(key: &str, value: Vec<u8>) -> Result<String, SourceError> {
    match String::from_utf8(value) {
        Ok(text) => Ok(text),
        Err(_) => refuse(&format!("{key} is not UTF-8 text")),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn refuse<T>(cause: &str) -> Result<T, SourceError> {
    Err(SourceError::InvalidCredential { cause: cause.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let shown = |plain: &Plaintext| String::from_utf8_lossy(plain.expose()).into_owned();
        let credential = match Credential::from_secret(url, &data) {
            Ok(credential) => credential,
            Err(SourceError::InvalidCredential { cause }) => return Err(cause),
            Err(other) => panic!("{other}"),
        };
        let auth = match &credential.auth {
            Auth::None => "none".into(),
            Auth::Basic { user, password } => format!("basic {user} {}", shown(password)),
            Auth::Bearer(token) => format!("bearer {}", shown(token)),
            Auth::Ssh { password, .. } => format!("ssh {:?}", password.as_ref().map(shown)),
        };
        let ca = credential.ca.map(|ca| format!(" ca {}", String::from_utf8_lossy(&ca)));
        Ok(auth + &ca.unwrap_or_default())
    }

    #[test]
    fn the_keys_that_count_follow_from_the_scheme() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----";
        for (url, pairs, expected) in [
            ("https://h/r", &[][..], "none"),
            ("https://h/r", &[("username", "u"), ("password", "p")], "basic u p"),
            ("http://h/r", &[("username", "u"), ("password", "p")], "basic u p"),
            ("https://h/r", &[("username", "token")], "basic token "),
            ("https://h/r", &[("bearerToken", "t")], "bearer t"),
            (
                "https://h/r",
                &[("identity", key), ("ca.crt", "new"), ("caFile", "old")],
                "none ca new",
            ),
            ("https://h/r", &[("caFile", "old")], "none ca old"),
            ("https://a:b%40c@h/r", &[], "basic a b@c"),
            ("https://a:b@h/r", &[("username", "u"), ("password", "p")], "basic u p"),
            ("ssh://git@h/r", &[("identity", key), ("known_hosts", "h k")], "ssh None"),
            (
                "ssh://h/r",
                &[("identity", key), ("known_hosts", "h k"), ("password", "p")],
                "ssh Some(\"p\")",
            ),
        ] {
            assert_eq!(read(url, pairs).as_deref(), Ok(expected), "{url} {pairs:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_the_key_that_is_wrong() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----";
        for (url, pairs, expected) in [
            ("https://h/r", &[("password", "p")][..], "username is missing"),
            ("https://h/r", &[("username", "u"), ("bearerToken", "t")], "bearerToken excludes"),
            ("https://h/r", &[("bearerToken", "t\n")], "bearerToken contains a line break"),
            ("https://h/r", &[("tls.crt", "c"), ("tls.key", "k")], "not supported yet"),
            ("https://h/r", &[("githubAppID", "1")], "GitHub Apps are not supported"),
            ("ssh://h/r", &[], "needs a Secret"),
            ("ssh://h/r", &[("identity", key)], "known_hosts is missing"),
            ("ssh://h/r", &[("known_hosts", "h k")], "identity is missing"),
            ("ssh://h/r", &[("identity", "x"), ("known_hosts", "h")], "not a private key"),
        ] {
            let cause = read(url, pairs).unwrap_err();
            assert!(cause.contains(expected), "{url} {pairs:?}: {cause}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let data =
            [("username".to_owned(), b"u".to_vec()), ("password".to_owned(), b"hunter2".to_vec())];
        let credential = Credential::from_secret("https://h/r", &data.into()).unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
