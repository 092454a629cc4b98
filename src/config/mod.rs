//! What the operator of this host wrote down: which repository, which cluster, which limits.
//!
//! [`load()`] reads `/etc/gitopsd/config.yaml` and then `config.d/*.yaml` beside it in the order of
//! their names. Maps are merged, a later file wins key by key; `root.ref` is one choice and is
//! replaced whole; a key set to `null` counts as not said. The result is a [`Config`], a struct of
//! ready types for each consumer, or [`Problems`]: everything that is wrong in all files at once,
//! each with file, line, key and remedy. No root at all is a problem of its own, so that a freshly
//! installed unit can say `name the repository as root.url, root.ref and root.path` instead of failing.
//!
//! In order: `load` finds and reads the files, `fragment` makes a tree in which every value knows
//! its line and refuses unknown keys, `settings` (with `root` and `edge` for the sections of these
//! names) turns the merged tree into types.
//!
//! Three defaults come from systemd: `$STATE_DIRECTORY`, `$RUNTIME_DIRECTORY`, and for each secret
//! file that the configuration does not name, the credential of that purpose in
//! `$CREDENTIALS_DIRECTORY`, else in `credentials/` beside the main file, when it is there and holds
//! more than a line feed (see [`CREDENTIALS`]); there it may also lie sealed, which whoever opens it
//! has to know. What counts in the end is a path in the [`Config`], and nobody looks elsewhere.
//! [`propose`] tells what the configuration would be with a file that is not written
//! yet, for `init`, which judges an answer by itself with [`check_url`] and [`entry_path`].
//!
//! This folder builds nothing and reads no secret: credential and key files are named here and
//! opened by whoever needs them. A secret itself has no key in the file.

mod edge;
mod fragment;
mod load;
mod problem;
mod root;
mod settings;

pub use edge::{
    ConnectorBy, ConnectorSettings, Discover, EdgeSettings, IngressBy, IngressSettings, Scheme,
    ServiceRef,
};
pub use fragment::distance;
pub use load::{Proposal, credentials_directory, load, propose};
pub use problem::{Place, Problem, Problems};
pub use root::{RootError, check_url, entry_path};
pub use settings::{
    CREDENTIALS, ClusterSettings, Config, DecryptionSettings, Directories, HistorySettings,
    MacPolicy, RenderSettings, RootCredentials, RootRef, RootSettings, WorkSettings,
};
