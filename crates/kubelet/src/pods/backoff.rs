//! Back-off of restarts and pulls: 10 s, doubled to 5 min, forgotten after 10 quiet minutes.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// Back-off by key. The first event of a key never waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoffs(HashMap<String, Entry>);

impl Backoffs {
    /// Until when the reaction to an event at `event` has to wait, and the delay that makes it; `None` is now.
    pub(crate) fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let entry = self.0.get(key)?;
        if expired(entry, event) {
            return None;
        }
        let until = plus(event, entry.delay);
        (until > now).then_some((until, entry.delay))
    }

    /// Notes that the reaction to an event at `event` happens now; the next one waits longer.
    pub(crate) fn advance(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.0.get(key) {
            Some(entry) if !expired(entry, event) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.0.insert(key.to_string(), Entry { delay, updated: now });
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn expired(entry: &Entry, event: Timestamp) -> bool {
    event > plus(entry.updated, MAX * 2)
}

/// Saturating addition.
pub(crate) fn plus(time: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| time.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}

/// From `from` to `to`, zero if it lies behind.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A duration in Go's form, as upstream's messages have it: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn first_is_immediate_then_doubles_to_the_limit() {
        let mut backoffs = Backoffs::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..8 {
            // It ends at `now`; the wait is over at `until`, when it is started again and fails at once.
            let wait = backoffs.until("c", at(now), at(now));
            delays.push(wait.map_or(0, |(_, delay)| delay.as_secs()));
            let start = wait.map_or(at(now), |(until, _)| until);
            backoffs.advance("c", at(now), start);
            now = start.as_second() - 1_000_000;
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn forgotten_after_ten_minutes_of_running() {
        let mut backoffs = Backoffs::default();
        backoffs.advance("c", at(0), at(0));
        assert!(backoffs.until("c", at(5), at(6)).is_some());
        assert!(backoffs.until("c", at(601), at(601)).is_none());
        backoffs.advance("c", at(601), at(601));
        assert_eq!(backoffs.until("c", at(602), at(602)).unwrap().1, Duration::from_secs(10));
    }

    #[test]
    fn durations_read_as_in_go() {
        let texts: Vec<_> = [10, 80, 300].map(|s| go_duration(Duration::from_secs(s))).into();
        assert_eq!(texts, ["10s", "1m20s", "5m0s"]);
    }
}
