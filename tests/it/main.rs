//! The integration tests.

mod apply;
mod bed;
mod bed_works;
mod cluster;
