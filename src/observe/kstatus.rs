//! Pure: the verdict on one live object, by the rules of Flux's kstatus (fluxcd/cli-utils).
//!
//! Verdicts equal those of Flux's kstatus also where it is odd: a failed Pod is current, an
//! unbound claim waits for ever. The messages are our own and give numbers.

use crate::flux::HealthCheckExpr;
use crate::render::ObjectId;
use serde_json::Value;
use std::fmt;

/// How long a pod may be unschedulable before that is a failure, in seconds.
const SCHEDULE_WINDOW: i64 = 15;

/// What an object has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// As desired.
    Current,
    /// On its way.
    InProgress,
    /// Will not get there without a change.
    Failed,
    /// Being deleted.
    Terminating,
    /// Not in the cluster.
    NotFound,
    /// Could not be told: an expression failed, or the object is not as its kind should be.
    Unknown,
}

impl Status {
    /// The name that Flux prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Current => "Current",
            Status::InProgress => "InProgress",
            Status::Failed => "Failed",
            Status::Terminating => "Terminating",
            Status::NotFound => "NotFound",
            Status::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A status and the reason for it, such as `1 of 3 replicas ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The status.
    pub status: Status,
    /// Why, in a few words.
    pub message: String,
}

impl Verdict {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Verdict { status, message: message.into() }
    }

    fn current(message: impl Into<String>) -> Self {
        Self::new(Status::Current, message)
    }

    fn progress(message: impl Into<String>) -> Self {
        Self::new(Status::InProgress, message)
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Status::Failed, message)
    }
}

/// The verdict on a desired object that is not in the cluster.
///
/// A Job with `ttlSecondsAfterFinished` removes itself and counts as current.
pub fn absent(desired: &Value) -> Verdict {
    let id = ObjectId::of(desired);
    let ttl = number(desired, "/spec/ttlSecondsAfterFinished");
    match (id.group.as_str(), id.kind.as_str(), ttl) {
        ("batch", "Job", Some(ttl)) => {
            Verdict::current(format!("gone, as {ttl} s after its end were agreed"))
        }
        _ => Verdict::new(Status::NotFound, "not found"),
    }
}

/// The verdict on a live object at a time (Unix seconds).
///
/// An expression for the object's kind, or else for its group, replaces all built-in rules.
pub fn status(object: &Value, expressions: &[HealthCheckExpr], now_unix: i64) -> Verdict {
    let id = ObjectId::of(object);
    let of_group = || expressions.iter().filter(|e| e.group == id.group);
    let expression = of_group()
        .find(|e| e.kind.as_ref() == Some(&id.kind))
        .or_else(|| of_group().find(|e| e.kind.is_none()));
    if let Some(expression) = expression {
        return by_expression(object, expression);
    }
    if let Some(verdict) = generic(object) {
        return verdict;
    }
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps" | "extensions", "Deployment") => deployment(object),
        ("apps" | "extensions", "DaemonSet") => daemon_set(object),
        ("apps" | "extensions", "ReplicaSet") => replica_set(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("", "Pod") => pod(object, now_unix),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "Service") => service(object),
        ("batch", "Job") => job(object),
        ("batch", "CronJob") | ("", "ConfigMap" | "Secret") | ("policy", "PodDisruptionBudget") => {
            Verdict::current("exists")
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        _ => by_ready(object),
    }
}

fn by_expression(object: &Value, expression: &HealthCheckExpr) -> Verdict {
    if let Some(verdict) = lagging(object) {
        return verdict;
    }
    let variables: Vec<(&str, &Value)> = object
        .as_object()
        .map(|fields| fields.iter().map(|(name, value)| (name.as_str(), value)).collect())
        .unwrap_or_default();
    let rules = [
        ("inProgress", expression.in_progress.as_ref(), Status::InProgress),
        ("failed", expression.failed.as_ref(), Status::Failed),
        ("current", Some(&expression.current), Status::Current),
    ];
    let said = condition(object, "Ready").map(Condition::words).filter(|said| !said.is_empty());
    for (name, rule, status) in rules {
        match rule.map(|rule| rule.evaluate(&variables)) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => {
                let message = said.unwrap_or_else(|| format!("its expression {name} holds"));
                return Verdict::new(status, message);
            }
            Some(Err(error)) => {
                return Verdict::new(Status::Unknown, format!("expression {name}: {error}"));
            }
        }
    }
    Verdict::progress(said.unwrap_or_else(|| "its expression current does not hold yet".to_owned()))
}

/// Rules 1 to 3, which come before those of the kind.
fn generic(object: &Value) -> Option<Verdict> {
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        let waits = object.pointer("/metadata/finalizers").and_then(Value::as_array);
        let waits: Vec<&str> = waits.into_iter().flatten().filter_map(Value::as_str).collect();
        return Some(Verdict::new(
            Status::Terminating,
            match waits.as_slice() {
                [] => "being deleted".to_owned(),
                waits => format!("being deleted, waits for finalizer {}", waits.join(", ")),
            },
        ));
    }
    if let Some(verdict) = lagging(object) {
        return Some(verdict);
    }
    conditions(object).find_map(|condition| match (condition.kind(), condition.holds()) {
        ("Reconciling", true) => Some(Verdict::progress(condition.words())),
        ("Stalled", true) => Some(Verdict::failed(condition.words())),
        _ => None,
    })
}

/// In progress while the controller has not seen the latest change.
fn lagging(object: &Value) -> Option<Verdict> {
    let generation = number(object, "/metadata/generation")?;
    let observed = number(object, "/status/observedGeneration")?;
    (generation != observed).then(|| {
        Verdict::progress(format!(
            "generation {generation} not seen yet by its controller, only {observed}"
        ))
    })
}

/// In progress if fewer than wanted, `1 of 3 replicas ready`.
fn fewer(have: i64, wanted: i64, what: &str) -> Option<Verdict> {
    (have < wanted).then(|| Verdict::progress(format!("{have} of {wanted} {what}")))
}

fn surplus(have: i64, wanted: i64) -> Option<Verdict> {
    (have > wanted).then(|| Verdict::progress(format!("{} old replicas still run", have - wanted)))
}

fn deployment(object: &Value) -> Verdict {
    let deadline = number(object, "/spec/progressDeadlineSeconds").unwrap_or(i64::from(i32::MAX));
    let progressing = condition(object, "Progressing");
    if progressing.is_some_and(|c| c.reason() == "ProgressDeadlineExceeded") {
        let ready = number(object, "/status/readyReplicas").unwrap_or(0);
        let wanted = number(object, "/spec/replicas").unwrap_or(1);
        return Verdict::failed(format!(
            "no progress for {deadline} s, {ready} of {wanted} replicas ready"
        ));
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let (replicas, updated) = (count("replicas"), count("updatedReplicas"));
    let new_set = deadline == i64::from(i32::MAX)
        || progressing.is_some_and(|c| c.holds() && c.reason() == "NewReplicaSetAvailable");
    let available = condition(object, "Available").is_some_and(Condition::holds);
    fewer(replicas, wanted, "replicas created")
        .or_else(|| fewer(updated, wanted, "replicas updated"))
        .or_else(|| surplus(replicas, wanted))
        .or_else(|| fewer(count("availableReplicas"), updated, "replicas available"))
        .or_else(|| fewer(count("readyReplicas"), wanted, "replicas ready"))
        .or_else(|| (!new_set).then(|| Verdict::progress("new ReplicaSet not available")))
        .or_else(|| (!available).then(|| Verdict::progress("condition Available is not True")))
        .unwrap_or_else(|| Verdict::current(format!("{replicas} of {wanted} replicas ready")))
}

fn stateful_set(object: &Value) -> Verdict {
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Verdict::current("updated by hand (OnDelete)");
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let replicas = count("replicas");
    let rollout = || match number(object, "/spec/updateStrategy/rollingUpdate/partition") {
        Some(partition) if partition != -1 => {
            fewer(count("updatedReplicas"), wanted - partition, "replicas updated")
        }
        _ => fewer(count("currentReplicas"), wanted, "replicas current").or_else(|| {
            let (current, update) = ("/status/currentRevision", "/status/updateRevision");
            (text(object, current) != text(object, update))
                .then(|| Verdict::progress("not all replicas are of the new revision"))
        }),
    };
    fewer(replicas, wanted, "replicas created")
        .or_else(|| fewer(count("readyReplicas"), wanted, "replicas ready"))
        .or_else(|| surplus(replicas, wanted))
        .or_else(rollout)
        .unwrap_or_else(|| Verdict::current(format!("{replicas} of {wanted} replicas ready")))
}

fn daemon_set(object: &Value) -> Verdict {
    let seen = number(object, "/metadata/generation").is_some()
        && number(object, "/status/observedGeneration").is_some();
    let wanted = number(object, "/status/desiredNumberScheduled").filter(|wanted| *wanted != -1);
    let (true, Some(wanted)) = (seen, wanted) else {
        return Verdict::progress("not seen yet by its controller");
    };
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    fewer(count("currentNumberScheduled"), wanted, "pods scheduled")
        .or_else(|| fewer(count("updatedNumberScheduled"), wanted, "pods updated"))
        .or_else(|| fewer(count("numberAvailable"), wanted, "pods available"))
        .or_else(|| fewer(count("numberReady"), wanted, "pods ready"))
        .unwrap_or_else(|| Verdict::current(format!("{wanted} of {wanted} pods ready")))
}

fn replica_set(object: &Value) -> Verdict {
    if let Some(failure) = condition(object, "ReplicaFailure").filter(|c| c.holds()) {
        return Verdict::progress(failure.words());
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let replicas = count("replicas");
    fewer(count("fullyLabeledReplicas"), wanted, "replicas labelled")
        .or_else(|| fewer(count("availableReplicas"), wanted, "replicas available"))
        .or_else(|| fewer(count("readyReplicas"), wanted, "replicas ready"))
        .or_else(|| surplus(replicas, wanted))
        .unwrap_or_else(|| Verdict::current(format!("{replicas} of {wanted} replicas ready")))
}

fn pod(object: &Value, now_unix: i64) -> Verdict {
    match text(object, "/status/phase") {
        "" => Verdict::progress("not seen yet by its controller"),
        "Succeeded" => Verdict::current("completed"),
        // Odd, but Flux's: a pod that ended badly is not waited for.
        "Failed" => Verdict::current("completed, but not successfully"),
        "Running" if condition(object, "Ready").is_some_and(Condition::holds) => {
            Verdict::current("ready")
        }
        "Running" => {
            let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array);
            let crashing: Vec<&str> = statuses
                .into_iter()
                .flatten()
                .filter(|c| text(c, "/state/waiting/reason") == "CrashLoopBackOff")
                .map(|c| text(c, "/name"))
                .collect();
            if crashing.is_empty() {
                Verdict::progress("running, but not ready")
            } else {
                Verdict::failed(format!("container {} keeps crashing", crashing.join(", ")))
            }
        }
        "Pending" => match condition(object, "PodScheduled") {
            Some(c) if c.is("False") && c.reason() == "Unschedulable" => {
                let created = text(object, "/metadata/creationTimestamp");
                let created = created.parse::<jiff::Timestamp>().map_or(0, |at| at.as_second());
                if now_unix - SCHEDULE_WINDOW < created {
                    Verdict::progress("not scheduled yet")
                } else {
                    Verdict::failed(format!("cannot be scheduled: {}", c.message()))
                }
            }
            _ => Verdict::progress("pending"),
        },
        other => Verdict::new(Status::Unknown, format!("unknown phase {other}")),
    }
}

fn claim(object: &Value) -> Verdict {
    match text(object, "/status/phase") {
        "Bound" => Verdict::current("bound"),
        "" => Verdict::progress("not bound"),
        phase => Verdict::progress(format!("not bound, phase {phase}")),
    }
}

fn service(object: &Value) -> Verdict {
    let balanced = text(object, "/spec/type") == "LoadBalancer";
    if balanced && text(object, "/spec/clusterIP").is_empty() {
        return Verdict::progress("load balancer without a cluster IP yet");
    }
    Verdict::current("exists")
}

/// Flux's own rule: unlike kstatus it waits for a running Job.
fn job(object: &Value) -> Verdict {
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let parallelism = number(object, "/spec/parallelism").unwrap_or(1);
    let wanted = number(object, "/spec/completions").unwrap_or(parallelism);
    let ended = conditions(object).find_map(|c| match (c.kind(), c.holds()) {
        ("Complete", true) => {
            Some(Verdict::current(format!("{} of {wanted} completions", count("succeeded"))))
        }
        ("Failed", true) => {
            Some(Verdict::failed(format!("{} pods failed: {}", count("failed"), c.words())))
        }
        _ => None,
    });
    ended.unwrap_or_else(|| {
        if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
            return Verdict::current("suspended");
        }
        let (succeeded, active, failed) = (count("succeeded"), count("active"), count("failed"));
        Verdict::progress(format!(
            "{succeeded} of {wanted} completions, {active} pods active, {failed} failed"
        ))
    })
}

fn definition(object: &Value) -> Verdict {
    conditions(object)
        .find_map(|c| match c.kind() {
            "NamesAccepted" if c.is("False") => Some(Verdict::failed(c.words())),
            "Established" if c.is("False") && c.reason() != "Installing" => {
                Some(Verdict::failed(c.words()))
            }
            "Established" if c.holds() => Some(Verdict::current("established")),
            _ => None,
        })
        .unwrap_or_else(|| Verdict::progress("not established yet"))
}

fn by_ready(object: &Value) -> Verdict {
    match condition(object, "Ready") {
        None => Verdict::current("exists"),
        Some(ready) if ready.holds() => Verdict::current("ready"),
        Some(ready) => Verdict::progress(match ready.words() {
            words if words.is_empty() => "condition Ready is not True".to_owned(),
            words => words,
        }),
    }
}

/// One entry of `status.conditions`.
#[derive(Clone, Copy)]
struct Condition<'a>(&'a Value);

impl<'a> Condition<'a> {
    fn kind(self) -> &'a str {
        text(self.0, "/type")
    }

    fn is(self, status: &str) -> bool {
        text(self.0, "/status") == status
    }

    fn holds(self) -> bool {
        self.is("True")
    }

    fn reason(self) -> &'a str {
        text(self.0, "/reason")
    }

    fn message(self) -> &'a str {
        text(self.0, "/message")
    }

    /// `Reason: message`, whatever there is of it.
    fn words(self) -> String {
        match (self.reason(), self.message()) {
            (reason, "") => reason.to_owned(),
            ("", message) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = Condition<'_>> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    all.into_iter().flatten().map(Condition)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    conditions(object).find(|condition| condition.kind() == kind)
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer)?.as_i64()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
