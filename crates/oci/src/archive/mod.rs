//! Archives of images: docker-save and OCI layout, in and out, as streams.

mod attached;
mod contents;
mod export;
mod import;
mod outgoing;
mod stream;

pub use attached::Attached;
pub(crate) use contents::spool;
pub(crate) use export::{Exported, export, outgoing};
pub(crate) use import::{import, scan};
pub use outgoing::Outgoing;
pub(crate) use stream::{BlockingReader, drive_writer};
