//! Pure: what the state of a pod's containers tells: configuration, image, crash.

use super::{
    Candidate, Facts, Rank, about, absent_reference, cited, event_message, named, seconds, text,
};
use crate::render::ObjectId;
use serde_json::Value;

/// One container of a pod, with its status.
struct Container<'a> {
    pod: &'a Value,
    id: &'a ObjectId,
    status: &'a Value,
    /// `container app`, `init container migrate`.
    called: String,
    facts: &'a Facts,
}

/// Adds what the containers of a pod tell.
pub(super) fn examine(pod: &Value, facts: &Facts, found: &mut Vec<Candidate>) {
    let id = ObjectId::of(&named(pod, "Pod"));
    for (list, word) in
        [("initContainerStatuses", "init container"), ("containerStatuses", "container")]
    {
        let statuses = pod.pointer(&format!("/status/{list}")).and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let called = format!("{word} {}", text(status, "/name"));
            let container = Container { pod, id: &id, status, called, facts };
            found.extend(container.waiting().or_else(|| container.crash()));
        }
    }
}

impl Container<'_> {
    fn waiting(&self) -> Option<Candidate> {
        let message = text(self.status, "/state/waiting/message");
        match text(self.status, "/state/waiting/reason") {
            "CreateContainerConfigError" | "CreateContainerError" => Some(self.config(message)),
            "RunContainerError" | "StartError" => Some(self.start(message)),
            "ImagePullBackOff"
            | "ErrImagePull"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => Some(self.image(message)),
            "CrashLoopBackOff" => self.crash(),
            _ => None,
        }
    }

    fn config(&self, message: &str) -> Candidate {
        let (what, hint) = match absent_reference(message, &self.id.namespace) {
            Some((what, hint)) => (what, Some(hint)),
            None if message.contains("runAsNonRoot") => (
                cited(message),
                Some(
                    "set securityContext.runAsUser to a user of the image that is not root"
                        .to_owned(),
                ),
            ),
            None => (cited(message), None),
        };
        self.candidate(Rank::Config, self.created(), format!("cannot be created: {what}"))
            .hint(hint)
            .lasting(true)
    }

    fn start(&self, message: &str) -> Candidate {
        let hint = message
            .contains("executable file not found")
            .then(|| "compare command and args with what is in the image".to_owned());
        self.candidate(
            Rank::Config,
            self.created(),
            format!("cannot be started: {}", cited(message)),
        )
        .hint(hint)
        .lasting(true)
    }

    /// The registry's own words stand in the pod's `Failed` event, which outlives the waiting
    /// reason `ErrImagePull`.
    fn image(&self, waiting: &str) -> Candidate {
        let image = match text(self.status, "/image") {
            "" => self.declared_image(),
            image => image,
        };
        let prefix = format!("Failed to pull image \"{image}\": ");
        let of_pod = |event: &&Value| {
            let id = about(event);
            id.kind == "Pod" && id.name == self.id.name && id.namespace == self.id.namespace
        };
        let events = self.facts.events.iter().filter(of_pod);
        let from_event = events
            .filter_map(|event| {
                Some((super::event_time(event), event_message(event).strip_prefix(&prefix)?))
            })
            .max_by_key(|(at, _)| *at);
        let said = match from_event {
            Some((_, said)) => registry_words(said),
            None => registry_words(waiting),
        };
        let sentence = if said.is_empty() {
            format!("cannot pull image {image}")
        } else {
            format!("cannot pull image {image}: {said}")
        };
        let hint = image_hint(&said, text(self.status, "/state/waiting/reason"));
        self.candidate(Rank::Image, self.created(), sentence).hint(hint).lasting(true)
    }

    /// The container as the pod's spec declares it.
    fn declared(&self) -> Option<&Value> {
        let name = text(self.status, "/name");
        ["initContainers", "containers"]
            .iter()
            .filter_map(|list| self.pod.pointer(&format!("/spec/{list}"))?.as_array())
            .flatten()
            .find(|container| text(container, "/name") == name)
    }

    fn declared_image(&self) -> &str {
        self.declared().map_or("", |container| text(container, "/image"))
    }

    /// The container ended badly, now or before its last restart.
    fn crash(&self) -> Option<Candidate> {
        let restarts = self.status.pointer("/restartCount").and_then(Value::as_i64).unwrap_or(0);
        let looping = text(self.status, "/state/waiting/reason") == "CrashLoopBackOff";
        let ended = ["/state/terminated", "/lastState/terminated"]
            .iter()
            .filter_map(|place| self.status.pointer(place))
            .find(|ended| looping || ended.pointer("/exitCode").and_then(Value::as_i64) != Some(0));
        let Some(ended) = ended else {
            return looping.then(|| {
                let sentence = format!("keeps crashing ({restarts} restarts)");
                self.candidate(Rank::Crash, self.created(), sentence).lasting(true)
            });
        };
        // Ended badly once, but running and ready since: no reason for anything.
        if self.status.pointer("/ready") == Some(&Value::Bool(true)) {
            return None;
        }
        let code = ended.pointer("/exitCode").and_then(Value::as_i64).unwrap_or(0);
        let (reason, message) = (text(ended, "/reason"), text(ended, "/message"));
        let probe = self.failed_liveness().filter(|_| matches!(code, 137 | 143));
        let mut sentence = match (reason, &probe) {
            ("OOMKilled", _) => match self.memory_limit() {
                Some(limit) => format!("was killed for want of memory: it may use {limit}"),
                None => "was killed for want of memory".to_owned(),
            },
            (_, Some(probe)) => format!("was killed because its {probe}"),
            _ if code == 0 => "keeps ending, with exit code 0".to_owned(),
            _ if looping || restarts > 0 => format!("keeps crashing with exit code {code}"),
            _ => format!("ended with exit code {code}"),
        };
        if restarts > 0 {
            let plural = if restarts == 1 { "" } else { "s" };
            sentence.push_str(&format!(" ({restarts} restart{plural})"));
        }
        if !message.trim().is_empty() {
            sentence.push_str(&format!(", last words: {}", last_words(message)));
        }
        let hint = match (reason, probe) {
            ("OOMKilled", _) => Some("raise resources.limits.memory of the container".to_owned()),
            (_, Some(_)) => Some(
                "add a startupProbe if the start takes long, or fix what the probe asks".into(),
            ),
            _ => exit_hint(code),
        };
        let at = seconds(text(ended, "/finishedAt"));
        Some(self.candidate(Rank::Crash, at, sentence).hint(hint).lasting(looping))
    }

    fn failed_liveness(&self) -> Option<String> {
        let of_pod = self.facts.events.iter().filter(|event| {
            let id = about(event);
            text(event, "/reason") == "Unhealthy" && id.kind == "Pod" && id.name == self.id.name
        });
        let said = of_pod.map(event_message).find(|said| {
            said.starts_with("Liveness probe failed") || said.starts_with("Startup probe failed")
        })?;
        Some(super::lower_first(&cited(said)))
    }

    fn memory_limit(&self) -> Option<&str> {
        self.declared()
            .map(|container| text(container, "/resources/limits/memory"))
            .filter(|limit| !limit.is_empty())
    }

    fn created(&self) -> i64 {
        seconds(text(self.pod, "/metadata/creationTimestamp"))
    }

    fn candidate(&self, rank: Rank, at: i64, what: String) -> Candidate {
        Candidate::new(rank, at, self.id, format!("{} of {} {what}", self.called, self.id))
    }
}

/// What the registry said, without the runtime's wrapping around it.
fn registry_words(said: &str) -> String {
    let said = cited(said);
    if said.starts_with("Back-off pulling image") {
        // Newer kubelets append the error to it.
        return match said.split_once("ErrImagePull: ") {
            Some((_, error)) => registry_words(error),
            None => String::new(),
        };
    }
    let mut rest = said.as_str();
    for wrapping in
        ["rpc error: code = ", "failed to pull and unpack image ", "failed to resolve reference "]
    {
        if let Some(after) = rest.strip_prefix(wrapping) {
            rest = match wrapping {
                // rpc error: code = NotFound desc = …
                "rpc error: code = " => {
                    after.split_once(" desc = ").map_or(after, |(_, said)| said)
                }
                // "docker.io/library/x:1": …
                _ => after.split_once("\": ").map_or(after, |(_, said)| said),
            };
        }
    }
    rest.to_owned()
}

fn image_hint(said: &str, reason: &str) -> Option<String> {
    let lower = said.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let hint = if reason == "InvalidImageName" {
        "correct the image's name: lower case, no scheme, one colon before the tag"
    } else if reason == "ErrImageNeverPull" {
        "imagePullPolicy is Never: import the image to the node, or change the policy"
    } else if any(&["toomanyrequests", "rate limit", "429"]) {
        "the registry limits anonymous pulls: add imagePullSecrets or wait"
    } else if any(&["unauthorized", "denied", "forbidden", "401", "403", "authentication"]) {
        "check the image's name, and imagePullSecrets if it is private"
    } else if any(&["no match for platform", "no matching manifest", "exec format"]) {
        "the image is not built for this machine's architecture"
    } else if any(&["not found", "manifest unknown", "404"]) {
        "the tag or the repository does not exist: correct the tag"
    } else if any(&[
        "no such host",
        "i/o timeout",
        "connection refused",
        "deadline",
        "tls",
        "x509",
        "no route",
    ]) {
        "the node does not reach the registry: check name resolution, network and certificates"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn exit_hint(code: i64) -> Option<String> {
    let hint = match code {
        0 => "its command ends by itself: a Deployment wants one that keeps running",
        126 => "its command cannot be executed: check the file's mode and architecture",
        127 => "its command is not in the image: compare command and args with the image",
        137 => "it was killed: compare resources.limits and livenessProbe with what it needs",
        139 => "it crashed in its own code (segmentation fault)",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The last lines of a termination message, where the error mostly stands.
fn last_words(message: &str) -> String {
    /// In characters: two lines of a log.
    const MAX: usize = 200;
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = words.chars().count();
    match length.checked_sub(MAX) {
        None | Some(0) => words,
        Some(surplus) => {
            format!("…{}", words.chars().skip(surplus).collect::<String>().trim_start())
        }
    }
}
