//! The three standard descriptors of a process to be made.

use std::io;
use std::os::fd::OwnedFd;

/// /dev/null, for reading and writing.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}
