//! Strategies of the resources that differ from the default; one file a resource.

pub(crate) mod rbac;
