//! The crate against the real kernel, in network namespaces made for each test. Needs root.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

mod api;
mod hostnet;
mod ns;
mod pods;
mod routes;
mod services;
