//! When a thread gets its turn.

use std::io;

/// Has the calling thread run as soon as it is woken, before every ordinary one: for a thread that others wait for and that sleeps most
/// of the time. Threads that it makes are ordinary.
///
/// # Errors
/// The kernel's: without CAP_SYS_NICE, or where its control group has no real-time share, the thread stays as it is.
pub fn run_at_once() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters live until the call returns; 0 is the calling thread, and nothing of the process' memory is changed.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const lowest) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
