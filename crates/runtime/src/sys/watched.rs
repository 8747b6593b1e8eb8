//! Readiness of a descriptor as futures.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor, which must be non-blocking, with the runtime this is called in.
pub fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same open file until it is dropped, after its deregistration.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
