//! Pure: what the server's refusal of an object means for the plan.
//!
//! "Immutable" leads to delete-and-create where `force` is set, so it is read narrowly: every
//! cause of a 422 must say so of a field. Flux takes any 422 for it and deletes objects over a
//! typing error; that is not copied (Flux: Kustomization, Force).

use crate::cluster::{ClusterError, FieldCause};
use crate::plan::{Refusal, RefusalKind};

/// What the API server's validations say of fields that cannot change.
const IMMUTABLE: &[&str] = &[
    "immutable",
    "may not change once set",
    "may not be changed",
    "cannot change roleRef",
    "pod updates may not change fields",
];

/// Longest value that a message repeats: a Job's template runs to pages.
const SHOWN: usize = 120;

/// Reads a refusal of an apply, dry or not.
pub(super) fn refusal(error: &ClusterError) -> Refusal {
    Refusal { kind: kind(error), status: error.status(), message: message(error) }
}

/// A refusal that never reached the server.
pub(super) fn own(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, status: 0, message }
}

fn kind(error: &ClusterError) -> RefusalKind {
    let text = error.to_string();
    if text.contains("admission webhook \"") || text.contains("failed calling webhook") {
        return if no_dry_run(&text) { RefusalKind::NoDryRun } else { RefusalKind::Webhook };
    }
    match error {
        ClusterError::Invalid { causes, .. } => {
            if causes.is_empty() || !causes.iter().all(is_immutable) {
                return RefusalKind::Invalid;
            }
            let mut fields: Vec<String> = causes.iter().map(|c| c.field.clone()).collect();
            fields.dedup();
            RefusalKind::Immutable(fields)
        }
        ClusterError::NotFound { kind, .. } if kind == "namespaces" => {
            RefusalKind::MissingNamespace
        }
        ClusterError::NotFound { kind, .. } if kind.is_empty() => RefusalKind::UnknownKind,
        ClusterError::Forbidden(why) if why.contains("because it is being terminated") => {
            RefusalKind::MissingNamespace
        }
        ClusterError::Forbidden(_) | ClusterError::Unauthorized(_) => RefusalKind::Forbidden,
        _ => RefusalKind::Transient,
    }
}

/// The server says `does not support dry run` of webhooks that have told it so; others refuse such
/// requests themselves, in words of their own. Any other refusal holds for the real request too: the
/// server takes no webhook (v1) that has not promised that.
fn no_dry_run(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["dry run", "dry-run", "dryrun"].iter().any(|words| text.contains(words))
}

fn is_immutable(cause: &FieldCause) -> bool {
    let says = |text: &str| cause.message.contains(text);
    let of_a_field = matches!(cause.reason.as_str(), "FieldValueInvalid" | "FieldValueForbidden");
    // `updates to statefulset spec for fields other than …`, `updates to parameters are forbidden`
    let updates = says("updates to ") && says("forbidden");
    of_a_field && !cause.field.is_empty() && (updates || IMMUTABLE.iter().any(|text| says(text)))
}

fn message(error: &ClusterError) -> String {
    match error {
        ClusterError::Invalid { causes, .. } if !causes.is_empty() => {
            let said: Vec<String> = causes.iter().map(said).collect();
            said.join("; ")
        }
        error => error.to_string(),
    }
}

/// `spec.ports[0].port: Invalid value: 0: must be between 1 and 65535`, long values left out.
fn said(cause: &FieldCause) -> String {
    let mut text = cause.message.as_str();
    if text.len() > SHOWN
        && text.contains("value: ")
        && let Some((_, end)) = text.rsplit_once(": ")
    {
        text = end;
    }
    if cause.field.is_empty() { text.to_owned() } else { format!("{}: {text}", cause.field) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(causes: &[(&str, &str, &str)]) -> Refusal {
        let causes = causes.iter().map(|(field, reason, message)| FieldCause {
            field: (*field).to_owned(),
            reason: (*reason).to_owned(),
            message: (*message).to_owned(),
        });
        let message = "Thing \"x\" is invalid".to_owned();
        refusal(&ClusterError::Invalid { status: 422, message, causes: causes.collect() })
    }

    #[test]
    fn only_causes_that_say_immutable_of_a_field_are_immutable() {
        let long = format!("Invalid value: Template{{{}}}: field is immutable", "x".repeat(500));
        let value = ("spec.template", "FieldValueInvalid", long.as_str());
        let fields = |names: &[&str]| {
            RefusalKind::Immutable(names.iter().map(|name| (*name).to_owned()).collect())
        };
        for (causes, expected) in [
            (vec![value], fields(&["spec.template"])),
            (
                vec![(
                    "spec",
                    "FieldValueForbidden",
                    "Forbidden: updates to statefulset spec for \
                    fields other than 'replicas', 'template' are forbidden",
                )],
                fields(&["spec"]),
            ),
            (
                vec![(
                    "spec.clusterIPs[0]",
                    "FieldValueInvalid",
                    "Invalid value: [\"10.43.0.9\"]: may not change once set",
                )],
                fields(&["spec.clusterIPs[0]"]),
            ),
            (
                vec![("roleRef", "FieldValueInvalid", "Invalid value: {}: cannot change roleRef")],
                fields(&["roleRef"]),
            ),
            (
                vec![(
                    "spec.ports[0].port",
                    "FieldValueInvalid",
                    "Invalid value: 0: must be \
                    between 1 and 65535, inclusive",
                )],
                RefusalKind::Invalid,
            ),
            (vec![value, ("spec.x", "FieldValueRequired", "Required value")], RefusalKind::Invalid),
            (vec![], RefusalKind::Invalid),
        ] {
            assert_eq!(invalid(&causes).kind, expected, "{causes:?}");
        }
        assert_eq!(invalid(&[value]).message, "spec.template: field is immutable");
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let missing =
            |kind: &str| ClusterError::NotFound { message: "m".into(), kind: kind.into() };
        for (error, expected) in [
            (missing("namespaces"), RefusalKind::MissingNamespace),
            (missing(""), RefusalKind::UnknownKind),
            (ClusterError::Forbidden("user cannot patch".into()), RefusalKind::Forbidden),
            (
                ClusterError::Forbidden(
                    "unable to create new content in namespace n because it \
                    is being terminated"
                        .into(),
                ),
                RefusalKind::MissingNamespace,
            ),
            (
                ClusterError::Forbidden("admission webhook \"a.b\" denied the request".into()),
                RefusalKind::Webhook,
            ),
            (
                ClusterError::Server {
                    status: 500,
                    message: "failed calling webhook \"x\"".into(),
                },
                RefusalKind::Webhook,
            ),
            (
                ClusterError::Server {
                    status: 400,
                    message: "admission webhook \"a.b\" does not support dry run".into(),
                },
                RefusalKind::NoDryRun,
            ),
            (
                ClusterError::Forbidden(
                    "admission webhook \"a.b\" denied the request: no Dry-Run here".into(),
                ),
                RefusalKind::NoDryRun,
            ),
            (ClusterError::Unreachable("refused".into()), RefusalKind::Transient),
        ] {
            assert_eq!(refusal(&error).kind, expected, "{error:?}");
        }
    }
}
