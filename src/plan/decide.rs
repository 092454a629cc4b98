//! Pure: one manifest and what the server said of it → one step.

use super::desired::Owner;
use super::inventory::{opted_out, owned};
use super::trim::place;
use super::writer::{entries, held, is_taken, text};
use super::{Action, Probe, Refusal, RefusalKind, Step, Trimmed};
use crate::render::{Manifest, ObjectId};
use serde_json::Value;

/// Kinds that are never deleted to be created again, whatever `force` says.
const NEVER_RECREATED: &[&str] = &[
    "PersistentVolumeClaim",
    "PersistentVolume",
    "Namespace",
    "CustomResourceDefinition",
    "StatefulSet",
];

/// Why an object on its way out is skipped for now.
pub const GOING: &str = "is being deleted";

/// Why a finite object that is not there is left alone.
pub const VANISHED: &str = "has done its work and is gone; made again when its manifest changes";

/// What a person does about an immutable field of an object that is never deleted to be created
/// again, since data or what others have put in would go along; `None` for all other kinds.
pub fn by_hand(id: &ObjectId) -> Option<String> {
    if !NEVER_RECREATED.contains(&id.kind.as_str()) {
        return None;
    }
    let ObjectId { namespace, name, .. } = id;
    let what = match id.kind.as_str() {
        "StatefulSet" => format!(
            "delete it alone, its pods and claims stay: \
             kubectl -n {namespace} delete statefulset {name} --cascade=orphan"
        ),
        "PersistentVolumeClaim" => format!(
            "save its data, end what uses it, then: kubectl -n {namespace} delete pvc {name}"
        ),
        "PersistentVolume" => format!("save its data, then: kubectl delete pv {name}"),
        "Namespace" => {
            format!("save all that is in it, then: kubectl delete namespace {name}")
        }
        kind => format!(
            "save the objects that go with it, then: kubectl delete {} {name}",
            kind.to_ascii_lowercase()
        ),
    };
    let again = "gitopsd makes it again as Git says";
    Some(format!("take the change back, for force does not touch this kind; or {what}; {again}"))
}

/// Decides what is done with one object (Flux: Kustomization, Apply).
///
/// `force` is the Kustomization's; an object may ask for it itself by annotation or label.
pub fn decide(manifest: Manifest, probe: Probe, force: bool) -> Step {
    let live = probe.live.as_ref();
    let uid = live.and_then(|l| l.pointer("/metadata/uid")).and_then(Value::as_str);
    let uid = uid.map(str::to_owned);
    let take_over = live.is_some_and(|live| needs_take_over(manifest.body(), live));
    let blind = probe.blind();
    let (manifest, notices) = match probe.trimmed {
        Some(Trimmed { manifest, notices }) => (manifest, notices),
        None => (manifest, Vec::new()),
    };
    let action = Action::Unchanged;
    let differences = Vec::new();
    let mut step = Step { manifest, action, differences, uid, take_over, blind, notices };
    if let Some(reason) = skip(&step.manifest, live) {
        step.action = Action::Skip(reason);
        return step;
    }
    match probe.dry_run {
        Ok(wanted) => {
            let masked = step.manifest.sensitive;
            match live {
                None => step.action = Action::Create,
                Some(live) => {
                    step.differences = super::differences(live, &wanted, masked);
                    if !step.differences.is_empty() || take_over || slipped(live, &wanted) {
                        step.action = Action::Configure;
                    }
                }
            }
        }
        Err(refusal) if blind => {
            step.action = if live.is_some() { Action::Configure } else { Action::Create };
            step.notices.push(format!(
                "{}: applied last and without a dry-run, as an admission webhook takes none: {}",
                place(&step.manifest),
                refusal.message
            ));
        }
        Err(refusal) => {
            let fields = live.and_then(|live| recreated(&step.manifest, live, force, &refusal));
            step.action = match fields {
                Some(fields) => Action::Recreate(fields),
                None => Action::Refuse(refusal),
            };
        }
    }
    step
}

/// The immutable fields for whose sake an object of ours is deleted and created again, when that is
/// wanted: by `force`, or by the object itself.
pub fn recreated(
    manifest: &Manifest,
    live: &Value,
    force: bool,
    refusal: &Refusal,
) -> Option<Vec<String>> {
    let RefusalKind::Immutable(fields) = &refusal.kind else { return None };
    let forced = force || marked(manifest.body(), Some(live), "force", "enabled");
    let ours = Owner::on(manifest.body()).is_none_or(|owner| owned(live, &owner));
    let may = !NEVER_RECREATED.contains(&manifest.id.kind.as_str());
    (forced && ours && may).then(|| fields.clone())
}

/// Why an object is left alone, by the marks Flux honours in Git or on the live copy.
fn skip(manifest: &Manifest, live: Option<&Value>) -> Option<&'static str> {
    let body = manifest.body();
    if marked(body, live, "reconcile", "disabled") {
        return Some("kustomize.toolkit.fluxcd.io/reconcile: disabled");
    }
    if marked(body, live, "ssa", "ignore") {
        return Some("kustomize.toolkit.fluxcd.io/ssa: Ignore");
    }
    if live.is_some() && marked(body, None, "ssa", "ifnotpresent") {
        return Some("kustomize.toolkit.fluxcd.io/ssa: IfNotPresent");
    }
    if let Some(live) = live
        && live.pointer("/metadata/deletionTimestamp").is_some()
        && opted_out(live).is_none()
    {
        // Applying to an object on its way out changes nothing; the next pass creates it.
        return Some(GOING);
    }
    None
}

fn marked(body: &Value, live: Option<&Value>, key: &str, value: &str) -> bool {
    let key = format!("kustomize.toolkit.fluxcd.io/{key}");
    [Some(body), live].into_iter().flatten().any(|object| {
        ["labels", "annotations"].iter().any(|map| {
            object
                .get("metadata")
                .and_then(|metadata| metadata.get(*map))
                .and_then(|map| map.get(&key))
                .and_then(Value::as_str)
                .is_some_and(|said| said.eq_ignore_ascii_case(value))
        })
    })
}

/// True when fields are held by managers that Flux takes over, so that removing them from Git
/// removes them from the cluster. `kubectl rollout restart` is carried along on purpose.
fn needs_take_over(wanted: &Value, live: &Value) -> bool {
    !merges(wanted) && !merges(live) && entries(live).any(is_taken)
}

/// True for an object, desired or live, whose other writers keep their fields: nothing is taken
/// over from them, so nothing of theirs goes when we apply less than they did.
pub fn merges(object: &Value) -> bool {
    marked(object, None, "ssa", "merge")
}

/// True when a field has our value but left our entry: an edit that was taken back, or stripped
/// `managedFields`. It is applied once, or its later removal from Git would do nothing.
fn slipped(live: &Value, wanted: &Value) -> bool {
    held(wanted).is_some_and(|wanted| held(live) != Some(wanted))
}

/// True for an object that ends by itself and is then taken away: a Job with a time to live.
pub fn finite(manifest: &Manifest) -> bool {
    manifest.id.group == "batch"
        && manifest.id.kind == "Job"
        && manifest.body().pointer("/spec/ttlSecondsAfterFinished").is_some_and(Value::is_number)
}

/// True for a step about a finite object that is gone, or that has `ended` and is going. If this very
/// manifest has made it before, it is left alone: it ran and is taken away, and running it again is
/// not what Git asks for.
pub fn vanishes(step: &Step, ended: bool) -> bool {
    let goes = match step.action {
        Action::Create => true,
        Action::Skip(GOING) => ended,
        _ => false,
    };
    goes && finite(&step.manifest)
}

/// True for a Job that has done its work, or failed for good.
pub fn ended(live: &Value) -> bool {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        ["Complete", "Failed"].map(|end| condition["type"] == end).contains(&true)
            && condition["status"] == "True"
    })
}

/// True when the metadata of a deleted object show that it had not ended: nobody wrote how.
pub fn unfinished(metadata: &Value) -> bool {
    let ended = |entry: &Value| {
        let status = entry.pointer("/fieldsV1/f:status");
        text(entry, "subresource") == "status"
            && status.is_some_and(|status| {
                status.get("f:conditions").or(status.get("f:completionTime")).is_some()
            })
    };
    entries(metadata).next().is_some() && !entries(metadata).any(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(kind: &str) -> Manifest {
        let body = json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": "x", "namespace": "n"}, "spec": {"a": 2}});
        Manifest::new(body, None, false)
    }

    fn live(spec: Value) -> Value {
        json!({"metadata": {"uid": "u1"}, "spec": spec})
    }

    fn immutable() -> Result<Value, Refusal> {
        let kind = RefusalKind::Immutable(vec!["spec.selector".into()]);
        Err(Refusal { kind, status: 422, message: "field is immutable".into() })
    }

    fn action(manifest: Manifest, live: Option<Value>, dry_run: Result<Value, Refusal>) -> Action {
        decide(manifest, Probe { live, dry_run, trimmed: None }, true).action
    }

    #[test]
    fn absent_is_created_different_configured_equal_unchanged() {
        let wanted = live(json!({"a": 2}));
        let with = |live| action(manifest("Deployment"), live, Ok(wanted.clone()));
        assert_eq!(with(None), Action::Create);
        assert_eq!(with(Some(live(json!({"a": 1})))), Action::Configure);
        assert_eq!(with(Some(wanted.clone())), Action::Unchanged);
    }

    #[test]
    fn a_job_that_goes_by_its_time_to_live_has_vanished_if_it_has_ended() {
        let job = |ttl: Value| {
            let body = json!({"apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": "x", "namespace": "n"},
                "spec": {"ttlSecondsAfterFinished": ttl}});
            Manifest::new(body, None, false)
        };
        let live = |condition: &str, status: &str| {
            json!({"metadata": {"uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"conditions": [{"type": condition, "status": status}]}})
        };
        let vanishes = |ttl: Value, live: Option<Value>| {
            let (known, dry_run) = (live.as_ref().is_some_and(ended), Ok(json!({})));
            vanishes(&decide(job(ttl), Probe { live, dry_run, trimmed: None }, false), known)
        };
        assert!(vanishes(json!(1), None), "gone");
        for (condition, status, goes) in [
            ("Complete", "True", true),
            ("Failed", "True", true),
            ("Complete", "False", false),
            ("Suspended", "True", false),
        ] {
            assert_eq!(vanishes(json!(1), Some(live(condition, status))), goes, "{condition}");
        }
        assert!(!vanishes(Value::Null, Some(live("Complete", "True"))), "somebody deletes it");
        let mut there = live("Complete", "True");
        there["metadata"] = json!({"uid": "u1"});
        assert!(!vanishes(json!(1), Some(there)), "it has ended and is there");
    }

    #[test]
    fn only_an_immutable_field_leads_to_a_recreate() {
        let some = Some(live(json!({"a": 1})));
        let recreate = Action::Recreate(vec!["spec.selector".into()]);
        assert_eq!(action(manifest("Deployment"), some.clone(), immutable()), recreate);
        let invalid =
            Refusal { kind: RefusalKind::Invalid, status: 422, message: "bad port".into() };
        assert_eq!(
            action(manifest("Deployment"), some, Err(invalid.clone())),
            Action::Refuse(invalid)
        );
    }

    #[test]
    fn what_a_webhook_judges_only_for_real_is_applied_and_told_of() {
        let refused = || {
            let message = "admission webhook \"a.b\" does not support dry run".to_owned();
            Err(Refusal { kind: RefusalKind::NoDryRun, status: 400, message })
        };
        let step = |live| {
            let probe = Probe { live, dry_run: refused(), trimmed: None };
            assert!(probe.blind());
            decide(manifest("Deployment"), probe, false)
        };
        let (made, there) = (step(None), step(Some(live(json!({"a": 2})))));
        assert_eq!((made.action, there.action), (Action::Create, Action::Configure));
        assert!(made.blind && there.blind && there.differences.is_empty());
        assert_eq!(there.uid.as_deref(), Some("u1"), "and no other object of that name");
        assert_eq!(
            there.notices,
            ["Deployment/n/x: applied last and without a dry-run, as an admission webhook takes \
              none: admission webhook \"a.b\" does not support dry run"]
        );
        let mut gone = live(json!({}));
        gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(step(Some(gone)).action, Action::Skip(GOING));
    }

    #[test]
    fn what_holds_data_is_never_recreated() {
        for kind in NEVER_RECREATED {
            let some = Some(live(json!({"a": 1})));
            let action = action(manifest(kind), some, immutable());
            assert!(matches!(action, Action::Refuse(_)), "{kind}: {action:?}");
        }
    }

    #[test]
    fn what_a_person_does_instead_is_told_by_kind_and_name() {
        let told = |kind: &str| by_hand(&manifest(kind).id);
        for (kind, command) in [
            ("StatefulSet", "kubectl -n n delete statefulset x --cascade=orphan;"),
            ("PersistentVolumeClaim", "kubectl -n n delete pvc x;"),
            ("PersistentVolume", "kubectl delete pv x;"),
            ("Namespace", "kubectl delete namespace x;"),
            ("CustomResourceDefinition", "kubectl delete customresourcedefinition x;"),
        ] {
            assert!(NEVER_RECREATED.contains(&kind));
            let told = told(kind).unwrap_or_default();
            assert!(told.contains(command), "{told}");
        }
        assert_eq!(told("Deployment"), None);
    }

    #[test]
    fn from_what_is_merged_nothing_is_taken_over_whoever_says_so() {
        let live = json!({"metadata": {"uid": "u", "managedFields":
            [{"manager": "kubectl-client-side-apply", "operation": "Update"}]}});
        let merge = json!({"kustomize.toolkit.fluxcd.io/ssa": "Merge"});
        let step = |mark_wanted: bool, mark_live: bool| {
            let (mut wanted, mut live) = (manifest("ConfigMap"), live.clone());
            if mark_wanted {
                wanted.edit(|body| body["metadata"]["annotations"] = merge.clone());
            }
            if mark_live {
                live["metadata"]["labels"] = merge.clone();
            }
            let probe = Probe { live: Some(live.clone()), dry_run: Ok(live), trimmed: None };
            let step = decide(wanted, probe, false);
            (step.take_over, step.action)
        };
        assert_eq!(step(false, false), (true, Action::Configure));
        for (wanted, live) in [(true, false), (false, true), (true, true)] {
            assert_eq!(step(wanted, live), (false, Action::Unchanged), "{wanted} {live}");
        }
    }

    #[test]
    fn marks_in_git_or_on_the_live_copy_leave_the_object_alone() {
        let mut marked = live(json!({"a": 1}));
        marked["metadata"]["annotations"] =
            json!({"kustomize.toolkit.fluxcd.io/reconcile": "Disabled"});
        let skipped = Action::Skip("kustomize.toolkit.fluxcd.io/reconcile: disabled");
        assert_eq!(action(manifest("Deployment"), Some(marked), Ok(json!({}))), skipped);
    }

    #[test]
    fn fields_left_by_kubectl_are_taken_over_but_not_a_rollout_restart() {
        let by = |manager: &str| {
            json!({"metadata": {"uid": "u", "managedFields":
                [{"manager": manager, "operation": "Update"}]}})
        };
        let action = |manager| {
            let live = by(manager);
            action(manifest("Deployment"), Some(live.clone()), Ok(live))
        };
        assert_eq!(action("kubectl-edit"), Action::Configure);
        assert_eq!(action("kubectl-rollout"), Action::Unchanged);
        assert_eq!(action("cert-manager"), Action::Unchanged);
    }
}
