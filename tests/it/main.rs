//! The integration tests: one binary, against real parts.

mod api; // the socket, client and server
mod apply; // server-side apply, take-over, prune on the control plane
mod architecture; // the rules that the source keeps
mod bed; // the real parts: control plane, Git servers, repositories
mod bed_works; // the bed does what the scenarios rely upon
mod cli; // the program as a person calls it: help, exit codes, build, check
mod cluster; // the client of the API server
mod contested; // another writer in a loop, a mutating webhook
mod credentials; // whose password a Git server is sent
mod drift; // what others do to our objects
mod edge; // the way from outside: tunnel, routes, names, connectors
mod older; // a record or a cluster that is older than the other
mod entry; // the entry under a name of its own
mod flux; // what a former Flux has left in the cluster
mod faults; // every kind of request to the API server, answered with every kind of fault
mod guard; // which deletions wait for a word
mod health; // what breaks after the run
mod idle; // what nothing costs
mod images; // from a pushed tag to a commit and a healthy pod
mod inherited; // labels that were handed down
mod init; // from a bare host to one that follows Git
mod keys; // keygen and key show, judged by other tools
mod left; // what left Git, what only seems to have, what is asked about first
mod push; // commits of our own, sent to remotes of every kind
mod observe; // watches, health, causes
mod outage; // something that the daemon needs is away, and comes back
mod owner; // which machine owns the cluster
mod owned; // who owns an object, what is pruned, held and kept
mod redacted; // no opened value is told, whatever it looks like
mod registry; // tags and digests of real registries, and of lying ones
mod reload; // new configuration and credentials under a running daemon
mod restart; // killed at every effect, and what a disk may do
mod renamed; // a directory with forty Kustomizations is renamed upstream
mod render; // rendering with the reference kustomize in its sandbox
mod rewrites; // what the API server, controllers and autoscalers change is no drift
mod rules; // other webhooks and definitions under untouched objects
mod sealed; // SOPS files, keys, and where plaintext never is
mod source; // Git remotes of every kind
mod story; // the main job as its user lives it
mod wrong; // what is wrong in Git costs what it touches only
mod stranger; // another cluster behind the kubeconfig
mod told; // what systemd and a watching operator are told
mod verbs; // the commands, and what an unchanged pass costs
mod world; // a scenario in one line
