//! A container's streams in the node process: into its log, to whoever is attached, and in from them.

mod journal;
pub(crate) mod log;
mod streams;

pub(crate) use streams::{ContainerIo, Ends, IoConfig, write_all};
