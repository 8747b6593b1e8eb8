//! One watch: etcd's stream turned into batches, opened again where it broke off.
//!
//! Every change of the whole key space is asked for, and what is not under the watcher's prefix only moves its revision.
//! So a watcher always knows how far it is, and needs no progress notification: those of etcd before 3.4.31 and 3.5.13
//! may overtake events that are still to come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use kminik_base::backoff::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::proto::{self, WATCH, WatchCreateRequest, WatchRequest, WatchResponse};
use super::transport::Transport;
use super::{number, record, revision_of};
use crate::api::{Event, EventKind, Record, Revision, StoreError, WatchBatch};
use crate::watch::{BatchSender, cost_of};

/// Pauses before a stream that broke is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The first and the last key there can be, as etcd writes "all keys".
const EVERY_KEY: &[u8] = b"\0";

/// What one watch task works with.
pub(super) struct Feed {
    pub(super) transport: Arc<Transport>,
    pub(super) prefix: Bytes,
    pub(super) sender: BatchSender,
    /// Everything up to this revision has been delivered.
    pub(super) delivered: Revision,
    /// The newest revision that the watcher has been told of.
    pub(super) told: Revision,
    /// The revision by which somebody wants to hear how far the watcher is.
    pub(super) wanted: watch::Receiver<Revision>,
    pub(super) closed: CancellationToken,
}

/// Why a stream ended.
enum End {
    /// The watch is over.
    Over,
    /// It can be opened again.
    Broken(String),
}

impl Feed {
    /// Delivers until the watcher goes away, the store is closed, or history is gone.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let closed = self.closed.clone();
            let end = tokio::select! {
                () = closed.cancelled() => return,
                end = self.stream(&mut backoff) => end,
            };
            match end {
                End::Over => return,
                End::Broken(reason) => tracing::warn!(reason, "the datastore's watch broke and is opened again"),
            }
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = self.sender.closed() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    async fn stream(&mut self, backoff: &mut Backoff) -> End {
        let create = WatchCreateRequest {
            key: Bytes::from_static(EVERY_KEY),
            range_end: Bytes::from_static(EVERY_KEY),
            // Beginning with what is known, so that etcd says when something behind it is compacted away: it would give
            // the changes of the compacted revision itself, but without its deletions.
            start_revision: number(self.delivered.max(1)),
            prev_kv: true,
            fragment: true,
        };
        // The sending side stays open for as long as the stream is read.
        let messages = futures::stream::iter([WatchRequest { create: Some(create) }]).chain(futures::stream::pending());
        let (turn, mut stream) = match self.transport.stream(WATCH, messages).await {
            Ok(opened) => opened,
            Err(status) => return End::Broken(status.message().to_owned()),
        };
        let end = self.read(&mut stream, backoff).await;
        if matches!(end, End::Broken(_)) {
            self.transport.failed(turn);
        }
        end
    }

    async fn read(&mut self, stream: &mut Streaming<WatchResponse>, backoff: &mut Backoff) -> End {
        let mut fragments: Vec<proto::Event> = Vec::new();
        loop {
            let wanted = async {
                // An error means that the store was dropped: its token is cancelled, too.
                if self.wanted.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let message = tokio::select! {
                message = stream.message() => message,
                () = wanted => {
                    if !self.report() {
                        return End::Over;
                    }
                    continue;
                }
                () = self.sender.closed() => return End::Over,
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return End::Broken("the server ended the stream".to_owned()),
                Err(status) => return End::Broken(status.message().to_owned()),
            };
            if response.compact_revision > 0 {
                let oldest = revision_of(response.compact_revision) + 1;
                return self.fail(StoreError::Compacted { requested: self.delivered + 1, oldest });
            }
            if response.canceled {
                return End::Broken(response.cancel_reason);
            }
            backoff.reset();
            fragments.extend(response.events);
            if response.fragment || fragments.is_empty() {
                continue;
            }
            if let Some(end) = self.deliver(std::mem::take(&mut fragments)) {
                return end;
            }
        }
    }

    /// Passes on the events of whole revisions.
    fn deliver(&mut self, events: Vec<proto::Event>) -> Option<End> {
        let mut changes = Vec::with_capacity(events.len());
        let mut newest = self.delivered;
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let revision = revision_of(kv.mod_revision);
            newest = newest.max(revision);
            // What stood in an earlier stream before it broke is not told twice.
            if revision <= self.delivered || !kv.key.starts_with(&self.prefix) {
                continue;
            }
            match change(event) {
                Some(change) => changes.push(change),
                // What was there before is compacted away: the watcher has to read everything anew.
                None => {
                    let error = StoreError::Compacted { requested: revision, oldest: newest + 1 };
                    return Some(self.fail(error));
                }
            }
        }
        if newest <= self.delivered {
            return None;
        }
        self.delivered = newest;
        if changes.is_empty() {
            // Not every foreign change is worth waking the watcher; one that somebody waits for is.
            return (self.told < *self.wanted.borrow() && !self.report()).then_some(End::Over);
        }
        self.told = newest;
        let cost = cost_of(&changes);
        (!self.sender.send(WatchBatch { events: changes.into(), revision: newest }, cost)).then_some(End::Over)
    }

    /// Tells how far the watcher is, if that is as far as wanted; false if it has gone.
    fn report(&mut self) -> bool {
        let wanted = *self.wanted.borrow_and_update();
        if self.delivered < wanted {
            return true;
        }
        self.told = self.delivered;
        self.sender.send(WatchBatch { events: Arc::new([]), revision: self.delivered }, 0)
    }

    fn fail(&self, error: StoreError) -> End {
        self.sender.fail(error);
        End::Over
    }
}

/// An event as the store tells it; `None` if it lacks what was before.
fn change(event: proto::Event) -> Option<Event> {
    let now = event.kv?;
    let prev: Option<Record> = event.prev_kv.map(record);
    if event.kind == proto::EventType::Delete as i32 {
        let prev = prev?;
        let record = Record { mod_revision: revision_of(now.mod_revision), ..prev.clone() };
        return Some(Event { kind: EventKind::Delete, record, prev: Some(prev) });
    }
    let created = now.create_revision == now.mod_revision;
    (created || prev.is_some()).then(|| Event { kind: EventKind::Put, record: record(now), prev })
}
