//! The commit thread: takes what waits as one batch, decides it against the state that the batch before it left,
//! has it written, and only then publishes and answers.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::disk::{Expiry, WriteBatch};
use super::durable::{Durable, journal_files};
use super::export::Export;
use super::hub::Hub;
use super::state::Snapshot;
use crate::api::{Compare, Op, Revision, StoreError, Txn, TxnResult};

/// Pause before a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// A batch takes no further transaction once it holds this many.
const BATCH_TRANSACTIONS: usize = 4096;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the commit thread is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// The permit is this transaction's share of the queue, in bytes.
    Txn {
        txn: Txn,
        reply: Reply<TxnResult>,
        permit: OwnedSemaphorePermit,
    },
    Compact {
        revision: Revision,
        reply: Reply<()>,
    },
    Export {
        reply: Reply<Export>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Request {
    /// Answers with a failure. A caller that has gone does not mind.
    fn refuse(self, error: &StoreError) {
        match self {
            Request::Txn { reply, .. } => drop(reply.send(Err(repeat(error)))),
            Request::Export { reply } => drop(reply.send(Err(repeat(error)))),
            Request::Compact { reply, .. } | Request::Close { reply } => drop(reply.send(Err(repeat(error)))),
        }
    }
}

/// The commit thread's own state.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) requests: Receiver<Request>,
    /// `None` while the files cannot be written; that of the tables is made anew before the next batch.
    pub(crate) durable: Option<Durable>,
    /// Where the tables' file is, if it can be made anew.
    pub(crate) path: Option<PathBuf>,
    pub(crate) hub: Arc<Hub>,
    /// The state after everything decided so far. Ahead of the hub only while a batch is being written.
    pub(crate) pending: Snapshot,
    pub(crate) expiries: Expiries,
    /// While the disk is full: when the file may be tried again, and keys may expire again.
    pub(crate) retry_after: Instant,
    pub(crate) history_bytes: usize,
    pub(crate) journal_bytes: usize,
}

struct CloseOnDrop(Arc<Hub>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Answers held back until the batch is on disk.
#[derive(Debug, Default)]
struct Answers {
    txns: Vec<(Reply<TxnResult>, TxnResult, OwnedSemaphorePermit)>,
    compactions: Vec<Reply<()>>,
    close: Option<Reply<()>>,
}

impl Committer {
    /// Serves until the store is closed or dropped, or its disk fails.
    pub(crate) fn run(mut self) {
        // Also when this thread panics: nobody may wait for a store that does not write any more.
        let _ended = CloseOnDrop(self.hub.clone());
        let mut close = None;
        while close.is_none() {
            let first = match self.expiries.next_due() {
                None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    let due = due.max(self.retry_after);
                    self.requests.recv_timeout(due.saturating_duration_since(Instant::now()))
                }
            };
            let first = match first {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match self.batch(first) {
                Ok(reply) => close = reply,
                Err(error @ StoreError::NoSpace(_)) if self.path.is_some() => {
                    let now = Instant::now();
                    if now >= self.retry_after {
                        tracing::error!(error = &error as &dyn std::error::Error, "the store has no space");
                        self.retry_after = now + FULL_PAUSE;
                    }
                    self.pending = self.hub.snapshot();
                    self.durable = None;
                }
                Err(error) => {
                    // What the failed write left on the disk is unknown, so nothing more may be decided on top of it.
                    tracing::error!(error = &error as &dyn std::error::Error, "the store stops writing");
                    return self.refuse(&error);
                }
            }
        }
        self.hub.close();
        let closed = self.durable.map_or(Ok(()), |durable| durable.close(&self.pending));
        match close {
            // Nobody waits any more if the receiver is gone.
            Some(reply) => drop(reply.send(closed)),
            None => {
                if let Err(error) = closed {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the store's file did not close cleanly");
                }
            }
        }
    }

    /// Answers whatever is asked with the failure that ended the writing, until the store is dropped.
    fn refuse(self, error: &StoreError) {
        self.hub.close();
        while let Ok(request) = self.requests.recv() {
            request.refuse(error);
        }
    }

    /// Decides, writes, publishes and answers one batch; gives the reply of a close request among it.
    fn batch(&mut self, first: Option<Request>) -> Result<Option<Reply<()>>, StoreError> {
        if let Some(Request::Close { reply }) = first {
            // Also on a full disk: everything acknowledged is in the file.
            return Ok(Some(reply));
        }
        if let Err(error) = self.mend() {
            if let Some(request) = first {
                request.refuse(&error);
            }
            return Err(error);
        }
        let mut batch = WriteBatch::default();
        let mut answers = Answers::default();
        let mut next = first;
        while let Some(request) = next.take() {
            self.decide(request, &mut batch, &mut answers);
            if answers.close.is_none() && answers.txns.len() < BATCH_TRANSACTIONS {
                next = self.requests.try_recv().ok();
            }
        }
        let now = Instant::now();
        let due = if now < self.retry_after { Vec::new() } else { self.expiries.take_due(now) };
        for key in due {
            let revision = self.pending.revision + 1;
            if let Some(event) = self.pending.delete(&key, revision) {
                self.pending.revision = revision;
                batch.events.push(event);
            }
        }
        if batch.compact.is_none() {
            batch.compact = self.hub.log_excess(self.history_bytes);
        }
        if !batch.events.is_empty() || batch.compact.is_some() {
            batch.revision = self.pending.revision;
            if let Err(error) = self.write(&batch) {
                answers.fail(&error);
                self.expiries.roll_back();
                return Err(error);
            }
            self.expiries.journal.clear();
            self.hub.publish(self.pending.clone(), batch.events.into(), batch.compact);
        }
        Ok(answers.send())
    }

    /// Makes the file anew if it was given up; not more often than the pause allows, for that writes everything.
    fn mend(&mut self) -> Result<(), StoreError> {
        if let (None, Some(path)) = (&self.durable, &self.path) {
            if Instant::now() < self.retry_after {
                return Err(StoreError::NoSpace(std::io::ErrorKind::StorageFull.into()));
            }
            let disk = self.hub.replace_file(path, self.expiries.remaining())?;
            self.durable = Some(Durable::begin(disk, journal_files(path)?, self.journal_bytes)?);
            tracing::info!("the store's file was made anew");
        }
        Ok(())
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.durable.as_mut().map_or(Err(StoreError::Closed), |durable| durable.write(batch, &self.pending))
    }

    fn decide(&mut self, request: Request, batch: &mut WriteBatch, answers: &mut Answers) {
        match request {
            Request::Txn { txn, reply, permit } => {
                let result = self.apply(txn, batch);
                answers.txns.push((reply, result, permit));
            }
            Request::Compact { revision, reply } => {
                let current = self.hub.snapshot().revision;
                if revision > current {
                    drop(reply.send(Err(StoreError::Future { requested: revision, current })));
                    return;
                }
                if revision > self.hub.compacted() {
                    batch.compact = batch.compact.max(Some(revision));
                }
                answers.compactions.push(reply);
            }
            Request::Export { reply } => {
                // What is visible is on disk; what this batch decides is not in it yet, but may be in the expiries.
                drop(reply.send(Ok(Export::new(self.hub.snapshot(), self.expiries.remaining()))));
            }
            Request::Close { reply } => answers.close = Some(reply),
        }
    }

    fn apply(&mut self, txn: Txn, batch: &mut WriteBatch) -> TxnResult {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.pending.map.contains_key(key),
            Compare::ModRevision(key, revision) => {
                self.pending.map.get(key).is_some_and(|slot| slot.mod_revision == *revision)
            }
        };
        if !txn.compare.iter().all(holds) {
            let current = txn.compare.iter().map(|compare| match compare {
                Compare::Absent(key) | Compare::ModRevision(key, _) => self.pending.get(key),
            });
            return TxnResult::Conflict { revision: self.pending.revision, current: current.collect() };
        }
        let revision = self.pending.revision + 1;
        let before = batch.events.len();
        for op in txn.ops {
            match op {
                Op::Put { key, value, ttl } => {
                    let event = self.pending.put(key, value, revision);
                    let key = event.record.key.clone();
                    self.expiries.forget(&key);
                    batch.expiries.remove(&key);
                    if let Some(ttl) = ttl {
                        let expiry = Expiry { ttl, at_unix_ms: unix_ms().saturating_add(millis(ttl)) };
                        self.expiries.set(key.clone(), Instant::now().checked_add(ttl));
                        batch.expiries.insert(key, expiry);
                    }
                    batch.events.push(event);
                }
                Op::Delete { key } => {
                    self.expiries.forget(&key);
                    batch.events.extend(self.pending.delete(&key, revision));
                }
            }
        }
        if batch.events.len() > before {
            self.pending.revision = revision;
        }
        TxnResult::Committed { revision: self.pending.revision }
    }
}

impl Answers {
    fn send(self) -> Option<Reply<()>> {
        // A caller that stopped waiting has dropped its receiver; the outcome stands all the same.
        for (reply, result, _) in self.txns {
            drop(reply.send(Ok(result)));
        }
        for reply in self.compactions {
            drop(reply.send(Ok(())));
        }
        self.close
    }

    /// Tells everyone that the batch failed, each with its own copy of the reason.
    fn fail(&mut self, error: &StoreError) {
        for (reply, _, _) in self.txns.drain(..) {
            drop(reply.send(Err(repeat(error))));
        }
        for reply in self.compactions.drain(..).chain(self.close.take()) {
            drop(reply.send(Err(repeat(error))));
        }
    }
}

/// The same failure for another caller (I/O errors cannot be cloned).
fn repeat(error: &StoreError) -> StoreError {
    let again = |error: &std::io::Error| match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    };
    match error {
        StoreError::NoSpace(error) => StoreError::NoSpace(again(error)),
        StoreError::Io(error) => StoreError::Io(again(error)),
        error => StoreError::Corrupt { detail: error.to_string() },
    }
}

/// When keys with a time to live are due, by this process's monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    by_time: BTreeSet<(Instant, Bytes)>,
    by_key: HashMap<Bytes, Instant>,
    /// What the keys had before the batch that is being decided, in order.
    journal: Vec<(Bytes, Option<Instant>)>,
}

impl Expiries {
    /// Takes over what the file held. The remaining time is never more than the whole, should the clock have gone back.
    pub(crate) fn restore(saved: Vec<(Bytes, Expiry)>) -> Self {
        let (now, now_unix_ms) = (Instant::now(), unix_ms());
        let mut expiries = Expiries::default();
        for (key, expiry) in saved {
            let remaining = Duration::from_millis(expiry.at_unix_ms.saturating_sub(now_unix_ms)).min(expiry.ttl);
            expiries.put(&key, now.checked_add(remaining));
        }
        expiries
    }

    /// `None` is an end so far away that no clock here can tell it.
    fn set(&mut self, key: Bytes, due: Option<Instant>) {
        let before = self.put(&key, due);
        self.journal.push((key, before));
    }

    fn forget(&mut self, key: &Bytes) {
        if self.by_key.contains_key(key) {
            let before = self.put(key, None);
            self.journal.push((key.clone(), before));
        }
    }

    /// Undoes everything since the journal was cleared.
    fn roll_back(&mut self) {
        while let Some((key, before)) = self.journal.pop() {
            self.put(&key, before);
        }
    }

    /// Gives the key this end, or none; tells what it had.
    fn put(&mut self, key: &Bytes, due: Option<Instant>) -> Option<Instant> {
        let before = self.by_key.remove(key);
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.by_time.insert((due, key.clone()));
            self.by_key.insert(key.clone(), due);
        }
        before
    }

    /// What is left of each time to live.
    fn remaining(&self) -> super::disk::Expiries {
        let (now, now_unix_ms) = (Instant::now(), unix_ms());
        let left = |(key, due): (&Bytes, &Instant)| {
            let ttl = due.saturating_duration_since(now);
            (key.clone(), Expiry { ttl, at_unix_ms: now_unix_ms.saturating_add(millis(ttl)) })
        };
        self.by_key.iter().map(left).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Vec<Bytes> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        let keys: Vec<Bytes> = due.map(|(_, key)| key.clone()).collect();
        keys.iter().for_each(|key| self.forget(key));
        keys
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
