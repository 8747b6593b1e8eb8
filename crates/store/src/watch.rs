//! Delivery of events to one watcher: a queue bounded in bytes, after the replay of history it started with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::{Event, Revision, StoreError, WatchBatch, Watcher};

/// What one event costs beside its key and values, in bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The share of a watcher's buffer, or of the history, that events take.
pub(crate) fn cost_of(events: &[Event]) -> usize {
    events
        .iter()
        .map(|event| {
            let prev = event.prev.as_ref().map_or(0, |prev| prev.value.len());
            EVENT_OVERHEAD_BYTES + event.record.key.len() + event.record.value.len() + prev
        })
        .sum()
}

/// The receiving end of a watch.
#[derive(Debug)]
pub struct BatchReceiver {
    /// History still to be replayed, shared with the store and filtered as it is taken; before `live`.
    replay: VecDeque<Arc<[Event]>>,
    /// Revision that the replay ends at, told by an empty batch if its last events do not say so.
    replay_end: Option<Revision>,
    prefix: Bytes,
    from: Revision,
    live: mpsc::UnboundedReceiver<Delivery>,
    queued_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Delivery {
    cost: usize,
    batch: Result<WatchBatch, StoreError>,
}

impl BatchReceiver {
    /// The next batch in order; `None` once the watch has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`BatchReceiver::recv`], for streams.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchBatch, StoreError>>> {
        if let Some(batch) = self.next_replayed() {
            return Poll::Ready(Some(Ok(batch)));
        }
        self.live.poll_recv(cx).map(|delivery| delivery.map(|delivery| self.take(delivery)))
    }

    /// The next batch if one waits.
    pub fn try_recv(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        if let Some(batch) = self.next_replayed() {
            return Some(Ok(batch));
        }
        self.live.try_recv().ok().map(|delivery| self.take(delivery))
    }

    fn take(&self, delivery: Delivery) -> Result<WatchBatch, StoreError> {
        self.queued_bytes.fetch_sub(delivery.cost, Ordering::AcqRel);
        delivery.batch
    }

    fn next_replayed(&mut self) -> Option<WatchBatch> {
        while let Some(events) = self.replay.pop_front() {
            let Some(last) = events.last() else { continue };
            let revision = last.record.mod_revision;
            if let Some(events) = select(&events, &self.prefix, self.from) {
                self.replay_end = self.replay_end.filter(|end| *end > revision);
                return Some(WatchBatch { events, revision });
            }
        }
        self.replay_end.take().map(|revision| WatchBatch { events: Arc::new([]), revision })
    }
}

/// The events under `prefix` from revision `from` on: the same allocation if that is all of them, `None` if none is.
pub(crate) fn select(events: &Arc<[Event]>, prefix: &[u8], from: Revision) -> Option<Arc<[Event]>> {
    let wanted = |event: &&Event| event.record.mod_revision >= from && event.record.key.starts_with(prefix);
    match events.iter().filter(wanted).count() {
        0 => None,
        count if count == events.len() => Some(events.clone()),
        _ => Some(events.iter().filter(wanted).cloned().collect()),
    }
}

/// The sending end of a watch.
#[derive(Debug)]
pub(crate) struct BatchSender {
    live: mpsc::UnboundedSender<Delivery>,
    queued_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
    from: Revision,
}

/// Opens a watch on `prefix` that begins with `replay` (everything from `from` to `replay_end`).
pub(crate) fn channel(
    prefix: Bytes,
    from: Revision,
    limit_bytes: usize,
    replay: VecDeque<Arc<[Event]>>,
    replay_end: Option<Revision>,
) -> (BatchSender, Watcher) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let batches =
        BatchReceiver { replay, replay_end, prefix, from, live: receiver, queued_bytes: queued_bytes.clone() };
    (BatchSender { live: sender, queued_bytes, limit_bytes, from }, Watcher { batches })
}

impl BatchSender {
    /// Revision the watcher asked to start from.
    pub(crate) fn from(&self) -> Revision {
        self.from
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.live.is_closed()
    }

    /// Resolves when the receiver has gone.
    pub(crate) async fn closed(&self) {
        self.live.closed().await;
    }

    /// Tells the receiver why nothing more comes.
    pub(crate) fn fail(&self, error: StoreError) {
        // The receiver may be gone, which ends the watch as well.
        let _ = self.live.send(Delivery { cost: 0, batch: Err(error) });
    }

    /// Queues a batch; false if the watch is over (receiver gone, or too slow: then it has been told).
    pub(crate) fn send(&self, batch: WatchBatch, cost: usize) -> bool {
        let queued = self.queued_bytes.fetch_add(cost, Ordering::AcqRel);
        // A single batch larger than the buffer still passes while nothing else waits.
        if queued > 0 && queued + cost > self.limit_bytes {
            let error = StoreError::SlowWatcher { limit_bytes: self.limit_bytes };
            // The receiver may be gone, which ends the watch as well.
            let _ = self.live.send(Delivery { cost, batch: Err(error) });
            return false;
        }
        self.live.send(Delivery { cost, batch: Ok(batch) }).is_ok()
    }
}
