//! The container runtime: sandboxes, containers, snapshots, logs. A library in the node process; no daemon, no shim.
//!
//! [`LibcontainerRuntime`] is the runtime of a node; [`node::NodeContainer`] makes a machine of a container, in which [`machine`] and [`keeper`] are
//! what its PID 1 does; [`fdstore`] is what PID 1 keeps for the node process; [`helper`] is where namespaces are made.
//!
//! Owns: the state directory (layers, containers, sandboxes), the run directory (mounts, pinned namespaces), the cgroups below the node's pods cgroup
//! and below `/kminik` of the host, the container logs it is told to write.
//!
//! **Invariant:** no Kubernetes word appears here; the seam is shaped like CRI, the names are OCI's.
//! **Invariant:** namespaces are made and joined only in a re-executed single-threaded helper, never in this process.
//! **Invariant:** a container's process is PID 1's child as soon as its helper has ended; PID 1 keeps its exit until it is recorded: no exit code is lost.
//! **Invariant:** what a container writes is taken from its pipe only after it is in the log: no line is lost or doubled by a kill of this process.
#![allow(unsafe_code)]

mod api;
mod cgroup;
mod environment;
pub mod fdstore;
pub mod freezer;
pub mod helper;
mod io;
pub mod keeper;
pub mod machine;
pub mod node;
mod oci_config;
mod service;
mod snapshot;
mod state_file;
mod sys;

pub use api::*;
pub use cgroup::CgroupError;
pub use service::{LibcontainerRuntime, RuntimeConfig};
pub use snapshot::layers::unpack_over;
pub use snapshot::unpack::UnpackError;
pub use sys::watched::watched;

/// On cgroup v2, the group below the node's root in which PID 1 and the node process are: a group with groups below it that are limited may not
/// have processes itself.
pub const INIT_CGROUP: &str = "init";
