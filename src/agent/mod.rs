//! The host's process of a cluster: loopback ports, DNS and the image cache for the node, restart of a native node.

mod notes;
mod ports;
mod process;
mod relay;
mod run;
mod schedule;

pub use process::{exit_watch, is_wanted, main, notes, reload, spawn, stop};
pub use schedule::{cancel as cancel_stop, left as until_stop, set as schedule_stop};
