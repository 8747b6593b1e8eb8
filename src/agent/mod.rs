//! The host's process of a cluster: loopback ports, DNS for the node, restart of a native node.

mod notes;
mod ports;
mod process;
mod relay;
mod run;

pub use process::{exit_watch, main, notes, spawn, stop};
