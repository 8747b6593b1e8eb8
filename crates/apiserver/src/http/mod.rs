//! The HTTP side: listeners, the request chain, what a request names, and how answers are worded.

pub mod accept;
pub mod body;
pub(crate) mod chain;
pub(crate) mod compress;
pub(crate) mod discovery;
pub mod info;
pub(crate) mod openapi;
pub(crate) mod plain;
pub(crate) mod pretty;
pub mod respond;
pub(crate) mod serve;
pub mod service;
mod socket;
mod stall;
