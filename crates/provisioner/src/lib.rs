//! The storage provisioner: makes a directory of its node for each claim of its classes, and removes it with the claim. It runs on
//! every node; a claim is served where the scheduler has put its first pod, or where it may be anywhere by one of them.
//!
//! Owns: one directory, in which it keeps `<namespace>/<claim>` (mode 0777) for each volume and `.removed-*` for what is being removed.
//!
//! **Invariant:** nothing outside that directory is ever opened, changed or removed, whatever links pods put into their volumes and
//! whatever path a volume object names.
//! **Invariant:** a volume is known by what stands in its object (`pv.kubernetes.io/provisioned-by`, the node it is on), not by this process's
//! memory: volumes made before a restart are removed like those made after it.
//! **Invariant:** two claims never share a directory: the next claim of a name waits for, or steps aside from, the earlier one's.

mod controller;
mod directory;
mod in_pod;

pub use controller::{PROVISIONER, ProvisionerConfig, ProvisionerError, run_with};
pub use directory::{Directory, DirectoryError};
pub use in_pod::{RunError, run};
