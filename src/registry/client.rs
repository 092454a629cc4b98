//! Lists the tags of a repository and names the manifest behind a tag, mirrors first.
//!
//! Limits, each far above what a real repository has: a page of 8 MiB (1,000 tags are 130 KB at
//! their longest; some registries add a map of manifests), 64 MiB and 100,000 tags in all, and
//! 2,100 pages, since registries may serve as few as 50 tags at a time.

use super::auth::Sessions;
use super::docker::{DockerConfig, Login};
use super::error::RegistryError;
use super::exchange::{Plainly, Talk, accept, content_type};
use super::mirrors::{Endpoint, HostConfig, Mirrors};
use super::page;
use super::reference::{Repository, is_tag};
use crate::net::{self, Client, ClientCertificate, Trust};
use crate::secrets::Plaintext;
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LINK};
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use url::Url;

/// Tags asked for at a time, as Flux does.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 8 << 20;
const ALL_BYTES: usize = 64 << 20;
const TAGS: usize = 100_000;
const PAGES: usize = 2_100;

/// Pages in a row that may bring nothing new; some registries serve empty ones in between.
const BARREN: usize = 5;

/// A manifest is a few KiB; an index with many platforms some more. The protocol's own limit.
const MANIFEST_BYTES: usize = 4 << 20;

/// A certificate bundle or key that registries.yaml names.
const FILE_BYTES: u64 = 1 << 20;

/// Least time for a scan, as in Flux.
const LEAST: Duration = Duration::from_secs(1);

/// Bound of one request beside that of the whole scan.
const REQUEST: Duration = Duration::from_secs(600);

/// Connections by trust, kept at most; a box has a handful.
const CLIENTS: usize = 64;

/// Every kind of manifest that a tag may name; schema 1 is gone from every registry that lives.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.artifact.manifest.v1+json";

/// With what an ImageRepository is looked at.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// From `secretRef` or pull Secrets; registries.yaml counts where it has nothing.
    pub docker: Option<DockerConfig>,
    /// From `certSecretRef` and `proxySecretRef`.
    pub trust: Trust,
    /// `spec.insecure`: plain HTTP is allowed where HTTPS cannot be had.
    pub insecure: bool,
    /// Bounds the whole, authentication and mirrors included; at least one second.
    pub timeout: Duration,
}

/// What came of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The tags are those that the known validator stands for.
    Unchanged,
    /// All tags, each once, in the order of their bytes.
    Tags {
        /// The tags.
        tags: Vec<String>,
        /// What to come with next time.
        validator: Option<Validator>,
    },
}

/// Stands for a list of tags that was seen. Can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// Where the list came from: host and path, whatever the scheme.
    endpoint: String,
    /// The server's own word for it, where it has one and the list is one page.
    etag: Option<String>,
    /// SHA-256 over the sorted tags.
    digest: String,
}

/// The registries as this host sees them. One for the process: it holds connections and tokens.
#[derive(Default)]
pub struct Registry {
    mirrors: Mirrors,
    clients: Mutex<HashMap<[u8; 32], Client>>,
    sessions: Sessions,
    plainly: Plainly,
}

impl Registry {
    /// Registries behind these mirrors.
    pub fn new(mirrors: Mirrors) -> Registry {
        Registry { mirrors, ..Registry::default() }
    }

    /// Lists all tags, or says that they are the known ones.
    pub async fn tags(
        &self,
        repository: &Repository,
        access: &Access,
        known: Option<&Validator>,
    ) -> Result<Scan, RegistryError> {
        let mut walk = Walk::new(self, repository, access);
        while let Some((endpoint, until)) = walk.next() {
            let listed = async {
                list(&mut self.talk(endpoint.clone(), repository, access, until).await?, known)
                    .await
            };
            match walk.within(&endpoint, until, listed).await {
                Ok(scan) => return Ok(scan),
                Err(error) => self.failed(&mut walk, &endpoint, error),
            }
        }
        Err(walk.end())
    }

    /// The digest of the manifest or index that a tag names.
    pub async fn digest(
        &self,
        repository: &Repository,
        tag: &str,
        access: &Access,
    ) -> Result<String, RegistryError> {
        if !is_tag(tag) {
            let (registry, path) = (repository.registry().to_owned(), repository.path().to_owned());
            return Err(RegistryError::NoSuchTag { registry, path, tag: page::words(tag, 128) });
        }
        let mut walk = Walk::new(self, repository, access);
        while let Some((endpoint, until)) = walk.next() {
            let named = async {
                manifest(&mut self.talk(endpoint.clone(), repository, access, until).await?, tag)
                    .await
            };
            match walk.within(&endpoint, until, named).await {
                Ok(digest) => return Ok(digest),
                Err(error) => self.failed(&mut walk, &endpoint, error),
            }
        }
        Err(walk.end())
    }

    /// Notes a failure. The next scan tries TLS again, in case the registry has it by now.
    fn failed(&self, walk: &mut Walk, endpoint: &Endpoint, error: RegistryError) {
        if let Ok(mut hosts) = self.plainly.lock() {
            hosts.remove(&endpoint.host);
        }
        walk.failures.push(error);
    }

    /// Everything that a conversation with an endpoint needs.
    async fn talk(
        &self,
        endpoint: Endpoint,
        repository: &Repository,
        access: &Access,
        deadline: Instant,
    ) -> Result<Talk<'_>, RegistryError> {
        let written = self.mirrors.host(&endpoint.host);
        let docker = access.docker.as_ref();
        let of_host = || written.and_then(|(_, host)| host.login.as_ref());
        // What was given for a registry is not for its mirrors.
        let login: Option<&Login> = match endpoint.mirrored {
            None => docker.and_then(|docker| docker.login(repository)).or_else(of_host),
            Some(_) => {
                let named = || docker.and_then(|d| d.login_at(&endpoint.host, &endpoint.path));
                of_host().or_else(named)
            }
        };
        let mut trust = access.trust.clone();
        if endpoint.mirrored.is_some() {
            trust.certificate = None;
        }
        if let Some((key, host)) = written {
            add_files(&mut trust, key, host).await?;
        }
        let client = self.client(&endpoint.host, &trust)?;
        let login = login.cloned();
        let (sessions, plainly) = (&self.sessions, &self.plainly);
        Ok(Talk { sessions, plainly, client, endpoint, login, deadline })
    }

    /// A client with this trust, the same one each time so that its connections are used again.
    fn client(&self, registry: &str, trust: &Trust) -> Result<Client, RegistryError> {
        let key = trust_key(trust);
        // Nothing panics while it holds the lock.
        let mut clients = self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let made = Client::without_redirects(trust, REQUEST);
        let client = made.map_err(|error| RegistryError::of_net(registry, error))?;
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// The way along the endpoints of one repository.
struct Walk {
    left: std::vec::IntoIter<Endpoint>,
    deadline: Instant,
    failures: Vec<RegistryError>,
}

impl Walk {
    fn new(registry: &Registry, repository: &Repository, access: &Access) -> Walk {
        let timeout = access.timeout.max(LEAST);
        let left = registry.mirrors.endpoints(repository, access.insecure).into_iter();
        Walk { left, deadline: Instant::now() + timeout, failures: Vec::new() }
    }

    /// The next endpoint and until when it may take: half of what is left while others follow, so
    /// that a mirror which is silent does not keep us from the registry.
    fn next(&mut self) -> Option<(Endpoint, Instant)> {
        let endpoint = self.left.next()?;
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let until = if self.left.len() == 0 { self.deadline } else { now + left / 2 };
        Some((endpoint, until))
    }

    async fn within<T>(
        &self,
        endpoint: &Endpoint,
        until: Instant,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let after = until.saturating_duration_since(Instant::now());
        let limit = tokio::time::Instant::from_std(until);
        tokio::time::timeout_at(limit, work).await.unwrap_or_else(|_| {
            Err(RegistryError::Timeout { registry: endpoint.host.clone(), after })
        })
    }

    fn end(mut self) -> RegistryError {
        match self.failures.len() {
            1 => self.failures.remove(0),
            _ => RegistryError::Everywhere { failures: self.failures },
        }
    }
}

/// Reads a repository's list to its end.
async fn list(talk: &mut Talk<'_>, known: Option<&Validator>) -> Result<Scan, RegistryError> {
    let mut url = talk.url("tags/list");
    url.query_pairs_mut().append_pair("n", &PAGE.to_string());
    let mut listing = Listing::default();
    let asked_with = known.filter(|known| known.endpoint == place(&talk.endpoint));
    let asked_with = asked_with.and_then(|known| known.etag.as_deref());
    let mut headers = vec![accept("application/json")];
    headers.extend(asked_with.and_then(if_none_match));
    loop {
        let answer = talk.ask(Method::GET, &url, &headers).await?;
        let conditional = headers.len() > 1;
        headers.truncate(1);
        match answer.status().as_u16() {
            200 => {}
            304 if conditional => return Ok(Scan::Unchanged),
            _ => return Err(talk.unexpected(answer, None).await),
        }
        let from = answer.url().clone();
        let astray = |cause| RegistryError::Astray { registry: talk.name(), cause };
        let next = page::next(&links(answer.headers()), &from).map_err(astray)?;
        // The next page is asked for with credentials, which are for the first host alone.
        if next.is_some() && from.host_str() != url.host_str() {
            return Err(astray(format!("a page of {url} goes on at another host")));
        }
        listing.take(talk, answer).await?;
        match next {
            None => return Ok(listing.done(talk, known)),
            Some(next) => url = listing.go_on(talk, next)?,
        }
    }
}

/// An endpoint's list, as a validator names it.
fn place(endpoint: &Endpoint) -> String {
    format!("{}{}/{}", endpoint.host, endpoint.base.path(), endpoint.path)
}

/// What was read so far.
#[derive(Default)]
struct Listing {
    tags: HashSet<String>,
    visited: HashSet<Url>,
    bytes: usize,
    pages: usize,
    barren: usize,
    etag: Option<String>,
}

impl Listing {
    async fn take(&mut self, talk: &Talk<'_>, answer: Response) -> Result<(), RegistryError> {
        let registry = talk.name();
        let kind = content_type(&answer);
        if !page::is_json(kind.as_deref()) {
            let found = page::words(&kind.unwrap_or_default(), 60);
            return Err(RegistryError::WrongContentType { registry, found });
        }
        let etag = answer.headers().get(ETAG).and_then(|value| value.to_str().ok());
        self.etag = etag.filter(|etag| etag.len() <= 512).map(str::to_owned);
        let body = net::read_limited(answer, PAGE_BYTES).await.map_err(|error| match error {
            net::NetError::TooLarge { limit, .. } => {
                RegistryError::TooMuch { registry: talk.name(), limit, what: "bytes in one page" }
            }
            other => RegistryError::of_net(&registry, other),
        })?;
        self.bytes += body.len();
        self.pages += 1;
        let page = page::tags(&body).map_err(|cause| talk.protocol(cause))?;
        let before = self.tags.len();
        self.tags.extend(page);
        self.barren = if self.tags.len() == before { self.barren + 1 } else { 0 };
        let too_much =
            |limit, what| Err(RegistryError::TooMuch { registry: talk.name(), limit, what });
        match () {
            _ if self.tags.len() > TAGS => too_much(TAGS, "tags"),
            _ if self.bytes > ALL_BYTES => too_much(ALL_BYTES, "bytes"),
            _ => Ok(()),
        }
    }

    /// The next page's address, if going there leads anywhere.
    fn go_on(&mut self, talk: &Talk<'_>, mut next: Url) -> Result<Url, RegistryError> {
        let endless = |cause: &str| {
            Err(RegistryError::Endless { registry: talk.name(), cause: cause.to_owned() })
        };
        if let Some((_, ns)) = talk.url("").query_pairs().find(|(key, _)| key == "ns")
            && !next.query_pairs().any(|(key, _)| key == "ns")
        {
            next.query_pairs_mut().append_pair("ns", &ns);
        }
        if !self.visited.insert(next.clone()) {
            return endless("a next page that was there already");
        }
        if self.barren >= BARREN {
            return endless("page after page without a new tag");
        }
        if self.pages >= PAGES {
            return Err(RegistryError::TooMuch {
                registry: talk.name(),
                limit: PAGES,
                what: "pages",
            });
        }
        Ok(next)
    }

    fn done(self, talk: &Talk<'_>, known: Option<&Validator>) -> Scan {
        let mut tags: Vec<String> = self.tags.into_iter().collect();
        tags.sort_unstable();
        let digest = digest_of(&tags);
        // Even where the server has another word for it: a server that gives a new one with each
        // answer would have the same tags stored for ever.
        if known.is_some_and(|known| known.digest == digest) {
            return Scan::Unchanged;
        }
        // A full page may go on tomorrow without being another page itself.
        let whole = self.pages == 1 && tags.len() < PAGE;
        let etag = self.etag.filter(|_| whole);
        let endpoint = place(&talk.endpoint);
        Scan::Tags { tags, validator: Some(Validator { endpoint, etag, digest }) }
    }
}

/// Asks for the digest of a tag's manifest; the manifest itself only where the header is missing.
async fn manifest(talk: &mut Talk<'_>, tag: &str) -> Result<String, RegistryError> {
    let url = talk.url(&format!("manifests/{tag}"));
    let headers = [accept(MANIFESTS)];
    let answer = talk.ask(Method::HEAD, &url, &headers).await?;
    match answer.status().as_u16() {
        200 => {
            if let Some(digest) = named(answer.headers()) {
                return Ok(digest);
            }
        }
        // A server that knows no HEAD.
        405 | 501 => {}
        _ => return Err(talk.unexpected(answer, Some(tag)).await),
    }
    let answer = talk.ask(Method::GET, &url, &headers).await?;
    if answer.status() != 200 {
        return Err(talk.unexpected(answer, Some(tag)).await);
    }
    let (kind, said) = (content_type(&answer), named(answer.headers()));
    if !page::is_json(kind.as_deref()) {
        let found = page::words(&kind.unwrap_or_default(), 60);
        return Err(RegistryError::WrongContentType { registry: talk.name(), found });
    }
    let unread = |error| RegistryError::of_net(&talk.name(), error);
    let body = net::read_limited(answer, MANIFEST_BYTES).await.map_err(unread)?;
    let read: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&body);
    if !read.is_ok_and(|manifest| manifest.contains_key("schemaVersion")) {
        return Err(talk.protocol(format!("what it has for the tag {tag} is no manifest")));
    }
    let digest = format!("sha256:{}", hex(&Sha256::digest(&body)));
    match said {
        Some(said) if said.starts_with("sha256:") && said != digest => {
            Err(talk.protocol(format!("the manifest of {tag} is not the one that it names")))
        }
        Some(said) => Ok(said),
        None => Ok(digest),
    }
}

fn named(headers: &HeaderMap) -> Option<String> {
    page::digest(headers.get("docker-content-digest")?.to_str().ok()?)
}

fn links(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).collect()
}

fn if_none_match(etag: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((IF_NONE_MATCH, HeaderValue::from_str(etag).ok()?))
}

fn digest_of(tags: &[String]) -> String {
    let mut hash = Sha256::new();
    for tag in tags {
        hash.update(tag);
        hash.update(b"\n");
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the files that registries.yaml names for a host, where the object itself says nothing.
async fn add_files(trust: &mut Trust, key: &str, host: &HostConfig) -> Result<(), RegistryError> {
    // Whoever names a CA wants it to be looked at.
    trust.unverified = host.insecure_skip_verify && trust.ca.is_none();
    if let (None, Some(path)) = (&trust.ca, &host.ca_file) {
        trust.ca = Some(file(key, path).await?);
    }
    if let (None, Some(chain), Some(secret)) = (&trust.certificate, &host.cert_file, &host.key_file)
    {
        let (chain, secret) = (file(key, chain).await?, file(key, secret).await?);
        trust.certificate = Some(ClientCertificate { chain, key: Plaintext::new(secret) });
    }
    Ok(())
}

async fn file(key: &str, path: &str) -> Result<Vec<u8>, RegistryError> {
    let read = async {
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(FILE_BYTES).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    read.await.map_err(|error: std::io::Error| RegistryError::File {
        registry: key.to_owned(),
        path: path.to_owned(),
        cause: error.to_string(),
    })
}

/// Tells one trust from another without holding its secrets.
fn trust_key(trust: &Trust) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |part: Option<&[u8]>| {
        hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    };
    add(trust.ca.as_deref());
    add(trust.certificate.as_ref().map(|certificate| certificate.chain.as_slice()));
    add(trust.certificate.as_ref().map(|certificate| certificate.key.expose()));
    add(trust.proxy.as_ref().map(|proxy| proxy.address.as_bytes()));
    let login = trust.proxy.as_ref().and_then(|proxy| proxy.login.as_ref());
    add(login.map(|(user, _)| user.as_bytes()));
    add(login.map(|(_, password)| password.expose()));
    add(Some(&[u8::from(trust.proxy_from_env), u8::from(trust.unverified)]));
    hash.finalize().into()
}
