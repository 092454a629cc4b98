//! The connection: kubeconfig, deadlines, the number of requests under way, bounded answers.

use super::discovery::Served;
use super::error::{ClusterError, refused};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WARNING};
use http::response::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Largest answer read. A page of a list has 500 objects of mostly a few KiB; one object has at
/// most 1.5 MiB in the datastore.
const ANSWER: usize = 64 << 20;

/// Largest kubeconfig read: k3s writes 3 KiB.
const KUBECONFIG: usize = 1 << 20;

/// Longest wait for one answer, unless [`Limits`] say otherwise: a write waits for the datastore,
/// which is an SD card on a small box.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// How often a request is repeated when the server answers 429, within its own limit and not
/// before the pause is over that the server asks for.
const BUSY_REPEATS: u32 = 2;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at once. Watches do not count: there is one per kind.
    pub requests: usize,
    /// Longest wait for one answer, reading it included, and pauses that a busy server asks for.
    pub timeout: Duration,
}

impl Default for Limits {
    /// 16 requests of 15 s each.
    fn default() -> Self {
        Limits { requests: 16, timeout: TIMEOUT }
    }
}

/// A connection to one API server. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    client: kube::Client,
    server: String,
    limits: Limits,
    places: Semaphore,
    sent: AtomicU64,
    pub(super) heard: Arc<Heard>,
    busy: Busy,
    pub(super) served: Served,
}

/// Until when the server wants to be left alone, and its words.
#[derive(Default)]
struct Busy(Mutex<Option<(Instant, String)>>);

impl Busy {
    fn note(&self, error: &ClusterError) {
        let ClusterError::TooMany { message, retry_after } = error else { return };
        let until = Instant::now() + *retry_after;
        let mut known = self.lock();
        if known.as_ref().is_none_or(|(before, _)| *before < until) {
            *known = Some((until, message.clone()));
        }
    }

    /// Waits until it is over; an error where that is not before the deadline.
    async fn over(&self, deadline: Instant) -> Result<(), ClusterError> {
        loop {
            let (known, now) = (self.lock().clone(), Instant::now());
            let Some((until, message)) = known.filter(|(until, _)| *until > now) else {
                return Ok(());
            };
            if until >= deadline {
                return Err(ClusterError::TooMany { message, retry_after: until - now });
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        // Invariant: no code panics while it holds the lock.
        self.0.lock().expect("an unpoisoned lock")
    }
}

/// When the server was last heard: an answer's head, or a piece of a watch.
pub(super) struct Heard {
    since: Instant,
    at_ms: AtomicU64,
}

impl Heard {
    pub(super) fn now() -> Self {
        Heard { since: Instant::now(), at_ms: AtomicU64::new(0) }
    }

    pub(super) fn note(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(at, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        let at = Duration::from_millis(self.at_ms.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(at)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.inner.server)
    }
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path and query, percent-encoded.
    pub(super) path: String,
    pub(super) accept: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: Vec<u8>,
    /// Name of the object whose values an error must not repeat.
    pub(super) sensitive: Option<&'a str>,
}

pub(super) const JSON: &str = "application/json";

impl<'a> Call<'a> {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Call {
            method: Method::GET,
            path: path.into(),
            accept: JSON,
            content_type: JSON,
            body: Vec::new(),
            sensitive: None,
        }
    }

    pub(super) fn accept(self, accept: &'a str) -> Self {
        Call { accept, ..self }
    }

    fn request(&self) -> Result<Request<Body>, ClusterError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(ACCEPT, self.accept)
            .header(USER_AGENT, concat!("gitopsd/", env!("CARGO_PKG_VERSION")));
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        let body = if self.body.is_empty() { Body::empty() } else { self.body.clone().into() };
        // Only a path that is no URI can fail, that is a name which the API would refuse too.
        request.body(body).map_err(|error| ClusterError::Invalid {
            status: 0,
            message: format!("{}: {error}", self.path),
            causes: Vec::new(),
        })
    }
}

/// A success: the body, and what the server warned of.
pub(super) struct Success {
    pub(super) body: Value,
    pub(super) warnings: Vec<String>,
}

impl Cluster {
    /// Connects by a kubeconfig's bytes (YAML or JSON). Sends nothing yet.
    ///
    /// Must run inside a tokio runtime. Exec plugins and proxies are refused: a plugin would run
    /// any program as the daemon, and the API server of this box is near.
    pub async fn connect(kubeconfig: &[u8], limits: Limits) -> Result<Self, ClusterError> {
        let bad = |why: &dyn std::fmt::Display| ClusterError::BadKubeconfig(why.to_string());
        if kubeconfig.len() > KUBECONFIG {
            return Err(bad(&"it is larger than 1 MiB"));
        }
        let text = std::str::from_utf8(kubeconfig).map_err(|_| bad(&"it is not text"))?;
        // The reader's own message may quote the file, which holds a private key.
        let parsed =
            Kubeconfig::from_yaml(text).map_err(|_| bad(&"it is not YAML of kind Config"))?;
        let proxied = parsed
            .clusters
            .iter()
            .any(|named| named.cluster.as_ref().is_some_and(|cluster| cluster.proxy_url.is_some()));
        if proxied {
            return Err(bad(&"proxy-url is not supported"));
        }
        let mut config =
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
                .await
                .map_err(|error| bad(&chain(&error)))?;
        if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
            return Err(bad(&"exec and auth-provider plugins are not supported"));
        }
        config.proxy_url = None; // kube takes HTTPS_PROXY from the environment
        config.default_retry = false; // repeats are decided here, within the deadline
        config.connect_timeout = Some(limits.timeout.min(Duration::from_secs(5)));
        let server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|error| bad(&chain(&error)))?;
        let places = Semaphore::new(limits.requests.max(1));
        let (sent, served) = (AtomicU64::new(0), Served::default());
        let (heard, busy) = (Arc::new(Heard::now()), Busy::default());
        let inner = Inner { client, server, limits, places, sent, heard, busy, served };
        Ok(Cluster { inner: Arc::new(inner) })
    }

    /// The server's URL, as in the kubeconfig.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// Requests sent so far, watches included.
    pub fn requests(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }

    /// How long the server has not been heard: neither an answer nor a piece of a watch.
    pub fn silence(&self) -> Duration {
        self.inner.heard.silence()
    }

    /// Succeeds when the server answers at all. Takes no place, so that it is not kept waiting by
    /// requests that hang.
    pub async fn answers(&self) -> Result<(), ClusterError> {
        self.stream(&Call::get("/version")).await.map(drop)
    }

    /// Uid of the namespace `kube-system`: it tells one cluster from another.
    pub async fn identity(&self) -> Result<String, ClusterError> {
        let found = self.call(Call::get("/api/v1/namespaces/kube-system")).await?.body;
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str);
        uid.map(str::to_owned)
            .ok_or_else(|| ClusterError::Garbled("kube-system has no uid".to_owned()))
    }

    /// The server's version, such as `v1.33.4+k3s1`.
    pub async fn version(&self) -> Result<String, ClusterError> {
        let found = self.call(Call::get("/version")).await?.body;
        let version = found.get("gitVersion").and_then(Value::as_str);
        version
            .map(str::to_owned)
            .ok_or_else(|| ClusterError::Garbled("/version has no gitVersion".to_owned()))
    }

    /// Succeeds when `/readyz` does; a failure names the checks that are not ready.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        let call = Call::get("/readyz?verbose").accept("*/*");
        match self.raw(&call).await {
            Err(ClusterError::Server { status, message }) => {
                let failing: Vec<&str> =
                    message.lines().filter(|line| line.starts_with("[-]")).collect();
                let message = if failing.is_empty() { message } else { failing.join(", ") };
                Err(ClusterError::Server { status, message })
            }
            other => other.map(|_| ()),
        }
    }

    /// Sends a request and reads its JSON answer.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Success, ClusterError> {
        let (bytes, warnings) = self.raw(&call).await?;
        // serde_json's message names a line and column, never content.
        let body = serde_json::from_slice(&bytes)
            .map_err(|error| ClusterError::Garbled(format!("{}: {error}", call.path)))?;
        Ok(Success { body, warnings })
    }

    async fn raw(&self, call: &Call<'_>) -> Result<(Vec<u8>, Vec<String>), ClusterError> {
        // Invariant: the semaphore is never closed.
        let _place = self.inner.places.acquire().await.expect("an open semaphore");
        let deadline = Instant::now() + self.inner.limits.timeout;
        let mut repeats = 0;
        loop {
            self.inner.busy.over(deadline).await?;
            match self.once(call, deadline).await {
                Err(ClusterError::TooMany { .. }) if repeats < BUSY_REPEATS => repeats += 1,
                other => return other,
            }
        }
    }

    async fn once(
        &self,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Result<(Vec<u8>, Vec<String>), ClusterError> {
        let exchange = async {
            let response = self.send(call).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER).collect().await;
            let bytes = match body {
                Ok(collected) => collected.to_bytes().to_vec(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(ClusterError::Unreadable(format!(
                        "{}: more than {} MiB",
                        call.path,
                        ANSWER >> 20
                    )));
                }
                Err(error) => return Err(ClusterError::Unreachable(chain(&*error))),
            };
            if !head.status.is_success() {
                return Err(self.refused(&head, &bytes, call.sensitive));
            }
            let warnings = head.headers.get_all(WARNING).iter().take(32);
            let warnings = warnings
                .filter_map(|value| warning(value.to_str().ok()?))
                .map(|text| match call.sensitive {
                    Some(name) => super::error::masked(&text, name),
                    None => text,
                })
                .collect();
            Ok((bytes, warnings))
        };
        tokio::time::timeout_at(deadline.into(), exchange).await.unwrap_or_else(|_| {
            let limit = self.inner.limits.timeout;
            let path = call.path.split('?').next().unwrap_or_default();
            Err(ClusterError::Timeout { what: format!("{} {path}", call.method), limit })
        })
    }

    /// Opens a stream: the head within the deadline, the body as it comes. Takes no place.
    pub(super) async fn stream(&self, call: &Call<'_>) -> Result<Body, ClusterError> {
        let limit = self.inner.limits.timeout;
        let opening = async {
            let response = self.send(call).await?;
            let (head, body) = response.into_parts();
            if head.status.is_success() {
                return Ok(body);
            }
            let bytes = Limited::new(body, 1 << 20).collect().await;
            let bytes = bytes.map(|b| b.to_bytes().to_vec()).unwrap_or_default();
            Err(self.refused(&head, &bytes, None))
        };
        tokio::time::timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(ClusterError::Timeout { what: "WATCH".to_owned(), limit }))
    }

    /// Reads a refusal, and notes when a busy server wants to be asked again.
    fn refused(&self, head: &Parts, body: &[u8], sensitive: Option<&str>) -> ClusterError {
        let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.parse().ok());
        let error = refused(head.status.as_u16(), after, body, sensitive);
        self.inner.busy.note(&error);
        error
    }

    async fn send(&self, call: &Call<'_>) -> Result<Response<Body>, ClusterError> {
        self.inner.sent.fetch_add(1, Ordering::Relaxed);
        let request = call.request()?;
        let answer = self.inner.client.send(request).await.map_err(|error| match error {
            kube::Error::Service(error) => ClusterError::Unreachable(chain(&*error)),
            error => ClusterError::Unreachable(chain(&error)),
        })?;
        self.inner.heard.note();
        Ok(answer)
    }
}

/// An error with everything behind it, once each, at most eight deep.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..8 {
        let Some(source) = next else { break };
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

/// The text of a `Warning` header: `299 - "unknown field \"spec.x\""`.
fn warning(header: &str) -> Option<String> {
    let (_, quoted) = header.split_once('"')?;
    let quoted = quoted.strip_suffix('"').unwrap_or(quoted);
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        text.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:1'}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        )
    }

    #[tokio::test]
    async fn a_kubeconfig_that_runs_programs_or_is_none_is_refused_without_quoting_it() {
        for (given, expected) in [
            (
                kubeconfig("{exec: {command: rm, apiVersion: client.authentication.k8s.io/v1}}"),
                "exec and auth-provider plugins are not supported",
            ),
            ("hunter2: [".to_owned(), "it is not YAML of kind Config"),
            (
                kubeconfig("{token: t}").replace("server:", "proxy-url: 'http://p', server:"),
                "proxy-url is not supported",
            ),
        ] {
            let refused = Cluster::connect(given.as_bytes(), Limits::default()).await;
            let expected = ClusterError::BadKubeconfig(expected.to_owned());
            assert_eq!(refused.err(), Some(expected));
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_worth_a_retry() {
        let text = kubeconfig("{token: t}");
        let cluster = Cluster::connect(text.as_bytes(), Limits::default()).await.unwrap();
        let error = cluster.identity().await.unwrap_err();
        assert!(matches!(error, ClusterError::Unreachable(_)), "{error}");
        assert!(error.retry() && error.outage());
        assert_eq!(cluster.requests(), 1);
    }

    #[tokio::test]
    async fn nothing_is_sent_before_a_busy_server_wants_to_be_asked_again() {
        let (busy, began) = (Busy::default(), Instant::now());
        let millis = Duration::from_millis;
        let said = |after| ClusterError::TooMany { message: "slow".into(), retry_after: after };
        busy.note(&said(millis(500)));
        busy.note(&said(millis(20)));
        busy.note(&ClusterError::Conflict("no word of that".into()));
        let soon = busy.over(began + millis(400)).await;
        assert!(matches!(soon, Err(ClusterError::TooMany { .. })), "{soon:?}");
        busy.over(began + Duration::from_secs(60)).await.expect("it is over by then");
        assert!(began.elapsed() >= millis(500));
    }

    #[test]
    fn warning_headers_are_unquoted() {
        let text = warning(r#"299 - "unknown field \"spec.foo\"""#);
        assert_eq!(text.as_deref(), Some(r#"unknown field "spec.foo""#));
        assert_eq!(warning("garbage"), None);
    }
}
