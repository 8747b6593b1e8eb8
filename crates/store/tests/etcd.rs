//! The etcd backend against the contract, on a real etcd, and what only a backend over a network has to bear.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod contract;
#[path = "support/etcd.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use contract::{Backend, contract_suite};
use kminik_store::{
    EtcdOptions, EtcdStore, Op, Range, Revision, Store, StoreError, Txn, TxnResult, WatchOptions, Watcher,
};
use server::Etcd;

impl Backend for Etcd {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }
}

contract_suite!(Etcd::start());

mod over_tls {
    use super::{Etcd, contract, contract_suite};

    contract_suite!(Etcd::start_tls());
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("the store answers in time")
}

async fn write(store: &dyn Store, key: &str, value: Vec<u8>) -> Revision {
    let op = Op::Put { key: key.to_owned().into(), value: value.into(), ttl: None };
    match soon(store.txn(Txn { compare: Vec::new(), ops: vec![op] })).await.unwrap() {
        TxnResult::Committed { revision } => revision,
        conflict => panic!("no condition can fail here: {conflict:?}"),
    }
}

async fn watch(store: &dyn Store, from: Revision) -> Watcher {
    soon(store.watch(WatchOptions { prefix: "/w/".into(), from, buffer_bytes: 1 << 30 })).await.unwrap()
}

async fn next_revision(watcher: &mut Watcher) -> Revision {
    loop {
        let batch = soon(watcher.batches.recv()).await.expect("the watch goes on").unwrap();
        if !batch.events.is_empty() {
            return batch.revision;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_open_a_closed_cluster() {
    let etcd = Etcd::start_tls();
    let store = etcd.store();
    let written = write(&store, "/w/a", b"1".to_vec()).await;
    assert_eq!(next_revision(&mut watch(&store, written).await).await, written);

    let without = EtcdStore::new(&EtcdOptions { client_pem: None, ..etcd.options() }).unwrap();
    let refused = soon(without.revision()).await;
    assert!(matches!(refused, Err(StoreError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_passed_over() {
    let etcd = Etcd::start();
    let endpoints = vec!["http://127.0.0.1:1".to_owned(), etcd.endpoint()];
    let store = EtcdStore::new(&EtcdOptions { endpoints, ..Default::default() }).unwrap();
    // Also a write: what was never sent may be sent again.
    let written = write(&store, "/w/a", b"1".to_vec()).await;
    assert_eq!(next_revision(&mut watch(&store, written).await).await, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_the_server_was_away() {
    let mut etcd = Etcd::start();
    let store = etcd.store();
    let first = write(&store, "/w/a", b"1".to_vec()).await;
    let mut watcher = watch(&store, first).await;
    assert_eq!(next_revision(&mut watcher).await, first);
    etcd.kill();
    let gone = soon(store.get(b"/w/a")).await;
    assert!(matches!(gone, Err(StoreError::Unreachable { .. })), "{gone:?}");
    etcd.resume();
    // Another client's writes, so that it is the watch itself that has to find back.
    let other = etcd.store();
    let mut written = Vec::new();
    for _ in 0..20 {
        written.push(write(&other, "/w/a", b"2".to_vec()).await);
    }
    let mut seen = Vec::new();
    while seen.len() < written.len() {
        let batch = soon(watcher.batches.recv()).await.expect("the watch goes on").unwrap();
        seen.extend(batch.events.iter().map(|event| event.record.mod_revision));
    }
    assert_eq!(seen, written, "every change once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_too_long_is_told() {
    let mut etcd = Etcd::start();
    let store = etcd.store();
    let first = write(&store, "/w/a", b"1".to_vec()).await;
    let mut watcher = watch(&store, first).await;
    assert_eq!(next_revision(&mut watcher).await, first);
    etcd.kill();
    // The watch tries again while another client writes and compacts: hold it off by not letting it connect first.
    etcd.resume();
    let other = etcd.store();
    let mut newest = first;
    for _ in 0..5 {
        newest = write(&other, "/w/a", b"2".to_vec()).await;
    }
    soon(other.compact(newest)).await.unwrap();
    write(&other, "/w/a", b"3".to_vec()).await;
    let mut last = first;
    loop {
        match soon(watcher.batches.recv()).await.expect("the watch goes on or tells why not") {
            // It was back before the compaction: then nothing may be missing.
            Ok(batch) => {
                for event in batch.events.iter() {
                    assert_eq!(event.record.mod_revision, last + 1);
                    last += 1;
                }
                if last > newest {
                    return;
                }
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Compacted { oldest, .. } if oldest == newest + 1), "{error}");
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_histories_and_large_ranges_arrive_whole() {
    let etcd = Etcd::start();
    let store = etcd.store();
    let start = soon(store.revision()).await.unwrap();
    let count = 60;
    for n in 0..count {
        write(&store, &format!("/w/{n:03}"), vec![b'v'; 1 << 19]).await;
    }
    // 30 MB of changes in few revisions: the server sends them in fragments.
    let mut watcher = watch(&store, start + 1).await;
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = soon(watcher.batches.recv()).await.expect("the watch goes on").unwrap();
        seen.extend(batch.events.iter().map(|event| (event.record.mod_revision, event.record.value.len())));
    }
    let expected: Vec<_> = (start + 1..).zip(std::iter::repeat_n(1 << 19, count)).collect();
    assert_eq!(seen, expected);
    // More than one page, one of them shrunk.
    for n in 0..500 {
        write(&store, &format!("/w/s{n:03}"), b"s".to_vec()).await;
    }
    let range = Range { start: "/w/".into(), end: "/w0".into(), limit: 0, revision: None, count: true };
    let all = soon(store.range(range.clone())).await.unwrap();
    assert_eq!((all.records.len(), all.count, all.more), (560, 560, false));
    assert!(all.records.is_sorted_by(|a, b| a.key < b.key));
    let some = soon(store.range(Range { limit: 300, ..range })).await.unwrap();
    assert_eq!((some.records.len(), some.count, some.more), (300, 560, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_endpoint_is_named() {
    let options = EtcdOptions { endpoints: vec!["not an address".into()], ..Default::default() };
    let bad = EtcdStore::new(&options);
    assert!(matches!(&bad, Err(StoreError::Endpoint { endpoint, .. }) if endpoint == "not an address"), "{bad:?}");
    let options = EtcdOptions { endpoints: vec!["http://127.0.0.1:1".into()], ..Default::default() };
    let dead = soon(EtcdStore::new(&options).unwrap().revision()).await;
    assert!(matches!(&dead, Err(StoreError::Unreachable { detail }) if detail.contains("refused")), "{dead:?}");
}
