//! The machine's clock, as people and certificates read it.

use std::os::fd::OwnedFd;

use kminik_runtime::watched;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Returns when it is this time, in seconds since the epoch; also where the clock is set, or the machine slept, meanwhile.
///
/// # Errors
/// If the kernel has no more timers.
pub async fn until(second: i64) -> std::io::Result<()> {
    let timer: OwnedFd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    // A time of zero would disarm it.
    let value = Timespec { tv_sec: second.max(1), tv_nsec: 0 };
    let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: interval, it_value: value })?;
    watched(timer)?.readable().await.map(drop)
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_past_is_over_at_once_and_what_never_comes_is_waited_for() {
        let bound = Duration::from_secs(30);
        for past in [i64::MIN, 0, 1] {
            tokio::time::timeout(bound, until(past)).await.unwrap().unwrap();
        }
        for never in [i64::MAX, now() + 3600] {
            assert!(tokio::time::timeout(Duration::from_millis(20), until(never)).await.is_err());
        }
    }
}
