//! The Node object: registered, its status kept true, its Lease renewed.

pub(crate) mod capacity;
pub(crate) mod lease;
mod status;

pub(crate) use status::NodeStatus;
