//! Containers as OCI configurations.

mod capabilities;

pub(crate) use capabilities::{ALL_CAPABILITIES, capability_names};
