//! Having PID 1 start the node process again from this binary; containers go on meanwhile.
//!
//! PID 1 starts `/bin/kminik`, of a root filesystem that is fixed as long as the node runs: this binary is mounted over it.

use std::io;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::process::find;
use crate::ops::node_image::BINARY;

/// PID 1's own bound on a stop, and a moment.
const BOUND_SECONDS: i64 = 25;

/// Puts this binary in the place of the node's, then asks the node process to end and waits until it has; none there is success.
/// To be run in the node.
///
/// # Errors
/// When it cannot be asked, or does not end in time: it is then killed, as PID 1 would.
pub fn main() -> io::Result<()> {
    let ours = std::env::current_exe()?;
    if ours != Path::new(BINARY) {
        // One that was replaced before goes; what runs from it keeps it.
        let _ = unmount(BINARY, UnmountFlags::DETACH);
        mount_bind(&ours, BINARY)?;
    }
    restart()
}

/// Asks the node process to end and waits until it has; PID 1 starts it again.
pub fn restart() -> io::Result<()> {
    let Some(pid) = find()? else { return Ok(()) };
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // Between reading the list and opening it another process could have got the number.
    if find()? != Some(pid) {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        pidfd_send_signal(&process, signal)?;
        let bound = Timespec { tv_sec: BOUND_SECONDS, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&bound))? > 0 {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the node process does not end"))
}
