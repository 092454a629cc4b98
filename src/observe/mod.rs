//! Whether what was applied works, and if not, why.
//!
//! [`status`] judges one live object the way Flux does (kstatus rules, or the CEL of
//! `healthCheckExprs`), and [`absent`] one that is not there. When an object does not get ready,
//! [`cause`] reads the pods, ReplicaSets and events around it, gathered as [`Facts`], and says in
//! one sentence what is really wrong: the image that is not there, the key that a Secret lacks,
//! the exit code and last words of a crashing container.
//!
//! [`Observer`] is the effectful half: one metadata watch per managed kind ([`Observer::watch`],
//! [`Observer::subscribe`]), the wait for health that those watches drive ([`Observer::health`]),
//! and the gathering of facts ([`Observer::cause_of`]). It heals nothing and decides nothing about
//! drift: a notice carries the object's gate, and the daemon compares.
//!
//! It masks nothing either: messages of containers may cite secrets, so callers pass sentences
//! through a redactor.

mod cause;
mod drift;
mod facts;
mod health;
mod kstatus;
mod observer;

pub use cause::{Cause, Facts, cause};
pub use drift::{Event, Notice, Notices, Seen};
pub use health::{HealthReport, Outcome, Wanted};
pub use kstatus::{Status, Verdict, absent, status};
pub use observer::Observer;
