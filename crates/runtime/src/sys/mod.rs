//! Thin, safe wrappers over the system calls the crate needs; everything `unsafe` of the crate is below here or in the
//! single-threaded helper.

pub mod pipe;
pub mod process;
pub mod signals;
pub mod socket;
pub mod stdio;
pub mod watched;
