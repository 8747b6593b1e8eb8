//! The host's process of a cluster: loopback ports, DNS for the node, restart of a native node.

mod process;
mod run;

pub use process::{main, notes, spawn, stop};
