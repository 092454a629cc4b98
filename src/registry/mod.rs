//! Image registries: which tags a repository has, and which manifest a tag names.
//!
//! [`Repository::parse`] reads an image name as Flux does. One [`Registry`] serves the whole
//! process: [`Registry::tags`] lists a repository to its end and answers [`Scan::Unchanged`] where
//! the list is the one that the caller's [`Validator`] stands for, [`Registry::digest`] names the
//! manifest or index behind a tag. An [`Access`] says with which credentials, by whose
//! certificates and for how long. [`DockerConfig`] is what a `secretRef` holds, [`Mirrors`] what
//! k3s's `registries.yaml` says: its mirrors are asked first, in their order, the registry itself
//! last. Which tags an `exclusionList` drops is the caller's affair.
//!
//! Every scan is bounded in time, pages, tags and bytes, and whatever a registry answers beyond
//! the protocol is an error with a name of its own: [`RegistryError`]. Nothing is retried here but
//! a wait that the registry itself asked for and that fits into the time.
//!
//! Credentials go to the registry they belong to and to the token service that it names, never
//! along a redirect to another host and never over plain HTTP unless the operator said so. They
//! are no part of an error: what a server says is searched for them first.
//!
//! Kept in memory only: connections, tokens until they expire, and which way of proving itself
//! each registry wanted. Tags are stored by others, policies are applied by others, nothing is
//! pulled or pushed, no credential helper is run.

mod auth;
mod challenge;
mod client;
mod docker;
mod error;
mod exchange;
mod mirrors;
mod page;
mod reference;

pub use client::{Access, Registry, Scan, Validator};
pub use docker::DockerConfig;
pub use error::RegistryError;
pub use mirrors::{Mirrors, MirrorsProblem};
pub use reference::{ReferenceError, Repository};
