//! The integration tests.

mod apply;
mod bed;
mod cluster;
mod render; // rendering with the reference kustomize in its sandbox
