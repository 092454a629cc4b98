//! One line per event of interest, to the journal with its fields or to a terminal for a person.
//!
//! [`init`] is called once, before anything that could log. Under systemd (stderr is the journal)
//! events go to journald's own socket, so that `journalctl GITOPSD_KUSTOMIZATION=apps/blaster`
//! finds them and `journalctl -x` explains them; otherwise they are lines on stderr.
//!
//! Events carry these fields, all optional, and a [`Message`] that says what kind of event it is:
//!
//! ```
//! use gitopsd::logging::Message;
//! # let (key, revision, object, run) = ("apps/blaster", "main@sha1:0", "Service/a/b", 7_u64);
//! tracing::info!(
//!     message_id = Message::Applied.id(),
//!     gitopsd_kustomization = %key,
//!     gitopsd_revision = %revision,
//!     gitopsd_object = %object,
//!     gitopsd_run = run,
//!     "{object} configured"
//! );
//! ```
//!
//! They arrive as `MESSAGE_ID=`, `GITOPSD_KUSTOMIZATION=`, `GITOPSD_REVISION=`, `GITOPSD_OBJECT=`
//! and `GITOPSD_RUN=`. The level is `info` for gitopsd and `warn` for its libraries; `GITOPSD_LOG`
//! takes tracing's filter syntax (`debug`, `gitopsd::graph=trace`).
//!
//! `message` is the list of kinds and the catalog that explains them, `journal` the wiring. This
//! folder masks nothing: whoever logs hands over text that is already safe. Only one library is
//! silenced for that reason, see `journal`.

mod journal;
mod message;

pub use journal::{LoggingError, Target, init, to_journal};
pub use message::{Message, catalog};
