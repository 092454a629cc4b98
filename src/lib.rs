//! gitopsd: GitOps for one k3s box, from the host.
//!
//! The order of the modules is the order of the data. A module imports only from above it.

pub mod config;
pub mod flux;
pub mod logging;
pub mod net;
pub mod plan;
pub mod render;
pub mod secrets;
pub mod source;
