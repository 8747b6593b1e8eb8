//! The Kubernetes API server: every request of every client passes through one chain and one pipeline here.
//!
//! A resource is a row of one immutable table ([`registry::def::ResourceDef`]); routes, discovery, OpenAPI, tables, storage
//! keys and RBAC names are derived from the rows. Where a resource differs from the others it has a
//! [`registry::strategy::Strategy`]. Objects are stored as canonical JSON without their revision; get, list and watch send
//! shared slices of these bytes and do not decode them.
//!
//! Order of a request: authenticate, audit, impersonate, wait for a turn (priority and fairness), authorise, pin the row (or
//! pass on what another server serves, [`aggregation`]), verb. Order of a write: decode (field validation, pruning, defaults),
//! mutating admission, metadata, prepare, reserve, validate, warn, canonicalise, validating admission, store, render.
//!
//! It owns the keys below `/registry/` and `/claims/` of its store, the listeners it is given, and the audit log if there
//! is one; no other files.
//!
//! **Invariant:** nothing here asks whether a resource is built in or custom.
//! **Invariant:** every write of an object by a client passes [`admission::AdmissionChain`].
//! **Invariant:** errors become a `Status` response in one function, `http::respond::error`.
//! **Invariant:** controllers and other parts of kminik reach objects as clients, through [`ApiServer::service`].

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod auth;
mod bootstrap;
mod builtin;
pub mod config;
mod connect;
mod custom;
mod error;
mod flowcontrol;
mod health;
pub mod http;
pub mod metrics;
pub mod outbound;
pub mod registry;
mod schema;
mod server;
pub mod storage;
mod strategies;
mod verbs;
pub mod version;

pub use config::{CertificateAndKey, Cidr, Config, FrontProxy, Patience};
pub use server::{ApiServer, Server, StartError};
