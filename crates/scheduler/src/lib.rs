//! Decides on which node each pod runs, and tells the API.
//!
//! ```text
//!  pod event ─► queue (active, backing off, unschedulable) ─► snapshot ─► decide() ─┬─► assume ─► bind volumes ─► bind
//!                  ▲        ▲                                                       └─► preempt() ─► delete victims
//!                  │        └── node, pod, volume events that may help ───────────────────┘ unschedulable, with the reasons
//!                  └── back-off passed
//! ```
//!
//! Owns: nothing outside the API. What it has decided and the API does not know yet is in its cache ("assumed" pods).
//!
//! **Invariant:** [`decide`] is a function of a pod and a snapshot; it does no I/O and reads no clock.
//! **Invariant:** a plugin is one row of the table in `plugin.rs`; nothing else names plugins.
//! **Invariant:** one pod is decided at a time, on a snapshot that holds every decision made before it.

mod bind;
mod cache;
mod decide;
mod info;
mod plugin;
mod plugins;
mod preempt;
mod queue;
mod resources;
mod scheduler;

pub use cache::{Cache, Snapshot, Volumes};
pub use decide::Unschedulable;
pub use decide::{Decision, decide};
pub use info::{NamespaceLabels, NodeInfo, PodInfo};
pub use plugins::volumes::Bindings;
pub use preempt::{Preemption, preempt};
pub use resources::Resources;
pub use scheduler::{Scheduler, SchedulerConfig};
