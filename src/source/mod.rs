//! Git sources: polls a remote, keeps a bare mirror, hands out the files of a revision, pushes.
//!
//! A [`Source`] owns one directory. [`Source::open`] makes or repairs it, [`Source::last`] gives
//! the last good [`Snapshot`] without any network, [`Source::poll`] lists the remote's refs and
//! fetches depth 1 only when the wanted one has moved. Whatever goes wrong, the last good
//! revision stays in force. [`Credential`] turns a Secret's data into what the transport needs.
//! The files of a revision are read through [`Tree`], which applies Flux's ignore rules, never
//! checks anything out and serves a plain directory ([`Tree::from_dir`]) just as well.
//!
//! Automation edits a branch: [`Source::tip`] reads it as it is now, without a move of the revision
//! in force; [`Tip::commit`] makes a commit in memory; [`Source::push`] sends it and never forces.
//! Where somebody else was faster ([`PushError::Moved`]), the caller begins again at the tip.
//! Commits may go to a branch of their own: [`Source::standing`] tells whether that was merged.
//! The pushed commit comes into force like any other, with the next poll.
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

mod commit;
mod credential;
mod directory;
mod error;
mod fetch;
mod ignore;
mod lineage;
mod mirror;
mod poll;
mod push;
mod record;
mod report;
mod select;
mod sign;
mod ssh;
mod target;
mod tip;
mod tree;
mod wire;
mod within;

pub use commit::{Change, Commit, Person};
pub use credential::{Auth, Credential};
pub use error::{SourceError, public_url};
pub use lineage::Standing;
pub use poll::{Poll, Remote, Snapshot, Source};
pub use report::{PushError, Pushed};
pub use select::Revision;
pub use sign::SigningKey;
pub use target::{Push, Start};
pub use tip::Tip;
pub use tree::{Entry, MAX_FILE, Tree};
