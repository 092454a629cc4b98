//! Whether the API server is still there, asked on behalf of a verb.
//!
//! A server that hangs closes no connection: its watches say nothing, as they do when nothing
//! happens, until one of them is renewed, after at most 305 s. An idle daemon sends no request but
//! those renewals, so nobody asks in between. But who looks at `status` wants to know now, and
//! `reconcile` must not say "ready" of a cluster that nobody can reach: such a verb names how old
//! the news may be, and when the server was not heard for longer, one request is sent. After
//! [`ANSWER`] the status says that there is no answer; only when the request is given up for good
//! is the connection too, for a small box under load may take that long.

use super::Daemon;
use super::connect::Link;
use std::time::Duration;
use tokio::sync::oneshot;

/// Silence after which status says that the server does not answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Who waits for news of the server.
#[derive(Default)]
pub struct Hearing {
    /// A request is under way.
    asking: bool,
    /// It has been so for [`ANSWER`], and status says so.
    silent: bool,
    waiting: Vec<oneshot::Sender<()>>,
    /// To be told once the news is published.
    ready: Vec<oneshot::Sender<()>>,
}

impl Hearing {
    /// Tells who waited that the news is published. Whoever has gone away needs none.
    pub fn published(&mut self) {
        for reply in self.ready.drain(..) {
            let _ = reply.send(());
        }
    }
}

impl Daemon {
    /// Sees to it that the server was heard within this time, or that status says otherwise.
    pub(super) fn hear(&mut self, within: Duration, reply: oneshot::Sender<()>) {
        let connection = self.pipeline.connection();
        let Some(connection) = connection.filter(|_| !self.hearing.silent) else {
            return self.hearing.ready.push(reply);
        };
        if connection.cluster.silence() < within {
            return self.hearing.ready.push(reply);
        }
        self.hearing.waiting.push(reply);
        if std::mem::replace(&mut self.hearing.asking, true) {
            return;
        }
        let (links, number) = (self.links.0.clone(), self.connections);
        tokio::spawn(async move {
            let mut asked = std::pin::pin!(connection.cluster.answers());
            // The loop is gone only when the daemon ends: then nobody needs the news.
            let answer = match tokio::time::timeout(ANSWER, &mut asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    let _ = links.send(Link::Silent(number)).await;
                    asked.await
                }
            };
            let link = match answer {
                Err(error) if error.outage() || error.status() == 401 => {
                    Link::Lost { number, reason: error.to_string() }
                }
                // A refusal is an answer.
                _ => Link::Heard(number),
            };
            let _ = links.send(link).await;
        });
    }

    /// The request is unanswered for [`ANSWER`] (`silent`), or at its end.
    pub(super) fn heard(&mut self, number: u64, silent: bool) {
        let Hearing { waiting, ready, .. } = &mut self.hearing;
        ready.append(waiting);
        self.hearing.asking = silent;
        let before = std::mem::replace(&mut self.hearing.silent, silent);
        if number != self.connections || self.pipeline.connection().is_none() {
            self.hearing.silent = false;
        } else if silent {
            let seconds = ANSWER.as_secs();
            let text = format!("no answer within {seconds} s; see systemctl status k3s");
            tracing::warn!("the API server gives {text}");
            self.publisher.cluster_silent(Some(text));
        } else if before {
            self.publisher.cluster_silent(None);
        }
    }
}
