//! Custom resources: how a CustomResourceDefinition becomes a row of the table, and what the server itself keeps of it.
//!
//! ```text
//!  definition written ─► names accepted (status) ─► row in the table ─► Established (status)
//!  definition deleted ─► Terminating, cleanup finalizer ─► objects deleted ─► finalizer removed ─► row gone, watches end
//! ```
//!
//! Behind the table nothing knows where a row came from.

mod conditions;
mod conversion;
mod definition;
mod keeper;
mod names;
mod source;

pub(crate) use conditions::{Condition, set_condition};
pub(crate) use keeper::keep;
pub(crate) use source::Definitions;

/// Where definitions are.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";
/// Holds a deleted definition until its objects are deleted.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
