//! Pods of this node: read, planned, worked, reported.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod events;
pub(crate) mod memory;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod source;
pub(crate) mod starter;
pub(crate) mod status;
pub(crate) mod status_writer;
pub(crate) mod stopper;
pub(crate) mod table;
pub(crate) mod view;
pub(crate) mod worker;
