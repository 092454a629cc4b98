//! The integration tests.

mod apply;
mod cluster;
mod render; // rendering with the reference kustomize in its sandbox
mod observe;
