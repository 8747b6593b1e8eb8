//! Pipes whose contents can be looked at before they are taken.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

/// What a container may write while nobody reads: a restart of the reader must not block it soon.
pub(crate) const CAPACITY_BYTES: usize = 1024 * 1024;

/// A pipe (read end, write end), both closed on exec, of [`CAPACITY_BYTES`] where the kernel allows that.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // A limit of the administrator on pipe sizes leaves the default of 64 KiB.
    let _ = rustix::pipe::fcntl_setpipe_size(&read, CAPACITY_BYTES);
    Ok((read, write))
}

pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// A private pipe into which the contents of another are duplicated to be read without being taken.
#[derive(Debug)]
pub(crate) struct Peeker {
    read: OwnedFd,
    write: OwnedFd,
}

impl Peeker {
    pub(crate) fn new() -> io::Result<Peeker> {
        let (read, write) = pipe()?;
        set_nonblocking(&read)?;
        set_nonblocking(&write)?;
        Ok(Peeker { read, write })
    }

    /// Up to `limit` bytes from the head of `pipe`, which keeps them. `Some(0)` is the end, `None` is empty for now.
    pub(crate) fn peek(&self, pipe: impl AsFd, buffer: &mut Vec<u8>, limit: usize) -> io::Result<Option<usize>> {
        buffer.clear();
        let duplicated = match rustix::io::retry_on_intr(|| {
            rustix::pipe::tee(pipe.as_fd(), &self.write, limit, SpliceFlags::NONBLOCK)
        }) {
            Ok(duplicated) => duplicated,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        buffer.resize(duplicated, 0);
        let mut read = 0;
        while read < duplicated {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.read, &mut buffer[read..]))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        Ok(Some(duplicated))
    }
}

/// Takes as many bytes as `seen` has, which [`Peeker::peek`] has shown to be there. They are taken by one call, which a kill does not cut short: either
/// all are still there or none is.
pub(crate) fn discard(pipe: impl AsFd, seen: &mut [u8]) -> io::Result<()> {
    let taken = rustix::io::retry_on_intr(|| rustix::io::read(pipe.as_fd(), &mut *seen))?;
    if taken == seen.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peeking_takes_nothing() {
        let (read, write) = pipe().unwrap();
        set_nonblocking(&read).unwrap();
        let peeker = Peeker::new().unwrap();
        let mut seen = Vec::new();
        assert_eq!(peeker.peek(&read, &mut seen, 100).unwrap(), None);
        rustix::io::write(&write, b"hello world").unwrap();
        assert_eq!(peeker.peek(&read, &mut seen, 5).unwrap(), Some(5));
        assert_eq!(seen, b"hello");
        discard(&read, &mut [0; 6]).unwrap();
        assert_eq!(peeker.peek(&read, &mut seen, 100).unwrap(), Some(5));
        assert_eq!(seen, b"world");
        discard(&read, &mut [0; 5]).unwrap();
        drop(write);
        assert_eq!(peeker.peek(&read, &mut seen, 100).unwrap(), Some(0));
    }
}
