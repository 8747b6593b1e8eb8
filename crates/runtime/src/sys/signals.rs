//! Signals as something to poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Numbers.
pub(crate) mod raw {
    pub(crate) const CHLD: i32 = libc::SIGCHLD;
    pub(crate) const TERM: i32 = libc::SIGTERM;
    pub(crate) const INT: i32 = libc::SIGINT;
    pub(crate) const PWR: i32 = libc::SIGPWR;

    /// What a container engine sends to an init to shut it down.
    pub(crate) fn rtmin_plus_3() -> i32 {
        libc::SIGRTMIN() + 3
    }
}

/// No signal is blocked, ignored or handled any more: what a program expects that is about to be executed. May be called in a forked child.
pub(crate) fn reset() {
    // SAFETY: an all-zero sigset is a valid place for the calls below, which are safe in a forked child; numbers that cannot be changed
    // are refused by the kernel.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Signals that are no longer delivered but read from here.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Must be called while the process has one thread. Programs started later inherit it, see [`reset`].
    pub(crate) fn block(numbers: &[i32]) -> io::Result<Signals> {
        // SAFETY: an all-zero sigset is a valid empty one, and the calls below only change it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a valid place for both calls.
        unsafe {
            libc::sigemptyset(&mut set);
            for number in numbers {
                libc::sigaddset(&mut set, *number);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the set was initialised above.
        let set = unsafe { SigSet::from_sigset_t_unchecked(set) };
        Ok(Signals { fd: SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)? })
    }

    /// All that have arrived.
    pub(crate) fn take(&self) -> io::Result<Vec<i32>> {
        let mut numbers = Vec::new();
        while let Some(info) = self.fd.read_signal()? {
            numbers.push(info.ssi_signo.cast_signed());
        }
        Ok(numbers)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
