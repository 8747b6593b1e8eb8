//! Thin, safe wrappers over the system calls the crate needs; everything `unsafe` of the crate is below here or in the
//! single-threaded helper.

pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod stdio;
pub(crate) mod watched;
