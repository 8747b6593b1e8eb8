//! Archives of images: docker-save and OCI layout, in and out, as streams.

mod export;
mod import;
mod stream;

pub(crate) use export::{Exported, export};
pub(crate) use import::import;
pub(crate) use stream::{BlockingReader, drive_writer};
