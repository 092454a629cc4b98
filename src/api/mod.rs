//! The Unix socket: what the daemon answers, and how the verbs ask.
//!
//! The daemon keeps one [`Document`] up to date and passes it, with a queue of [`Command`]s and the
//! database, as a [`Handle`] to [`serve()`], which speaks HTTP/1.1 and JSON on a socket that the
//! daemon has bound. Who asks is known by the socket's peer credentials: root and the daemon's own
//! user may do everything, members of the socket's group may read, anybody else gets a 403 that
//! says what to do. The verbs use a [`Client`], whose errors say what to do as well.
//!
//! In the order of use: `document` the types on the wire, `serve` limits and routes, `peer` who
//! may do what, `past` rows of history as they are shown, `client` the other end.
//!
//! It decides nothing about Kustomizations: a command goes to the loop and comes back with what
//! the loop said. It opens no socket file and removes none, and no secret passes through it:
//! differences arrive masked.

mod client;
mod document;
mod past;
mod peer;
mod serve;

pub use client::{ApiError, Client};
pub use document::{
    Accepted, ChangeView, ClusterView, ConfirmAsk, DaemonView, Document, EdgeAsk, Fault, Handed,
    HeldView, ReconcileAsk, ReloadAsk, ReplacedView, ResumeAsk, RunDetail, RunView, SuspendAsk,
    SuspendView, VERSION,
};
pub use serve::{Command, Handle, Refused, serve};
