//! Pods and events as k3s writes them, and the sentence that comes of them.

use super::*;
use serde_json::json;

fn workload(kind: &str) -> Value {
    let api_version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}})
}

/// A pod as a list returns it: without its kind.
fn pod(name: &str, container: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "app", "image": "ghcr.io/acme/web:1.2",
            "resources": {"limits": {"memory": "64Mi"}}}]},
        "status": {"phase": "Pending", "containerStatuses": [container]},
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"name": "app", "image": "ghcr.io/acme/web:1.2", "restartCount": 0, "ready": false,
        "state": {"waiting": {"reason": reason, "message": message}}})
}

fn crashing(exit: i64, reason: &str, message: &str) -> Value {
    json!({"name": "app", "image": "ghcr.io/acme/web:1.2", "restartCount": 5, "ready": false,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": exit, "reason": reason, "message": message,
            "finishedAt": "2026-01-01T00:05:00Z"}}})
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    let api_version = match kind {
        "ReplicaSet" => "apps/v1",
        _ => "v1",
    };
    json!({"metadata": {"namespace": "shop"}, "type": "Warning", "reason": reason, "message": message,
        "lastTimestamp": "2026-01-01T00:06:00Z",
        "involvedObject": {"apiVersion": api_version, "kind": kind, "name": name, "namespace": "shop"}})
}

fn facts(pods: Vec<Value>, events: Vec<Value>) -> Facts {
    Facts { object: workload("Deployment"), pods, events, ..Facts::default() }
}

/// The sentence and the hint.
fn told(facts: &Facts) -> (String, String) {
    let cause = cause(facts).unwrap_or_else(|| panic!("{facts:?} hold a reason"));
    (cause.sentence, cause.hint.unwrap_or_default())
}

fn check(facts: &Facts, sentence: &str, hint: &str) {
    assert_eq!(told(facts), (sentence.to_owned(), hint.to_owned()));
}

#[test]
fn a_missing_secret_configmap_or_key_is_named() {
    for (message, sentence, hint) in [
        (
            "secret \"db\" not found",
            "container app of Pod/shop/web-1 cannot be created: Secret db does not exist",
            "add Secret db to namespace shop, in Git or by hand",
        ),
        (
            "configmap \"web-env\" not found",
            "container app of Pod/shop/web-1 cannot be created: ConfigMap web-env does not exist",
            "add ConfigMap web-env to namespace shop, in Git or by hand",
        ),
        (
            "couldn't find key password in Secret shop/db",
            "container app of Pod/shop/web-1 cannot be created: Secret shop/db has no key password",
            "add key password to Secret shop/db, or correct the reference",
        ),
        (
            "container has runAsNonRoot and image will run as root (pod: \"web-1\", container: app)",
            "container app of Pod/shop/web-1 cannot be created: container has runAsNonRoot and image will \
             run as root (pod: \"web-1\", container: app)",
            "set securityContext.runAsUser to a user of the image that is not root",
        ),
    ] {
        let pods = vec![pod("web-1", waiting("CreateContainerConfigError", message))];
        check(&facts(pods, vec![]), sentence, hint);
    }
    let creating = || vec![pod("web-1", waiting("ContainerCreating", ""))];
    let mount = "MountVolume.SetUp failed for volume \"tls\" : secret \"web-tls\" not found";
    check(
        &facts(creating(), vec![event("Pod", "web-1", "FailedMount", mount)]),
        "Pod/shop/web-1 cannot start: Secret web-tls does not exist",
        "add Secret web-tls to namespace shop, in Git or by hand",
    );
    let mount =
        "MountVolume.SetUp failed for volume \"conf\" : references non-existent config key: a.conf";
    check(
        &facts(creating(), vec![event("Pod", "web-1", "FailedMount", mount)]),
        "Pod/shop/web-1 cannot start: a ConfigMap that it mounts has no key a.conf",
        "add key a.conf to that ConfigMap, or correct the volume's items",
    );
    let mut known = facts(creating(), vec![]);
    known.missing = vec!["Secret/shop/db".into()];
    check(
        &known,
        "Deployment/shop/web needs Secret/shop/db, which does not exist",
        "add Secret/shop/db in Git, or create it by hand",
    );
}

#[test]
fn an_image_is_named_with_the_registrys_own_words() {
    let back_off = "Back-off pulling image \"ghcr.io/acme/web:1.2\"";
    let not_found = "rpc error: code = NotFound desc = failed to pull and unpack image \
        \"ghcr.io/acme/web:1.2\": failed to resolve reference \"ghcr.io/acme/web:1.2\": \
        ghcr.io/acme/web:1.2: not found";
    let failed = format!("Failed to pull image \"ghcr.io/acme/web:1.2\": {not_found}");
    let appended = format!("{back_off}: ErrImagePull: {not_found}");
    let missing = "correct the tag";
    let sentence = "container app of Pod/shop/web-1 cannot pull image ghcr.io/acme/web:1.2: \
        ghcr.io/acme/web:1.2: not found";
    for (reason, message, events) in [
        ("ImagePullBackOff", back_off, vec![event("Pod", "web-1", "Failed", &failed)]),
        ("ImagePullBackOff", appended.as_str(), vec![]),
        ("ErrImagePull", not_found, vec![]),
    ] {
        let (said, hint) = told(&facts(vec![pod("web-1", waiting(reason, message))], events));
        assert_eq!(said, sentence);
        assert!(hint.ends_with(missing), "{hint}");
    }
    for (said, hint) in [
        (
            "failed to authorize: failed to fetch anonymous token: 401 Unauthorized",
            "imagePullSecrets",
        ),
        (
            "429 Too Many Requests - toomanyrequests: You have reached your pull rate limit",
            "limits",
        ),
        ("no match for platform in manifest: not found", "architecture"),
        ("dial tcp: lookup ghcr.io: no such host", "does not reach"),
        ("unexpected EOF", ""),
    ] {
        let pods = vec![pod("web-1", waiting("ErrImagePull", said))];
        let told = told(&facts(pods, vec![])).1;
        assert!(told.contains(hint) && told.is_empty() == hint.is_empty(), "{said}: {told}");
    }
    let mut bare = waiting("InvalidImageName", "couldn't parse image name \"HTTP://x\"");
    bare["image"] = json!("");
    let (said, hint) = told(&facts(vec![pod("web-1", bare)], vec![]));
    assert!(said.contains("cannot pull image ghcr.io/acme/web:1.2: "), "from the spec: {said}");
    assert!(hint.starts_with("correct the image's name"));
}

#[test]
fn a_crash_is_told_with_code_restarts_and_last_words() {
    for (container, sentence, hint) in [
        (
            crashing(1, "Error", "panic: no config\n"),
            "container app of Pod/shop/web-1 keeps crashing with exit code 1 (5 restarts), last words: panic: no config",
            "",
        ),
        (
            crashing(137, "OOMKilled", ""),
            "container app of Pod/shop/web-1 was killed for want of memory: it may use 64Mi (5 restarts)",
            "raise resources.limits.memory of the container",
        ),
        (
            crashing(127, "Error", ""),
            "container app of Pod/shop/web-1 keeps crashing with exit code 127 (5 restarts)",
            "its command is not in the image: compare command and args with the image",
        ),
        (
            crashing(0, "Completed", ""),
            "container app of Pod/shop/web-1 keeps ending, with exit code 0 (5 restarts)",
            "its command ends by itself: a Deployment wants one that keeps running",
        ),
    ] {
        check(&facts(vec![pod("web-1", container)], vec![]), sentence, hint);
    }
    let liveness = event(
        "Pod",
        "web-1",
        "Unhealthy",
        "Liveness probe failed: HTTP probe failed with statuscode: 500",
    );
    check(
        &facts(vec![pod("web-1", crashing(137, "Error", ""))], vec![liveness]),
        "container app of Pod/shop/web-1 was killed because its liveness probe failed: HTTP probe failed \
         with statuscode: 500 (5 restarts)",
        "add a startupProbe if the start takes long, or fix what the probe asks",
    );
    let long =
        told(&facts(vec![pod("web-1", crashing(1, "Error", &"word ".repeat(500)))], vec![])).0;
    assert!(long.chars().count() < 320 && long.contains("last words: …"), "{long}");
    let mut fine = crashing(1, "Error", "once");
    fine["ready"] = json!(true);
    fine["state"] = json!({"running": {}});
    assert_eq!(cause(&facts(vec![pod("web-1", fine)], vec![])), None, "an old crash is no reason");
}

#[test]
fn init_containers_are_examined_like_the_others() {
    let mut waits = pod("web-1", waiting("PodInitializing", ""));
    let mut init = crashing(3, "Error", "migration failed");
    init["name"] = json!("migrate");
    waits["status"]["initContainerStatuses"] = json!([init]);
    check(
        &facts(vec![waits], vec![]),
        "init container migrate of Pod/shop/web-1 keeps crashing with exit code 3 (5 restarts), last words: \
         migration failed",
        "",
    );
}

#[test]
fn the_schedulers_message_is_passed_on() {
    let unschedulable = |message: &str| {
        let mut pod = pod("web-1", json!({}));
        pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message}]});
        pod
    };
    for (message, hint) in [
        (
            "0/1 nodes are available: 1 Insufficient memory.",
            "lower resources.requests.memory of this or another workload",
        ),
        (
            "0/1 nodes are available: 1 Insufficient cpu.",
            "lower resources.requests.cpu of this or another workload",
        ),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.",
            "add a toleration for the node's taint, or remove the taint",
        ),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "compare nodeSelector and affinity with the labels of the node",
        ),
    ] {
        let sentence = format!("Pod/shop/web-1 fits on no node: {}", message.trim_end_matches('.'));
        check(&facts(vec![unschedulable(message)], vec![]), &sentence, hint);
    }
    let claims = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    let provisioning = event(
        "PersistentVolumeClaim",
        "data",
        "ProvisioningFailed",
        "storageclass.storage.k8s.io \"fast\" not found",
    );
    let told = cause(&facts(vec![unschedulable(claims)], vec![provisioning])).expect("a reason");
    assert_eq!(
        told.sentence,
        "PersistentVolumeClaim/shop/data stays unbound: storageclass.storage.k8s.io \"fast\" not found"
    );
    assert_eq!(told.object.kind, "PersistentVolumeClaim");
    // Another claim's trouble is not the reason when memory is.
    let other = event("PersistentVolumeClaim", "data", "ProvisioningFailed", "x");
    let (said, _) =
        self::told(&facts(vec![unschedulable("0/1 nodes: 1 Insufficient memory.")], vec![other]));
    assert!(said.starts_with("Pod/shop/web-1 fits on no node"), "{said}");
}

#[test]
fn a_failing_probe_is_cited_from_its_event() {
    let running =
        || json!({"name": "app", "ready": false, "restartCount": 0, "state": {"running": {}}});
    let unhealthy = |pod: &str, code: u32, minute: u32| {
        let message = format!("Readiness probe failed: HTTP probe failed with statuscode: {code}");
        let mut event = event("Pod", pod, "Unhealthy", &message);
        event["lastTimestamp"] = json!(format!("2026-01-01T00:0{minute}:00Z"));
        event
    };
    let events =
        vec![unhealthy("web-1", 503, 1), unhealthy("web-1", 404, 3), unhealthy("gone", 500, 5)];
    check(
        &facts(vec![pod("web-1", running())], events),
        "Pod/shop/web-1: readiness probe failed: HTTP probe failed with statuscode: 404",
        "compare path and port of the probe with the container, and read its log",
    );
}

#[test]
fn refused_pods_are_told_by_event_or_condition() {
    let quota =
        "Error creating: pods \"web-x\" is forbidden: exceeded quota: small, requested: memory=1Gi";
    check(
        &facts(vec![], vec![event("ReplicaSet", "web-6f", "FailedCreate", quota)]),
        &format!("ReplicaSet/shop/web-6f may create no pod: {quota}"),
        "raise the ResourceQuota, or lower what the pods request",
    );
    let denied =
        "Error creating: admission webhook \"policy.example\" denied the request: no latest tags";
    check(
        &facts(vec![], vec![event("ReplicaSet", "web-6f", "FailedCreate", denied)]),
        &format!("ReplicaSet/shop/web-6f cannot create its pods: {denied}"),
        "",
    );
    let mut without_event = facts(vec![], vec![]);
    without_event.replica_sets = vec![json!({"metadata": {"name": "web-6f", "namespace": "shop"},
        "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": denied}]}})];
    check(&without_event, &format!("ReplicaSet/shop/web-6f cannot create its pods: {denied}"), "");
}

#[test]
fn a_failed_job_tells_what_its_container_said() {
    let failed = |reason: &str| {
        let mut job = workload("Job");
        job["status"] = json!({"failed": 7, "conditions": [{"type": "Failed", "status": "True",
            "reason": reason, "message": "Job has reached the specified backoff limit"}]});
        job
    };
    let ended = json!({"name": "app", "ready": false, "restartCount": 0, "state": {"terminated":
        {"exitCode": 2, "reason": "Error", "message": "no such table", "finishedAt": "2026-01-01T00:01:00Z"}}});
    let mut facts = Facts { object: failed("BackoffLimitExceeded"), ..Facts::default() };
    let again = "a Job is not run again: delete it, or rename it with the next change";
    check(&facts, "Job/shop/web gave up after 7 failed pods", again);
    facts.pods = vec![pod("web-1", ended)];
    check(
        &facts,
        "Job/shop/web gave up after 7 failed pods: container app of Pod/shop/web-1 ended with exit code 2, \
         last words: no such table",
        again,
    );
    facts = Facts { object: failed("DeadlineExceeded"), ..Facts::default() };
    assert_eq!(told(&facts).0, "Job/shop/web ran longer than its activeDeadlineSeconds");
}

#[test]
fn the_most_telling_reason_wins_and_the_newest_among_equals() {
    let config = || pod("web-1", waiting("CreateContainerConfigError", "secret \"db\" not found"));
    let image = || pod("web-2", waiting("ErrImagePull", "x: not found"));
    let crash = || pod("web-3", crashing(1, "Error", ""));
    let probe = || event("Pod", "web-3", "Unhealthy", "Readiness probe failed: no");
    let quota = || event("ReplicaSet", "web", "FailedCreate", "no");
    let other = || event("Pod", "web-3", "NodeNotReady", "Node is not ready");
    for (pods, events, expected) in [
        (vec![crash(), image(), config()], vec![probe(), quota()], "Secret db"),
        (vec![crash(), image()], vec![probe(), quota()], "cannot pull"),
        (vec![crash()], vec![probe(), quota(), other()], "keeps crashing"),
        (vec![pod("web-3", json!({}))], vec![quota(), probe(), other()], "readiness probe"),
        (vec![pod("web-3", json!({}))], vec![quota(), other()], "cannot create its pods"),
        (vec![pod("web-3", json!({}))], vec![other()], "NodeNotReady: Node is not ready"),
    ] {
        let said = told(&facts(pods, events)).0;
        assert!(said.contains(expected), "{said} should be about {expected}");
    }
    let mut newer = pod("web-9", crashing(2, "Error", ""));
    newer["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"] =
        json!("2026-01-02T00:00:00Z");
    assert!(told(&facts(vec![crash(), newer], vec![])).0.contains("web-9"));
}

#[test]
fn pods_of_the_newest_replica_set_count_first_and_deleted_ones_never() {
    let set = |uid: &str, revision: &str| {
        json!({"metadata": {"name": uid, "namespace": "shop", "uid": uid,
            "annotations": {"deployment.kubernetes.io/revision": revision}}})
    };
    let owned = |name: &str, owner: &str, container: Value| {
        let mut pod = pod(name, container);
        pod["metadata"]["ownerReferences"] = json!([{"uid": owner}]);
        pod
    };
    let old =
        owned("old", "set-9", waiting("CreateContainerConfigError", "secret \"db\" not found"));
    let mut facts = facts(vec![old, owned("new", "set-10", crashing(1, "Error", ""))], vec![]);
    facts.replica_sets = vec![set("set-10", "10"), set("set-9", "9")];
    assert!(told(&facts).0.contains("Pod/shop/new keeps crashing"), "{facts:?}");
    facts.pods[1]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(told(&facts).0.contains("Pod/shop/old"), "the other is on its way out");
}

#[test]
fn without_any_finding_the_objects_own_condition_speaks() {
    let mut object = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"name": "web", "namespace": "shop"}});
    assert_eq!(cause(&Facts { object: object.clone(), ..Facts::default() }), None);
    object["status"] = json!({"conditions": [
        {"type": "Issuing", "status": "True", "reason": "A", "message": "b"},
        {"type": "Ready", "status": "False", "reason": "DoesNotExist", "message": "Issuer not found"}]});
    check(
        &Facts { object, ..Facts::default() },
        "Certificate/shop/web: DoesNotExist: Issuer not found",
        "",
    );
}

#[test]
fn a_change_that_no_controller_has_taken_up_is_said_before_conditions_of_earlier() {
    let condition = json!([{"type": "Progressing", "status": "False", "message": "of before"}]);
    for (seen, expected) in [
        (json!({}), true),
        (json!({"observedGeneration": 1, "conditions": condition}), true),
        (json!({"observedGeneration": 2}), false),
    ] {
        let mut object = workload("Deployment");
        object["metadata"]["generation"] = json!(2);
        object["status"] = seen;
        let told = cause(&Facts { object, ..Facts::default() });
        let said = told.is_some_and(|cause| cause.sentence.starts_with("no controller has looked"));
        assert_eq!(said, expected);
    }
}

#[test]
fn what_does_not_pass_by_waiting_is_told_from_a_start_that_takes_its_time() {
    let unschedulable = |message: &str| {
        let mut pod = pod("web-1", json!({}));
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message}]);
        pod
    };
    let mut restarted = crashing(1, "Error", "no database yet");
    restarted["state"] = json!({"running": {}});
    let probe = event("Pod", "web-1", "Unhealthy", "Readiness probe failed: not yet");
    let quota = event("ReplicaSet", "web", "FailedCreate", "exceeded quota: small");
    for (pod, events, expected) in [
        (pod("web-1", crashing(1, "Error", "")), vec![], true),
        (pod("web-1", waiting("ImagePullBackOff", "")), vec![], true),
        (pod("web-1", waiting("CreateContainerConfigError", "no key")), vec![], true),
        (unschedulable("0/1 nodes are available: 1 Insufficient memory."), vec![], true),
        (unschedulable("pod has unbound immediate PersistentVolumeClaims."), vec![], false),
        (pod("web-1", restarted), vec![], false),
        (pod("web-1", waiting("ContainerCreating", "")), vec![probe], false),
        (pod("web-1", waiting("ContainerCreating", "")), vec![quota], false),
    ] {
        let facts = facts(vec![pod], events);
        assert_eq!(hopeless(&facts), expected, "{facts:?}");
    }
}
