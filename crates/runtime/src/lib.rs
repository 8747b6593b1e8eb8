//! The container runtime: sandboxes, containers, snapshots, logs. A library in the node process; no daemon, no shim.
//!
//! Owns: the state directory (snapshots, containers, sandboxes), the cgroups below the node's pods cgroup, the
//! namespaces it pins, the container logs it is told to write.
//!
//! **Invariant:** no Kubernetes word appears here; the seam is shaped like CRI, the names are OCI's.
//! **Invariant:** namespaces and cgroups are changed only in a re-executed single-threaded helper, never in this process.
//! **Invariant:** a container is a direct child of the node process or an orphan of PID 1, whose exit PID 1 journals: no exit code is lost.
#![allow(unsafe_code)]

mod api;
mod cgroup;
mod environment;
pub mod fdstore;
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

/// On cgroup v2, the group below the node's root in which PID 1 and the node process are: a group with groups below it that are limited may not
/// have processes itself.
pub const INIT_CGROUP: &str = "init";
