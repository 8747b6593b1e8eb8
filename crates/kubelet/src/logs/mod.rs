//! Container logs: their format, and reading them with tail, since, limit and follow.

pub(crate) mod format;
