//! The crate against the real kernel, in network namespaces made for each test. Needs root.

mod api;
mod hostnet;
mod ns;
mod pods;
mod routes;
mod services;
