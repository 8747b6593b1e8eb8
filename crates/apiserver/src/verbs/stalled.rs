//! Answers whose clients stopped reading: what they hold is let go.
//!
//! An answer (a watch, or a list of several slices) that has handed out a slice rests until its client has taken it. One that
//! rests too long loses its state (the objects it still had to send keep old values in memory), and ends when it is asked
//! again. Only beginning answers adds to what resting ones hold, so that is when they are looked through.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Why an answer ends that nobody takes.
pub(crate) const UNREAD: &str = "the client did not read in time";
/// The answers are looked through so many times while a client may take its time, at most.
const SWEEPS: u32 = 6;

/// All open answers.
pub(crate) struct Answers {
    begun: Instant,
    /// A client may take so long for a slice.
    patience: Duration,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    resting: Vec<Weak<dyn Resting>>,
    swept_at: Option<Instant>,
}

trait Resting: Send + Sync {
    /// Lets go of what is held if it has rested since before this moment.
    fn let_go(&self, before: u64);
}

/// Where an answer puts its state while its client takes a slice.
pub(crate) struct Place<S> {
    begun: Instant,
    state: Mutex<Option<S>>,
    /// Milliseconds after `begun` at which the state was put here.
    since: AtomicU64,
}

impl Answers {
    pub(crate) fn new(patience: Duration) -> Self {
        Answers { begun: Instant::now(), patience, open: Mutex::default() }
    }

    /// A place for a new answer.
    pub(crate) fn open<S: Send + 'static>(&self, state: S) -> Arc<Place<S>> {
        self.open_at(state, Instant::now())
    }

    fn open_at<S: Send + 'static>(&self, state: S, now: Instant) -> Arc<Place<S>> {
        let place = Arc::new(Place { begun: self.begun, state: Mutex::new(None), since: AtomicU64::new(0) });
        place.rest_at(state, now);
        let resting: Arc<dyn Resting> = place.clone();
        let before = millis(now - self.begun).saturating_sub(millis(self.patience));
        // Large states end here, with no lock held that others wait for.
        self.looked_through(&resting, now).iter().for_each(|place| place.let_go(before));
        place
    }

    /// Adds an answer. The open ones if they are to be looked through.
    fn looked_through(&self, resting: &Arc<dyn Resting>, now: Instant) -> Vec<Arc<dyn Resting>> {
        let mut open = self.open.lock();
        let mut due = Vec::new();
        if open.swept_at.is_none_or(|at| now - at >= self.patience / SWEEPS) {
            open.swept_at = Some(now);
            open.resting.retain(|place| {
                place.upgrade().is_some_and(|place| {
                    due.push(place);
                    true
                })
            });
        }
        open.resting.push(Arc::downgrade(resting));
        due
    }
}

impl<S> Place<S> {
    /// Takes the state; `None` if it was let go.
    pub(crate) fn take(&self) -> Option<S> {
        self.state.lock().take()
    }

    /// Puts the state back.
    pub(crate) fn rest(&self, state: S) {
        self.rest_at(state, Instant::now());
    }

    fn rest_at(&self, state: S, now: Instant) {
        let mut place = self.state.lock();
        self.since.store(millis(now - self.begun), Ordering::Relaxed);
        *place = Some(state);
    }
}

impl<S: Send> Resting for Place<S> {
    fn let_go(&self, before: u64) {
        // Dropped after the lock is.
        let _state = {
            let mut state = self.state.lock();
            if self.since.load(Ordering::Relaxed) < before { state.take() } else { None }
        };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_loses_what_was_kept() {
        let answers = Answers::new(Duration::from_secs(60));
        let at = |seconds| answers.begun + Duration::from_secs(seconds);
        let held = Arc::new(());
        let (stalled, reading) = (answers.open_at(held.clone(), at(1)), answers.open_at(held.clone(), at(1)));
        for seconds in [20, 40, 60, 80] {
            reading.rest_at(reading.take().unwrap(), at(seconds));
            answers.open_at((), at(seconds));
        }
        assert!(stalled.take().is_none() && reading.take().is_some());
        assert_eq!((Arc::strong_count(&held), answers.open.lock().resting.len()), (1, 3), "what ended is forgotten");
    }
}
