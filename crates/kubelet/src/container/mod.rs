//! From a container of a pod's spec to what the runtime is asked to create. Pure, but for [`termination`] and [`files`].

pub(crate) mod config;
pub(crate) mod downward;
pub(crate) mod env;
pub(crate) mod expand;
pub(crate) mod files;
pub(crate) mod qos;
pub(crate) mod quantity;
pub(crate) mod resources;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod services;
pub(crate) mod termination;
