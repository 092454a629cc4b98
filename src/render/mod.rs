//! From a tree of Git to manifests: reach, open, build, substitute.
//!
//! Inputs are a [`crate::source::Tree`], one Kustomization's spec, a keyring and substitution
//! variables; the output is a list of [`Manifest`]s, each knowing the file it came from. Nothing
//! here knows the cluster: variables from ConfigMaps and Secrets arrive as values.
//!
//! A [`Renderer`] lives as long as the daemon. [`Renderer::digest`] says, without a child and
//! without opening anything, whether a build could differ from the last one; [`Renderer::render`]
//! answers from memory when it cannot. Otherwise `reach` lists the files that the Kustomization
//! can read, `open` opens the sealed ones and checks the rest, `kustomization` extends the file at
//! the path by the spec, `workspace` holds all that on tmpfs, `engine` builds it in a sandboxed
//! child, and `finish`, `open` again and `substitute` turn the output into manifests.
//!
//! Plaintext lives in memory, and for a child process in a private workspace on tmpfs, from
//! opening to the end of the build; results that hold any are not kept. Charts are not inflated.
//!
//! Resources outside the source, files behind https and directories of other repositories, are
//! fetched by us before the build (`remote`, `fetch`), some at once and within a limit, kept on
//! disk, and mounted beside the source's own files (`mount`): the child has no network.

mod cache;
mod child;
mod document;
mod engine;
mod error;
mod fetch;
mod finish;
mod kustomization;
mod manifest;
mod mount;
mod open;
mod reach;
mod redact;
mod remote;
mod renderer;
mod sandbox;
mod substitute;
mod workspace;

pub use error::{Problem, RenderError, Warning, WarningKind};
pub use manifest::{Manifest, ObjectId, Origin};
pub use open::MacPolicy;
pub use redact::Redactor;
pub use renderer::{REMOTES_WITHIN, Rendered, Renderer, Request, Settings};
pub use substitute::{SubstituteError, Variables, expand, substitute};
