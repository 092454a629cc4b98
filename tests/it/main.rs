//! The integration tests: one binary, against real parts.

mod api; // the socket, client and server
mod apply; // server-side apply, take-over, prune on the control plane
mod architecture; // the rules that the source keeps
mod bed; // the real parts: control plane, Git servers, repositories
mod bed_works; // the bed does what the scenarios rely upon
mod cli; // the program as a person calls it: help, exit codes, build, check
mod cluster; // the client of the API server
mod observe; // watches, health, causes
mod render; // rendering with the reference kustomize in its sandbox
mod story; // the main job as its user lives it
mod world; // a scenario in one line
