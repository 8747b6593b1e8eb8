//! What every other crate may stand on: time, back-off, atomic files, PKI, components and their supervisor, telemetry.
//!
//! Owns: nothing on disk or in the kernel; files are written where callers say.
//!
//! **Invariant:** no Kubernetes word appears here.

pub mod atomic_file;
pub mod backoff;
pub mod component;
pub mod file_lock;
pub mod pki;
pub mod telemetry;
pub mod tls;
