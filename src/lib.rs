//! gitopsd: GitOps for one k3s box, from the host.
//!
//! This page is the map: how data flows, in which order the modules stand, and what lies on disk.
//! How each part works is told by the prose of its own folder.
//!
//! # Flow
//!
//! [`config`] names one repository, the root. A commit in it becomes objects in the cluster in
//! steps that know nothing of each other; each hands on one value:
//!
//! [`source::Snapshot`] (the files of a revision) → [`render::Rendered`] (the manifests that one
//! Kustomization makes of them, sealed values opened) → [`plan::Step`]s (what each object needs,
//! judged by what the API server says it would become) → [`apply::Applied`] and [`apply::Pruned`]
//! (what was done) → [`observe::HealthReport`] (whether it works) → [`history::Finish`] (the
//! record, and what the Kustomization owns from now on).
//!
//! [`pipeline`] makes these calls in turn for one Kustomization: a run. Manifests that are Flux
//! objects themselves do not end in the cluster; they go to [`graph`], which decides what is due
//! when. [`daemon`] is the loop around it: events go into the graph, effects come out and are
//! carried out by bounded workers. [`api`] shows the same state to the verbs of [`cli`].
//!
//! The way back, from a registry into Git, is as short: the tags of an image, the one that a policy
//! chooses, the bytes of a marked value, a commit on the branch. Each is a step of [`pipeline`] too,
//! started by [`graph`] when the one before has found something new.
//!
//! Before the first write of a run, the run and the union of old and new inventory are stored.
//! Whatever is killed after that, the next ordinary run is the recovery.
//!
//! # Order
//!
//! A module imports only from those above it; a folder's submodules are private and its `mod.rs`
//! is the door. Files whose first line says `Pure:` decide and do nothing else: no I/O, no clock,
//! no async. `tests/it/architecture.rs` holds all of this to be true.
//!
//! * [`config`]: what the operator wrote down, as ready types
//! * [`logging`]: the journal, and the catalog of messages
//! * [`flux`]: Flux's objects as the repository declares them
//! * [`secrets`]: keys, sealed files, plaintext that cannot be printed
//! * [`net`]: the one outbound HTTP client
//! * [`registry`]: image registries: tags, digests, credentials
//! * [`source`]: Git remotes, bare mirrors, the files of a revision, commits of our own
//! * [`render`]: files in, manifests out
//! * [`cluster`]: the API server, every call bounded
//! * [`plan`]: what to create, change, leave, hold and delete
//! * [`edge`]: tunnel, routes and names towards the outside, and where requests go
//! * [`image`]: which tag is the latest, where it is written, what the commit says
//! * [`apply`]: probes for a plan, and carries it out
//! * [`observe`]: health, its causes, drift
//! * [`history`]: runs, changes, inventory, images
//! * [`pipeline`]: the steps of one run and one poll, in turn
//! * [`graph`]: all items, what they wait for, what is due
//! * [`api`]: the Unix socket, both ends
//! * [`daemon`]: the loop
//! * [`cli`]: the verbs
//!
//! # Footprint
//!
//! The configuration is `/etc/gitopsd/config.yaml` and `/etc/gitopsd/config.d/*.yaml`, read only.
//! Kubeconfig, age keys and Git credentials are files that the configuration names, that systemd
//! passes in, or that lie in `/etc/gitopsd/credentials/`; they are read where they lie.
//! `gitopsd init` alone writes there: `config.d/50-init.yaml`, `credentials/`, the unit's drop-in
//! for sealed ones, and `.init/` while it is at it.
//!
//! The state directory, `/var/lib/gitopsd`, survives everything but a purge:
//!
//! * `history.db`: runs, changes, inventory, tags and commits in SQLite (`-wal`, `-shm` beside it);
//!   `history.db.corrupt-N` is a damaged one put aside, see [`history`];
//! * `state.json`: suspends, confirmations and whether the edge was taken down, which outlive a lost
//!   database;
//! * `reserve`: 4 MiB that are given up when the disk is full, so that what runs is recorded;
//! * `host.key`: the key of all digests of what may hold a secret;
//! * `mirrors/`: a directory per Git source, see [`source`].
//!
//! The runtime directory, `/run/gitopsd`, is a tmpfs and may vanish at any stop:
//!
//! * `api.sock`: the socket of [`api`];
//! * `private/`: mode 0700; workspaces of builds (`private/render/`) and, while ssh runs, its key.
//!   This is the only place where plaintext touches a file system.
//!
//! The daemon writes nothing else on the host. In the cluster it writes what Git declares, and one
//! ConfigMap of its own, `kube-system/gitopsd-owner`: which machine owns the cluster.

pub mod config;
pub mod logging;
pub mod flux;
pub mod secrets;
pub mod net;
pub mod registry;
pub mod source;
pub mod render;
pub mod cluster;
pub mod plan;
pub mod edge;
pub mod image;
pub mod apply;
pub mod observe;
pub mod history;
pub mod pipeline;
pub mod graph;
pub mod api;
pub mod daemon;
pub mod cli;
