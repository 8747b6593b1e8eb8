//! The host's process of a cluster: loopback ports, DNS and the image cache for the node, restart of a native node.

mod notes;
mod ports;
mod process;
mod relay;
mod run;

pub use process::{exit_watch, is_wanted, main, notes, reload, spawn, stop};
