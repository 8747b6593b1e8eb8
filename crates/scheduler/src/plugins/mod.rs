//! The plugins' filters and scores, as functions of a [`Cycle`](crate::plugin::Cycle) and a node.

pub(crate) mod affinity;
pub(crate) mod image;
pub(crate) mod node;
pub(crate) mod resources;
pub(crate) mod spread;
pub(crate) mod volumes;
