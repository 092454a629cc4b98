//! What the verbs ask for over the socket, translated into events.

use super::Daemon;
use super::boot::now_ms;
use super::edge::{next_run, no_edge};
use super::host::Stored;
use crate::api::{Accepted, Command, Refused};
use crate::flux::{Key, Kind};
use crate::graph::Event;
use crate::history::{Suspend, Trigger};
use crate::logging::Message;
use crate::pipeline::{Answer, Failure, Job, Pipeline, Preview, Step};
use crate::plan::{Held, Owner};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// What a decision reaches, and when it is on the disk, if it goes there.
pub(super) type Decided = Result<(Vec<Key>, Option<Stored>), Refused>;

impl Daemon {
    pub(super) fn call(&mut self, command: Command) {
        // A caller that has gone away needs no answer: sending to it may fail.
        match command {
            Command::Reconcile { name: Some(name), image: true, by, reply, .. } => {
                let _ = reply.send(self.reconcile_image(&name, &by).map(|keys| accepted(&keys)));
            }
            Command::Images { name, reply } => self.images(name.as_deref(), reply),
            Command::Reconcile { name, with_source, by, reply, .. } => {
                let answer = self.reconcile(name.as_deref(), with_source, &by);
                let _ = reply.send(answer);
            }
            Command::Diff { name, reply } => self.diff(name.as_deref(), reply),
            Command::Suspend { name, until_ms, reason, by, reply } => {
                let decided = self.one(&name).map(|key| {
                    let (reason, since_ms) = (Some(reason), now_ms());
                    let suspend = Suspend { until_ms, reason, by, since_ms };
                    let (shown, stored) = self.state.suspend(&key, suspend);
                    tracing::info!(
                        message_id = Message::Suspended.id(),
                        gitopsd_kustomization = %key,
                        "{key} suspended {shown}"
                    );
                    self.handle(Event::Suspend(key.clone(), Some(shown)));
                    (vec![key], Some(stored))
                });
                once_stored(decided, reply);
            }
            Command::Resume { name, by, reply } => {
                let decided = self.one(&name).map(|key| {
                    let stored = self.state.resume(&key);
                    self.pipeline.asks_again(&key);
                    tracing::info!(
                        message_id = Message::Resumed.id(),
                        gitopsd_kustomization = %key,
                        "{key} resumed by {by}"
                    );
                    self.handle(Event::Suspend(key.clone(), None));
                    (vec![key], Some(stored))
                });
                once_stored(decided, reply);
            }
            Command::Hear { within, reply } => self.hear(within, reply),
            Command::Edge { ask, by, reply } => {
                let decided = self.ask_edge(ask, by);
                // What is published says that a run is under way before anybody follows it.
                self.run_edge();
                self.publish();
                once_stored(decided, reply);
            }
            Command::EdgePlan { down, reply } => self.plan_edge(down, reply),
            Command::Reload { ask, by, reply } => self.reload(ask, by, reply),
            Command::Confirm { digest, by, reply } => {
                once_stored(self.confirm(&digest, &by), reply);
            }
        }
    }

    fn reconcile(
        &mut self,
        name: Option<&str>,
        with_source: bool,
        by: &str,
    ) -> Result<Accepted, Refused> {
        let mut keys: Vec<Key> = match name {
            Some(name) => vec![self.one(name)?],
            None => self.graph.items().map(|(key, _)| key.clone()).collect(),
        };
        if name.is_none() {
            // Registries are asked by name only.
            keys.retain(|key| match key.kind {
                Kind::Kustomization => true,
                Kind::GitRepository => with_source,
                _ => false,
            });
        }
        if with_source && name.is_some() {
            let sources: Vec<Key> = keys
                .iter()
                .filter_map(|key| Some(self.graph.kustomization(key)?.source.clone()))
                .collect();
            keys.extend(sources);
        }
        for key in &keys {
            self.pipeline.asks_again(key);
            let trigger = Trigger::Request { by: by.to_owned() };
            self.handle(Event::Request(key.clone(), trigger, 0));
        }
        Ok(accepted(&keys))
    }

    fn diff(&mut self, name: Option<&str>, reply: Reply<Vec<Preview>>) {
        let (config, there) = (self.origin.config.clone(), self.edge.there());
        let edge = next_run(self.pipeline.clone(), config, there);
        let keys: Vec<Key> = match name.map(|name| self.one(name)) {
            Some(Ok(key)) => vec![key],
            Some(Err(Refused { status: 404, .. }))
                if matches!(name, Some("edge" | "Host/edge")) =>
            {
                let one = async { edge.await.map(|plan| vec![plan]).ok_or_else(no_edge) };
                tokio::spawn(while_waited(one, reply));
                return;
            }
            Some(Err(refused)) => {
                let _ = reply.send(Err(refused));
                return;
            }
            None => self.graph.items().map(|(key, _)| key.clone()).collect(),
        };
        let jobs: Vec<_> = keys.iter().filter_map(|key| self.preview_job(key)).collect();
        let work = previews(self.pipeline.clone(), jobs, self.unfetched(&keys));
        if name.is_some() {
            tokio::spawn(while_waited(work, reply));
            return;
        }
        let all = async {
            // Beside each other: one waits for the cluster, and the other for the provider.
            let (previews, edge) = tokio::join!(work, edge);
            previews.map(|previews| previews.into_iter().chain(edge).collect::<Vec<_>>())
        };
        tokio::spawn(while_waited(all, reply));
    }

    /// Those of which nobody knows yet what is in Git: that is no plan without changes.
    fn unfetched(&self, keys: &[Key]) -> Vec<Preview> {
        let revision = |key: &Key| {
            let source = &self.graph.kustomization(key)?.source;
            Some(self.graph.item(source).and_then(|item| item.revision.clone()))
        };
        let without = keys.iter().filter(|key| matches!(revision(key), Some(None)));
        let told = |key: &Key| {
            let cause = "nothing was fetched of its source yet; see gitopsd status";
            Preview {
                kustomization: format!("{}/{}", key.namespace, key.name),
                revision: String::new(),
                steps: Vec::new(),
                unchanged: 0,
                failure: Some(Failure::new(Step::Fetch, "ArtifactFailed", cause)),
                notes: Vec::new(),
            }
        };
        without.map(told).collect()
    }

    /// What a run would be made of, and what the graph would say to it.
    fn preview_job(&self, key: &Key) -> Option<(Job, Answer)> {
        let source = self.graph.kustomization(key)?.source.clone();
        let revision = self.graph.item(&source)?.revision.clone()?;
        let source = self.graph.source(&source)?.key();
        let answer = self.says(key, &revision.id);
        Some((self.job(key, Trigger::Interval, &source, revision)?, answer))
    }

    fn confirm(&mut self, digest: &str, by: &str) -> Decided {
        if digest == "cluster" {
            let Some(connection) = self.pipeline.connection() else {
                if let Some(other) = &self.foreign {
                    tracing::info!("the cluster of another machine is taken over by {by}");
                    self.agreed.send_replace(Some(other.clone()));
                    return Ok((vec![self.graph.root()], None));
                }
                return Err(Refused::new(409, "the API server is not reachable", None));
            };
            if !connection.stranger {
                return Err(Refused::new(409, "this is the cluster that is known already", None));
            }
            self.target.known = None;
            tracing::info!("another cluster confirmed by {by}");
            self.pipeline.connect(None);
            self.connect();
            return Ok((vec![self.graph.root()], None));
        }
        let cascade = self.graph.cascades().find(|(_, held)| held.digest == digest);
        if let Some(key) = cascade.map(|(key, _)| key.clone()) {
            tracing::info!("the end of several children of {key} confirmed by {by}");
            self.handle(Event::Agree(digest.to_owned()));
            return Ok((vec![key], None));
        }
        if self.edge.held().any(|(_, held)| held.iter().any(|held| held.digest == digest)) {
            tracing::info!("deletions {digest} of the edge confirmed by {by}");
            let stored = self.state.confirm(digest, None);
            self.pipeline.confirm(self.state.confirmed());
            self.edge.again();
            return Ok((vec![Owner::edge().key()], Some(stored)));
        }
        let names = |held: &[Held]| held.iter().any(|held| held.digest == digest);
        let items = self.graph.items().filter(|(_, item)| names(&item.held));
        let holders: Vec<Key> = items.map(|(key, _)| key.clone()).collect();
        let parted = self.parted.iter().filter(|(_, parted)| parted.waits_for(digest));
        let parted: Vec<Key> = parted.map(|(key, _)| key.clone()).collect();
        if holders.is_empty() && parted.is_empty() {
            let hint = "gitopsd status lists the deletions that are held".to_owned();
            let message = format!("no deletion with digest {digest:?} is held");
            return Err(Refused::new(404, &message, Some(hint)));
        }
        tracing::info!("deletions {digest} confirmed by {by}");
        // Whole ends are let go of here; what a prune is judged by outlives a kill.
        let ends = holders.is_empty() && self.parted.values().any(|p| p.waits_to_end(digest));
        let stored = (!ends).then(|| self.state.confirm(digest, holders.first()));
        self.pipeline.confirm(self.state.confirmed());
        for key in &holders {
            self.handle(Event::Request(key.clone(), Trigger::Retry, 0));
        }
        for key in &parted {
            self.release(key, digest);
        }
        Ok((holders.into_iter().chain(parted).collect(), stored))
    }

    /// Uses up a confirmation, for a run that is about to delete by it: it covers one deletion,
    /// also if a power cut comes in between.
    pub(super) fn uses(&mut self, digest: &str, done: oneshot::Sender<Result<(), String>>) {
        let stored = self.state.used(digest);
        self.pipeline.confirm(self.state.confirmed());
        tokio::spawn(async move {
            let stored = match stored {
                None => Err("it was used already".to_owned()),
                Some(stored) => match stored.await {
                    Ok(saved) => saved.map_err(|error| error.to_string()),
                    Err(_) => Err("too much waits for the disk".to_owned()),
                },
            };
            // A run that was given up deletes nothing.
            let _ = done.send(stored);
        });
    }

    /// The one item that a name stands for; a Kustomization wins over a source of that name.
    fn one(&self, said: &str) -> Result<Key, Refused> {
        let mut found = self.graph.find(said);
        if found.len() > 1 && found.iter().any(|key| key.kind == Kind::Kustomization) {
            found.retain(|key| key.kind == Kind::Kustomization);
        }
        match found.as_slice() {
            [key] => Ok(key.clone()),
            [] => {
                let parted = self.parted.keys().find(|key| match said.split_once('/') {
                    Some((namespace, name)) => key.namespace == namespace && key.name == name,
                    None => key.name == said,
                });
                if let Some(key) = parted {
                    let message = format!("{key} left Git, and deletions of it are held");
                    let hint = format!("see them with: gitopsd diff {}", key.name);
                    return Err(Refused::new(404, &message, Some(hint)));
                }
                let hint = match self.graph.silent().next() {
                    // Whoever has not rendered since the start may declare it.
                    Some(key) => format!("{key} has not rendered since the start: ask again soon"),
                    None => "gitopsd status lists every name".to_owned(),
                };
                Err(Refused::new(404, &format!("nothing is called {said:?}"), Some(hint)))
            }
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                let message = format!("{said:?} could be any of {}", names.join(", "));
                Err(Refused::new(409, &message, Some("give NAMESPACE/NAME".to_owned())))
            }
        }
    }
}

/// Plans one Kustomization after the other.
async fn previews(
    pipeline: Arc<Pipeline>,
    jobs: Vec<(Job, Answer)>,
    mut previews: Vec<Preview>,
) -> Result<Vec<Preview>, Refused> {
    for (job, answer) in jobs {
        previews.push(pipeline.plan(job, answer).await);
    }
    Ok(previews)
}

/// Works for as long as somebody waits for it: who may only look must not be able to pile up work
/// by asking and going away.
pub(super) async fn while_waited<T>(
    work: impl Future<Output = Result<T, Refused>>,
    mut reply: Reply<T>,
) {
    tokio::select! {
        done = work => {
            // A caller that goes away at this moment needs no answer.
            let _ = reply.send(done);
        }
        () = reply.closed() => {}
    }
}

fn accepted(keys: &[Key]) -> Accepted {
    Accepted { keys: keys.iter().map(ToString::to_string).collect() }
}

/// Answers a decision when it is on the disk, if it goes there. It is in force in any case.
fn once_stored(decided: Decided, reply: Reply<Accepted>) {
    tokio::spawn(async move {
        let lost = |cause: &str, hint| {
            let message = format!("in force, but only until gitopsd stops: {cause}");
            Refused::new(500, &message, hint)
        };
        let answer = match decided {
            Err(refused) => Err(refused),
            Ok((keys, None)) => Ok(accepted(&keys)),
            Ok((keys, Some(stored))) => match stored.await {
                Ok(Ok(())) => Ok(accepted(&keys)),
                Ok(Err(error)) => Err(lost(&error.to_string(), error.hint())),
                Err(_) => Err(lost("it was not stored", None)),
            },
        };
        // A caller that has gone away needs no answer.
        let _ = reply.send(answer);
    });
}
