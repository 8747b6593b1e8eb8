//! Files that older versions have written open: one of each format, kept as it was.
//!
//! A new format adds a row and keeps the others. `KMINIK_BLESS=1 cargo test -p kminik-store --test formats` writes what is missing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use kminik_store::{EmbeddedStore, Op, Options, Range, Store, Txn, TxnResult, inspect, restore};

/// A store of each format.
const STORES: &[&str] = &["store-1.redb.gz", "store-2.redb.gz"];
/// A snapshot of each format, with its number.
const SNAPSHOTS: &[(&str, u32)] = &[("snapshot-1.gz", 1)];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

/// The file's content; made by `make` where it is missing and that is asked for.
fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = kept(name);
    if !path.exists() && std::env::var_os("KMINIK_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut out = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::best());
        out.write_all(&make()).unwrap();
        out.finish().unwrap();
    }
    let mut content = Vec::new();
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    GzDecoder::new(file).read_to_end(&mut content).unwrap();
    content
}

async fn commit(store: &EmbeddedStore, ops: Vec<Op>) {
    let outcome = store.txn(Txn { compare: Vec::new(), ops }).await.unwrap();
    assert!(matches!(outcome, TxnResult::Committed { .. }), "{outcome:?}");
}

fn put(key: &str, value: &str, ttl: Option<Duration>) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), ttl }
}

/// What every golden file holds: versions, a deletion, a time to live, something large.
async fn fill(store: &EmbeddedStore) {
    commit(store, vec![put("/a", "1", None), put("/b", &"x".repeat(10_000), None)]).await;
    commit(store, vec![put("/a", "2", None), put("/gone", "1", None)]).await;
    commit(store, vec![Op::Delete { key: "/gone".into() }, put("/mortal", "1", Some(Duration::from_secs(1)))]).await;
    commit(store, vec![put("/c", "3", None)]).await;
}

async fn check(store: &EmbeddedStore, what: &str) {
    let all = Range { start: "/".into(), end: "0".into(), limit: 0, revision: None, count: false };
    let mut records = store.range(all.clone()).await.unwrap();
    // Whether it has died already is the clock's.
    records.records.retain(|record| record.key != "/mortal");
    let said: Vec<(String, usize, u64)> = records
        .records
        .iter()
        .map(|record| (String::from_utf8(record.key.to_vec()).unwrap(), record.value.len(), record.mod_revision))
        .collect();
    let expected = [("/a".to_owned(), 1, 2), ("/b".to_owned(), 10_000, 1), ("/c".to_owned(), 1, 4)];
    assert_eq!(said, expected, "{what}");
    // And it goes on: a revision never comes twice.
    commit(store, vec![put("/next", "1", None)]).await;
    let records = store.range(all).await.unwrap();
    let next = records.records.iter().find(|record| record.key == "/next").unwrap();
    assert!(next.mod_revision > 4, "{what}: {}", next.mod_revision);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn made_anew(of: impl AsyncFnOnce(EmbeddedStore, &Path) -> Vec<u8>) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    runtime().block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).unwrap();
        fill(&store).await;
        of(store, &path).await
    })
}

#[test]
fn stores_of_every_format_open() {
    for name in STORES {
        let content = golden(name, || {
            made_anew(async |store, path| {
                store.close().await.unwrap();
                std::fs::read(path).unwrap()
            })
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        std::fs::write(&path, content).unwrap();
        runtime().block_on(async {
            let store = EmbeddedStore::open(&path, Options::default()).unwrap();
            check(&store, name).await;
            store.close().await.unwrap();
        });
    }
}

#[test]
fn snapshots_of_every_format_are_restored() {
    for &(name, format) in SNAPSHOTS {
        let content = golden(name, || {
            made_anew(async |store, _| {
                let content = store.export().await.unwrap().flatten().collect();
                store.close().await.unwrap();
                content
            })
        });
        assert_eq!(inspect(content.as_slice()).unwrap().format, format, "{name}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        restore(content.as_slice(), &path).unwrap();
        runtime().block_on(async {
            let store = EmbeddedStore::open(&path, Options::default()).unwrap();
            check(&store, name).await;
            store.close().await.unwrap();
        });
    }
}
