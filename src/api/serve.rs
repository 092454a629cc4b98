//! The daemon's side: limits, rights and routes.
//!
//! At most [`CONNECTIONS`] at once, each for one request: 32 × (64 KiB body + one document) stays
//! below a few MiB, and the verbs connect anew each time. Headers within [`HEADERS`], answers
//! within [`ANSWER`], long polls within [`POLL`].

use super::document::{
    Accepted, ConfirmAsk, Document, EdgeAsk, Fault, ReconcileAsk, ReloadAsk, ResumeAsk, SuspendAsk,
};
use super::past;
use super::peer::{Peer, Right};
use crate::history::History;
use crate::pipeline::{ImageView, Preview};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at once; a further one waits in the listener's backlog.
const CONNECTIONS: usize = 32;
/// Largest request body: commands are a few hundred bytes.
const BODY: usize = 64 << 10;
/// The same for a reload: eight credentials, of which a kubeconfig with its 3 KiB is the largest
/// that anybody has seen. Only root may send one.
const CREDENTIALS: usize = 1 << 20;
/// Time for the request's headers.
const HEADERS: Duration = Duration::from_secs(5);
/// Time for an answer; a `diff` of everything asks the API server once for each object.
const ANSWER: Duration = Duration::from_secs(60);
/// Time until a long poll is answered although nothing changed.
const POLL: Duration = Duration::from_secs(30);
/// Time for the loop to have heard from the API server: its probe says after 5 s that there is no
/// answer yet.
const HEARD: Duration = Duration::from_secs(8);
/// Time that open connections have when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(1);
/// Runs in one answer, unless fewer are asked for.
const RUNS: u32 = 1000;

/// What the daemon lends to the socket.
#[derive(Clone)]
pub struct Handle {
    /// The state, replaced whole on each change.
    pub status: watch::Receiver<Arc<Document>>,
    /// Questions to the loop.
    pub commands: mpsc::Sender<Command>,
    /// The database, for reading.
    pub history: Arc<History>,
}

/// A question to the loop; `by` is who asks, such as `root (uid 0)`.
pub enum Command {
    /// Make sure that what is published of the API server is not older than this.
    Hear {
        /// Longest silence that is taken for life.
        within: Duration,
        /// Told once the document says it.
        reply: oneshot::Sender<()>,
    },
    /// Run now.
    Reconcile {
        /// Everything when absent.
        name: Option<String>,
        /// Ask the source first.
        with_source: bool,
        /// The name is that of an image object.
        image: bool,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
    /// Plan without writing.
    Diff {
        /// Everything when absent.
        name: Option<String>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Vec<Preview>, Refused>>,
    },
    /// Show the image policies.
    Images {
        /// All when absent; the candidates of one otherwise.
        name: Option<String>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Vec<ImageView>, Refused>>,
    },
    /// Stop an item.
    Suspend {
        /// Which.
        name: String,
        /// Until when, Unix milliseconds.
        until_ms: Option<i64>,
        /// Why.
        reason: String,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
    /// Release it.
    Resume {
        /// Which.
        name: String,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
    /// Read the configuration again, with these credentials.
    Reload {
        /// What the helper hands over.
        ask: ReloadAsk,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
    /// Do something about the edge.
    Edge {
        /// What.
        ask: EdgeAsk,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
    /// Plan the edge without writing.
    EdgePlan {
        /// Its withdrawal.
        down: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Preview, Refused>>,
    },
    /// Let held deletions go ahead.
    Confirm {
        /// Digest of the delete set.
        digest: String,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Accepted, Refused>>,
    },
}

/// Why a command was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status, such as 404 for an unknown name.
    pub status: u16,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Refused {
    /// A refusal from its parts.
    pub fn new(status: u16, message: &str, hint: Option<String>) -> Self {
        Refused { status, message: message.to_owned(), hint }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(Fault { error: self.message, hint: self.hint })).into_response()
    }
}

#[derive(Clone)]
struct Shared {
    handle: Handle,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` becomes true or its sender is gone; then gives open connections a second.
pub async fn serve(listener: UnixListener, handle: Handle, mut stop: watch::Receiver<bool>) {
    let group = socket_group(&listener);
    let router = router(Shared { handle, stop: stop.clone() });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let router = router.clone();
        open.spawn(async move {
            let _place = place;
            connection(stream, router, group).await;
        });
    }
    let _ = timeout(GOODBYE, async { while open.join_next().await.is_some() {} }).await;
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &UnixListener, places: &Arc<Semaphore>) -> Option<(UnixStream, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to be closed.
            tracing::warn!("cannot accept a connection on the API socket: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

/// Group of the socket file, whose members may read.
fn socket_group(listener: &UnixListener) -> Option<u32> {
    let address = listener.local_addr().ok()?;
    Some(std::fs::metadata(address.as_pathname()?).ok()?.gid())
}

async fn connection(stream: UnixStream, router: Router, group: Option<u32>) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let (uid, gid) = Peer::ids(&credentials);
    // A user database on the network may hang; whoever cannot be judged is served nothing.
    let judged = tokio::task::spawn_blocking(move || Peer::judge(uid, gid, group));
    let Ok(Ok(peer)) = timeout(HEADERS, judged).await else { return };
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Headers, then the body, the answer and its delivery: nothing outlives this.
    let limit = HEADERS + 2 * ANSWER;
    if let Ok(Err(error)) = timeout(limit, served).await {
        tracing::debug!("API connection ended early: {error}");
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reconcile", post(reconcile))
        .route("/v1/diff", get(diff))
        .route("/v1/images", get(images))
        .route("/v1/history", get(history))
        .route("/v1/history/{run}", get(run))
        .route("/v1/suspend", post(suspend))
        .route("/v1/resume", post(resume))
        .route("/v1/confirm", post(confirm))
        .route("/v1/edge", post(edge))
        .route("/v1/edge/plan", get(edge_plan))
        .route("/v1/reload", post(reload).layer(DefaultBodyLimit::max(CREDENTIALS)))
        .fallback(|| async { Refused::new(404, "no such path", None) })
        .method_not_allowed_fallback(|| async { Refused::new(405, "no such method", None) })
        .layer(from_fn(guard))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(shared)
}

/// Rights by method, and the limit on every answer.
async fn guard(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let Some(peer) = peer else {
        return Refused::new(403, "the peer is not known", None).into_response();
    };
    let reading = request.method() == Method::GET || request.method() == Method::HEAD;
    let refused = match peer.right {
        Right::None => Some("may not talk to gitopsd"),
        Right::Read if !reading => Some("may look at gitopsd, but not act"),
        _ => None,
    };
    if let Some(why) = refused {
        let hint = if reading { "join group gitopsd or use sudo" } else { "use sudo" };
        let message = format!("{} {why}", peer.name);
        return Refused::new(403, &message, Some(hint.to_owned())).into_response();
    }
    match timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s", ANSWER.as_secs());
            let hint = "see journalctl -u gitopsd".to_owned();
            Refused::new(504, &message, Some(hint)).into_response()
        }
    }
}

/// A JSON body whose errors are our own.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(wrong) => Err(Refused::new(wrong.status().as_u16(), &wrong.body_text(), None)),
        }
    }
}

type Answer<T> = Result<Json<T>, Refused>;

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
    /// Seconds within which the API server is to have been heard.
    heard: Option<u64>,
}

async fn status(State(shared): State<Shared>, Query(query): Query<After>) -> Response {
    let mut status = shared.handle.status;
    let mut stop = shared.stop;
    if let Some(seconds) = query.heard {
        let (reply, answer) = oneshot::channel();
        let within = Duration::from_secs(seconds);
        let ask = async {
            if shared.handle.commands.send(Command::Hear { within, reply }).await.is_ok() {
                // Without an answer the document is as good as it gets.
                let _ = answer.await;
            }
        };
        let _ = timeout(HEARD, ask).await;
    }
    if let Some(after) = query.after {
        // A restarted daemon counts from the start: any other serial is news.
        let news = status.wait_for(|document| document.serial != after);
        tokio::select! {
            _ = timeout(POLL, news) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    let document = status.borrow().clone();
    Json(&*document).into_response()
}

async fn reconcile(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<ReconcileAsk>,
) -> Answer<Accepted> {
    let ReconcileAsk { name, with_source, image } = ask;
    let by = peer.name;
    put(&shared, |reply| Command::Reconcile { name, with_source, image, by, reply }).await
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

async fn diff(
    State(shared): State<Shared>,
    Query(Named { name }): Query<Named>,
) -> Answer<Vec<Preview>> {
    put(&shared, |reply| Command::Diff { name, reply }).await
}

async fn images(
    State(shared): State<Shared>,
    Query(Named { name }): Query<Named>,
) -> Answer<Vec<ImageView>> {
    put(&shared, |reply| Command::Images { name, reply }).await
}

async fn suspend(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<SuspendAsk>,
) -> Answer<Accepted> {
    let SuspendAsk { name, until_ms, reason } = ask;
    let by = peer.name;
    let reason = match reason.trim() {
        "" => "no reason given".to_owned(),
        said => said.to_owned(),
    };
    put(&shared, |reply| Command::Suspend { name, until_ms, reason, by, reply }).await
}

async fn resume(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<ResumeAsk>,
) -> Answer<Accepted> {
    let (name, by) = (ask.name, peer.name);
    put(&shared, |reply| Command::Resume { name, by, reply }).await
}

async fn confirm(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<ConfirmAsk>,
) -> Answer<Accepted> {
    let (digest, by) = (ask.digest, peer.name);
    put(&shared, |reply| Command::Confirm { digest, by, reply }).await
}

async fn edge(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<EdgeAsk>,
) -> Answer<Accepted> {
    let by = peer.name;
    put(&shared, |reply| Command::Edge { ask, by, reply }).await
}

#[derive(Deserialize)]
struct Direction {
    #[serde(default)]
    down: bool,
}

async fn edge_plan(
    State(shared): State<Shared>,
    Query(Direction { down }): Query<Direction>,
) -> Answer<Preview> {
    put(&shared, |reply| Command::EdgePlan { down, reply }).await
}

async fn reload(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Body(ask): Body<ReloadAsk>,
) -> Answer<Accepted> {
    let by = peer.name;
    put(&shared, |reply| Command::Reload { ask, by, reply }).await
}

/// Puts a question to the loop and waits for what it says.
async fn put<T: Serialize>(
    shared: &Shared,
    command: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Command,
) -> Answer<T> {
    let stopping = || Refused::new(503, "gitopsd is stopping", None);
    let (reply, answered) = oneshot::channel();
    shared.handle.commands.send(command(reply)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?.map(Json)
}

#[derive(Deserialize)]
struct Past {
    name: Option<String>,
    limit: Option<u32>,
}

async fn history(
    State(shared): State<Shared>,
    Query(Past { name, limit }): Query<Past>,
) -> Answer<Vec<super::RunView>> {
    let limit = limit.unwrap_or(20).min(RUNS);
    past::runs(shared.handle.history, name, limit).await.map(Json)
}

async fn run(State(shared): State<Shared>, Path(run): Path<String>) -> Answer<super::RunDetail> {
    past::run(shared.handle.history, run).await.map(Json)
}
