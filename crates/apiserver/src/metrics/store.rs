//! A store that counts and times what it is asked, under the names upstream has for etcd.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use kminik_store::{
    Export, Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchOptions, Watcher,
};

use super::family::{Counter, Histogram};
use super::{Metrics, group_resource};
use crate::storage::key;

/// What is asked of the store, in upstream's words.
type Operation = &'static str;

/// The series of one operation on one resource.
#[derive(Debug)]
pub(super) struct Stored {
    duration: Arc<Histogram>,
    requests: Arc<Counter>,
    errors: OnceLock<Arc<Counter>>,
}

impl Metrics {
    fn asked(&self, operation: Operation, key: &[u8], started: Instant, failed: bool) {
        let prefix = key::split(key).map(|(prefix, _)| prefix).unwrap_or_default();
        let (group, resource) = group_resource(prefix);
        let storage = &self.table.storage;
        let labels = [group, operation, resource];
        let stored = self.stored.get([operation, prefix], |_| Stored {
            duration: storage.duration.with(labels),
            requests: storage.requests.with(labels),
            errors: OnceLock::new(),
        });
        stored.duration.took(started.elapsed());
        stored.requests.inc();
        if failed {
            stored.errors.get_or_init(|| storage.errors.with(labels)).inc();
        }
    }
}

/// The store behind it, counted.
pub(crate) struct Metered {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Metered { inner, metrics }
    }
}

#[async_trait]
impl Store for Metered {
    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let operation = match (txn.ops.first(), txn.compare.first()) {
            (Some(Op::Delete { .. }), _) => "delete",
            (_, Some(kminik_store::Compare::ModRevision(..))) => "update",
            _ => "create",
        };
        let key = txn.ops.first().map(|op| op.key().clone()).unwrap_or_default();
        let started = Instant::now();
        let result = self.inner.txn(txn).await;
        self.metrics.asked(operation, &key, started, result.is_err());
        result
    }

    async fn get(&self, key: &[u8]) -> Result<(Revision, Option<Record>), StoreError> {
        let started = Instant::now();
        let result = self.inner.get(key).await;
        self.metrics.asked("get", key, started, result.is_err());
        result
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let (started, start) = (Instant::now(), range.start.clone());
        let result = self.inner.range(range).await;
        self.metrics.asked("list", &start, started, result.is_err());
        result
    }

    async fn watch(&self, options: WatchOptions) -> Result<Watcher, StoreError> {
        self.inner.watch(options).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn progress(&self) -> Result<(), StoreError> {
        self.inner.progress().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn export(&self) -> Result<Export, StoreError> {
        self.inner.export().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
