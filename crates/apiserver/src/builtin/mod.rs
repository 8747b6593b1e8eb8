//! The rows that are always there: one file an API group.

mod core;

use crate::registry::def::ResourceDef;

/// All built-in rows in the order of discovery.
pub(crate) fn rows() -> Vec<ResourceDef> {
    [core::rows()].into_iter().flatten().collect()
}
