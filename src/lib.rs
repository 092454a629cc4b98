//! gitopsd: GitOps for one k3s box, from the host.
//!
//! The order of the modules is the order of the data. A module imports only from above it.

pub mod config;
pub mod logging;
pub mod flux;
pub mod secrets;
pub mod net;
pub mod source;
pub mod render;
pub mod cluster;
pub mod plan;
pub mod apply;
pub mod observe;
pub mod history;
pub mod pipeline;
pub mod graph;
pub mod api;
pub mod daemon;
pub mod cli;
