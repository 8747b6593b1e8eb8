//! A store that counts and times what it is asked, under the names upstream has for etcd.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use kminik_store::{
    Export, Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchOptions, Watcher,
};
use parking_lot::Mutex;

use super::{Durations, header, line};
use crate::storage::key;

/// What is asked of the store, in upstream's words.
type Operation = &'static str;

#[derive(Debug, Default)]
struct Series {
    durations: Durations,
    requests: u64,
    errors: u64,
}

/// Counters by operation and storage prefix (`core/pods`; empty for what concerns no resource).
#[derive(Debug, Default)]
pub(crate) struct StoreMetrics(Mutex<HashMap<(Operation, String), Series>>);

impl StoreMetrics {
    fn count(&self, operation: Operation, key: &[u8], started: Instant, failed: bool) {
        let prefix = key::split(key).map(|(prefix, _)| prefix).unwrap_or_default();
        let mut series = self.0.lock();
        let series = series.entry((operation, prefix.to_owned())).or_default();
        series.durations.add(started.elapsed());
        series.requests += 1;
        series.errors += u64::from(failed);
    }

    pub(super) fn write(&self, out: &mut String) {
        let series = self.0.lock();
        let mut sorted: Vec<_> = series.iter().collect();
        sorted.sort_by_key(|(key, _)| *key);
        let labels = |(operation, prefix): &(Operation, String)| {
            let (group, resource) = prefix.split_once('/').unwrap_or_default();
            let group = if group == "core" { "" } else { group };
            format!("group=\"{group}\",operation=\"{operation}\",resource=\"{resource}\"")
        };
        let name = "etcd_request_duration_seconds";
        header(out, name, "histogram", "Etcd request latency in seconds for each operation and object type.");
        for (key, series) in &sorted {
            series.durations.write(out, name, &labels(key));
        }
        header(out, "etcd_requests_total", "counter", "Etcd request counts for each operation and object type.");
        for (key, series) in &sorted {
            line(out, format_args!("etcd_requests_total{{{}}} {}", labels(key), series.requests));
        }
        header(
            out,
            "etcd_request_errors_total",
            "counter",
            "Etcd failed request counts for each operation and object type.",
        );
        for (key, series) in sorted.iter().filter(|(_, series)| series.errors > 0) {
            line(out, format_args!("etcd_request_errors_total{{{}}} {}", labels(key), series.errors));
        }
    }
}

/// The store behind it, counted.
pub(crate) struct Metered {
    inner: Arc<dyn Store>,
    metrics: Arc<StoreMetrics>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: Arc<StoreMetrics>) -> Self {
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
        self.metrics.count(operation, &key, started, result.is_err());
        result
    }

    async fn get(&self, key: &[u8]) -> Result<(Revision, Option<Record>), StoreError> {
        let started = Instant::now();
        let result = self.inner.get(key).await;
        self.metrics.count("get", key, started, result.is_err());
        result
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let (started, start) = (Instant::now(), range.start.clone());
        let result = self.inner.range(range).await;
        self.metrics.count("list", &start, started, result.is_err());
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
