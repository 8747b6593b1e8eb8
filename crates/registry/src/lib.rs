//! An image registry: the OCI distribution specification 1.1 over a directory. The `registry` addon runs it in a pod.
//!
//! Written here because no library offers it: of those on crates.io, `container-registry` (0.3) has neither ranges, mounts,
//! deletes, referrers, pages nor a collection of garbage, and brings a web framework with it; the others are programs.
//!
//! It owns one directory (`storage.rs` draws it) and one listener. Nobody is asked who they are: whoever starts it decides who
//! reaches it.
//!
//! **Invariant:** a blob or manifest is found only after its digest was checked and its bytes are on the disk.
//! **Invariant:** a manifest is taken only if all that it needs is in its repository, and nothing that it needs is collected.
//! **Invariant:** no name of a request becomes a path before it has been parsed as a repository, tag, digest or session.

mod body;
mod collect;
mod error;
mod handlers;
mod manifest;
mod name;
mod server;
mod storage;
mod uploads;

pub use collect::Policy;
pub use server::{Config, RunError, run, serve};
