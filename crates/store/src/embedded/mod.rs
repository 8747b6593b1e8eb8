//! The embedded backend: reads from memory, survives in a redb file and the journal beside it.
//!
//! ```text
//!  txn ──► queue ──► commit thread: batch ─► decide on `pending` ─► journal, fsync ─► publish ─► answer
//!  get, range, watch ──► hub: snapshot + log + watchers  ◄─────────────│───────────────┘
//!                                                                      └─ many at a time ─► tables
//! ```

mod commit;
mod disk;
mod durable;
mod export;
mod hub;
mod journal;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use self::commit::{Committer, Expiries, Reply, Request};
use self::disk::Disk;
use self::durable::{Durable, Opened, journal_files};
pub use self::export::{Export, SnapshotError, SnapshotInfo, inspect, restore};
use self::hub::Hub;
use crate::api::{Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchOptions, Watcher};

/// Bounds of an [`EmbeddedStore`]; the defaults suit a cluster of some hundred nodes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest value accepted, in bytes.
    pub value_limit_bytes: usize,
    /// What transactions waiting for the commit thread may hold; further ones wait for room.
    pub queue_bytes: usize,
    /// What the changes kept for watches and old revisions may hold; beyond it the oldest are compacted away.
    pub history_bytes: usize,
    /// What half of the journal holds before it goes to the tables; a start after a crash has so much to catch up on, twice.
    pub journal_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { value_limit_bytes: 3 << 19, queue_bytes: 64 << 20, history_bytes: 128 << 20, journal_bytes: 8 << 20 }
    }
}

/// What a transaction costs in the queue beside its keys and values, in bytes.
const TXN_OVERHEAD_BYTES: usize = 256;

/// The store in one file. Dropping it ends the commit thread after what was queued; [`Store::close`] also waits for it.
#[derive(Debug)]
pub struct EmbeddedStore {
    requests: mpsc::Sender<Request>,
    hub: Arc<Hub>,
    queue: Arc<Semaphore>,
    options: Options,
}

impl EmbeddedStore {
    /// Opens the store at `path`, or creates it (with its directory). Blocks while it reads the file. When the disk is
    /// full, writes fail with [`StoreError::NoSpace`] and reads go on; writes go on once there is space again.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NewerFormat`], [`StoreError::Corrupt`], or the disk's own failure.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let disk = Disk::open(path)?;
        Self::start(Durable::open(disk, journal_files(path)?, options.journal_bytes)?, Some(path.to_owned()), options)
    }

    /// As [`EmbeddedStore::open`] on any storage that redb can use, an empty one to begin with, and such for the journal.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_on(
        tables: impl redb::StorageBackend,
        journal: [Box<dyn redb::StorageBackend>; 2],
        options: Options,
    ) -> Result<Self, StoreError> {
        Self::start(Durable::open(Disk::with_backend(tables)?, journal, options.journal_bytes)?, None, options)
    }

    fn start(opened: Opened, path: Option<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let Opened { loaded, durable } = opened;
        let durable = match durable {
            Err(error) if path.is_none() => return Err(error),
            durable => durable.ok(),
        };
        let (sender, requests) = mpsc::channel();
        let hub = Arc::new(Hub::new(loaded.snapshot.clone(), loaded.log));
        let committer = Committer {
            requests,
            durable,
            path,
            hub: hub.clone(),
            pending: loaded.snapshot,
            expiries: Expiries::restore(loaded.expiries),
            retry_after: std::time::Instant::now(),
            history_bytes: options.history_bytes,
            journal_bytes: options.journal_bytes,
        };
        std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || committer.run())
            .map_err(StoreError::Io)?;
        let queue = Arc::new(Semaphore::new(options.queue_bytes.min(Semaphore::MAX_PERMITS)));
        Ok(EmbeddedStore { requests: sender, hub, queue, options })
    }

    /// Waits until the store writes no more: it was closed, or its disk failed. After a failure it has to be opened again.
    pub async fn ended(&self) {
        self.hub.ended().cancelled().await;
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Checks a transaction's shape and gives its size in the queue, in bytes.
    fn admit(&self, txn: &Txn) -> Result<usize, StoreError> {
        let limit = self.options.value_limit_bytes;
        let mut size = TXN_OVERHEAD_BYTES;
        for op in &txn.ops {
            let value = match op {
                Op::Put { value, .. } => value.len(),
                Op::Delete { .. } => 0,
            };
            if value > limit || op.key().len() > limit {
                return Err(StoreError::TooLarge { size: value.max(op.key().len()), limit });
            }
            size += op.key().len() + value;
        }
        match txn.duplicate_key() {
            Some(key) => Err(StoreError::DuplicateKey { key: key.clone() }),
            None => Ok(size),
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let size = self.admit(&txn)?.min(self.options.queue_bytes);
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let permit = self.queue.clone().acquire_many_owned(permits).await.map_err(|_| StoreError::Closed)?;
        self.ask(|reply| Request::Txn { txn, reply, permit }).await
    }

    async fn get(&self, key: &[u8]) -> Result<(Revision, Option<Record>), StoreError> {
        let snapshot = self.hub.snapshot();
        Ok((snapshot.revision, snapshot.get(key)))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.hub.range(&range)
    }

    async fn watch(&self, options: WatchOptions) -> Result<Watcher, StoreError> {
        self.hub.watch(options)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.hub.snapshot().revision)
    }

    async fn progress(&self) -> Result<(), StoreError> {
        self.hub.progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }

    async fn export(&self) -> Result<Export, StoreError> {
        self.ask(|reply| Request::Export { reply }).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Close { reply }).await
    }
}
