//! The pods that wait for a node.
//!
//! ```text
//!            add ─► active ─► pop ─► (being decided)
//!                     ▲                 │ rejected              │ failed
//!      back-off passed│                 ▼                       ▼
//!                  backing off ◄── unschedulable          backing off
//!                         an event that may help
//! ```
//! Higher priority first, then first come first served. Where nothing is active, pods that an event has freed do not wait for
//! their back-off to pass: it protects others, and there are none.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::info::PodInfo;
use crate::plugin::{ALL_EVENTS, Events};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Freed by an event.
    BackingOff(Instant),
    /// After an error that is not the pod's.
    Failed(Instant),
    Unschedulable(Events),
    Deciding,
}

struct Entry {
    info: Arc<PodInfo>,
    order: u64,
    attempts: u32,
    tried: Instant,
    place: Place,
}

#[derive(Default)]
struct State {
    /// By uid.
    pods: HashMap<String, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    backing_off: BTreeSet<(Instant, String)>,
    failed: BTreeSet<(Instant, String)>,
    /// Number of events so far, and of the last of each kind.
    events: u64,
    last: [u64; ALL_EVENTS.len()],
    added: u64,
}

/// A pod taken from the queue, with the number of events that had happened.
pub(crate) struct Popped {
    pub(crate) info: Arc<PodInfo>,
    events: u64,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    /// A pod waits, or one that does has changed. `matters` tells whether the change may make it schedulable.
    pub(crate) fn set(&self, info: Arc<PodInfo>, matters: bool) {
        let mut state = self.state.lock();
        let uid = info.uid().to_string();
        match state.pods.get_mut(&uid) {
            Some(entry) => {
                entry.info = info;
                if matters && matches!(entry.place, Place::Unschedulable(_)) {
                    state.free(&uid);
                }
            }
            None => {
                let order = state.added;
                state.added += 1;
                let entry = Entry { info, order, attempts: 0, tried: Instant::now(), place: Place::Deciding };
                state.pods.insert(uid.clone(), entry);
                state.put(&uid, Place::Active);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A pod waits no longer: it has a node, or is gone.
    pub(crate) fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        state.take_out(uid);
        state.pods.remove(uid);
    }

    /// Waits for the next pod.
    pub(crate) async fn pop(&self) -> Popped {
        loop {
            let changed = self.changed.notified();
            let deadline = {
                let mut state = self.state.lock();
                state.pass_backoffs(Instant::now());
                if let Some(uid) = state.first() {
                    state.put(&uid, Place::Deciding);
                    let events = state.events;
                    if let Some(entry) = state.pods.get_mut(&uid) {
                        entry.attempts += 1;
                        entry.tried = Instant::now();
                        return Popped { info: entry.info.clone(), events };
                    }
                }
                state.failed.first().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// No node takes the pod until one of these events; one that came while it was decided counts.
    pub(crate) fn reject(&self, popped: &Popped, wakes: Events) {
        let mut state = self.state.lock();
        let uid = popped.info.uid();
        if !state.pods.get(uid).is_some_and(|entry| entry.place == Place::Deciding) {
            return;
        }
        let missed = ALL_EVENTS.iter().zip(state.last).any(|(event, last)| wakes & event != 0 && last > popped.events);
        state.put(uid, Place::Unschedulable(wakes));
        if missed {
            state.free(uid);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Something else than the pod failed: it is tried again after its back-off.
    pub(crate) fn fail(&self, uid: &str) {
        let mut state = self.state.lock();
        let Some(entry) = state.pods.get(uid) else { return };
        let at = Instant::now() + backoff(entry.attempts);
        state.put(uid, Place::Failed(at));
        drop(state);
        self.changed.notify_one();
    }

    /// Something happened that may help pods.
    pub(crate) fn event(&self, events: Events) {
        let mut state = self.state.lock();
        state.events += 1;
        let number = state.events;
        for (event, last) in ALL_EVENTS.iter().zip(&mut state.last) {
            if events & event != 0 {
                *last = number;
            }
        }
        let helped: Vec<String> = state
            .pods
            .iter()
            .filter(|(_, entry)| matches!(entry.place, Place::Unschedulable(wakes) if wakes & events != 0))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &helped {
            state.free(uid);
        }
        drop(state);
        if !helped.is_empty() {
            self.changed.notify_one();
        }
    }
}

impl State {
    fn put(&mut self, uid: &str, place: Place) {
        self.take_out(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.place = place;
        match place {
            Place::Active => {
                self.active.insert((Reverse(entry.info.priority()), entry.order, uid.to_string()));
            }
            Place::BackingOff(at) => {
                self.backing_off.insert((at, uid.to_string()));
            }
            Place::Failed(at) => {
                self.failed.insert((at, uid.to_string()));
            }
            Place::Unschedulable(_) | Place::Deciding => {}
        }
    }

    fn take_out(&mut self, uid: &str) {
        self.active.retain(|(_, _, other)| other != uid);
        self.backing_off.retain(|(_, other)| other != uid);
        self.failed.retain(|(_, other)| other != uid);
    }

    /// Lets an unschedulable pod be tried again, not before its back-off.
    fn free(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        let at = entry.tried + backoff(entry.attempts);
        let place = if at <= Instant::now() { Place::Active } else { Place::BackingOff(at) };
        self.put(uid, place);
    }

    fn pass_backoffs(&mut self, now: Instant) {
        let passed = |set: &BTreeSet<(Instant, String)>| -> Vec<String> {
            set.iter().take_while(|(at, _)| *at <= now).map(|(_, uid)| uid.clone()).collect()
        };
        for uid in passed(&self.backing_off).into_iter().chain(passed(&self.failed)) {
            self.put(&uid, Place::Active);
        }
    }

    fn first(&self) -> Option<String> {
        let active = self.active.first().map(|(_, _, uid)| uid);
        active.or_else(|| self.backing_off.first().map(|(_, uid)| uid)).cloned()
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decide::test_pod;
    use crate::plugin::{NODE_ADD, POD_DELETE};

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(test_pod(json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority}})))
    }

    async fn next(queue: &Queue) -> Popped {
        tokio::time::timeout(Duration::from_secs(3600), queue.pop()).await.expect("a pod")
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_arrival() {
        let queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("c", 5)] {
            queue.set(pod(name, priority), true);
        }
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(next(&queue).await.info.uid().to_string());
        }
        assert_eq!(names, ["c", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_events_that_may_help_wake_a_pod() {
        let queue = Queue::default();
        queue.set(pod("a", 0), true);
        let popped = next(&queue).await;
        queue.reject(&popped, NODE_ADD);
        queue.event(POD_DELETE);
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.pop()).await.is_err());
        queue.event(NODE_ADD);
        next(&queue).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_decision_is_not_lost() {
        let queue = Queue::default();
        queue.set(pod("a", 0), true);
        let popped = next(&queue).await;
        queue.event(NODE_ADD);
        queue.reject(&popped, NODE_ADD);
        next(&queue).await;
    }

    #[tokio::test(start_paused = true)]
    async fn errors_back_off() {
        let queue = Queue::default();
        queue.set(pod("a", 0), true);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let start = Instant::now();
            next(&queue).await;
            waits.push(start.elapsed().as_secs());
            queue.fail("a");
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 10]);
        queue.remove("a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.pop()).await.is_err());
    }
}
