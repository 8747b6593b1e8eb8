//! When a client that was turned away shall come back: the more are turned away, the later.

/// Seconds; upstream's bound.
const LONGEST: u64 = 32;

/// Who was turned away lately, of one level. Seconds are counted from any beginning.
#[derive(Debug)]
pub(super) struct RetryAfter {
    seconds: u64,
    raised_at: u64,
    /// Second, and how many in it; the newest last.
    history: Vec<(u64, u64)>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        RetryAfter { seconds: 1, raised_at: 0, history: Vec::new() }
    }
}

impl RetryAfter {
    /// One more is turned away; after how many seconds it may come back. It doubles while three a second are turned away,
    /// not more often than it lasts, and goes down by one while fewer than one a second are.
    pub(super) fn rejected(&mut self, now: u64) -> u32 {
        self.note(now);
        // At most 32.
        u32::try_from(self.seconds).unwrap_or(u32::MAX)
    }

    fn note(&mut self, now: u64) {
        match self.history.last_mut() {
            Some((second, count)) if *second == now => {
                *count += 1;
                return;
            }
            _ => {}
        }
        let dropped: u64 =
            self.history.iter().filter(|(second, _)| now - second <= self.seconds).map(|(_, count)| count).sum();
        if now.saturating_sub(self.raised_at) >= self.seconds && dropped >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(LONGEST);
            self.raised_at = now;
        } else if dropped < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
        self.history.retain(|(second, _)| now - second <= (2 * self.seconds).min(LONGEST));
        self.history.push((now, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_the_flood_and_shrinks_after_it() {
        let mut retry = RetryAfter::default();
        let mut seen = Vec::new();
        for second in 100..140 {
            for _ in 0..10 {
                seen.push(retry.rejected(second));
            }
        }
        assert_eq!(seen[0], 1);
        assert!(seen.is_sorted() && seen.contains(&16), "{seen:?}");
        let highest = *seen.last().unwrap();
        for quiet in 1..=40 {
            retry.rejected(140 + 40 * quiet);
        }
        assert_eq!(retry.rejected(3000), 1, "from {highest}");
    }
}
