//! Tokens and passwords: what a registry wanted last time, and how a token is had.
//!
//! What a registry wanted is remembered by endpoint, path and login, so that a later scan sends
//! the right header at once; a token counts until it expires or is refused. Nothing of it outlives
//! the process.

use super::challenge::{self, Challenge, Token};
use super::docker::Login;
use super::error::RegistryError;
use super::exchange::{address, follow, words_of};
use crate::net::{self, Client};
use crate::secrets::Plaintext;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;
use url::{Url, form_urlencoded};

/// Remembered at most: far more than one box has repositories. Beyond it all are asked anew.
const SESSIONS: usize = 1024;

/// Bytes of a token service's answer; tokens of 10 KiB have been seen.
const ANSWER_LIMIT: usize = 256 << 10;

/// What a registry wanted last time, for one endpoint, path and login.
#[derive(Clone)]
pub(super) enum Session {
    Basic,
    /// The token that the Secret holds.
    Given,
    Bearer {
        challenge: Challenge,
        token: Plaintext,
        until: Instant,
    },
}

/// Names a session without holding a secret.
pub(super) type Key = [u8; 32];

/// All sessions of a process.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Key, Session>>);

impl Sessions {
    pub fn get(&self, key: &Key) -> Option<Session> {
        self.lock().get(key).cloned()
    }

    pub fn put(&self, key: Key, session: Session) {
        let mut all = self.lock();
        if all.len() >= SESSIONS && !all.contains_key(&key) {
            all.clear();
        }
        all.insert(key, session);
    }

    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Session>> {
        // Nothing panics while it holds the lock; a map is whole at any moment anyway.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The key of what `login` gets at `base` for `path`.
pub(super) fn key(base: &Url, path: &str, login: Option<&Login>) -> Key {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(base.as_str().as_bytes());
    add(path.as_bytes());
    for part in login.iter().flat_map(|login| login.secrets()) {
        add(part.expose());
    }
    hash.finalize().into()
}

/// `Basic …` or `Bearer …`, marked so that no debug output shows it. None where it cannot be a
/// header, which was refused when it was read.
pub(super) fn header(scheme: &str, value: &Plaintext) -> Option<HeaderValue> {
    let line = Plaintext::new([scheme.as_bytes(), b" ", value.expose()].concat());
    let mut header = HeaderValue::from_bytes(line.expose()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// What a token is asked for with.
pub(super) struct Wanted<'a> {
    /// The registry that sent us.
    pub registry: &'a str,
    /// Path of the repository, in the registry's own words where it used others.
    pub path: &'a str,
    pub realm: &'a Url,
    pub service: Option<&'a str>,
    pub scope: Option<&'a str>,
    pub login: Option<&'a Login>,
}

/// Gets a token from the service that a challenge names.
pub(super) async fn token(client: &Client, wanted: &Wanted<'_>) -> Result<Token, RegistryError> {
    let scope = challenge::scope(wanted.scope, wanted.path);
    let service = address(wanted.realm);
    let identity = wanted.login.and_then(|login| login.identity_token.as_ref());
    let answer = match identity {
        Some(identity) => refresh(client, wanted, &scope, identity).await?,
        None => {
            let url = asking(wanted, &scope);
            let basic = wanted.login.and_then(Login::basic);
            let authorization = basic.and_then(|basic| header("Basic", &basic));
            follow(client, Method::GET, &url, &HeaderMap::new(), authorization).await?
        }
    };
    let status = answer.status().as_u16();
    if status == 200 {
        let unreadable = |error| RegistryError::of_net(&service, error);
        let body = net::read_limited(answer, ANSWER_LIMIT).await.map_err(unreadable)?;
        let body = Plaintext::new(body);
        return challenge::token(body.expose()).map_err(|cause| RegistryError::Protocol {
            registry: service,
            cause: format!("as a token service: {cause}"),
        });
    }
    let secrets = wanted.login.map(Login::secrets).unwrap_or_default();
    let cause = words_of(answer, &secrets).await;
    let registry = wanted.registry.to_owned();
    Err(match (status, wanted.login) {
        (400 | 401 | 403, Some(_)) => {
            let said = if cause.is_empty() { String::new() } else { format!(" ({cause})") };
            let cause = format!("its token service {service} answered HTTP status {status}{said}");
            RegistryError::CredentialsRefused { registry, cause }
        }
        (401 | 403, None) => {
            RegistryError::CredentialsMissing { registry, path: wanted.path.to_owned() }
        }
        (429, _) => RegistryError::RateLimited { registry: service, after: None },
        _ => RegistryError::Status { registry: service, status, cause },
    })
}

/// The realm with what is asked for.
fn asking(wanted: &Wanted<'_>, scope: &str) -> Url {
    let mut url = wanted.realm.clone();
    url.query_pairs_mut()
        .extend_pairs(wanted.service.map(|service| ("service", service)))
        .append_pair("scope", scope);
    url
}

/// OAuth 2: an identity token is a refresh token.
async fn refresh(
    client: &Client,
    wanted: &Wanted<'_>,
    scope: &str,
    identity: &Plaintext,
) -> Result<reqwest::Response, RegistryError> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "gitopsd")
        .append_pair("scope", scope)
        .extend_pairs(wanted.service.map(|service| ("service", service)))
        .append_pair("refresh_token", &String::from_utf8_lossy(identity.expose()))
        .finish();
    let request = client
        .http()
        .post(wanted.realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(form);
    let failed = |error| RegistryError::of_net(&address(wanted.realm), net::failed(error));
    request.send().await.map_err(failed)
}
