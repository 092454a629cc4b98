//! The cluster: every request to the Kubernetes API server goes through here.
//!
//! [`Cluster::connect`] takes the bytes of a kubeconfig and nothing else: no environment, no
//! `~/.kube`. [`Cluster::identity`] then says which cluster it is, [`Cluster::resource`] finds the
//! endpoint of a kind, and `get`, `list`, `apply`, `json_patch`, `delete` and `watch_metadata` act
//! on it. Objects are plain JSON values, since the kinds are those of the user's repository.
//!
//! Each request has a deadline, a bounded answer and a place among a bounded number of others;
//! a clone of a [`Cluster`] shares connections, places and what discovery has learnt. Answers are
//! read here and not by kube, which would log a body that it cannot read. Messages about Secrets
//! lose the values that the server quotes.
//!
//! It decides nothing: what a refusal means for a plan is said in `apply`, what an event means in
//! `observe`. It does not retry either, but for the server's own "come back in a second".

mod client;
mod discovery;
mod error;
mod objects;
mod watch;

pub use client::{Cluster, Limits, TIMEOUT};
pub use discovery::{Discovered, Resource};
pub use error::{ClusterError, FieldCause};
pub use objects::{Answer, Apply, List, Select, When};
pub use watch::{Watch, WatchEvent};
