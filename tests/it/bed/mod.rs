//! The real parts that the tests run against: a Kubernetes control plane, Git servers, sshd.
//!
//! In order of use: [`Cluster::shared`] is one control plane for all tests of a run, and
//! [`Cluster::start_own`] one for a test that takes its API away. [`GitServer`] serves bare
//! repositories over HTTP through `git http-backend`, with passwords, a private CA, a log of its
//! requests and faults that can be switched; [`SshServer`] serves the same repositories through
//! OpenSSH. [`RegistryServer`] is a container registry that tags are pushed to, [`StandIn`] a
//! server that answers as it is told, for faults. [`Repo`] is a work tree that pushes to one of them, by hand or from
//! `tests/examples/`. [`effects`] runs a program up to one of its effects, [`proxy`] answers requests
//! to the API server with faults, [`cloudflare`] stands in for the provider of tunnels and names.
//! [`tools`] finds the programs.
//!
//! Everything listens on loopback at a free port, lives in temporary directories, and dies with the
//! test process even when that is killed: testcluster watches its stdin, other children have a
//! parent-death signal. No kubeconfig, Git configuration or HOME of the machine is read or written.
//!
//! It knows nothing of gitopsd: `world.rs` builds scenarios on top of it.
#![allow(
    dead_code,
    unused_imports,
    reason = "the bed offers what scenarios may need, not only what today's use"
)]

mod ca;
mod cgi;
mod children;
pub mod cloudflare;
mod cluster;
pub mod effects;
mod git;
pub mod proxy;
pub mod registry;
mod repo;
mod ssh;
pub mod standin;
pub mod tools;
mod webhook;

pub use ca::{Ca, Signed};
pub use cgi::{Call, Reply};
pub use children::{dying, spawn};
pub use cluster::{Cluster, Mark};
pub use git::{Auth, Command, Fault, GitServer, Options};
pub use registry::{PASSWORD, RegistryOptions, RegistryServer, USER};
pub use repo::{Repo, SECRETS, TEST_KEY, git, pipeline_tag};
pub use ssh::SshServer;
pub use standin::StandIn;
pub use webhook::Webhook;
