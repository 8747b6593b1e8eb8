//! A process named so that a reused pid is never mistaken for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// A process: its pid in the namespace of the reader, and the clock tick (since boot) at which it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    pub start: u64,
}

impl ProcessId {
    /// The process that has `pid` now, also as a zombie.
    pub(crate) fn of(pid: u32) -> io::Result<ProcessId> {
        Ok(ProcessId { pid, start: start_time(pid)? })
    }

    /// The process that has `pid` by this directory of processes, for who has joined mounts where /proc is another's.
    pub(crate) fn of_in(proc: &OwnedFd, pid: u32) -> io::Result<ProcessId> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut stat = Vec::new();
        File::from(openat(proc, format!("{pid}/stat"), flags, Mode::empty())?).read_to_end(&mut stat)?;
        Ok(ProcessId { pid, start: start_of(&stat)? })
    }

    /// A handle on it; `NotFound` if it has been reaped, even if the pid is another's now.
    pub(crate) fn open(self) -> io::Result<ProcessHandle> {
        let pid = Pid::from_raw(self.pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
            Err(error) => return Err(error.into()),
        };
        match start_time(self.pid) {
            Ok(start) if start == self.start => Ok(ProcessHandle { pidfd }),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// A pidfd.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pidfd: OwnedFd,
}

impl ProcessHandle {
    /// Sends a signal by number; a process that has gone is not an error.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        // SAFETY: the number is only handed to the kernel, which checks it.
        let signal = unsafe { Signal::from_raw_unchecked(number) };
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        matches!(rustix::event::poll(&mut poll, Some(&rustix::event::Timespec::default())), Ok(n) if n > 0)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.pidfd
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A child that has exited and has not been reaped, left as it is.
pub(crate) fn any_exited() -> io::Result<Option<i32>> {
    loop {
        // SAFETY: an all-zero siginfo is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a valid place.
        if unsafe { libc::waitid(libc::P_ALL, 0, &mut info, options) } == 0 {
            // SAFETY: the kernel has filled in the fields of a child, or left all zero if there is none.
            let pid = unsafe { info.si_pid() };
            return Ok((pid != 0).then_some(pid));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

fn start_time(pid: u32) -> io::Result<u64> {
    start_of(&std::fs::read(format!("/proc/{pid}/stat"))?)
}

/// Field 22 of /proc/PID/stat. The command name may contain anything, so fields count from its closing parenthesis.
fn start_of(stat: &[u8]) -> io::Result<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')').ok_or(io::ErrorKind::InvalidData)?;
    let rest = String::from_utf8_lossy(&stat[after_name + 1..]);
    rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_start_time_is_another_process() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(!me.open().unwrap().has_exited());
        let proc = File::open("/proc").unwrap().into();
        assert_eq!(ProcessId::of_in(&proc, me.pid).unwrap(), me);
        let other = ProcessId { start: me.start + 1, ..me };
        assert_eq!(other.open().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
