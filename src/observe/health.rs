//! Waits until objects are healthy, driven by the watches.
//!
//! The answer to an object's apply is its first state, so what is current at once costs no
//! request. After that an event leads to one GET, however many events there were in 100 ms. What
//! no watch tells of, such as a `healthChecks` entry that somebody else owns, is polled.

use super::Observer;
use super::drift::{Event, Notice, Seen};
use super::kstatus::{Status, Verdict, absent, status};
use crate::cluster::ClusterError;
use crate::flux::HealthCheckExpr;
use crate::render::ObjectId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Shortest time between two GETs of one object.
const COALESCE: Duration = Duration::from_millis(100);

/// How often an object is looked at that no watch tells of.
const POLL: Duration = Duration::from_secs(2);

/// How often a Pod is looked at in any case: being unschedulable becomes a failure by waiting.
const POD: Duration = Duration::from_secs(5);

/// How often anything else is looked at in any case.
const SAFETY: Duration = Duration::from_secs(30);

/// GETs under way at once.
const AT_ONCE: usize = 8;

/// An object to wait for.
#[derive(Clone)]
pub struct Wanted {
    /// The object.
    pub id: ObjectId,
    /// `group/version` to ask in.
    pub api_version: String,
    /// The answer to its apply, when it was just applied; otherwise it is fetched.
    pub object: Option<Value>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is current.
    Healthy,
    /// Something has failed: waiting longer would not help.
    Failed,
    /// The time is over.
    TimedOut,
}

/// What came of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// The last verdict on each object, in the order of the question.
    pub verdicts: Vec<(ObjectId, Verdict)>,
    /// How it ended.
    pub outcome: Outcome,
}

impl HealthReport {
    /// The objects that are to blame: the failed ones, or else all that are not current.
    pub fn unhealthy(&self) -> impl Iterator<Item = &(ObjectId, Verdict)> {
        let failed = self.outcome == Outcome::Failed;
        self.verdicts.iter().filter(move |(_, verdict)| match verdict.status {
            Status::Failed => true,
            Status::Current => false,
            _ => !failed,
        })
    }
}

struct Item {
    wanted: Wanted,
    verdict: Option<Verdict>,
    /// When to look next; an event brings it forward.
    due: Instant,
    looked: Option<Instant>,
    /// resourceVersion of the state that was judged: earlier events say nothing new.
    version: u64,
    /// A GET is under way; an event in the meantime asks for another.
    busy: bool,
    again: bool,
}

type Looked = (usize, Result<Option<Value>, ClusterError>);

impl Observer {
    /// Waits until every object is current, one has failed, or the deadline is reached.
    ///
    /// Kinds that [`Observer::watch`] follows cost requests only when something happens.
    /// `on_change` hears every new verdict. Dropping the future ends the wait. Flux objects must
    /// not be asked for here: the graph knows them, the cluster does not.
    pub async fn health(
        &self,
        wanted: Vec<Wanted>,
        expressions: &[HealthCheckExpr],
        deadline: impl Into<Instant>,
        mut on_change: impl FnMut(&ObjectId, &Verdict),
    ) -> HealthReport {
        // Before the first look, so that no event falls between.
        let mut notices = self.subscribe();
        let deadline = deadline.into();
        let mut items: Vec<Item> = Vec::with_capacity(wanted.len());
        let mut index = HashMap::new();
        for wanted in wanted {
            index.insert(wanted.id.clone(), items.len());
            let due = Instant::now();
            let version = wanted.object.as_ref().map_or(0, version);
            let (verdict, looked, busy, again) = (None, None, false, false);
            let mut item = Item { wanted, verdict, due, looked, version, busy, again };
            if let Some(object) = &item.wanted.object {
                let verdict = status(object, expressions, now());
                self.judge(&mut item, verdict, &mut on_change);
                if !item.is(Status::Current) {
                    // It may have changed between its apply and the subscription above.
                    item.due = Instant::now();
                }
            }
            items.push(item);
        }
        let mut looks: FuturesUnordered<BoxFuture<'_, Looked>> = FuturesUnordered::new();
        loop {
            if let Some(outcome) = outcome(&items, deadline) {
                return report(items, outcome);
            }
            let mut wake = deadline;
            for (number, item) in items.iter_mut().enumerate() {
                if item.busy || item.is(Status::Current) && !item.again {
                    continue;
                }
                let due = item.looked.map_or(item.due, |at| item.due.max(at + COALESCE));
                if due <= Instant::now() && looks.len() < AT_ONCE {
                    (item.busy, item.again) = (true, false);
                    looks.push(self.look(number, &item.wanted));
                } else if due > Instant::now() {
                    wake = wake.min(due);
                }
            }
            tokio::select! {
                notice = notices.next() => match notice {
                    Some(notice) => take(notice, &index, &mut items),
                    // Invariant: the sender lives in self.
                    None => unreachable!("the observer is borrowed"),
                },
                Some((number, found)) = looks.next(), if !looks.is_empty() => {
                    let item = &mut items[number];
                    (item.busy, item.looked) = (false, Some(Instant::now()));
                    let verdict = match found {
                        Ok(Some(object)) => {
                            item.version = version(&object);
                            status(&object, expressions, now())
                        }
                        Ok(None) => absent(&item.desired()),
                        Err(error) => item.unsure(&error),
                    };
                    self.judge(item, verdict, &mut on_change);
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// The verdict on one object, by one GET.
    pub async fn verdict(
        &self,
        id: &ObjectId,
        api_version: &str,
        expressions: &[HealthCheckExpr],
    ) -> Result<Verdict, ClusterError> {
        let (id, api_version) = (id.clone(), api_version.to_owned());
        let wanted = Wanted { id, api_version, object: None };
        Ok(match self.look(0, &wanted).await.1? {
            Some(object) => status(&object, expressions, now()),
            None => absent(&minimal(&wanted)),
        })
    }

    fn look(&self, number: usize, wanted: &Wanted) -> BoxFuture<'static, Looked> {
        let (cluster, id) = (self.cluster().clone(), wanted.id.clone());
        let api_version = wanted.api_version.clone();
        Box::pin(async move {
            let found = async {
                match cluster.resource(&api_version, &id.kind).await? {
                    Some(resource) => cluster.get(&resource, &id.namespace, &id.name).await,
                    None => Ok(None),
                }
            };
            (number, found.await)
        })
    }

    fn judge(
        &self,
        item: &mut Item,
        verdict: Verdict,
        on_change: &mut impl FnMut(&ObjectId, &Verdict),
    ) {
        let id = &item.wanted.id;
        let pause = match (self.covers(id), id.kind.as_str()) {
            (false, _) => POLL,
            (true, "Pod") => POD,
            (true, _) => SAFETY,
        };
        // An event that came during the look asks for the next one at once.
        item.due = if item.again { Instant::now() } else { Instant::now() + pause };
        if item.verdict.as_ref() != Some(&verdict) {
            on_change(id, &verdict);
            item.verdict = Some(verdict);
        }
    }
}

impl Item {
    fn is(&self, status: Status) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.status == status)
    }

    fn touch(&mut self) {
        self.again = true;
        self.due = Instant::now();
    }

    fn desired(&self) -> Value {
        self.wanted.object.clone().unwrap_or_else(|| minimal(&self.wanted))
    }

    /// A look that failed says nothing new of an object that was seen before.
    fn unsure(&self, error: &ClusterError) -> Verdict {
        let seen = self.verdict.as_ref().filter(|v| v.status != Status::Unknown);
        match seen {
            Some(verdict) if error.retry() => verdict.clone(),
            _ => Verdict { status: Status::Unknown, message: error.to_string() },
        }
    }
}

fn minimal(wanted: &Wanted) -> Value {
    json!({"apiVersion": wanted.api_version, "kind": wanted.id.kind,
        "metadata": {"namespace": wanted.id.namespace, "name": wanted.id.name}})
}

fn take(notice: Notice, index: &HashMap<ObjectId, usize>, items: &mut [Item]) {
    match notice {
        Notice::Seen(seen) => hear(&seen, index, items),
        Notice::Listed { objects, .. } => {
            objects.iter().for_each(|seen| hear(seen, index, items));
        }
        // Anything may have happened.
        Notice::Missed(_) => items.iter_mut().for_each(Item::touch),
        Notice::Outage { .. } | Notice::Back(_) => {}
    }
}

fn hear(seen: &Seen, index: &HashMap<ObjectId, usize>, items: &mut [Item]) {
    let Some(number) = index.get(&seen.id) else { return };
    let item = &mut items[*number];
    if seen.event == Event::Deleted || version(&seen.metadata) > item.version {
        item.touch();
    }
}

/// An object's resourceVersion; they grow.
fn version(object: &Value) -> u64 {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Flux's rules: the first failure ends the wait; everything current ends it well.
fn outcome(items: &[Item], deadline: Instant) -> Option<Outcome> {
    if items.iter().any(|item| item.is(Status::Failed)) {
        return Some(Outcome::Failed);
    }
    // A current object that an event speaks of is looked at again first.
    if items.iter().all(|item| item.is(Status::Current) && !item.again && !item.busy) {
        return Some(Outcome::Healthy);
    }
    (Instant::now() >= deadline).then_some(Outcome::TimedOut)
}

fn report(items: Vec<Item>, outcome: Outcome) -> HealthReport {
    let verdicts = items.into_iter().map(|item| {
        let verdict = item.verdict.unwrap_or(Verdict {
            status: Status::Unknown,
            message: "the API server has not answered yet".to_owned(),
        });
        (item.wanted.id, verdict)
    });
    HealthReport { verdicts: verdicts.collect(), outcome }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
