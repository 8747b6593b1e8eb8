//! Objects in the store: keys, their stored form, and the cache that answers reads.

pub mod cache;
pub mod codec;
pub mod entry;
pub(crate) mod follow;
pub mod key;
