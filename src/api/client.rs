//! The verbs' side: one request for each connection, bounded in time and size.

use super::document::{
    Accepted, ConfirmAsk, Document, EdgeAsk, Fault, ReconcileAsk, ReloadAsk, ResumeAsk, RunDetail,
    RunView, SuspendAsk, VERSION,
};
use crate::pipeline::{ImageView, Preview};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Largest answer read: a document of 10 000 items has some 8 MiB.
const ANSWER: usize = 16 << 20;
/// Time to connect: the socket is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for a whole exchange, above the server's own 60 s.
const EXCHANGE: Duration = Duration::from_secs(75);

/// Why a question to the daemon has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens.
    #[error("gitopsd is not running (nothing answers on {})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is not ours to open.
    #[error("permission denied on {}", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection broke, or took too long.
    #[error("no answer from gitopsd on {}: {cause}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
    /// The daemon said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The daemon's sentence.
        message: String,
        /// The daemon's advice.
        hint: Option<String>,
    },
    /// The answer is not what this version understands.
    #[error("the answer of gitopsd cannot be read: {cause}")]
    Unreadable {
        /// What is wrong with it.
        cause: String,
    },
}

impl ApiError {
    /// True when the same question may be answered later.
    pub fn retry(&self) -> bool {
        match self {
            ApiError::NotRunning { .. } | ApiError::Broken { .. } => true,
            ApiError::Refused { status, .. } => *status >= 500,
            ApiError::Denied { .. } | ApiError::Unreadable { .. } => false,
        }
    }

    /// What to do.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            ApiError::NotRunning { .. } => "see systemctl status gitopsd",
            ApiError::Denied { .. } => "join group gitopsd or use sudo",
            ApiError::Broken { .. } => "see journalctl -u gitopsd",
            ApiError::Refused { hint, .. } => return hint.clone(),
            ApiError::Unreadable { .. } => {
                "the daemon has another version than this command: systemctl restart gitopsd"
            }
        };
        Some(text.to_owned())
    }

    /// True when no daemon was reached at all.
    pub fn unreachable(&self) -> bool {
        matches!(
            self,
            ApiError::NotRunning { .. } | ApiError::Denied { .. } | ApiError::Broken { .. }
        )
    }
}

/// The way to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the socket at `socket`; connects at each question.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The state; with `after`, as soon as its serial is another one, or after 30 s.
    ///
    /// # Errors
    /// See [`ApiError`]; so for all questions here.
    pub async fn status(&self, after: Option<u64>) -> Result<Document, ApiError> {
        let query = after.map(|serial| format!("?after={serial}")).unwrap_or_default();
        self.document(&query).await
    }

    /// The same, once the API server was heard within this time, or did not answer. A server that
    /// was not is asked, by one request that says after 5 s how it stands.
    pub async fn status_heard(
        &self,
        within: Duration,
        after: Option<u64>,
    ) -> Result<Document, ApiError> {
        let after = after.map(|serial| format!("&after={serial}")).unwrap_or_default();
        self.document(&format!("?heard={}{after}", within.as_secs())).await
    }

    async fn document(&self, query: &str) -> Result<Document, ApiError> {
        let document: Document = self.get(&format!("/v1/status{query}")).await?;
        if document.version != VERSION {
            let cause = format!("version {} of the document", document.version);
            return Err(ApiError::Unreadable { cause });
        }
        Ok(document)
    }

    /// Asks for runs.
    pub async fn reconcile(&self, ask: &ReconcileAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/reconcile", ask).await
    }

    /// The plan that a run would execute.
    pub async fn diff(&self, name: Option<&str>) -> Result<Vec<Preview>, ApiError> {
        self.get(&format!("/v1/diff{}", query(&[("name", name)]))).await
    }

    /// The image policies, or those of one name with their candidates.
    pub async fn images(&self, name: Option<&str>) -> Result<Vec<ImageView>, ApiError> {
        self.get(&format!("/v1/images{}", query(&[("name", name)]))).await
    }

    /// The latest runs, newest first.
    pub async fn history(&self, name: Option<&str>, limit: u32) -> Result<Vec<RunView>, ApiError> {
        let limit = limit.to_string();
        let query = query(&[("name", name), ("limit", Some(&limit))]);
        self.get(&format!("/v1/history{query}")).await
    }

    /// One run in full.
    pub async fn run(&self, run: &str) -> Result<RunDetail, ApiError> {
        self.get(&format!("/v1/history/{}", encode(run))).await
    }

    /// Stops an item.
    pub async fn suspend(&self, ask: &SuspendAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/suspend", ask).await
    }

    /// Releases an item.
    pub async fn resume(&self, ask: &ResumeAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/resume", ask).await
    }

    /// Lets held deletions go ahead.
    pub async fn confirm(&self, ask: &ConfirmAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/confirm", ask).await
    }

    /// Asks something of the edge.
    pub async fn edge(&self, ask: EdgeAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/edge", &ask).await
    }

    /// What a run of the edge would do, or with `down` its withdrawal.
    pub async fn edge_plan(&self, down: bool) -> Result<Preview, ApiError> {
        self.get(&format!("/v1/edge/plan?down={down}")).await
    }

    /// Hands over credentials, and has the configuration read again. The answer names no key when
    /// nothing has changed; otherwise the daemon starts anew a moment later.
    pub async fn reload(&self, ask: &ReloadAsk) -> Result<Accepted, ApiError> {
        self.post("/v1/reload", ask).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ApiError::Unreadable { cause: error.to_string() })?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ApiError> {
        let (status, answer) = timeout(EXCHANGE, self.exchange(method, path, body))
            .await
            .map_err(|_| self.broken(format!("nothing within {} s", EXCHANGE.as_secs())))??;
        if status.is_success() {
            return serde_json::from_slice(&answer)
                .map_err(|error| ApiError::Unreadable { cause: error.to_string() });
        }
        let fault: Fault = serde_json::from_slice(&answer)
            .unwrap_or_else(|_| Fault { error: format!("gitopsd answered {status}"), hint: None });
        let Fault { error: message, hint } = fault;
        Err(ApiError::Refused { status: status.as_u16(), message, hint })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let stream = match timeout(CONNECT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unconnected(&error)),
            Err(_) => return Err(self.broken("it takes no connections".to_owned())),
        };
        let failed = |error: hyper::Error| self.broken(chain(&error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the sender, at the end of this function.
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "gitopsd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER).collect().await;
        driver.abort();
        let answer = answer.map_err(|error| ApiError::Unreadable { cause: error.to_string() })?;
        Ok((status, answer.to_bytes()))
    }

    fn unconnected(&self, error: &std::io::Error) -> ApiError {
        let socket = self.socket.clone();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ApiError::NotRunning { socket },
            ErrorKind::PermissionDenied => ApiError::Denied { socket },
            _ => ApiError::Broken { socket, cause: error.to_string() },
        }
    }

    fn broken(&self, cause: String) -> ApiError {
        ApiError::Broken { socket: self.socket.clone(), cause }
    }
}

/// An error with what lies under it: hyper's own texts say only where it happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// `?a=1&b=2` of what is there.
fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let said: Vec<String> = pairs
        .iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key}={}", encode(value))))
        .collect();
    if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) }
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
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_there_and_nothing_else() {
        assert_eq!(query(&[("name", None), ("limit", None)]), "");
        assert_eq!(
            query(&[("name", Some("Kustomization/a b/c")), ("limit", Some("5"))]),
            "?name=Kustomization%2Fa%20b%2Fc&limit=5"
        );
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_means_not_running() {
        let dir = tempfile::tempdir().expect("temp dir");
        let client = Client::new(dir.path().join("api.sock"));
        let error = client.status(None).await.expect_err("nobody listens");
        assert_eq!(error, ApiError::NotRunning { socket: dir.path().join("api.sock") });
        assert!(error.unreachable() && error.retry());
        assert_eq!(error.hint().as_deref(), Some("see systemctl status gitopsd"));
    }
}
