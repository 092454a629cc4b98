//! From a tree of Git to manifests: reach, open, build, substitute.
//!
//! Inputs are a [`crate::source::Tree`], one Kustomization's spec, a keyring and substitution
//! variables; the output is a list of [`Manifest`]s, each knowing the file it came from. Nothing
//! here knows the cluster: variables from ConfigMaps and Secrets arrive as values.
//!
//! Plaintext lives in memory, and for a child process in a private workspace on tmpfs, from
//! opening to the end of the build.

mod manifest;
mod redact;
mod substitute;

pub use manifest::{Manifest, ObjectId, Origin};
pub use redact::Redactor;
pub use substitute::{SubstituteError, Variables, expand, substitute};
