//! The node agent: makes the containers of the pods bound to this node what their specs say, and reports what is.
//!
//! It owns the kubelet root (`pods/<uid>/…`: volumes, hosts files, termination logs), the status of its Node, its Lease and the
//! status of the pods bound to it. Containers, their logs and cgroups belong to the runtime, images to the [`images::ImageService`].
//!
//! How a pod flows: `pods::source` watches the pods of the node and hands each to its worker; the worker (`pods::worker`) asks the
//! pure function `pods::plan` what to do for (desired pod, observed runtime state, clock), starts it as an operation, and wakes when an
//! operation ends, the runtime reports an event, a probe changes its verdict or a back-off ends. After each look `pods::status`
//! computes the pod's status, again from (desired, observed, clock), and `pods::status_writer` sends what changed.
//!
//! **Invariant:** a pod (by UID) has exactly one worker; nobody else changes its containers.
//! **Invariant:** nothing is inferred from a container's absence: what ran is read from the runtime's records or from the status reported before.
//! **Invariant:** all state needed to go on is in the runtime's labels and annotations, so that a restarted kubelet adopts what runs.
//! **Invariant:** every loop waits for events; nothing polls on the path of a pod.

mod access;
mod config;
mod container;
mod hooks;
pub mod images;
mod kubelet;
mod logs;
mod node;
mod node_context;
mod objects;
mod pods;
mod probes;
pub mod server;
mod volumes;

pub use access::{AccessError, ContainerTarget, SandboxTarget};
pub use config::{Capacity, KubeletConfig};
pub use kubelet::Kubelet;
pub use logs::{LogOptions, LogStream, Stream as LogSource};
