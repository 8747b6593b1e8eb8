//! Containers as OCI configurations.

mod capabilities;
pub(crate) mod container;
mod seccomp;
pub(crate) mod user;

pub(crate) use capabilities::{ALL_CAPABILITIES, capability_names, capability_numbers, container_set};
