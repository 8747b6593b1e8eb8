//! What readers see: the published snapshot, the log behind it, and the watchers that are told of new changes.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Expiries};
use super::state::{Log, Snapshot, undo};
use crate::api::{Event, Range, RangeResult, Revision, StoreError, WatchBatch, WatchOptions, Watcher};
use crate::watch::{BatchSender, channel, cost_of, select};

/// Shared by the readers and the commit thread. Nothing in it is ahead of the disk.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Cancelled when nothing will be written any more.
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    snapshot: Snapshot,
    log: Log,
    /// Watchers by prefix, so that those of one prefix share the filtered events.
    watchers: HashMap<Bytes, Vec<BatchSender>>,
    registered: usize,
    /// Ended watchers are swept out when this many are registered.
    sweep_at: usize,
    closed: bool,
}

const SWEEP_MIN: usize = 64;

impl Hub {
    pub(crate) fn new(snapshot: Snapshot, log: Log) -> Self {
        let state =
            State { snapshot, log, watchers: HashMap::new(), registered: 0, sweep_at: SWEEP_MIN, closed: false };
        Hub { state: Mutex::new(state), ended: CancellationToken::new() }
    }

    /// The newest visible records.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot.clone()
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let (snapshot, changes) = {
            let state = self.state.lock();
            let current = state.snapshot.revision;
            let changes = match range.revision {
                Some(requested) if requested > current => return Err(StoreError::Future { requested, current }),
                Some(requested) if requested < state.log.compacted() => {
                    return Err(StoreError::Compacted { requested, oldest: state.log.compacted() });
                }
                Some(requested) if requested < current => state.log.since(requested + 1)?,
                _ => VecDeque::new(),
            };
            (state.snapshot.clone(), changes)
        };
        let revision = range.revision.unwrap_or(snapshot.revision);
        let undo = undo(&changes, revision, &range.start, &range.end);
        Ok(snapshot.range(range, revision, undo))
    }

    pub(crate) fn watch(&self, options: WatchOptions) -> Result<Watcher, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let current = state.snapshot.revision;
        // A start in the future needs no history, whatever was compacted.
        let replay = if options.from > current { VecDeque::new() } else { state.log.since(options.from)? };
        let replay_end = (!replay.is_empty()).then_some(current);
        let (sender, watcher) = channel(options.prefix.clone(), options.from, options.buffer_bytes, replay, replay_end);
        state.watchers.entry(options.prefix).or_default().push(sender);
        state.registered += 1;
        if state.registered >= state.sweep_at {
            state.retain_watchers(|sender| !sender.is_closed());
            state.sweep_at = SWEEP_MIN.max(state.registered * 2);
        }
        Ok(watcher)
    }

    /// Makes a batch that is on disk visible: first to readers, then to watchers.
    pub(crate) fn publish(&self, snapshot: Snapshot, events: Arc<[Event]>, compact: Option<Revision>) {
        let mut state = self.state.lock();
        let revision = snapshot.revision;
        state.snapshot = snapshot;
        state.log.push(events.clone());
        if let Some(revision) = compact {
            state.log.compact(revision);
        }
        if events.is_empty() {
            return;
        }
        let mut ended = 0;
        for (prefix, senders) in &mut state.watchers {
            let Some(events) = select(&events, prefix, 0) else { continue };
            let cost = cost_of(&events);
            let first = events.first().map_or(0, |event| event.record.mod_revision);
            let before = senders.len();
            senders.retain(|sender| match sender.from() > first {
                false => sender.send(WatchBatch { events: events.clone(), revision }, cost),
                true => match select(&events, prefix, sender.from()) {
                    Some(events) => sender.send(WatchBatch { events, revision }, cost),
                    None => !sender.is_closed(),
                },
            });
            ended += before - senders.len();
        }
        state.registered -= ended;
    }

    pub(crate) fn progress(&self) {
        let mut state = self.state.lock();
        let revision = state.snapshot.revision;
        state.retain_watchers(|sender| {
            sender.from() > revision + 1 || sender.send(WatchBatch { events: Arc::new([]), revision }, 0)
        });
    }

    pub(crate) fn log_excess(&self, limit_bytes: usize) -> Option<Revision> {
        self.state.lock().log.excess(limit_bytes)
    }

    /// Makes the store's file anew from what is visible.
    pub(crate) fn replace_file(&self, path: &Path, expiries: Expiries) -> Result<Disk, StoreError> {
        // Only the commit thread changes snapshot and log, and it is the one that calls.
        let state = self.state.lock();
        Disk::replace(path, &state.snapshot, &state.log, &expiries)
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.lock().log.compacted()
    }

    /// Ends every watch and refuses new ones.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.watchers.clear();
        state.registered = 0;
        self.ended.cancel();
    }

    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl State {
    fn retain_watchers(&mut self, mut keep: impl FnMut(&BatchSender) -> bool) {
        self.watchers.retain(|_, senders| {
            senders.retain(&mut keep);
            !senders.is_empty()
        });
        self.registered = self.watchers.values().map(Vec::len).sum();
    }
}
