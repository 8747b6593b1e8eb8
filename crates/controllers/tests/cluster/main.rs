//! The controllers and the scheduler against the real API server, in process, with the rights their identities have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod disruptions;
mod garbage;
mod leadership;
mod provisioner;
mod quotas;
mod service_cidrs;
mod support;
mod tokens;
mod volumes;
mod workloads;
