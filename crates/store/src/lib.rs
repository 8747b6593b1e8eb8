//! The revisioned key-value store under the API server: transactions, ranges, watches, compaction, TTL.
//!
//! Owns: one redb file (embedded backend). Knows bytes only.
//!
//! **Invariant:** no Kubernetes word appears here: keys and values are bytes.
//! **Invariant:** a revision becomes visible (to reads, ranges, watches) only after it is on disk.
//! **Invariant:** revisions never repeat, also not after a crash.
//!
//! Revisions are etcd's: one store-wide counter, every successful write transaction adds one,
//! a record's `mod_revision` is the revision of the transaction that wrote it.

mod api;

pub use api::{
    Compare, Event, EventKind, Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchBatch,
    WatchOptions, Watcher,
};
