//! The edge: a tunnel, its routes and names, and what of it runs in the cluster.
//!
//! In the order of use: [`Cloudflare`] speaks to the provider and decides nothing; [`Facts`] are
//! what the cluster has of ingress controllers and hosts, [`choose`] says where requests go, and
//! [`present`] which hosts that were found stay public; [`select`] says which tunnel is ours,
//! [`manifests`] what stands in the cluster for it, [`route`] what its configuration must be and
//! [`point`] which DNS records must be; [`Deed`] is one change at the provider, for the plan that is
//! shown and for the record of what was done. [`State`] is what must be known after a restart, and
//! holds no secret.
//!
//! What is ours: a tunnel by its stored id, or by a name that ends in a suffix that stands for this
//! machine, since the provider lets it carry no other mark; every rule that we have written
//! ([`Rules`]), or that nobody could tell from one; a record whose comment *and* target say so. A
//! tunnel of somebody else is used when the operator says so: then its other rules stay, and it is
//! never deleted. Anything else of somebody else's is named and left alone.
//!
//! All files but `cloudflare` are pure. Nothing here writes to the cluster or to the database:
//! `pipeline` carries what is found here across, and the objects go through the same plan, apply and
//! record as those of any Kustomization.

mod absent;
mod cloudflare;
mod connector;
mod deed;
mod error;
mod ingress;
mod records;
mod routes;
mod rules;
mod state;
mod tunnel;
mod wire;

pub use absent::{Present, present};
pub use cloudflare::Cloudflare;
pub use connector::{CONNECTOR, Connector, NAMESPACE, SECRET, manifests, traefik};
pub use deed::Deed;
pub use error::CloudflareError;
pub use ingress::{
    Class, Facts, Port, Published, Service, Target, Trouble, choose, default_class, found, within,
};
pub use records::{Conflict, Named, Records, comment, point, target, withdraw_records};
pub use routes::{Route, Routes, route, standing, withdraw_routes};
pub use rules::Rules;
pub use state::{Left, State, Stored, Zoned};
pub use tunnel::{Choice, Wish, select};
pub use wire::{Configuration, Connection, Need, Record, Tunnel, Zone};
