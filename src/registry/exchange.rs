//! One request and its answer: credentials, redirects, plain HTTP, a wait that was asked for.
//!
//! A [`Talk`] is the conversation with one endpoint about one repository. Every request goes
//! through [`Talk::ask`]; how long all of it may take is the caller's affair.

use super::auth::{self, Session, Sessions, Wanted, header};
use super::challenge::{self, Challenge};
use super::docker::Login;
use super::error::RegistryError;
use super::mirrors::{Endpoint, Plain};
use super::page;
use crate::net::{self, Client};
use crate::secrets::Plaintext;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, Response};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use url::Url;

/// Redirects followed for one request.
const HOPS: usize = 5;

/// Longest wait that a registry may ask for within one request; a longer one is an error, and the
/// next scan comes later.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Such waits for one request.
const WAITS: usize = 3;

/// Bytes read of an answer that is an error.
const COMPLAINT_LIMIT: usize = 64 << 10;

/// Hosts that turned out to speak plain HTTP, where that is allowed; a handful on one box.
pub(super) type Plainly = Mutex<HashSet<String>>;

/// The conversation with one endpoint about one repository.
pub(super) struct Talk<'a> {
    pub sessions: &'a Sessions,
    pub plainly: &'a Plainly,
    pub client: Client,
    pub endpoint: Endpoint,
    pub login: Option<Login>,
    /// When all of it must be over.
    pub deadline: Instant,
}

impl Talk<'_> {
    /// An address below the repository, say `tags/list`.
    pub fn url(&self, below: &str) -> Url {
        let mut url = self.endpoint.base.clone();
        let path = format!("{}/{}/{below}", url.path().trim_end_matches('/'), self.endpoint.path);
        url.set_path(&path);
        if let Some(registry) = &self.endpoint.mirrored {
            // As containerd tells a mirror whom it stands in for.
            let name = if registry == super::reference::HUB { "docker.io" } else { registry };
            url.query_pairs_mut().append_pair("ns", name);
        }
        url
    }

    /// Sends a request, with credentials where the registry wants them. Any answer but a redirect,
    /// a refusal of the credentials and a plea for fewer requests is the caller's to judge.
    pub async fn ask(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response, RegistryError> {
        let headers: HeaderMap = headers.iter().cloned().collect();
        let mut url = url.clone();
        let (mut asked_for_proof, mut waits) = (false, 0);
        loop {
            self.take_plain_way(&mut url);
            let authorization = self.authorization().await?;
            let sent = follow(&self.client, method.clone(), &url, &headers, authorization).await;
            let answer = match sent {
                Ok(answer) => answer,
                Err(error) if self.falls_back(&error, &url) => {
                    self.fall_back(&method, &mut url, &headers, error).await?
                }
                Err(error) => return Err(error),
            };
            match answer.status().as_u16() {
                401 if !asked_for_proof => {
                    asked_for_proof = true;
                    self.challenged(answer).await?;
                }
                401 => return Err(self.refused(answer).await),
                429 | 503
                    if answer.headers().contains_key(RETRY_AFTER) || answer.status() == 429 =>
                {
                    self.wait(answer, &mut waits).await?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Whatever else a registry answers, as an error; `tag` is what was looked for, if it was one.
    pub async fn unexpected(&self, answer: Response, tag: Option<&str>) -> RegistryError {
        let status = answer.status().as_u16();
        let found = content_type(&answer);
        let cause = words_of(answer, &self.secrets()).await;
        let registry = self.name();
        let path = self.endpoint.path.clone();
        match status {
            403 => RegistryError::Denied { registry, path, cause },
            _ if cause.is_empty() && found.as_deref().is_some_and(is_page) => {
                let found = format!(
                    "{} and HTTP status {status}",
                    page::words(&found.unwrap_or_default(), 60)
                );
                RegistryError::WrongContentType { registry, found }
            }
            404 => match tag {
                Some(tag) if !cause.starts_with("NAME_UNKNOWN") => {
                    RegistryError::NoSuchTag { registry, path, tag: tag.to_owned() }
                }
                _ => RegistryError::NoSuchRepository { registry, path },
            },
            _ => RegistryError::Status { registry, status, cause },
        }
    }

    /// The endpoint as messages name it.
    pub fn name(&self) -> String {
        match &self.endpoint.mirrored {
            Some(_) => format!("mirror {}", self.endpoint.host),
            None => self.endpoint.host.clone(),
        }
    }

    /// An answer that the protocol does not have.
    pub fn protocol(&self, cause: String) -> RegistryError {
        RegistryError::Protocol { registry: self.name(), cause }
    }

    fn key(&self) -> auth::Key {
        auth::key(&self.endpoint.base, &self.endpoint.path, self.login.as_ref())
    }

    fn secrets(&self) -> Vec<Plaintext> {
        let mut all = self.login.as_ref().map(Login::secrets).unwrap_or_default();
        if let Some(Session::Bearer { token, .. }) = self.sessions.get(&self.key()) {
            all.push(token);
        }
        all
    }

    /// The header that this registry wants, as far as that is known.
    async fn authorization(&mut self) -> Result<Option<HeaderValue>, RegistryError> {
        let login = self.login.as_ref();
        match self.sessions.get(&self.key()) {
            None => Ok(None),
            Some(Session::Basic) => {
                Ok(login.and_then(Login::basic).and_then(|basic| header("Basic", &basic)))
            }
            Some(Session::Given) => {
                let token = login.and_then(|login| login.registry_token.as_ref());
                Ok(token.and_then(|token| header("Bearer", token)))
            }
            Some(Session::Bearer { token, until, .. }) if Instant::now() < until => {
                Ok(header("Bearer", &token))
            }
            Some(Session::Bearer { challenge, .. }) => self.fetch(challenge).await,
        }
    }

    /// Learns from a refusal how to prove who we are.
    async fn challenged(&mut self, answer: Response) -> Result<(), RegistryError> {
        let values = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let challenge = challenge::choose(&values).map_err(|cause| self.protocol(cause))?;
        let registry = self.name();
        if self.login.is_some()
            && self.endpoint.base.scheme() == "http"
            && self.endpoint.plain != Plain::Yes
        {
            return Err(RegistryError::PlainCredentials { registry });
        }
        let login = self.login.as_ref();
        if login.is_some_and(|login| login.registry_token.is_some()) {
            self.sessions.put(self.key(), Session::Given);
            return Ok(());
        }
        match challenge {
            Challenge::Basic => {
                if login.and_then(Login::basic).is_none() {
                    let path = self.endpoint.path.clone();
                    return Err(RegistryError::CredentialsMissing { registry, path });
                }
                self.sessions.put(self.key(), Session::Basic);
                Ok(())
            }
            bearer => self.fetch(bearer).await.map(|_| ()),
        }
    }

    /// Gets a token and remembers it.
    async fn fetch(&mut self, challenge: Challenge) -> Result<Option<HeaderValue>, RegistryError> {
        let Challenge::Bearer { realm, service, scope } = &challenge else { return Ok(None) };
        if realm.scheme() != "https" && self.endpoint.base.scheme() == "https" {
            let cause = format!("its token service {} has no TLS", address(realm));
            return Err(RegistryError::Astray { registry: self.name(), cause });
        }
        let registry = self.name();
        let wanted = Wanted {
            registry: &registry,
            path: &self.endpoint.path,
            realm,
            service: service.as_deref(),
            scope: scope.as_deref(),
            login: self.login.as_ref(),
        };
        let given = match auth::token(&self.client, &wanted).await {
            Ok(given) => given,
            Err(error) => {
                self.sessions.forget(&self.key());
                return Err(error);
            }
        };
        let line = header("Bearer", &given.token);
        let (token, until) = (given.token, Instant::now() + given.lives);
        self.sessions.put(self.key(), Session::Bearer { challenge, token, until });
        Ok(line)
    }

    /// A second refusal: what was sent does not count here.
    async fn refused(&self, answer: Response) -> RegistryError {
        let cause = words_of(answer, &self.secrets()).await;
        self.sessions.forget(&self.key());
        let registry = self.name();
        match self.login {
            None => {
                let path = self.endpoint.path.clone();
                RegistryError::CredentialsMissing { registry, path }
            }
            Some(_) => {
                let cause = if cause.is_empty() { "HTTP status 401".to_owned() } else { cause };
                RegistryError::CredentialsRefused { registry, cause }
            }
        }
    }

    /// Waits as long as the registry asks for, if that fits.
    async fn wait(&self, answer: Response, waits: &mut usize) -> Result<(), RegistryError> {
        let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = said.and_then(|said| page::retry_after(said, jiff::Timestamp::now()));
        let too_long = |after: Duration| {
            after > LONGEST_WAIT || Instant::now() + after >= self.deadline || *waits >= WAITS
        };
        match after {
            Some(after) if !too_long(after) => {
                *waits += 1;
                tokio::time::sleep(after).await;
                Ok(())
            }
            _ if answer.status() == 429 => {
                Err(RegistryError::RateLimited { registry: self.name(), after })
            }
            _ => Err(self.unexpected(answer, None).await),
        }
    }

    /// Goes the plain way at once where that was found to be the one.
    fn take_plain_way(&mut self, url: &mut Url) {
        let known = self.plainly.lock().is_ok_and(|hosts| hosts.contains(&self.endpoint.host));
        if known && self.endpoint.plain != Plain::No {
            set_plain(&mut self.endpoint.base);
            set_plain(url);
        }
    }

    fn falls_back(&self, error: &RegistryError, url: &Url) -> bool {
        // A certificate, trusted or not, comes from a server that speaks TLS.
        let no_tls = matches!(error, RegistryError::Unreachable { .. });
        no_tls && self.endpoint.plain != Plain::No && url.scheme() == "https"
    }

    /// Tries plain HTTP; where that fails as well, the first error is the one to tell.
    async fn fall_back(
        &mut self,
        method: &Method,
        url: &mut Url,
        headers: &HeaderMap,
        first: RegistryError,
    ) -> Result<Response, RegistryError> {
        let mut plain = url.clone();
        set_plain(&mut plain);
        // Without credentials: what may be sent is known once the answer is there.
        let answer = follow(&self.client, method.clone(), &plain, headers, None).await;
        let answer = match answer {
            // What a TLS server says to a plain greeting: its own refusal was the first error.
            Ok(answer) if answer.status() == 400 => return Err(first),
            Ok(answer) => answer,
            Err(RegistryError::Unreachable { .. }) => return Err(first),
            Err(error) => return Err(error),
        };
        if let Ok(mut hosts) = self.plainly.lock() {
            hosts.insert(self.endpoint.host.clone());
        }
        set_plain(&mut self.endpoint.base);
        *url = plain;
        Ok(answer)
    }
}

/// Sends a request and follows its redirects. `authorization` goes to the first address's scheme,
/// host and port only; from TLS no redirect leads to plain HTTP.
pub(super) async fn follow(
    client: &Client,
    method: Method,
    url: &Url,
    headers: &HeaderMap,
    authorization: Option<HeaderValue>,
) -> Result<Response, RegistryError> {
    let mut at = url.clone();
    for _ in 0..=HOPS {
        let mut request =
            client.http().request(method.clone(), at.clone()).headers(headers.clone());
        if at.origin() == url.origin()
            && let Some(authorization) = &authorization
        {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let failed = |error| RegistryError::of_net(&address(&at), net::failed(error));
        let answer = request.send().await.map_err(failed)?;
        if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(answer);
        }
        let astray = |cause: String| RegistryError::Astray { registry: address(url), cause };
        let target = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = target.and_then(|target| at.join(target).ok());
        let next = next.filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host());
        let Some(next) = next else {
            return Err(astray("a redirect without a usable address".into()));
        };
        if at.scheme() == "https" && next.scheme() == "http" {
            return Err(astray(format!("a redirect from TLS to http://{}", address(&next))));
        }
        at = next;
    }
    let cause = format!("more than {HOPS} redirects, the last to {}", address(&at));
    Err(RegistryError::Astray { registry: address(url), cause })
}

/// What an answer says about a failure, without anything that we sent.
pub(super) async fn words_of(answer: Response, secrets: &[Plaintext]) -> String {
    let Ok(body) = net::read_limited(answer, COMPLAINT_LIMIT).await else { return String::new() };
    let mut text = page::complaint(&body);
    for secret in secrets {
        let secret = String::from_utf8_lossy(secret.expose());
        text = text.replace(&*secret, "***");
    }
    text
}

/// Host and port of an address, the port where it is not the usual one.
pub(super) fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// The content type as the server wrote it.
pub(super) fn content_type(answer: &Response) -> Option<String> {
    let value = answer.headers().get(reqwest::header::CONTENT_TYPE)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The headers of a request that accepts these.
pub(super) fn accept(kinds: &'static str) -> (HeaderName, HeaderValue) {
    (ACCEPT, HeaderValue::from_static(kinds))
}

fn is_page(content_type: &str) -> bool {
    content_type.trim().to_ascii_lowercase().starts_with("text/html")
}

/// `https` to `http`; the url crate allows it for any address that has a host.
fn set_plain(url: &mut Url) {
    let _ = url.set_scheme("http");
}
