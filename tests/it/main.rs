//! The integration tests.

mod bed;
mod bed_works;
