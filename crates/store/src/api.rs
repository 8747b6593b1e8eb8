//! The seam: what every backend offers. The contract suite in `tests/` runs on each of them.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::embedded::Export;
use crate::watch::BatchReceiver;

/// Store-wide revision, etcd's meaning; 0 is "before anything was written".
pub type Revision = u64;

/// One live key at the revision it was read at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision that created this incarnation of the key.
    pub create_revision: Revision,
    /// Revision that last wrote it.
    pub mod_revision: Revision,
    /// Writes since creation, 1 after the creating one.
    pub version: u64,
}

/// A condition on one key; all conditions of a [`Txn`] must hold, against the state that includes every
/// transaction ordered before it (durable or not).
#[derive(Clone, Debug)]
pub enum Compare {
    /// The key does not exist.
    Absent(Bytes),
    /// The key exists and was last written at this revision.
    ModRevision(Bytes, Revision),
}

/// One effect of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a value. `ttl` deletes the key (as an ordinary write with its own revision) once it has passed
    /// without another put; `None` keeps it for ever.
    Put { key: Bytes, value: Bytes, ttl: Option<Duration> },
    /// Deletes a key; deleting an absent key is no effect.
    Delete { key: Bytes },
}

impl Op {
    /// The key that the op writes.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// All-or-nothing transaction. An empty `compare` always succeeds. A key stands at most once in `ops`.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Txn {
    /// The first key that two ops write, if there is one.
    pub(crate) fn duplicate_key(&self) -> Option<&Bytes> {
        let mut seen = HashSet::with_capacity(self.ops.len());
        self.ops.iter().map(Op::key).find(|key| !seen.insert(*key))
    }
}

/// What became of a transaction. It is returned only after the outcome is durable.
#[derive(Clone, Debug)]
pub enum TxnResult {
    /// Applied at this revision. If no op had an effect (deletes of absent keys) it is the current revision.
    Committed { revision: Revision },
    /// A compare failed. `current` holds, in the order of `compare`, the durable record of each compared key (`None`: absent).
    Conflict { revision: Revision, current: Vec<Option<Record>> },
}

/// What to read: `start..end` (end exclusive).
#[derive(Clone, Debug)]
pub struct Range {
    pub start: Bytes,
    pub end: Bytes,
    /// At most this many records; 0 is no limit.
    pub limit: usize,
    /// Read as of this revision; `None` is the newest visible one.
    pub revision: Option<Revision>,
    /// Count what is in the range beyond `limit` too (`RangeResult::count`).
    pub count: bool,
}

#[derive(Clone, Debug)]
pub struct RangeResult {
    /// In key order.
    pub records: Vec<Record>,
    /// The revision the range was read at.
    pub revision: Revision,
    /// More records follow the last one returned.
    pub more: bool,
    /// All records of the range if `Range::count` was set, else the number returned.
    pub count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    /// After the change. For a delete: key, and the previous value with `mod_revision` = revision of the delete.
    pub record: Record,
    /// Before the change; `None` if the key was created. Always there for a delete.
    pub prev: Option<Record>,
}

/// Events of one or more revisions, in commit order; a revision is never split over two batches.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub events: std::sync::Arc<[Event]>,
    /// Everything up to and including this revision has been delivered to this watcher.
    pub revision: Revision,
}

#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Keys with this prefix.
    pub prefix: Bytes,
    /// First revision wanted (changes with `mod_revision >= from`).
    pub from: Revision,
    /// Bound of what may wait undelivered; a watcher that exceeds it ends with [`StoreError::SlowWatcher`].
    pub buffer_bytes: usize,
}

/// A live watch: events from `from` on, without gap or repetition, until dropped. Also tells of progress without
/// events (an empty batch whose `revision` has advanced) at least when asked by [`Store::progress`].
#[derive(Debug)]
pub struct Watcher {
    /// `recv().await` gives the next batch; after an error, or when the store closes, it gives `None`.
    pub batches: BatchReceiver,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision was compacted away; `oldest` is the first that can still be read or (for a watch) watched from.
    #[error("revision {requested} has been compacted, the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future, the newest is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("the watcher fell behind by more than its buffer of {limit_bytes} bytes")]
    SlowWatcher { limit_bytes: usize },
    #[error("value of {size} bytes exceeds the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    /// A transaction names this key in two of its ops.
    #[error("the transaction writes the key {} twice", String::from_utf8_lossy(.key))]
    DuplicateKey { key: Bytes },
    /// Another process (or another handle of this one) has the store open.
    #[error("the store is open elsewhere")]
    InUse,
    /// A newer kminik wrote this file.
    #[error("the store's format is version {found}, this kminik reads up to {supported}")]
    NewerFormat { found: u64, supported: u64 },
    #[error("no space left for the store")]
    NoSpace(#[source] std::io::Error),
    #[error("the store's disk failed")]
    Io(#[source] std::io::Error),
    #[error("the store's file is damaged: {detail}")]
    Corrupt { detail: String },
    /// An etcd endpoint that is no address, or whose certificates cannot be used.
    #[error("the datastore endpoint {endpoint:?} cannot be used: {detail}")]
    Endpoint { endpoint: String, detail: String },
    /// No endpoint of the etcd cluster answers. A write that was under way may have had its effect.
    #[error("the datastore cannot be reached: {detail}")]
    Unreachable { detail: String },
    /// The etcd cluster answers, but not as asked: no permission, no space, a fault.
    #[error("the datastore refuses: {detail}")]
    Refused { detail: String },
    #[error("the store is closed")]
    Closed,
}

/// A revisioned key-value store. Cheap to share; all methods may be called concurrently.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether other processes may work with the same data.
    fn is_shared(&self) -> bool {
        false
    }

    /// Runs a transaction; returns once its outcome is durable.
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError>;
    /// Reads one key at the newest visible revision (which is returned too).
    async fn get(&self, key: &[u8]) -> Result<(Revision, Option<Record>), StoreError>;
    /// Reads a range. `Compacted` / `Future` when `Range::revision` cannot be read.
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;
    /// Opens a watch. `Compacted` if `from` is too old; a `from` in the future waits for it.
    async fn watch(&self, options: WatchOptions) -> Result<Watcher, StoreError>;
    /// The newest visible revision.
    async fn revision(&self) -> Result<Revision, StoreError>;
    /// Makes every open watcher report how far it is (see [`Watcher`]).
    async fn progress(&self) -> Result<(), StoreError>;
    /// Forgets the changes up to and including `revision` (live records stay): afterwards the oldest revision that
    /// can be read is `revision`, the oldest a watch can start from is `revision + 1`. Going back is no effect,
    /// `Future` if it has not happened yet.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// Everything as of one revision, as a file that [`restore`](crate::restore) reads. [`StoreError::Refused`] where the
    /// backend has tools of its own for that.
    async fn export(&self) -> Result<Export, StoreError>;
    /// Flushes and refuses further writes.
    async fn close(&self) -> Result<(), StoreError>;
}
