//! Snapshots: consistent while the store is written to, whole or refused, and no revision comes twice after a restore.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kminik_store::{
    EmbeddedStore, Op, Options, Range, Revision, SnapshotError, Store, StoreError, Txn, TxnResult, WatchOptions,
    inspect, restore,
};

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Options::default()).unwrap()
}

async fn commit(store: &EmbeddedStore, ops: Vec<Op>) -> Revision {
    match store.txn(Txn { compare: Vec::new(), ops }).await.unwrap() {
        TxnResult::Committed { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn put(key: &str, value: &str, ttl: Option<Duration>) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), ttl }
}

async fn save(store: &EmbeddedStore) -> Vec<u8> {
    store.export().await.unwrap().flatten().collect()
}

async fn content(store: &EmbeddedStore) -> Vec<(String, String)> {
    let all = Range { start: "/".into(), end: "0".into(), limit: 0, revision: None, count: false };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = store.range(all).await.unwrap().records;
    records.iter().map(|record| (text(&record.key), text(&record.value))).collect()
}

#[tokio::test]
async fn what_was_saved_comes_back_and_no_revision_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    commit(&store, vec![put("/a", "1", None), put("/b", &"x".repeat(700_000), None)]).await;
    let saved_at =
        commit(&store, vec![put("/mortal", "1", Some(Duration::from_millis(600))), put("/c", "1", None)]).await;
    let file = save(&store).await;
    let saved = content(&store).await;
    commit(&store, vec![put("/a", "2", None), put("/d", "later", None)]).await;
    let newest = commit(&store, vec![Op::Delete { key: "/b".into() }]).await;

    let info = inspect(file.as_slice()).unwrap();
    assert_eq!((info.revision, info.records, info.size), (saved_at, 4, file.len() as u64));
    assert!(matches!(restore(file.as_slice(), &path), Err(SnapshotError::Store(StoreError::InUse))));
    store.close().await.unwrap();
    assert_eq!(restore(file.as_slice(), &path).unwrap(), info);

    let store = open(&path);
    assert_eq!(content(&store).await, saved);
    assert_eq!(store.get(b"/a").await.unwrap().1.unwrap().mod_revision, saved_at - 1, "records keep their revisions");
    let revision = store.revision().await.unwrap();
    assert!(revision > newest);
    for from in [saved_at, saved_at + 1, newest, newest + 1, newest + 1000] {
        let watch = store.watch(WatchOptions { prefix: "/".into(), from, buffer_bytes: 1 << 20 }).await;
        assert!(matches!(watch, Err(StoreError::Compacted { .. })), "{from}");
    }
    let next = commit(&store, vec![put("/e", "1", None)]).await;
    assert_eq!(next, revision + 1);
    let expired = tokio::time::timeout(Duration::from_secs(10), async {
        while store.get(b"/mortal").await.unwrap().1.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    expired.await.expect("times to live go on");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_new_place_takes_a_snapshot_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("old/store.redb"));
    commit(&store, vec![put("/a", "1", None)]).await;
    let file = save(&store).await;
    let path = directory.path().join("new/store.redb");
    restore(file.as_slice(), &path).unwrap();
    assert_eq!(content(&open(&path)).await, [("/a".to_owned(), "1".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_load_is_of_one_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&directory.path().join("store.redb")));
    commit(&store, vec![put("/x", "0", None), put("/y", "0", None)]).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..2000 {
                let n = n.to_string();
                commit(&store, vec![put("/x", &n, None), put("/y", &n, None)]).await;
            }
        })
    };
    let mut seen = Vec::new();
    for round in 0..10 {
        let file = save(&store).await;
        let path = directory.path().join(format!("{round}.redb"));
        restore(file.as_slice(), &path).unwrap();
        let content = content(&open(&path)).await;
        assert_eq!(content[0].1, content[1].1, "both keys are of the same transaction");
        seen.push(content[0].1.clone());
    }
    assert!(seen.first() != seen.last(), "{seen:?}");
    writer.await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    commit(&store, vec![put("/a", "1", None), put("/b", "2", None)]).await;
    let file = save(&store).await;
    commit(&store, vec![put("/a", "kept", None)]).await;
    store.close().await.unwrap();
    drop(store);
    for end in 0..file.len() {
        assert!(restore(&file[..end], &path).is_err(), "cut at {end}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert!(restore(damaged.as_slice(), &path).is_err(), "changed at {at}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(matches!(restore(longer.as_slice(), &path), Err(SnapshotError::Damaged(_))));
    assert!(matches!(inspect(&b"something else altogether"[..]), Err(SnapshotError::Foreign)));
    let mut newer = file.clone();
    newer[16] = 2;
    assert!(matches!(inspect(newer.as_slice()), Err(SnapshotError::NewerFormat { found: 2, supported: 1 })));
    assert_eq!(content(&open(&path)).await[0].1, "kept");
}
