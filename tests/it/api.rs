//! The socket: a client and a server over a real one, with a loop of the test behind it.

use gitopsd::api::{
    Accepted, ApiError, Client, ClusterView, Command, DaemonView, Document, Handle, ReconcileAsk,
    Refused, SuspendAsk, serve,
};
use gitopsd::history::History;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// A served socket; dropping it stops the server.
struct Served {
    dir: tempfile::TempDir,
    status: watch::Sender<Arc<Document>>,
    commands: mpsc::Receiver<Command>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start() -> Served {
        let dir = tempfile::tempdir().expect("temp dir");
        let listener = UnixListener::bind(dir.path().join("api.sock")).expect("a fresh socket");
        let document = Document::starting(DaemonView::default(), ClusterView::default());
        let (status, published) = watch::channel(Arc::new(document));
        let (send, commands) = mpsc::channel(4);
        let (history, _) = History::open(dir.path()).expect("a fresh database");
        let handle = Handle { status: published, commands: send, history: Arc::new(history) };
        let (stop, stopping) = watch::channel(false);
        let server = tokio::spawn(serve(listener, handle, stopping));
        Served { dir, status, commands, stop, server }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path().join("api.sock"))
    }

    async fn stream(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("api.sock")).await.expect("it listens")
    }

    fn publish(&self, serial: u64) {
        self.status.send_modify(|document| {
            *document = Arc::new(Document { serial, ..(**document).clone() });
        });
    }
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_document_changes_and_not_before() {
    let served = Served::start();
    let client = served.client();
    assert_eq!(client.status(None).await.expect("at once").serial, 0);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.status(Some(0)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    served.publish(1);
    let answer = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(answer.serial, 1);
    assert_eq!(client.status(Some(9)).await.expect("a restart is news").serial, 1);
}

#[tokio::test]
async fn a_command_reaches_the_loop_with_who_asks_and_its_answer_comes_back() {
    let mut served = Served::start();
    let client = served.client();
    let ask = ReconcileAsk { name: Some("apps".into()), with_source: true, image: false };
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.reconcile(&ask).await }
    });
    let Some(Command::Reconcile { name, with_source, by, reply, .. }) =
        served.commands.recv().await
    else {
        panic!("another command");
    };
    assert_eq!((name.as_deref(), with_source), (Some("apps"), true));
    let uid = nix::unistd::Uid::effective();
    assert!(by.contains(&format!("uid {uid}")), "{by}");
    let accepted = Accepted { keys: vec!["Kustomization/n/apps".into()] };
    reply.send(Ok(accepted.clone())).expect("the server waits");
    assert_eq!(asked.await.expect("no panic"), Ok(accepted));

    let ask = SuspendAsk { name: "nope".into(), until_ms: None, reason: String::new() };
    let asked = tokio::spawn(async move { client.suspend(&ask).await });
    let Some(Command::Suspend { reply, .. }) = served.commands.recv().await else {
        panic!("another command");
    };
    let refused = Refused::new(404, "nothing is called \"nope\"", Some("see status".into()));
    assert!(reply.send(Err(refused)).is_ok());
    assert_eq!(
        asked.await.expect("no panic"),
        Err(ApiError::Refused {
            status: 404,
            message: "nothing is called \"nope\"".into(),
            hint: Some("see status".into())
        })
    );
}

#[tokio::test]
async fn what_is_too_large_malformed_or_unknown_is_refused_in_json() {
    let served = Served::start();
    let large = "x".repeat(65 << 10);
    for (request, status) in [
        ("GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "404"),
        ("DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "405"),
        (post("{\"unknown\": 1}"), "422"),
        (post(&large), "413"),
    ] {
        let mut stream = served.stream().await;
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        // The server may close while we still have things to say; what it said counts.
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("{\"error\":"), "{answer}");
    }
}

fn post(body: &str) -> String {
    format!(
        "POST /v1/reconcile HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_silent_peer_is_let_go_and_the_stop_does_not_wait_for_long_polls() {
    let served = Served::start();
    let mut silent = served.stream().await;
    let waiting = tokio::spawn({
        let client = served.client();
        async move { client.status(Some(0)).await }
    });
    let begun = Instant::now();
    let mut buffer = Vec::new();
    // Nothing is sent: after five seconds of headers that never come the server hangs up.
    let _ = silent.read_to_end(&mut buffer).await;
    assert!((4..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    served.stop.send_replace(true);
    let stopped = Instant::now();
    served.server.await.expect("no panic");
    assert!(stopped.elapsed() < Duration::from_secs(3));
    assert!(waiting.await.expect("no panic").is_ok(), "answered with what is known");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_named() {
    let served = Served::start();
    let error = served.client().run("7").await.expect_err("an empty history");
    assert_eq!(error.to_string(), "there is no run \"7\"");
    assert_eq!(served.client().history(None, 5).await, Ok(Vec::new()));
}
