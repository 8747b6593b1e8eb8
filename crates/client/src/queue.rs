//! A keyed work queue: a key waits at most once, runs at most once at a time, and can be delayed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kminik_base::backoff::Backoff;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Pause after a key's first failure; it doubles with each further one up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(120);

struct State<Q> {
    ready: VecDeque<Q>,
    waiting: HashSet<Q>,
    running: HashSet<Q>,
    /// Keys added while they ran: they become ready when they end.
    again: HashSet<Q>,
    timers: BTreeSet<(Instant, Q)>,
    due: HashMap<Q, Instant>,
    failures: HashMap<Q, Backoff>,
}

struct Shared<Q> {
    state: Mutex<State<Q>>,
    changed: Notify,
}

/// Cheap to clone; all clones are one queue. Memory is bounded by the number of distinct keys.
pub struct WorkQueue<Q>(Arc<Shared<Q>>);

impl<Q> Clone for WorkQueue<Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Clone + Ord + Hash> Default for WorkQueue<Q> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Q: Clone + Ord + Hash> WorkQueue<Q> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Makes a key ready. No effect if it is; if it runs, it runs once more afterwards.
    pub fn add(&self, key: Q) {
        let mut state = self.0.state.lock();
        if state.make_ready(key) {
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Makes a key ready after `delay`. Of several delays of one key the earliest counts.
    pub fn add_after(&self, key: Q, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.0.state.lock();
        match state.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                let old = (*due, key.clone());
                state.timers.remove(&old);
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.timers.insert((at, key));
        drop(state);
        self.0.changed.notify_one();
    }

    /// Takes away a delay of a key that has not passed.
    pub fn cancel_delay(&self, key: &Q) {
        let mut state = self.0.state.lock();
        if let Some(at) = state.due.remove(key) {
            state.timers.remove(&(at, key.clone()));
        }
    }

    /// Keys that are ready (not those delayed or running).
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a ready key and marks it running; [`WorkQueue::finish`] must follow.
    pub(crate) async fn next(&self) -> Q {
        loop {
            let changed = self.0.changed.notified();
            let deadline = {
                let mut state = self.0.state.lock();
                state.fire(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Ends a run of a key. After a failure the key comes back after its back-off, which is returned.
    pub(crate) fn finish(&self, key: Q, succeeded: bool) -> Option<Duration> {
        let mut state = self.0.state.lock();
        state.running.remove(&key);
        let added = state.again.remove(&key) && state.make_ready(key.clone());
        let delay = if succeeded {
            state.failures.remove(&key);
            None
        } else {
            let backoff = state.failures.entry(key.clone()).or_insert_with(|| Backoff::new(FIRST_RETRY, LONGEST_RETRY));
            Some(backoff.next_delay())
        };
        drop(state);
        if added {
            self.0.changed.notify_one();
        }
        if let Some(delay) = delay {
            self.add_after(key, delay);
        }
        delay
    }
}

impl<Q: Clone + Ord + Hash> State<Q> {
    fn make_ready(&mut self, key: Q) -> bool {
        if self.running.contains(&key) {
            self.again.insert(key);
            return false;
        }
        if !self.waiting.insert(key.clone()) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn fire(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.make_ready(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_runs_once_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.len(), 0, "a running key does not become ready");
        queue.finish("a", true);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_counts() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.finish("a", true);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err(),
            "the other delays are gone"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_pause_and_success_resets_it() {
        let queue = WorkQueue::new();
        queue.add("a");
        let mut delays = Vec::new();
        for _ in 0..4 {
            let key = queue.next().await;
            delays.push(queue.finish(key, false).unwrap().as_millis());
        }
        for (delay, least) in delays.into_iter().zip([5, 10, 20, 40]) {
            assert!((least..=least * 11 / 10).contains(&delay), "{delay} ms for {least}");
        }
        let key = queue.next().await;
        queue.finish(key, true);
        queue.add("a");
        let key = queue.next().await;
        assert_eq!(queue.finish(key, false).unwrap().as_millis(), 5);
    }
}
