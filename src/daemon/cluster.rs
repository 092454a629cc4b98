//! The loop's side of the connection: links, outages, what the watches tell, what is compared then.

use super::connect::{self, Link, Reason};
use super::owner::{Standing, follow, standing};
use super::sweep::PAUSE;
use super::{Daemon, Notice, rules};
use crate::graph::Event;
use crate::logging::Message;
use crate::pipeline::Connection;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A watch that was away for longer may have missed what its new list does not show: a datastore
/// that lost commits and has had as many others since.
const LONG: Duration = Duration::from_secs(60);

/// A watch that is out.
pub struct Away {
    since: Instant,
    /// Nobody answered at all: the server may have been another meanwhile.
    server: bool,
}

impl Away {
    /// True when the list that a watch begins anew with does not tell all that may have happened.
    fn doubtful(&self, now: Instant) -> bool {
        self.server || now >= self.since + LONG
    }
}

impl Daemon {
    /// Looks for the API server until it answers, unless that is being done.
    pub(super) fn connect(&mut self) {
        if !self.connecting {
            self.connecting = true;
            tokio::spawn(connect::connect(self.target.clone(), self.links.0.clone()));
        }
    }

    /// Takes in what became of the search for the API server.
    pub(super) fn linked(&mut self, link: Link) {
        match link {
            Link::Down(reason) => self.down(&reason),
            Link::Silent(number) => self.heard(number, true),
            Link::Heard(number) => self.heard(number, false),
            Link::Lost { number, reason } => {
                self.heard(number, false);
                if number == self.connections {
                    self.lose(reason);
                }
            }
            Link::Up { connection, identity, version, taken } => {
                self.connecting = false;
                self.foreign = None;
                self.agreed.send_replace(None);
                let server = connection.cluster.server();
                tracing::info!(
                    message_id = Message::ClusterReachable.id(),
                    "API server {server} answers, version {version}"
                );
                if connection.stranger {
                    tracing::warn!(
                        message_id = Message::ClusterChanged.id(),
                        "another cluster answers than the one the history was made on: nothing is \
                         pruned until gitopsd confirm cluster"
                    );
                }
                self.publisher.cluster_up(server, &version, &connection);
                if self.target.known.is_none() || taken {
                    self.target.known = Some(identity.clone());
                    self.pipeline.know_cluster(&identity);
                }
                self.connections += 1;
                self.away.clear();
                self.forward(&connection);
                if !connection.shared {
                    follow(&connection.observer);
                    rules::follow(&connection.observer);
                }
                self.pipeline.connect(Some(connection));
                // Before the root, and without anybody waiting for it.
                self.edge.begin();
                self.run_edge();
                self.handle(Event::ClusterBack);
                if self.connections > 1 {
                    self.verify();
                }
            }
        }
    }

    /// There is no connection yet.
    fn down(&mut self, reason: &Reason) {
        let said = reason.to_string();
        let kind = match reason {
            Reason::Away(_) => Message::ClusterUnreachable,
            Reason::Flux(_) | Reason::Owned(_) => Message::SecondOwner,
        };
        tracing::warn!(message_id = kind.id(), "{said}");
        self.foreign = match reason {
            Reason::Owned(other) => Some(other.id.clone()),
            Reason::Away(_) | Reason::Flux(_) => None,
        };
        self.pipeline.away(&said);
        self.publisher.cluster_down(said);
    }

    /// Forwards the sightings of a connection, in place of those of the one before.
    fn forward(&mut self, connection: &Arc<Connection>) {
        let mut notices = connection.observer.subscribe();
        let (sightings, number) = (self.sightings.0.clone(), self.connections);
        let task = tokio::spawn(async move {
            while let Some(notice) = notices.next().await {
                if sightings.send((number, notice)).await.is_err() {
                    return;
                }
            }
        });
        if let Some(before) = self.forwarding.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// Takes in what a watch tells.
    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Seen(seen) => self.seen(&seen),
            Notice::Listed { resource, objects, rewound } => {
                objects.iter().for_each(|seen| self.seen(seen));
                if rewound {
                    let kind = &resource.kind;
                    tracing::warn!("the cluster's datastore has lost commits, as {kind} shows");
                    self.relist();
                    self.doubt.is_certain();
                    self.verify();
                }
            }
            Notice::Missed(_) => self.relist(),
            Notice::Outage { error, .. } if error.status() == 401 => self.lose(error.to_string()),
            Notice::Outage { followed, error } => {
                let (since, server) = (Instant::now(), error.outage());
                self.away.insert(followed.clone(), Away { since, server });
                if server {
                    self.probe(error.to_string());
                }
                self.publisher.blind(followed, Some(error.to_string()));
            }
            Notice::Back(followed) => {
                // One kind that the server refused for a moment is told by its new list: what has
                // moved is judged, what has not costs nothing. An overloaded server that answers
                // 429 or 500 is not asked about every object on top.
                let away = self.away.remove(&followed);
                self.publisher.blind(followed, None);
                if away.is_none_or(|away| away.doubtful(Instant::now())) {
                    self.verify();
                }
            }
        }
    }

    fn relist(&self) {
        if let Some(connection) = self.pipeline.connection() {
            connection.observer.relist();
        }
    }

    /// One kind's watch is out of reach: asks whether the server is. A slow list of one kind must
    /// not cost the connection.
    fn probe(&mut self, reason: String) {
        let Some(connection) = self.pipeline.connection() else { return };
        let (links, number) = (self.links.0.clone(), self.connections);
        tokio::spawn(async move {
            if connection.cluster.version().await.is_err() {
                // The loop is gone only when the daemon ends.
                let _ = links.send(Link::Lost { number, reason }).await;
            }
        });
    }

    /// Asks once more whose the cluster is: whoever took it over may not know that we still run.
    pub(super) fn ask_owner(&self) {
        let Some(connection) = self.pipeline.connection().filter(|link| !link.shared) else {
            return;
        };
        let (links, number) = (self.links.0.clone(), self.connections);
        let machine = self.target.machine.clone();
        tokio::spawn(async move {
            if let Ok(Standing::Others(other, _)) = standing(&connection.cluster, &machine).await {
                // The loop is gone only when the daemon ends.
                let _ = links.send(Link::Lost { number, reason: other.to_string() }).await;
            }
        });
    }

    /// Gives the connection up and looks for the server anew: with the kubeconfig as it is then,
    /// and with a fresh look at which cluster it is and whether Flux runs in it.
    fn lose(&mut self, reason: String) {
        if self.pipeline.connection().is_none() {
            return;
        }
        tracing::warn!(message_id = Message::ClusterUnreachable.id(), "{reason}");
        self.pipeline.away(&reason);
        self.publisher.cluster_down(reason);
        self.pipeline.connect(None);
        self.doubt.rests();
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.abort();
        }
        self.connect();
    }

    /// Compares every object with Git, and looks for what is in no inventory; soon again at most.
    pub(super) fn verify(&mut self) {
        if self.doubt.arises(Instant::now()) {
            self.compare_all();
        }
    }

    /// Compares every object with Git now.
    pub(super) fn compare_all(&mut self) {
        self.sweep_pause = PAUSE;
        self.patrol.give_up();
        self.rules.give_up();
        self.pipeline.verify();
        self.sweep.again();
        self.verify.1 = Instant::now() + self.verify.0;
        self.edge.verify();
        self.handle(Event::Verify);
    }
}
