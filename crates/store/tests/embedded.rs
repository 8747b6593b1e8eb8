//! The embedded backend against the contract, and what only it promises.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod contract;

use std::sync::Arc;

use contract::{Backend, contract_suite};
use kminik_store::{EmbeddedStore, Op, Options, Range, Store, StoreError, Txn, TxnResult};

struct Embedded {
    directory: tempfile::TempDir,
}

impl Embedded {
    fn new() -> Self {
        Embedded { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("deep/store.redb")
    }
}

impl Backend for Embedded {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(&self.path(), Options::default()).unwrap())
    }
}

contract_suite!(Embedded::new());

fn put(key: &str, value: &[u8]) -> Txn {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_vec().into(), ttl: None };
    Txn { compare: Vec::new(), ops: vec![op] }
}

#[tokio::test]
async fn a_store_is_open_once() {
    let embedded = Embedded::new();
    let _store = embedded.open();
    let second = EmbeddedStore::open(&embedded.path(), Options::default());
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let embedded = Embedded::new();
    let store = embedded.open();
    store.close().await.unwrap();
    {
        let db = redb::Database::open(embedded.path()).unwrap();
        let write = db.begin_write().unwrap();
        write.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 3).unwrap();
        write.commit().unwrap();
    }
    let newer = EmbeddedStore::open(&embedded.path(), Options::default());
    assert!(matches!(newer, Err(StoreError::NewerFormat { found: 3, supported: 2 })), "{newer:?}");
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_alone() {
    let embedded = Embedded::new();
    std::fs::create_dir_all(embedded.path().parent().unwrap()).unwrap();
    let text = b"not a store\n".repeat(1000);
    std::fs::write(embedded.path(), &text).unwrap();
    let foreign = EmbeddedStore::open(&embedded.path(), Options::default());
    assert!(matches!(foreign, Err(StoreError::Corrupt { .. })), "{foreign:?}");
    assert_eq!(std::fs::read(embedded.path()).unwrap(), text);
}

#[tokio::test]
async fn history_is_bounded_in_bytes() {
    let embedded = Embedded::new();
    let options = Options { history_bytes: 64 << 10, ..Options::default() };
    let store = EmbeddedStore::open(&embedded.path(), options).unwrap();
    let value = vec![b'v'; 4 << 10];
    for _ in 0..100 {
        assert!(matches!(store.txn(put("/a", &value)).await.unwrap(), TxnResult::Committed { .. }));
    }
    let at = |revision| Range { start: "/".into(), end: "0".into(), limit: 0, revision: Some(revision), count: false };
    assert!(matches!(store.range(at(1)).await, Err(StoreError::Compacted { oldest, .. }) if oldest > 80));
    assert_eq!(store.range(at(99)).await.unwrap().records[0].mod_revision, 99);
}

#[tokio::test]
async fn an_abandoned_transaction_still_happens_or_not_but_whole() {
    let embedded = Embedded::new();
    let store = embedded.open();
    let abandoned = store.txn(put("/a", b"1"));
    let _ = tokio::time::timeout(std::time::Duration::ZERO, abandoned).await;
    store.txn(put("/b", b"1")).await.unwrap();
    let (revision, record) = store.get(b"/a").await.unwrap();
    assert_eq!(revision, if record.is_some() { 2 } else { 1 });
}

#[tokio::test]
async fn the_end_is_told() {
    let embedded = Embedded::new();
    let store = EmbeddedStore::open(&embedded.path(), Options::default()).unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), store.ended()).await;
    assert!(early.is_err(), "it has not ended yet");
    store.close().await.unwrap();
    store.ended().await;
}
