//! Git sources: polls a remote, keeps a bare mirror, hands out the files of a revision.
//!
//! A [`Source`] owns one directory. [`Source::open`] makes or repairs it, [`Source::last`] gives
//! the last good [`Snapshot`] without any network, [`Source::poll`] lists the remote's refs and
//! fetches depth 1 only when the wanted one has moved. Whatever goes wrong, the last good
//! revision stays in force. [`Credential`] turns a Secret's data into what the transport needs.
//! The files of a revision are read through [`Tree`], which applies Flux's ignore rules, never
//! checks anything out and serves a plain directory ([`Tree::from_dir`]) just as well.
//!
//! Everything here blocks; callers use a blocking thread. Nothing here watches a clock for the
//! next poll, reads a Secret from a cluster, verifies signatures, recurses into submodules or
//! fetches LFS objects. One process per directory: leftovers of a killed one are removed at open.
//!
//! On disk, in the directory given to `open`:
//!
//! * `record.json`: the revision in force, replaced by rename after everything else is safe;
//! * `git-N/`: the bare shallow mirror that the record names, with `refs/gitopsd/current`;
//! * `broken/`: the last mirror that was found damaged, kept for a look;
//! * `askpass`: a two-line script, only where an ssh key has a passphrase.
//!
//! Private keys lie in a directory of mode 0700 below the runtime directory (a tmpfs) while ssh
//! runs, and nowhere else.

mod credential;
mod directory;
mod error;
mod fetch;
mod ignore;
mod mirror;
mod poll;
mod record;
mod select;
mod ssh;
mod tree;

pub use credential::{Auth, Credential};
pub use error::{SourceError, public_url};
pub use poll::{Poll, Remote, Snapshot, Source};
pub use select::Revision;
pub use tree::{Entry, MAX_FILE, Tree};
