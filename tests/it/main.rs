//! The integration tests.

mod render; // rendering with the reference kustomize in its sandbox
