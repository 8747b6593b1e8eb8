//! The container runtime: Pod sandboxes, containers, snapshots, logs. A library in the node process; no daemon, no shim.
//!
//! Owns: the state directory (snapshots, containers, sandboxes), the cgroups below the node's pods cgroup, the
//! namespaces it pins, the container logs it is told to write.
//!
//! **Invariant:** no Kubernetes word appears here; the seam is shaped like CRI, the names are OCI's.
//! **Invariant:** namespaces and cgroups are changed only in a re-executed single-threaded helper, never in this process.
//! **Invariant:** a container is a direct child of the node process or an orphan of PID 1, whose exit PID 1 journals: no exit code is lost.
#![allow(unsafe_code)]

mod api;

pub use api::*;
