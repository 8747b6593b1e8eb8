//! Archives of images: docker-save and OCI layout, in and out, as streams.

mod contents;
mod export;
mod import;
mod outgoing;
mod stream;

pub(crate) use contents::spool;
pub(crate) use export::{Exported, export, outgoing};
pub(crate) use import::{import, scan};
pub use outgoing::Outgoing;
pub(crate) use stream::{BlockingReader, drive_writer};
