//! Pure: why an object does not get ready, in one sentence.
//!
//! kstatus says "1 of 3 replicas ready"; the reason stands in the pods and events around the
//! object. Every finding there becomes a candidate with a rank: what keeps a container from being
//! created tells more than an image, an image more than a crash, a crash more than a probe. The
//! best rank wins, and within it the newest. Pods of the newest ReplicaSet count before those of
//! older ones, which the change at hand did not make.

use crate::render::ObjectId;
use serde_json::Value;

mod container;

/// Longest citation of a message, in characters: a status line stays readable, and a scheduler's
/// message for one node has about 200.
const MAX_CITED: usize = 300;

/// What is known around an object that is not ready.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The live object (or the desired one, if it is not there).
    pub object: Value,
    /// Its ReplicaSets, if it is a Deployment.
    pub replica_sets: Vec<Value>,
    /// Its pods.
    pub pods: Vec<Value>,
    /// Events (`v1` or `events.k8s.io/v1`) about any of these and about its claims.
    pub events: Vec<Value>,
    /// `Kind/namespace/name` of objects that its pods need and that do not exist.
    pub missing: Vec<String>,
}

/// The reason, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One sentence without a full stop. It may cite what containers wrote: mask it.
    pub sentence: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The object at fault: mostly a pod.
    pub object: ObjectId,
}

/// The order in which findings are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Config,
    Image,
    Crash,
    Claim,
    Unschedulable,
    Probe,
    Quota,
    Volume,
    Job,
    Other,
}

struct Candidate {
    rank: Rank,
    /// Unix seconds, 0 when unknown.
    at: i64,
    /// It is so now, and does not pass by waiting. Events are of the past, a probe that fails may
    /// be one that a slow start has to fail.
    lasting: bool,
    cause: Cause,
}

impl Candidate {
    fn new(rank: Rank, at: i64, object: &ObjectId, sentence: impl Into<String>) -> Self {
        let (sentence, object) = (sentence.into(), object.clone());
        Candidate { rank, at, lasting: false, cause: Cause { sentence, hint: None, object } }
    }

    fn lasting(mut self, lasting: bool) -> Self {
        self.lasting = lasting;
        self
    }

    fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.cause.hint = hint.into();
        self
    }
}

/// True when the facts hold a reason that does not pass by waiting.
pub(super) fn hopeless(facts: &Facts) -> bool {
    findings(facts).iter().any(|candidate| candidate.lasting)
}

/// The most telling reason that the facts hold, if any.
pub fn cause(facts: &Facts) -> Option<Cause> {
    let first = findings(facts).into_iter().next().map(|candidate| candidate.cause);
    first.or_else(|| unobserved(&facts.object)).or_else(|| by_condition(&facts.object))
}

/// Everything that the facts tell, the most telling first.
fn findings(facts: &Facts) -> Vec<Candidate> {
    let pods = pods_that_count(facts);
    let mut found = Vec::new();
    for pod in &pods {
        container::examine(pod, facts, &mut found);
        unschedulable(pod, &mut found);
        evicted(pod, &mut found);
    }
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();
    for event in &facts.events {
        from_event(event, &names, &mut found);
    }
    replica_failure(facts, &mut found);
    job(facts, &mut found);
    missing(facts, &mut found);
    // A claim tells the reason only where a pod waits for one, or where it is the object itself.
    let waits = |c: &Candidate| {
        c.rank == Rank::Unschedulable && c.cause.sentence.contains("PersistentVolumeClaim")
    };
    let claims_count = ObjectId::of(&facts.object).kind == "PersistentVolumeClaim"
        || found.iter().any(waits)
        || !found.iter().any(|c| c.rank == Rank::Unschedulable);
    found.retain(|candidate| claims_count || candidate.rank != Rank::Claim);
    found.sort_by(|one, other| {
        one.rank.cmp(&other.rank).then(other.at.cmp(&one.at)).then_with(|| {
            (&one.cause.object, &one.cause.sentence)
                .cmp(&(&other.cause.object, &other.cause.sentence))
        })
    });
    found
}

/// Nobody has taken up the last change of a workload: what its conditions say is of before.
fn unobserved(object: &Value) -> Option<Cause> {
    let id = ObjectId::of(object);
    let number = |pointer| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let workload = matches!(id.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet");
    let behind = number("/status/observedGeneration") < number("/metadata/generation");
    (id.group == "apps" && workload && behind).then(|| Cause {
        sentence: "no controller has looked at it since it was changed".to_owned(),
        hint: Some(
            "kube-controller-manager should, a part of `k3s server`: does it run, and lead? see \
             `journalctl -u k3s`"
                .to_owned(),
        ),
        object: id,
    })
}

/// The pods of the newest ReplicaSet if it has any, otherwise all; none that is being deleted.
fn pods_that_count(facts: &Facts) -> Vec<&Value> {
    let revision = |set: &&Value| {
        let annotations = set.pointer("/metadata/annotations");
        let said = annotations.and_then(|a| a.get("deployment.kubernetes.io/revision"));
        said.and_then(Value::as_str).and_then(|said| said.parse::<u64>().ok()).unwrap_or(0)
    };
    let newest = facts.replica_sets.iter().max_by_key(revision);
    let newest = newest.map(|set| text(set, "/metadata/uid")).filter(|uid| !uid.is_empty());
    let alive =
        || facts.pods.iter().filter(|pod| text(pod, "/metadata/deletionTimestamp").is_empty());
    let owned = |pod: &&Value| {
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.into_iter().flatten().any(|owner| Some(text(owner, "/uid")) == newest)
    };
    let of_newest: Vec<&Value> = alive().filter(owned).collect();
    if of_newest.is_empty() { alive().collect() } else { of_newest }
}

fn unschedulable(pod: &Value, found: &mut Vec<Candidate>) {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        if text(condition, "/type") == "PodScheduled"
            && text(condition, "/status") == "False"
            && text(condition, "/reason") == "Unschedulable"
        {
            let id = ObjectId::of(&named(pod, "Pod"));
            let message = text(condition, "/message");
            let at = seconds(text(condition, "/lastTransitionTime"));
            found.push(
                Candidate::new(
                    Rank::Unschedulable,
                    at,
                    &id,
                    format!("{id} fits on no node: {}", cited(message)),
                )
                .hint(scheduling_hint(message))
                // A volume is on its way mostly.
                .lasting(!message.contains("PersistentVolumeClaim")),
            );
        }
    }
}

fn scheduling_hint(message: &str) -> Option<String> {
    let hint = if message.contains("Insufficient memory") {
        "lower resources.requests.memory of this or another workload"
    } else if message.contains("Insufficient cpu") {
        "lower resources.requests.cpu of this or another workload"
    } else if message.contains("taint") {
        "add a toleration for the node's taint, or remove the taint"
    } else if message.contains("node affinity") || message.contains("node selector") {
        "compare nodeSelector and affinity with the labels of the node"
    } else if message.contains("free ports") {
        "another pod holds the host port: change hostPort or remove that pod"
    } else if message.contains("persistentvolumeclaim") && message.contains("not found") {
        "add the PersistentVolumeClaim that the pod refers to"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn evicted(pod: &Value, found: &mut Vec<Candidate>) {
    if text(pod, "/status/reason") == "Evicted" {
        let id = ObjectId::of(&named(pod, "Pod"));
        let at = seconds(text(pod, "/status/startTime"));
        let message = cited(text(pod, "/status/message"));
        found.push(
            Candidate::new(Rank::Crash, at, &id, format!("{id} was evicted: {message}"))
                .hint("free disk or memory of the node, or set requests for the pod".to_owned()),
        );
    }
}

/// What an event tells by itself. Those of pods count only if the pod does.
fn from_event(event: &Value, pods: &[&str], found: &mut Vec<Candidate>) {
    let id = about(event);
    if text(event, "/type") == "Normal" || (id.kind == "Pod" && !pods.contains(&id.name.as_str())) {
        return;
    }
    let (at, message) = (event_time(event), event_message(event));
    let mut push = |rank, sentence: String, hint: Option<&str>| {
        found.push(Candidate::new(rank, at, &id, sentence).hint(hint.map(str::to_owned)));
    };
    let said = cited(message);
    match text(event, "/reason") {
        "Unhealthy" => push(
            Rank::Probe,
            format!("{id}: {}", lower_first(&said)),
            Some(if message.starts_with("Startup") {
                "raise startupProbe.failureThreshold if the start takes long, or read the container's log"
            } else {
                "compare path and port of the probe with the container, and read its log"
            }),
        ),
        "FailedCreate" if message.contains("exceeded quota") => push(
            Rank::Quota,
            format!("{id} may create no pod: {said}"),
            Some("raise the ResourceQuota, or lower what the pods request"),
        ),
        "FailedCreate" => push(Rank::Quota, format!("{id} cannot create its pods: {said}"), None),
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => {
            match absent_reference(message, &id.namespace) {
                Some((what, hint)) => {
                    push(Rank::Config, format!("{id} cannot start: {what}"), Some(&hint));
                }
                None => push(Rank::Volume, format!("{id} waits for a volume: {said}"), None),
            }
        }
        "FailedCreatePodSandBox" => {
            push(Rank::Volume, format!("{id} gets no sandbox or network: {said}"), None);
        }
        "ProvisioningFailed" | "FailedBinding" => push(
            Rank::Claim,
            format!("{id} stays unbound: {said}"),
            Some("compare storageClassName with the StorageClasses of the cluster"),
        ),
        // They say what the container's own state says better, or nothing.
        "BackOff" | "Failed" | "FailedScheduling" | "Killing" => {}
        reason => push(Rank::Other, format!("{id}: {reason}: {said}"), None),
    }
}

/// A ReplicaSet that may create no pods, should its event be gone.
fn replica_failure(facts: &Facts, found: &mut Vec<Candidate>) {
    for set in facts.replica_sets.iter().chain([&facts.object]) {
        let conditions = set.pointer("/status/conditions").and_then(Value::as_array);
        for condition in conditions.into_iter().flatten() {
            if text(condition, "/type") == "ReplicaFailure" && text(condition, "/status") == "True"
            {
                let id = ObjectId::of(&named(set, "ReplicaSet"));
                let message = cited(text(condition, "/message"));
                let sentence = format!("{id} cannot create its pods: {message}");
                found.push(Candidate::new(Rank::Quota, 0, &id, sentence).lasting(true));
            }
        }
    }
}

fn job(facts: &Facts, found: &mut Vec<Candidate>) {
    let id = ObjectId::of(&facts.object);
    if (id.group.as_str(), id.kind.as_str()) != ("batch", "Job") {
        return;
    }
    let conditions = facts.object.pointer("/status/conditions").and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        if text(condition, "/type") != "Failed" || text(condition, "/status") != "True" {
            continue;
        }
        let failed = facts.object.pointer("/status/failed").and_then(Value::as_i64).unwrap_or(0);
        let at = seconds(text(condition, "/lastTransitionTime"));
        let (sentence, hint) = match text(condition, "/reason") {
            "BackoffLimitExceeded" => (
                format!("{id} gave up after {failed} failed pods"),
                Some("a Job is not run again: delete it, or rename it with the next change"),
            ),
            "DeadlineExceeded" => (
                format!("{id} ran longer than its activeDeadlineSeconds"),
                Some("raise activeDeadlineSeconds, then delete the Job so that it runs again"),
            ),
            reason => {
                (format!("{id} failed: {reason}: {}", cited(text(condition, "/message"))), None)
            }
        };
        // What its containers said comes along.
        let of_container = found.iter().filter(|c| c.rank == Rank::Crash).max_by_key(|c| c.at);
        let candidate = match of_container {
            Some(crash) => Candidate {
                rank: Rank::Crash,
                at: i64::MAX,
                lasting: true,
                cause: Cause {
                    sentence: format!("{sentence}: {}", crash.cause.sentence),
                    hint: crash.cause.hint.clone().or(hint.map(str::to_owned)),
                    object: id.clone(),
                },
            },
            None => Candidate::new(Rank::Job, at, &id, sentence).hint(hint.map(str::to_owned)),
        };
        found.push(candidate);
    }
}

/// Missing objects are behind everything that a container says about its configuration, but the
/// container's own words, which name the key, are better.
fn missing(facts: &Facts, found: &mut Vec<Candidate>) {
    if facts.missing.is_empty() || found.iter().any(|c| c.rank == Rank::Config) {
        return;
    }
    let id = ObjectId::of(&facts.object);
    let what = facts.missing.join(", ");
    let verb = if facts.missing.len() == 1 { "does not exist" } else { "do not exist" };
    found.push(
        Candidate::new(Rank::Config, 0, &id, format!("{id} needs {what}, which {verb}"))
            .hint(format!("add {what} in Git, or create it by hand"))
            .lasting(true),
    );
}

/// The object's own words, when nothing around it says anything.
fn by_condition(object: &Value) -> Option<Cause> {
    let id = ObjectId::of(object);
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    let bad = |condition: &&Value| match text(condition, "/type") {
        "Stalled" | "Failed" | "ReplicaFailure" => text(condition, "/status") == "True",
        "Ready" | "Available" | "Progressing" | "Established" | "NamesAccepted" => {
            text(condition, "/status") == "False"
        }
        _ => false,
    };
    let said = conditions.iter().filter(bad).find(|c| !text(c, "/message").is_empty())?;
    let sentence = format!("{id}: {}: {}", text(said, "/reason"), cited(text(said, "/message")));
    Some(Cause { sentence, hint: None, object: id })
}

/// A missing Secret, ConfigMap or key that a message names, with what to do.
fn absent_reference(message: &str, namespace: &str) -> Option<(String, String)> {
    for (word, kind, items) in
        [("secret", "Secret", "secret"), ("configmap", "ConfigMap", "config")]
    {
        // secret "db" not found; kubelet's volume messages write it the same way.
        if let Some((_, after)) = message.split_once(&format!("{word} \""))
            && let Some((name, rest)) = after.split_once('"')
            && rest.trim_start().starts_with("not found")
        {
            return Some((
                format!("{kind} {name} does not exist"),
                format!("add {kind} {name} to namespace {namespace}, in Git or by hand"),
            ));
        }
        // couldn't find key password in Secret default/db
        if let Some((_, after)) = message.split_once("couldn't find key ")
            && let Some((key, place)) = after.split_once(&format!(" in {kind} "))
        {
            let place = place.split_whitespace().next().unwrap_or_default();
            return Some((
                format!("{kind} {place} has no key {key}"),
                format!("add key {key} to {kind} {place}, or correct the reference"),
            ));
        }
        // references non-existent secret key: password
        if let Some((_, key)) =
            message.split_once(&format!("references non-existent {items} key: "))
        {
            let key = key.split_whitespace().next().unwrap_or_default();
            return Some((
                format!("a {kind} that it mounts has no key {key}"),
                format!("add key {key} to that {kind}, or correct the volume's items"),
            ));
        }
    }
    None
}

/// The object that an event is about.
fn about(event: &Value) -> ObjectId {
    let object = event.get("involvedObject").or_else(|| event.get("regarding"));
    let part = |name: &str| {
        object.and_then(|o| o.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    ObjectId {
        namespace: part("namespace"),
        name: part("name"),
        group: part("apiVersion").split_once('/').map_or("", |(group, _)| group).to_owned(),
        kind: part("kind"),
    }
}

fn event_message(event: &Value) -> &str {
    match text(event, "/message") {
        "" => text(event, "/note"),
        message => message,
    }
}

fn event_time(event: &Value) -> i64 {
    let fields =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    fields.iter().map(|field| seconds(text(event, field))).max().unwrap_or(0)
}

fn seconds(said: &str) -> i64 {
    said.parse::<jiff::Timestamp>().map_or(0, |at| at.as_second())
}

/// The object with the kind that lists leave out of their items.
fn named(object: &Value, kind: &str) -> Value {
    let mut whole = serde_json::json!({
        "apiVersion": if kind == "Pod" { "v1" } else { "apps/v1" }, "kind": kind,
        "metadata": {"name": text(object, "/metadata/name"), "namespace": text(object, "/metadata/namespace")},
    });
    for field in ["apiVersion", "kind"] {
        if let Some(said) = object.get(field) {
            whole[field] = said.clone();
        }
    }
    whole
}

/// A message on one line and of bearable length.
fn cited(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.trim_end_matches('.');
    match words.char_indices().nth(MAX_CITED) {
        Some((at, _)) => format!("{}…", &words[..at]),
        None => words.to_owned(),
    }
}

fn lower_first(said: &str) -> String {
    let mut letters = said.chars();
    letters.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
