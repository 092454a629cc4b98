//! The integration tests.

mod apply;
mod bed;
mod bed_works;
mod cluster;
mod render; // rendering with the reference kustomize in its sandbox
mod observe;
