//! The control loops of a cluster: each one reconciler in one file, listed as one row in [`CONTROLLERS`].
//!
//! Owns: nothing outside the API; all state is in API objects and can be rebuilt from them.
//!
//! **Invariant:** loops are clients like any other: each writes under its own identity, through [`kube::Client`].
//! **Invariant:** a key is not reconciled before the caches have seen what its own controller wrote for it ([`kminik_client::Writes`]).
//! **Invariant:** no loop polls or lists periodically: events and per-key timers drive everything.
//!
//! Use: build a [`ControllersConfig`], then either [`run`], or [`components`] for a supervisor of one's own.

mod config;
mod context;
mod diff;
mod discovery;
mod error;
mod owners;
mod pod_control;
mod pods;
mod revisions;
mod table;

mod bootstrap_signer;
mod certificate_approving;
mod certificate_cleaner;
mod certificate_signing;
mod certificates;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod kubelet_serving_approving;
mod legacy_token_cleaner;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod persistent_volume;
mod pod_gc;
mod protection;
mod replica_set;
mod resource_quota;
mod root_ca;
mod service_account;
mod service_account_token;
mod service_cidr;
mod slim;
mod stateful_set;
mod taint_eviction;
mod token_cleaner;

pub use certificates::bootstrap_groups;
pub use config::ControllersConfig;
pub use error::Error;
pub use table::{CONTROLLERS, Descriptor, components, run};
