//! The rows that are always there: one file an API group.

mod authentication;
mod authorization;
mod core;
mod rbac;

use crate::registry::def::ResourceDef;

/// All built-in rows in the order of discovery.
pub(crate) fn rows() -> Vec<ResourceDef> {
    [core::rows(), authentication::rows(), authorization::rows(), rbac::rows()].into_iter().flatten().collect()
}
