//! What can go wrong with a request, read from the server's `Status`.
//!
//! Messages are the server's own words, cut at 4 KiB; those about sensitive objects pass
//! [`masked`] first, because validation errors quote the value that they refuse.

use serde_json::Value;
use std::time::Duration;

/// Longest message kept. Validation errors of large CRs run to megabytes.
const MESSAGE: usize = 4096;

/// Most causes kept of one refusal.
const CAUSES: usize = 32;

/// One field that the server refuses: `Status.details.causes[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCause {
    /// `spec.clusterIP`; empty when the server names none.
    pub field: String,
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: String,
    /// `Invalid value: "x": field is immutable`.
    pub message: String,
}

/// Why a request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    BadKubeconfig(String),
    /// No connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("{what}: no answer within {} s", limit.as_secs())]
    Timeout {
        /// Method and path.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// 401.
    #[error("the API server does not accept our credentials: {0}")]
    Unauthorized(String),
    /// 403, from RBAC, a quota or an admission plugin.
    #[error("{0}")]
    Forbidden(String),
    /// 404.
    #[error("{message}")]
    NotFound {
        /// The server's message.
        message: String,
        /// Plural of what is missing, such as `namespaces`; empty for a path that is not served.
        kind: String,
    },
    /// 409: somebody else was faster, or a precondition does not hold.
    #[error("{0}")]
    Conflict(String),
    /// 410: the resourceVersion or continue token is too old.
    #[error("{0}")]
    Expired(String),
    /// 400, 413, 415 or 422, and typed-patch errors that come as 500: the object is wrong.
    #[error("{message}")]
    Invalid {
        /// HTTP status.
        status: u16,
        /// The server's message.
        message: String,
        /// The fields, where the server names them.
        causes: Vec<FieldCause>,
    },
    /// 429.
    #[error("the API server is busy: {message}")]
    TooMany {
        /// The server's message.
        message: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// 5xx, and anything else that is no success.
    #[error("the API server failed ({status}): {message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// The answer is not what the API answers: a proxy or a login page in between, or half of it.
    #[error("the API server's answer is none of the API: {0}")]
    Garbled(String),
    /// The answer is too large, or from a server that is too old.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
}

impl ClusterError {
    /// True when the same request may succeed later without anybody doing anything.
    pub fn retry(&self) -> bool {
        match self {
            ClusterError::Unreachable(_)
            | ClusterError::Timeout { .. }
            | ClusterError::Conflict(_)
            | ClusterError::Expired(_)
            | ClusterError::TooMany { .. }
            | ClusterError::Server { .. }
            | ClusterError::Garbled(_) => true,
            ClusterError::BadKubeconfig(_)
            | ClusterError::Unauthorized(_)
            | ClusterError::Forbidden(_)
            | ClusterError::NotFound { .. }
            | ClusterError::Invalid { .. }
            | ClusterError::Unreadable(_) => false,
        }
    }

    /// True when the API server as a whole is out of reach, whatever was asked.
    pub fn outage(&self) -> bool {
        matches!(
            self,
            ClusterError::Unreachable(_)
                | ClusterError::Timeout { .. }
                | ClusterError::Server { status: 502..=504, .. }
        )
    }

    /// HTTP status; 0 when there was no answer.
    pub fn status(&self) -> u16 {
        match self {
            ClusterError::BadKubeconfig(_)
            | ClusterError::Unreachable(_)
            | ClusterError::Timeout { .. }
            | ClusterError::Garbled(_)
            | ClusterError::Unreadable(_) => 0,
            ClusterError::Unauthorized(_) => 401,
            ClusterError::Forbidden(_) => 403,
            ClusterError::NotFound { .. } => 404,
            ClusterError::Conflict(_) => 409,
            ClusterError::Expired(_) => 410,
            ClusterError::TooMany { .. } => 429,
            ClusterError::Invalid { status, .. } | ClusterError::Server { status, .. } => *status,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ClusterError::BadKubeconfig(_) => {
                "give a kubeconfig with inline certificate or token, such as k3s writes to \
                 /etc/rancher/k3s/k3s.yaml; `gitopsd check` tries it"
            }
            ClusterError::Unreachable(why) if why.contains("certificate") => {
                "the kubeconfig's certificate-authority-data is not the one that signed the \
                 server: take the current kubeconfig, k3s rewrites it when it is reinstalled"
            }
            ClusterError::Unreachable(_) | ClusterError::Timeout { .. } => {
                "is it running? see `systemctl status k3s` and `journalctl -u k3s`"
            }
            ClusterError::Garbled(_) => {
                "does something else listen at the kubeconfig's address, a proxy for instance?"
            }
            ClusterError::Unauthorized(_) => {
                "the client certificate or token has expired or belongs to another cluster: \
                 take the current kubeconfig"
            }
            ClusterError::Forbidden(why) if why.contains("exceeded quota") => {
                "raise the ResourceQuota or ask for less"
            }
            ClusterError::Forbidden(why) if why.contains("cannot ") => {
                "the kubeconfig's user lacks this right: bind it to cluster-admin"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Reads a refusal. `sensitive` names the object whose values must not be repeated.
pub(super) fn refused(
    status: u16,
    retry_after: Option<u64>,
    body: &[u8],
    sensitive: Option<&str>,
) -> ClusterError {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    from_status(status, retry_after, &parsed, body, sensitive)
}

/// Reads the `Status` that ends a watch.
pub(super) fn from_event(status: &Value) -> ClusterError {
    let code = status.get("code").and_then(Value::as_u64).unwrap_or(500);
    from_status(u16::try_from(code).unwrap_or(500), None, status, b"", None)
}

fn from_status(
    status: u16,
    retry_after: Option<u64>,
    parsed: &Value,
    body: &[u8],
    sensitive: Option<&str>,
) -> ClusterError {
    let clean = |said: &str| {
        let kept = cut(said, MESSAGE);
        // Without the mark nobody could tell that a value may have lost its end.
        let mark = if kept.len() < said.len() { "…" } else { "" };
        let kept = sensitive.map_or_else(|| kept.to_owned(), |name| masked(kept, name));
        kept + mark
    };
    let text = |pointer: &str| parsed.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let message = if parsed.get("kind").and_then(Value::as_str) == Some("Status") {
        clean(text("/message"))
    } else {
        // Plain text of a filter in front of the API, or of a proxy.
        clean(String::from_utf8_lossy(body).trim())
    };
    let message = if message.is_empty() { format!("HTTP status {status}") } else { message };
    match status {
        401 => ClusterError::Unauthorized(message),
        403 => ClusterError::Forbidden(message),
        404 => {
            // A path that is not served answers in plain text or without a name.
            ClusterError::NotFound { message, kind: text("/details/kind").to_owned() }
        }
        409 => ClusterError::Conflict(message),
        410 => ClusterError::Expired(message),
        429 => {
            let said = parsed.pointer("/details/retryAfterSeconds").and_then(Value::as_u64);
            let seconds = retry_after.or(said).unwrap_or(1).clamp(1, 60);
            ClusterError::TooMany { message, retry_after: Duration::from_secs(seconds) }
        }
        // The server gave up waiting, for itself or for our request.
        408 => ClusterError::Server { status, message },
        400..=499 => ClusterError::Invalid { status, causes: causes(parsed, &clean), message },
        500 if is_typed_patch_error(&message) => {
            ClusterError::Invalid { status, causes: Vec::new(), message }
        }
        _ => ClusterError::Server { status, message },
    }
}

fn causes(status: &Value, clean: &dyn Fn(&str) -> String) -> Vec<FieldCause> {
    let list = status.pointer("/details/causes").and_then(Value::as_array);
    let read = |cause: &Value| {
        let text = |key: &str| cause.get(key).and_then(Value::as_str).unwrap_or_default();
        FieldCause {
            field: text("field").to_owned(),
            reason: text("reason").to_owned(),
            message: clean(text("message")),
        }
    };
    list.into_iter().flatten().take(CAUSES).map(read).collect()
}

/// Errors of structured-merge-diff and of decoding come as 500 although the object is at fault.
fn is_typed_patch_error(message: &str) -> bool {
    [
        "failed to create typed patch object",
        "failed to create typed live object",
        "failed to convert new object",
        "unable to convert unstructured object",
        "duplicate entries for key",
        "field not declared in schema",
    ]
    .iter()
    .any(|said| message.contains(said))
}

fn cut(text: &str, limit: usize) -> &str {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    &text[..ends.take_while(|end| *end <= limit).last().unwrap_or(0)]
}

/// Takes every value out of a message: quoted text other than the object's name, and what
/// follows `Invalid value:`, `Unsupported value:` and `Value:`.
pub(super) fn masked(message: &str, name: &str) -> String {
    const VALUE: &str = "alue:";
    let mut clean = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(['"', '`']).into_iter().chain(rest.find(VALUE)).min() {
        if rest[at..].starts_with(VALUE) {
            clean.push_str(&rest[..at + VALUE.len()]);
            rest = &rest[at + VALUE.len()..];
            // `Invalid value: 12: must be …`, `Value:12}`; a quoted one is taken below.
            if !rest.trim_start().starts_with(['"', '`']) {
                clean.push_str(" ***");
                rest = rest.find([':', '}', ']', ',']).map_or("", |end| &rest[end..]);
            }
            continue;
        }
        let quote = &rest[at..=at];
        clean.push_str(&rest[..=at]);
        let (value, after) = quoted(&rest[at + 1..], quote);
        clean.push_str(if value == name && !name.is_empty() { name } else { "***" });
        clean.push_str(quote);
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// Splits behind an opening quote: the value, and what follows the closing quote.
fn quoted<'a>(text: &'a str, quote: &str) -> (&'a str, &'a str) {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if byte == b'\\' && quote == "\"" {
            escaped = true;
        } else if byte == quote.as_bytes()[0] {
            return (&text[..at], &text[at + 1..]);
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(status: u16, body: &Value) -> ClusterError {
        refused(status, None, body.to_string().as_bytes(), None)
    }

    #[test]
    fn an_invalid_object_names_its_fields() {
        let body = json!({"kind": "Status", "code": 422, "reason": "Invalid",
            "message": "Service \"web\" is invalid: spec.clusterIP: field is immutable",
            "details": {"name": "web", "kind": "Service", "causes": [
                {"reason": "FieldValueInvalid", "message": "field is immutable",
                    "field": "spec.clusterIP"}]}});
        let expected = ClusterError::Invalid {
            status: 422,
            message: "Service \"web\" is invalid: spec.clusterIP: field is immutable".into(),
            causes: vec![FieldCause {
                field: "spec.clusterIP".into(),
                reason: "FieldValueInvalid".into(),
                message: "field is immutable".into(),
            }],
        };
        assert_eq!(read(422, &body), expected);
        assert!(!expected.retry());
    }

    #[test]
    fn typed_patch_errors_are_the_objects_fault_though_they_come_as_500() {
        let body = json!({"kind": "Status", "code": 500,
            "message": "failed to create typed patch object (n/x; apps/v1, Kind=Deployment): \
                .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"});
        assert!(matches!(read(500, &body), ClusterError::Invalid { status: 500, .. }));
        let down = json!({"kind": "Status", "code": 500, "message": "etcdserver: timed out"});
        assert!(read(500, &down).retry());
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let body = json!({"kind": "Status", "message": "storage is (re)initializing",
            "details": {"retryAfterSeconds": 3}});
        let busy = |seconds| ClusterError::TooMany {
            message: "storage is (re)initializing".into(),
            retry_after: Duration::from_secs(seconds),
        };
        assert_eq!(read(429, &body), busy(3));
        assert_eq!(refused(429, Some(7), body.to_string().as_bytes(), None), busy(7));
    }

    #[test]
    fn plain_text_is_taken_as_it_is() {
        let not_served =
            ClusterError::NotFound { message: "404 page not found".into(), kind: "".into() };
        assert_eq!(refused(404, None, b"404 page not found\n", None), not_served);
        let empty =
            |status| ClusterError::Server { status, message: format!("HTTP status {status}") };
        assert_eq!(refused(503, None, b"", None), empty(503));
        assert_eq!(refused(408, None, b"", None), empty(408), "nothing is wrong with the object");
    }

    #[test]
    fn messages_about_secrets_lose_every_value() {
        for (said, clean) in [
            (
                r#"Secret "s" is invalid: data[key]: Invalid value: "hunter\"2": must be x"#,
                r#"Secret "s" is invalid: data[key]: Invalid value: "***": must be x"#,
            ),
            (
                "failed (n/s; /v1, Kind=Secret): .data.k: got &valueUnstructured{Value:4711}",
                "failed (n/s; /v1, Kind=Secret): .data.k: got &valueUnstructured{Value: ***}",
            ),
            ("type: Invalid value: 12: wrong", "type: Invalid value: ***: wrong"),
            ("got `hunter2` here", "got `***` here"),
            (r#"open "hunter2 to the end"#, r#"open "***""#),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(masked(said, "s"), clean);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_of_a_secret_survives_in_what_the_server_says_of_it(
            value in "[ -~é\n]{0,5}[a-z]{6}[ -~é\n]{0,40}",
            form in 0usize..5,
        ) {
            let quoted = serde_json::json!(value).to_string();
            let message = match form {
                0 => format!("Secret \"db\" is invalid: data[k]: Invalid value: {quoted}: must not"),
                1 => format!("cannot unmarshal {quoted} into Go struct field Secret.data"),
                2 => format!("a Value:{quoted}, another {quoted} and {quoted}"),
                3 => format!("Unsupported value: {quoted}: supported values: {quoted}"),
                _ => format!("unterminated {quoted}: illegal base64 data at input byte 4 {quoted}"),
            };
            let clean = masked(&message, "db");
            for needle in [&value, &quoted[1..quoted.len() - 1]] {
                proptest::prop_assert!(!clean.contains(needle), "{needle:?} in {clean:?}");
            }
        }
    }
}
