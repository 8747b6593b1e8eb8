//! The HTTP side: listeners, the request chain, what a request names, and how answers are worded.

pub mod accept;
pub mod body;
pub mod info;
pub mod respond;
