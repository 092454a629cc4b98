//! Whether what was applied works, and if not, why.
//!
//! [`status`] judges one live object the way Flux does (kstatus rules, or the CEL of
//! `healthCheckExprs`), and [`absent`] one that is not there. When an object does not get ready,
//! [`cause`] reads the pods, ReplicaSets and events around it, gathered as [`Facts`], and says in
//! one sentence what is really wrong: the image that is not there, the key that a Secret lacks,
//! the exit code and last words of a crashing container.
//!
//! What is here decides and does not wait: no watch, no clock, no request. It masks nothing
//! either: messages of containers may cite secrets, so callers pass sentences through a redactor.

mod cause;
mod kstatus;

pub use cause::{Cause, Facts, cause};
pub use kstatus::{Status, Verdict, absent, status};
