//! The revisioned key-value store under the API server: transactions, ranges, watches, compaction, TTL.
//!
//! Owns: one redb file and the two of its journal (embedded backend), or connections to an etcd cluster. Knows bytes only.
//!
//! **Invariant:** no Kubernetes word appears here: keys and values are bytes.
//! **Invariant:** a revision becomes visible (to reads, ranges, watches) only after it is on disk.
//! **Invariant:** revisions never repeat, also not after a crash.
//!
//! Revisions are etcd's: one store-wide counter, every successful write transaction adds one,
//! a record's `mod_revision` is the revision of the transaction that wrote it.
//!
//! ```no_run
//! # async fn example() -> Result<(), kminik_store::StoreError> {
//! use kminik_store::{EmbeddedStore, Op, Options, Store, Txn};
//! let store = EmbeddedStore::open("/var/lib/example/store.redb".as_ref(), Options::default())?;
//! let put = Op::Put { key: "a".into(), value: "1".into(), ttl: None };
//! store.txn(Txn { compare: Vec::new(), ops: vec![put] }).await?;
//! store.close().await
//! # }
//! ```

mod api;
mod embedded;
mod etcd;
mod watch;

pub use api::{
    Compare, Event, EventKind, Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchBatch,
    WatchOptions, Watcher,
};
pub use embedded::{EmbeddedStore, Export, Options, SnapshotError, SnapshotInfo, inspect, restore};
pub use etcd::{EtcdOptions, EtcdStore};
pub use watch::BatchReceiver;
