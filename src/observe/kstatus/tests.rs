//! Flux's kstatus (fluxcd/cli-utils), kind by kind.

use super::*;
use crate::flux::Expression;
use serde_json::json;

/// 2026-01-01T00:01:00Z.
const NOW: i64 = 1_767_225_660;

fn object(kind: &str, spec: Value, status: Value) -> Value {
    let (api_version, kind) = kind.rsplit_once('/').expect("apiVersion/kind");
    json!({"apiVersion": api_version, "kind": kind, "spec": spec, "status": status,
        "metadata": {"name": "x", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"}})
}

fn judge(object: &Value) -> (Status, String) {
    let verdict = status(object, &[], NOW);
    (verdict.status, verdict.message)
}

fn cond(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "why"})
}

fn check(kind: &str, table: &[(Value, Value, Status, &str)]) {
    for (spec, live, expected, message) in table {
        let judged = judge(&object(kind, spec.clone(), live.clone()));
        assert_eq!(judged, (*expected, (*message).to_owned()), "{kind} {spec} {live}");
    }
}

#[test]
fn generic_rules_come_before_those_of_the_kind() {
    let mut gone = object("apps/v1/Deployment", json!({}), json!({"observedGeneration": 1}));
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    gone["metadata"]["finalizers"] = json!(["a/b"]);
    let waits = "being deleted, waits for finalizer a/b".to_owned();
    assert_eq!(judge(&gone), (Status::Terminating, waits));
    check(
        "example.org/v1/Thing",
        &[
            (
                json!({}),
                json!({"observedGeneration": 1, "conditions": [cond("Stalled", "True", "R")]}),
                Status::InProgress,
                "generation 2 not seen yet by its controller, only 1",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Ready", "True", "R"), cond("Reconciling", "True", "R")]}),
                Status::InProgress,
                "R: why",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Stalled", "True", "R")]}),
                Status::Failed,
                "R: why",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Stalled", "False", "R")]}),
                Status::Current,
                "exists",
            ),
            (
                json!({}),
                json!({"observedGeneration": 2, "conditions": [cond("Ready", "True", "R")]}),
                Status::Current,
                "ready",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Ready", "False", "R")]}),
                Status::InProgress,
                "R: why",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Ready", "Unknown", "")]}),
                Status::InProgress,
                "why",
            ),
            (json!({}), json!(null), Status::Current, "exists"),
        ],
    );
}

#[test]
fn deployments_tell_how_far_they_are() {
    let live = |counts: [i64; 4], conditions: Value| {
        let [replicas, updated, available, ready] = counts;
        json!({"observedGeneration": 2, "replicas": replicas, "updatedReplicas": updated,
            "availableReplicas": available, "readyReplicas": ready, "conditions": conditions})
    };
    let spec = json!({"replicas": 3, "progressDeadlineSeconds": 600});
    let fine = json!([
        cond("Progressing", "True", "NewReplicaSetAvailable"),
        cond("Available", "True", "")
    ]);
    let stuck = json!([cond("Progressing", "False", "ProgressDeadlineExceeded")]);
    check(
        "apps/v1/Deployment",
        &[
            (
                spec.clone(),
                live([3, 3, 3, 3], fine.clone()),
                Status::Current,
                "3 of 3 replicas ready",
            ),
            (
                spec.clone(),
                live([1, 1, 1, 1], fine.clone()),
                Status::InProgress,
                "1 of 3 replicas created",
            ),
            (
                spec.clone(),
                live([3, 1, 1, 1], fine.clone()),
                Status::InProgress,
                "1 of 3 replicas updated",
            ),
            (
                spec.clone(),
                live([4, 3, 3, 3], fine.clone()),
                Status::InProgress,
                "1 old replicas still run",
            ),
            (
                spec.clone(),
                live([3, 3, 2, 3], fine.clone()),
                Status::InProgress,
                "2 of 3 replicas available",
            ),
            (
                spec.clone(),
                live([3, 3, 3, 1], fine.clone()),
                Status::InProgress,
                "1 of 3 replicas ready",
            ),
            (
                spec.clone(),
                live([3, 3, 3, 3], json!([])),
                Status::InProgress,
                "new ReplicaSet not available",
            ),
            (
                json!({"replicas": 3}),
                live([3, 3, 3, 3], json!([])),
                Status::InProgress,
                "condition Available is not True",
            ),
            (
                spec,
                live([3, 1, 0, 2], stuck),
                Status::Failed,
                "no progress for 600 s, 2 of 3 replicas ready",
            ),
            (
                json!({"replicas": 0}),
                live([0, 0, 0, 0], fine),
                Status::Current,
                "0 of 0 replicas ready",
            ),
            (json!({}), json!({}), Status::InProgress, "0 of 1 replicas created"),
        ],
    );
}

#[test]
fn the_other_workloads_count_their_own_way() {
    let set = |spec: Value, extra: Value| {
        let mut live = json!({"replicas": 2, "readyReplicas": 2, "currentReplicas": 2,
            "updatedReplicas": 2, "availableReplicas": 2, "fullyLabeledReplicas": 2,
            "currentRevision": "a", "updateRevision": "a"});
        extra.as_object().expect("an object").iter().for_each(|(k, v)| live[k] = v.clone());
        (spec, live)
    };
    let two = || json!({"replicas": 2});
    let partition =
        |n: i64| json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": n}}});
    let on_delete = json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}});
    let rows = |rows: Vec<((Value, Value), Status, &'static str)>| -> Vec<(Value, Value, Status, &'static str)> {
        rows.into_iter().map(|((spec, live), status, said)| (spec, live, status, said)).collect()
    };
    check(
        "apps/v1/StatefulSet",
        &rows(vec![
            (set(two(), json!({})), Status::Current, "2 of 2 replicas ready"),
            (set(two(), json!({"replicas": 1})), Status::InProgress, "1 of 2 replicas created"),
            (set(two(), json!({"readyReplicas": 0})), Status::InProgress, "0 of 2 replicas ready"),
            (set(two(), json!({"replicas": 3})), Status::InProgress, "1 old replicas still run"),
            (
                set(two(), json!({"currentReplicas": 1})),
                Status::InProgress,
                "1 of 2 replicas current",
            ),
            (
                set(two(), json!({"updateRevision": "b"})),
                Status::InProgress,
                "not all replicas are of the new revision",
            ),
            (
                set(partition(1), json!({"updatedReplicas": 1, "updateRevision": "b"})),
                Status::Current,
                "2 of 2 replicas ready",
            ),
            (
                set(partition(0), json!({"updatedReplicas": 1})),
                Status::InProgress,
                "1 of 2 replicas updated",
            ),
            (
                set(on_delete, json!({"readyReplicas": 0})),
                Status::Current,
                "updated by hand (OnDelete)",
            ),
        ]),
    );
    check(
        "apps/v1/ReplicaSet",
        &rows(vec![
            (set(two(), json!({})), Status::Current, "2 of 2 replicas ready"),
            (
                set(two(), json!({"fullyLabeledReplicas": 1})),
                Status::InProgress,
                "1 of 2 replicas labelled",
            ),
            (
                set(two(), json!({"availableReplicas": 1})),
                Status::InProgress,
                "1 of 2 replicas available",
            ),
            (
                set(two(), json!({"conditions": [cond("ReplicaFailure", "True", "FailedCreate")]})),
                Status::InProgress,
                "FailedCreate: why",
            ),
        ]),
    );
    let daemon = |observed: Value, scheduled: i64, ready: i64| {
        json!({"observedGeneration": observed, "desiredNumberScheduled": 2, "currentNumberScheduled": scheduled,
            "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": ready})
    };
    check(
        "apps/v1/DaemonSet",
        &[
            (json!({}), daemon(json!(2), 2, 2), Status::Current, "2 of 2 pods ready"),
            (json!({}), daemon(json!(2), 1, 2), Status::InProgress, "1 of 2 pods scheduled"),
            (json!({}), daemon(json!(2), 2, 1), Status::InProgress, "1 of 2 pods ready"),
            (
                json!({}),
                daemon(json!(null), 2, 2),
                Status::InProgress,
                "not seen yet by its controller",
            ),
            (
                json!({}),
                json!({"observedGeneration": 2}),
                Status::InProgress,
                "not seen yet by its controller",
            ),
        ],
    );
}

#[test]
fn pods_are_judged_by_phase() {
    let unschedulable =
        json!({"phase": "Pending", "conditions": [cond("PodScheduled", "False", "Unschedulable")]});
    let crashing = json!([{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        {"name": "b", "state": {"running": {}}}]);
    check(
        "v1/Pod",
        &[
            (json!({}), json!({}), Status::InProgress, "not seen yet by its controller"),
            (json!({}), json!({"phase": "Succeeded"}), Status::Current, "completed"),
            (
                json!({}),
                json!({"phase": "Failed"}),
                Status::Current,
                "completed, but not successfully",
            ),
            (
                json!({}),
                json!({"phase": "Running", "conditions": [cond("Ready", "True", "")]}),
                Status::Current,
                "ready",
            ),
            (
                json!({}),
                json!({"phase": "Running", "containerStatuses": []}),
                Status::InProgress,
                "running, but not ready",
            ),
            (
                json!({}),
                json!({"phase": "Running", "containerStatuses": crashing}),
                Status::Failed,
                "container a keeps crashing",
            ),
            (json!({}), unschedulable.clone(), Status::Failed, "cannot be scheduled: why"),
            (json!({}), json!({"phase": "Pending"}), Status::InProgress, "pending"),
            (json!({}), json!({"phase": "Odd"}), Status::Unknown, "unknown phase Odd"),
        ],
    );
    let pod = object("v1/Pod", json!({}), unschedulable);
    assert_eq!(status(&pod, &[], NOW - 46).status, Status::InProgress, "14 s after its creation");
    assert_eq!(status(&pod, &[], NOW - 45).status, Status::Failed, "15 s after its creation");
}

#[test]
fn the_remaining_kinds_follow_their_rows() {
    check(
        "v1/PersistentVolumeClaim",
        &[
            (json!({}), json!({"phase": "Bound"}), Status::Current, "bound"),
            (
                json!({}),
                json!({"phase": "Pending"}),
                Status::InProgress,
                "not bound, phase Pending",
            ),
        ],
    );
    check(
        "v1/Service",
        &[
            (json!({}), json!({}), Status::Current, "exists"),
            (
                json!({"type": "LoadBalancer"}),
                json!({}),
                Status::InProgress,
                "load balancer without a cluster IP yet",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
                json!({}),
                Status::Current,
                "exists",
            ),
        ],
    );
    check(
        "batch/v1/Job",
        &[
            (
                json!({}),
                json!({"active": 1}),
                Status::InProgress,
                "0 of 1 completions, 1 pods active, 0 failed",
            ),
            (json!({"suspend": true}), json!({}), Status::Current, "suspended"),
            (
                json!({}),
                json!({"succeeded": 1, "conditions": [cond("Complete", "True", "")]}),
                Status::Current,
                "1 of 1 completions",
            ),
            (
                json!({"suspend": true}),
                json!({"failed": 7, "conditions": [cond("Failed", "True", "BackoffLimitExceeded")]}),
                Status::Failed,
                "7 pods failed: BackoffLimitExceeded: why",
            ),
        ],
    );
    for kind in ["v1/ConfigMap", "v1/Secret", "batch/v1/CronJob", "policy/v1/PodDisruptionBudget"] {
        let live = json!({"conditions": [cond("Ready", "False", "R")]});
        check(kind, &[(json!({}), live, Status::Current, "exists")]);
    }
    check(
        "apiextensions.k8s.io/v1/CustomResourceDefinition",
        &[
            (json!({}), json!({}), Status::InProgress, "not established yet"),
            (
                json!({}),
                json!({"conditions": [cond("Established", "False", "Installing")]}),
                Status::InProgress,
                "not established yet",
            ),
            (
                json!({}),
                json!({"conditions": [cond("Established", "False", "Broken")]}),
                Status::Failed,
                "Broken: why",
            ),
            (
                json!({}),
                json!({"conditions": [cond("NamesAccepted", "False", "Taken")]}),
                Status::Failed,
                "Taken: why",
            ),
            (
                json!({}),
                json!({"conditions": [cond("NamesAccepted", "True", ""), cond("Established", "True", "")]}),
                Status::Current,
                "established",
            ),
        ],
    );
}

#[test]
fn an_absent_job_that_cleans_up_after_itself_is_current() {
    let job = object("batch/v1/Job", json!({"ttlSecondsAfterFinished": 60}), json!({}));
    assert_eq!(absent(&job).status, Status::Current);
    let job = object("batch/v1/Job", json!({}), json!({}));
    assert_eq!(absent(&job), Verdict::new(Status::NotFound, "not found"));
}

fn expression(kind: Option<&str>, rules: [Option<&str>; 3]) -> HealthCheckExpr {
    let compile = |text: &str| Expression::compile(text).expect("compiles");
    let [in_progress, failed, current] = rules.map(|rule| rule.map(compile));
    HealthCheckExpr {
        group: "example.org".into(),
        kind: kind.map(str::to_owned),
        current: current.expect("is required"),
        in_progress,
        failed,
    }
}

#[test]
fn expressions_replace_the_rules_of_their_kind() {
    let rules = expression(
        Some("Thing"),
        [
            Some("status.phase == 'Busy'"),
            Some("status.phase == 'Bad'"),
            Some("status.phase == 'Good'"),
        ],
    );
    let group = expression(None, [None, None, Some("true")]);
    let both = [group, rules];
    for (kind, live, expected) in [
        ("Thing", json!({"phase": "Busy"}), Status::InProgress),
        ("Thing", json!({"phase": "Bad"}), Status::Failed),
        ("Thing", json!({"phase": "Good"}), Status::Current),
        ("Thing", json!({"phase": "Else"}), Status::InProgress),
        ("Thing", json!({}), Status::Unknown),
        ("Thing", json!({"phase": "Good", "observedGeneration": 1}), Status::InProgress),
        ("Other", json!({"conditions": [cond("Ready", "False", "R")]}), Status::Current),
    ] {
        let object = object(&format!("example.org/v2/{kind}"), json!({}), live.clone());
        assert_eq!(status(&object, &both, NOW).status, expected, "{kind} {live}");
    }
}
