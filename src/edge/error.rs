//! Pure: what goes wrong between us and the provider.

use super::wire::Need;
use crate::net::NetError;
use std::time::Duration;

/// Why a call to the provider's API did not succeed. None of it holds the token.
#[derive(Debug, thiserror::Error)]
pub enum CloudflareError {
    /// No answer, or one that is cut short.
    #[error("{0}")]
    Net(NetError),
    /// The token is none, or none any more.
    #[error("the API token is refused: {message} (code {code})")]
    Token {
        /// The provider's code.
        code: i64,
        /// The provider's words.
        message: String,
    },
    /// The token may not do this; or, as the provider does not tell the two apart at this place,
    /// it is not valid at all.
    #[error("the API token may not {need} (code {code})")]
    Denied {
        /// What was asked for.
        need: Need,
        /// The provider's code.
        code: i64,
    },
    /// Too many requests, as the provider counts or as we do.
    #[error("too many requests to Cloudflare: it wants a pause of {} s", wanted.as_secs())]
    Limited {
        /// The whole pause.
        wanted: Duration,
        /// What is left of it.
        left: Duration,
    },
    /// The provider has a problem of its own.
    #[error("Cloudflare answered HTTP status {status}")]
    Server {
        /// The status.
        status: u16,
    },
    /// There is no such thing.
    #[error("{what} is not there any more")]
    Gone {
        /// What was asked for.
        what: String,
    },
    /// It has connections, such as those of connectors that are on their way out.
    #[error("{what} still has connections")]
    Busy {
        /// What was to go.
        what: String,
    },
    /// The provider says no to what was asked.
    #[error("{what}: Cloudflare refuses: {message} (code {code})")]
    Refused {
        /// What was to be done.
        what: String,
        /// The provider's code.
        code: i64,
        /// The provider's words.
        message: String,
    },
    /// The answer is not what the API's description says.
    #[error("{what}: the answer of Cloudflare cannot be read: {cause}")]
    Unreadable {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Something does not exist under the name that the configuration has.
    #[error("{what}")]
    Unknown {
        /// A sentence.
        what: String,
        /// What to do.
        hint: String,
    },
}

impl CloudflareError {
    /// Whether the same call may succeed later, without anybody's help.
    pub fn retry(&self) -> bool {
        match self {
            CloudflareError::Net(error) => error.retry(),
            CloudflareError::Limited { .. }
            | CloudflareError::Server { .. }
            | CloudflareError::Gone { .. }
            | CloudflareError::Busy { .. }
            | CloudflareError::Unreadable { .. } => true,
            CloudflareError::Token { .. }
            | CloudflareError::Denied { .. }
            | CloudflareError::Refused { .. }
            | CloudflareError::Unknown { .. } => false,
        }
    }

    /// Whether nobody was reached at all: then nothing has changed but the uplink.
    pub fn offline(&self) -> bool {
        matches!(self, CloudflareError::Net(NetError::Unreachable { .. }))
    }

    /// Whether it is about what was asked for alone, and stays so: others may be asked.
    pub fn of_this_alone(&self) -> bool {
        matches!(
            self,
            CloudflareError::Denied { .. }
                | CloudflareError::Gone { .. }
                | CloudflareError::Refused { .. }
                | CloudflareError::Unknown { .. }
        )
    }

    /// The least time before the next call.
    pub fn pause(&self) -> Duration {
        match self {
            CloudflareError::Limited { left, .. } => *left,
            _ => Duration::ZERO,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CloudflareError::Net(error) => error.hint(),
            CloudflareError::Token { .. } => Some(
                "make a token in Cloudflare's dashboard (My Profile or Manage Account, API Tokens) \
                 with the permissions that gitopsd.config(5) names, put it into \
                 edge.cloudflare.tokenFile or the credential cloudflare-token, then: systemctl \
                 reload gitopsd"
                    .to_owned(),
            ),
            CloudflareError::Denied { need, .. } => Some(format!(
                "give the token the permission {}, then wait a moment; gitopsd check --online \
                 names every one that is missing",
                need.permission()
            )),
            CloudflareError::Unknown { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}

impl From<NetError> for CloudflareError {
    fn from(error: NetError) -> Self {
        CloudflareError::Net(error)
    }
}
