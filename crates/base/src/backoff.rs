//! Exponential back-off with a ceiling.

use std::time::Duration;

/// Delays that double from `initial` to `max`; [`Backoff::reset`] starts over. Jitter adds up to a tenth.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (self.next * 2).min(self.max);
        delay + delay.mul_f64(rand::random::<f64>() * 0.1)
    }

    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_ceiling_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        let seconds: Vec<u64> = (0..4).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 3, 3]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_secs(), 1);
    }
}
