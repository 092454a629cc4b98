//! The integration tests.

mod apply;
mod bed;
mod cluster;
mod observe;
