//! The client of Cloudflare's v4 API: one method for each call, bounded, and nothing decided.
//!
//! A call is tried once: whoever asked comes again with the next run. Every answer is an envelope
//! that says whether it succeeded; lists come in pages. Bounds: [`TIMEOUT`] for a call, [`ANSWER`]
//! for its answer, [`PAGES`] for a list, and [`BUDGET`] calls in [`WINDOW`], below the 1200 in five
//! minutes that an account has for everybody who asks. A pause that the provider wants is kept by
//! every call, whoever comes meanwhile. No redirect is followed: a write that was sent on might be
//! done twice or as a read, and the token goes to one place only. It is in no error and in no log.

use super::error::CloudflareError;
use super::wire::{Configuration, Connection, Envelope, Need, PageInfo, Record, Tunnel, Zone};
use crate::net::{Client, NetError, Trust, read_limited};
use crate::render::Redactor;
use crate::secrets::Plaintext;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time of one call, its answer included.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer: a page of 100 records has some 60 KiB.
const ANSWER: usize = 4 << 20;
/// Items of a page; zones have no more than 50.
const PER_PAGE: usize = 50;
/// Pages of a list: 5,000 items.
const PAGES: usize = 100;
/// Calls within [`WINDOW`]: half of what the account has.
const BUDGET: usize = 600;
const WINDOW: Duration = Duration::from_secs(300);
/// Longest pause that is believed, and the one that is taken when none is named.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_secs(60);
/// The code of a tunnel that is not deleted, as it has connections.
const CONNECTED: i64 = 1022;

/// The client.
pub struct Cloudflare {
    http: Client,
    base: String,
    token: Plaintext,
    /// Masks the token where the provider quotes it.
    quoted: Redactor,
    recent: Mutex<VecDeque<Instant>>,
    /// The pause that the provider wanted last, and when it is over.
    pause: Mutex<Option<(Duration, Instant)>>,
    /// The account that is worked in: a token of its own is known there alone.
    account: Mutex<Option<String>>,
}

impl std::fmt::Debug for Cloudflare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cloudflare({})", self.base)
    }
}

/// One call.
struct Call<'a> {
    need: Need,
    method: Method,
    path: String,
    query: Vec<(&'a str, String)>,
    body: Option<Value>,
    /// What it is about, for errors.
    what: String,
}

impl<'a> Call<'a> {
    fn new(need: Need, method: Method, path: String, what: impl Into<String>) -> Self {
        Call { need, method, path, query: Vec::new(), body: None, what: what.into() }
    }

    fn get(need: Need, path: String, what: impl Into<String>) -> Self {
        Call::new(need, Method::GET, path, what)
    }

    fn query(mut self, key: &'a str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

impl Cloudflare {
    /// A client for the API at `base`, by the system's CAs and proxies.
    pub fn new(base: &str, token: Plaintext) -> Result<Self, NetError> {
        // No proxy reaches this machine's own loopback for us.
        let trust = Trust { proxy_from_env: !base.starts_with("http://"), ..Trust::default() };
        let http = Client::without_redirects(&trust, TIMEOUT)?;
        let mut quoted = Redactor::default();
        quoted.add(token.expose());
        let (base, recent, pause) = (base.to_owned(), Mutex::default(), Mutex::default());
        Ok(Cloudflare { http, base, token, quoted, recent, pause, account: Mutex::default() })
    }

    /// Says in which account the token is used. Only an id says it; a zone that is found does too.
    pub fn of_account(&self, account: &str) {
        if account.len() == 32 && account.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let mut known = self.account.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(account.to_owned());
        }
    }

    /// Asks whether the token is one. That of a user and that of an account are known at different
    /// places; as long as the account is not known, zones that the token may list prove it.
    pub async fn verify(&self) -> Result<(), CloudflareError> {
        let refused = match self.verified("/user/tokens/verify".to_owned()).await {
            Err(refused @ CloudflareError::Token { code: 1.., .. }) => refused,
            answer => return answer,
        };
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proof = match account {
            Some(account) => self.verified(format!("/accounts/{account}/tokens/verify")).await,
            None => {
                let call = Call::get(Need::ZoneRead, "/zones".to_owned(), "zones");
                self.done(call.query("per_page", "5")).await
            }
        };
        match proof {
            Err(error) if error.of_this_alone() => Err(refused),
            proof => proof,
        }
    }

    async fn verified(&self, path: String) -> Result<(), CloudflareError> {
        let found: Value = self.one(Call::get(Need::Token, path, "the API token")).await?;
        match found.get("status").and_then(Value::as_str) {
            Some("active") => Ok(()),
            status => {
                let message = format!("it is {}", status.unwrap_or("of no known status"));
                Err(CloudflareError::Token { code: 0, message })
            }
        }
    }

    /// One zone, by name or id.
    pub async fn zone(&self, said: &str) -> Result<Zone, CloudflareError> {
        let what = format!("zone {said}");
        let unknown = || CloudflareError::Unknown {
            what: format!("the API token sees no zone {said}"),
            hint: "correct edge.cloudflare.zones, or give the token the permission Zone / Zone / \
                   Read for that zone"
                .to_owned(),
        };
        let found: Option<Zone> = if said.contains('.') {
            let call = Call::get(Need::ZoneRead, "/zones".into(), what).query("name", said);
            let zones: Vec<Zone> = self.all(call).await?;
            zones.into_iter().find(|zone| zone.name == said)
        } else {
            there(self.one(Call::get(Need::ZoneRead, format!("/zones/{said}"), what)).await)?
        };
        let zone = found.ok_or_else(unknown)?;
        self.of_account(&zone.account.id);
        Ok(zone)
    }

    /// Every tunnel of a name, deleted ones included.
    pub async fn tunnels(&self, account: &str, name: &str) -> Result<Vec<Tunnel>, CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel");
        let call = Call::get(Need::TunnelRead, path, format!("tunnel {name}")).query("name", name);
        let found: Vec<Tunnel> = self.all(call).await?;
        Ok(found.into_iter().filter(|tunnel| tunnel.name == name).collect())
    }

    /// One tunnel; `None` when there is none of that id.
    pub async fn tunnel(&self, account: &str, id: &str) -> Result<Option<Tunnel>, CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}");
        there(self.one(Call::get(Need::TunnelRead, path, format!("tunnel {id}"))).await)
    }

    /// Makes a tunnel that is configured through the API, with a fresh secret that nobody keeps.
    pub async fn create_tunnel(
        &self,
        account: &str,
        name: &str,
        secret: &Plaintext,
    ) -> Result<Tunnel, CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel");
        let secret = String::from_utf8_lossy(secret.expose());
        let body = json!({"name": name, "config_src": "cloudflare", "tunnel_secret": secret});
        let call = Call::new(Need::TunnelEdit, Method::POST, path, format!("tunnel {name}"));
        self.one(call.body(body)).await
    }

    /// Changes a tunnel's name.
    pub async fn rename_tunnel(
        &self,
        account: &str,
        id: &str,
        name: &str,
    ) -> Result<(), CloudflareError> {
        self.edit(account, id, json!({"name": name})).await
    }

    /// Gives a tunnel another secret: connectors that are connected stay so.
    pub async fn rotate_tunnel(
        &self,
        account: &str,
        id: &str,
        secret: &Plaintext,
    ) -> Result<(), CloudflareError> {
        let secret = String::from_utf8_lossy(secret.expose());
        self.edit(account, id, json!({"tunnel_secret": secret})).await
    }

    async fn edit(&self, account: &str, id: &str, body: Value) -> Result<(), CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}");
        let call = Call::new(Need::TunnelEdit, Method::PATCH, path, format!("tunnel {id}"));
        self.done(call.body(body)).await
    }

    /// Whether the token may change tunnels, by an edit of one that does not exist.
    pub async fn may_edit_tunnels(&self, account: &str) -> Result<(), CloudflareError> {
        let nobody = "00000000-0000-0000-0000-000000000000";
        tried(self.edit(account, nobody, json!({"name": "gitopsd-check"})).await)
    }

    /// Deletes a tunnel; one that is gone is no error.
    pub async fn delete_tunnel(&self, account: &str, id: &str) -> Result<(), CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}");
        let call = Call::new(Need::TunnelEdit, Method::DELETE, path, format!("tunnel {id}"));
        gone(self.done(call).await)
    }

    /// Drops connections that a tunnel still counts though nobody serves them any more.
    pub async fn clean_connections(&self, account: &str, id: &str) -> Result<(), CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}/connections");
        let what = format!("connections of tunnel {id}");
        gone(self.done(Call::new(Need::TunnelEdit, Method::DELETE, path, what)).await)
    }

    /// Connections of a tunnel's connectors that serve.
    pub async fn connections(&self, account: &str, id: &str) -> Result<usize, CloudflareError> {
        #[derive(serde::Deserialize)]
        struct Connector {
            #[serde(default)]
            conns: Vec<Connection>,
        }
        let path = format!("/accounts/{account}/cfd_tunnel/{id}/connections");
        let what = format!("connections of tunnel {id}");
        let found: Option<Vec<Connector>> =
            self.one(Call::get(Need::TunnelRead, path, what)).await?;
        let all = found.unwrap_or_default().into_iter().flat_map(|connector| connector.conns);
        Ok(all.filter(|connection| !connection.is_pending_reconnect).count())
    }

    /// The token that a connector of a tunnel runs with.
    pub async fn connector_token(
        &self,
        account: &str,
        id: &str,
    ) -> Result<Plaintext, CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}/token");
        let what = format!("token of tunnel {id}");
        let token: String = self.one(Call::get(Need::TunnelEdit, path, what)).await?;
        Ok(Plaintext::new(token.into_bytes()))
    }

    /// A tunnel's configuration; an empty one when it never had any.
    pub async fn configuration(
        &self,
        account: &str,
        id: &str,
    ) -> Result<Configuration, CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}/configurations");
        let what = format!("configuration of tunnel {id}");
        let found: Option<Configuration> =
            self.one(Call::get(Need::TunnelRead, path, what)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Replaces a tunnel's configuration whole.
    pub async fn configure(
        &self,
        account: &str,
        id: &str,
        config: &Value,
    ) -> Result<(), CloudflareError> {
        let path = format!("/accounts/{account}/cfd_tunnel/{id}/configurations");
        let what = format!("configuration of tunnel {id}");
        let call = Call::new(Need::TunnelEdit, Method::PUT, path, what);
        self.done(call.body(json!({"config": config}))).await
    }

    /// Records of a zone that have exactly this comment.
    pub async fn records_marked(
        &self,
        zone: &str,
        comment: &str,
    ) -> Result<Vec<Record>, CloudflareError> {
        self.records(zone, "comment.exact", comment).await
    }

    /// Records of a zone that have exactly this name.
    pub async fn records_named(
        &self,
        zone: &str,
        name: &str,
    ) -> Result<Vec<Record>, CloudflareError> {
        self.records(zone, "name.exact", name).await
    }

    async fn records(
        &self,
        zone: &str,
        key: &'static str,
        value: &str,
    ) -> Result<Vec<Record>, CloudflareError> {
        let path = format!("/zones/{zone}/dns_records");
        let what = format!("DNS records of zone {zone}");
        self.all(Call::get(Need::DnsRead, path, what).query(key, value)).await
    }

    /// Makes a record.
    pub async fn create_record(&self, zone: &str, body: &Value) -> Result<Record, CloudflareError> {
        let path = format!("/zones/{zone}/dns_records");
        let call = Call::new(Need::DnsEdit, Method::POST, path, named(body));
        self.one(call.body(body.clone())).await
    }

    /// Whether the token may change records of a zone, by an edit of one that does not exist.
    pub async fn may_edit_records(&self, zone: &Zone) -> Result<(), CloudflareError> {
        let path = format!("/zones/{}/dns_records/{}", zone.id, "0".repeat(32));
        let name = format!("gitopsd-check.{}", zone.name);
        let body = json!({"type": "CNAME", "name": name, "content": zone.name, "ttl": 1});
        let call = Call::new(Need::DnsEdit, Method::PATCH, path, named(&body));
        tried(self.done(call.body(body)).await)
    }

    /// Replaces a record.
    pub async fn update_record(
        &self,
        zone: &str,
        id: &str,
        body: &Value,
    ) -> Result<(), CloudflareError> {
        let path = format!("/zones/{zone}/dns_records/{id}");
        let call = Call::new(Need::DnsEdit, Method::PUT, path, named(body));
        self.done(call.body(body.clone())).await
    }

    /// Deletes a record; one that is gone is no error.
    pub async fn delete_record(&self, zone: &str, id: &str) -> Result<(), CloudflareError> {
        let path = format!("/zones/{zone}/dns_records/{id}");
        let call = Call::new(Need::DnsEdit, Method::DELETE, path, format!("DNS record {id}"));
        gone(self.done(call).await)
    }

    async fn all<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Vec<T>, CloudflareError> {
        let mut items: Vec<T> = Vec::new();
        for page in 1..=PAGES {
            let mut query = call.query.clone();
            query.push(("page", page.to_string()));
            query.push(("per_page", PER_PAGE.to_string()));
            let Call { need, method, path, what, .. } = &call;
            let asked = Call::new(*need, method.clone(), path.clone(), what.clone());
            let envelope = self.ask(Call { query, ..asked }).await?;
            let last = |info: &PageInfo| info.total_pages.map(|pages| page as u64 >= pages);
            let last = envelope.result_info.as_ref().and_then(last);
            let found: Vec<T> = read(what, envelope.result)?;
            let short = found.len() < PER_PAGE;
            items.extend(found);
            if last.unwrap_or(short) || short {
                return Ok(items);
            }
        }
        let cause = format!("the list has more than {} items", PAGES * PER_PAGE);
        Err(CloudflareError::Unreadable { what: call.what, cause })
    }

    async fn one<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CloudflareError> {
        let what = call.what.clone();
        read(&what, self.ask(call).await?.result)
    }

    async fn done(&self, call: Call<'_>) -> Result<(), CloudflareError> {
        self.ask(call).await.map(|_| ())
    }

    async fn ask(&self, call: Call<'_>) -> Result<Envelope, CloudflareError> {
        self.spend(Instant::now())?;
        let Call { need, method, path, query, body, what } = call;
        let mut request = self.http.http().request(method, self.url(&path, &query));
        request = request.header(AUTHORIZATION, self.bearer()?);
        if let Some(body) = body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| NetError::Unreachable {
            host: error.url().and_then(|url| url.host_str()).unwrap_or_default().to_owned(),
            cause: match error.is_timeout() {
                true => "timed out".to_owned(),
                false => crate::net::innermost(&error.without_url()),
            },
        })?;
        let status = answer.status();
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = pause.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let body = read_limited(answer, ANSWER).await?;
        let body = self.quoted.mask(&String::from_utf8_lossy(&body)).into_bytes();
        let judged = judge(need, what, status, pause, &body);
        if let Err(CloudflareError::Limited { wanted, .. }) = &judged {
            self.rest(*wanted, Instant::now());
        }
        judged
    }

    /// Makes no call before a pause is over.
    fn rest(&self, wanted: Duration, now: Instant) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = Some((wanted, now + wanted));
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> String {
        let pairs = query.iter().map(|(key, value)| format!("{key}={}", encode(value)));
        let pairs = pairs.collect::<Vec<_>>().join("&");
        let mark = if pairs.is_empty() { "" } else { "?" };
        format!("{}{path}{mark}{pairs}", self.base)
    }

    fn bearer(&self) -> Result<HeaderValue, CloudflareError> {
        let token = self.token.expose().trim_ascii();
        let mut bytes = zeroize::Zeroizing::new(b"Bearer ".to_vec());
        bytes.extend_from_slice(token);
        let mut value = HeaderValue::from_bytes(&bytes).map_err(|_| CloudflareError::Token {
            code: 0,
            message: "it holds characters that no token has".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Counts a call, or refuses it.
    fn spend(&self, now: Instant) -> Result<(), CloudflareError> {
        let pause = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((wanted, until)) = pause
            && now < until
        {
            return Err(CloudflareError::Limited { wanted, left: until - now });
        }
        // A panic in between leaves a whole queue behind.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        while recent.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            recent.pop_front();
        }
        if let (true, Some(first)) = (recent.len() >= BUDGET, recent.front()) {
            let left = WINDOW.saturating_sub(now.duration_since(*first));
            return Err(CloudflareError::Limited { wanted: WINDOW, left });
        }
        recent.push_back(now);
        Ok(())
    }
}

fn named(body: &Value) -> String {
    format!("DNS record {}", body.get("name").and_then(Value::as_str).unwrap_or_default())
}

fn there<T>(answer: Result<T, CloudflareError>) -> Result<Option<T>, CloudflareError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(CloudflareError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn gone(answer: Result<(), CloudflareError>) -> Result<(), CloudflareError> {
    there(answer).map(|_| ())
}

/// What an edit of something that does not exist tells of the right to edit.
fn tried(answer: Result<(), CloudflareError>) -> Result<(), CloudflareError> {
    match answer {
        // It was allowed to try.
        Ok(()) | Err(CloudflareError::Gone { .. } | CloudflareError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn read<T: DeserializeOwned>(what: &str, result: Value) -> Result<T, CloudflareError> {
    serde_json::from_value(result).map_err(|error| CloudflareError::Unreadable {
        what: what.to_owned(),
        // serde repeats the value of a wrong type, which may be a secret.
        cause: match error.classify() {
            serde_json::error::Category::Data => "a field is missing or of another type".to_owned(),
            _ => error.to_string(),
        },
    })
}

/// What an answer means.
fn judge(
    need: Need,
    what: String,
    status: StatusCode,
    pause: Option<Duration>,
    body: &[u8],
) -> Result<Envelope, CloudflareError> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        let wanted = pause.unwrap_or(PAUSE).clamp(Duration::from_secs(1), LONGEST_PAUSE);
        return Err(CloudflareError::Limited { wanted, left: wanted });
    }
    if status.is_server_error() {
        return Err(CloudflareError::Server { status: status.as_u16() });
    }
    if status.is_redirection() {
        let cause = "it points elsewhere, and no call is sent on".to_owned();
        return Err(CloudflareError::Unreadable { what, cause });
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| {
        let cause = format!("HTTP status {} without an envelope", status.as_u16());
        CloudflareError::Unreadable { what: what.clone(), cause }
    })?;
    if status.is_success() && envelope.success {
        return Ok(envelope);
    }
    let first = envelope.errors.first();
    let (code, message) =
        first.map_or((0, "no reason given"), |fault| (fault.code, fault.message.as_str()));
    // What somebody else wrote goes into a terminal and a log.
    let message: String = message.chars().filter(|char| !char.is_control()).take(300).collect();
    Err(match status {
        StatusCode::UNAUTHORIZED => CloudflareError::Token { code, message },
        // Headers that cannot be a token, and a token that is none.
        StatusCode::BAD_REQUEST if matches!(code, 6003 | 6111) => {
            CloudflareError::Token { code, message }
        }
        StatusCode::FORBIDDEN if need == Need::Token => CloudflareError::Token { code, message },
        StatusCode::FORBIDDEN => CloudflareError::Denied { need, code },
        // A method that the token is not for.
        StatusCode::METHOD_NOT_ALLOWED if code == 10000 => CloudflareError::Denied { need, code },
        StatusCode::NOT_FOUND | StatusCode::GONE => CloudflareError::Gone { what },
        _ if code == CONNECTED => CloudflareError::Busy { what },
        _ => CloudflareError::Refused { what, code, message },
    })
}

/// Percent-encodes all but unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
