//! The controllers and the scheduler against the real API server, in process, with the rights their identities have.

mod support;
mod volumes;
mod workloads;
