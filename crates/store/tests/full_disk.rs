//! A full disk: writes fail and say so, reads go on, and with space the store goes on where it was.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kminik_store::{EmbeddedStore, Op, Options, Range, Store, StoreError, Txn, TxnResult};

/// A small file system of its own, unmounted at the end.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "this test mounts a tmpfs and needs root");
        SmallDisk { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a store that failed may still have its file open.
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

fn put(key: &str, ttl: Option<Duration>) -> Txn {
    let value = vec![b'v'; 64 << 10].into();
    Txn { compare: Vec::new(), ops: vec![Op::Put { key: key.to_owned().into(), value, ttl }] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_can_be_mended() {
    let disk = SmallDisk::mount("48m");
    let ballast = disk.file("ballast");
    std::fs::write(&ballast, vec![0; 30 << 20]).unwrap();
    let path = disk.file("store.redb");
    let store = EmbeddedStore::open(&path, Options::default()).unwrap();
    store.txn(put("/mortal", Some(Duration::from_secs(2)))).await.unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match store.txn(put(&format!("/{acknowledged:04}"), None)).await {
            Ok(TxnResult::Committed { .. }) => acknowledged += 1,
            Ok(conflict) => panic!("{conflict:?}"),
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::NoSpace(_)), "{error:?}");
    let all = || Range { start: "/0".into(), end: "/9".into(), limit: 0, revision: None, count: false };
    assert_eq!(store.range(all()).await.unwrap().records.len(), acknowledged);
    assert!(matches!(store.txn(put("/9", None)).await, Err(StoreError::NoSpace(_))));
    // It closes and opens as it is.
    store.close().await.unwrap();
    let store = EmbeddedStore::open(&path, Options::default()).unwrap();
    assert!(store.range(all()).await.unwrap().records.len() >= acknowledged);
    assert!(matches!(store.txn(put("/9", None)).await, Err(StoreError::NoSpace(_))));

    std::fs::remove_file(&ballast).unwrap();
    // A full disk is not tried at every write.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let TxnResult::Committed { revision } = store.txn(put("/0000", None)).await.unwrap() else {
        panic!("no condition can fail here")
    };
    tokio::time::timeout(Duration::from_secs(10), async {
        while store.get(b"/mortal").await.unwrap().1.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("what was to expire expires");
    store.close().await.unwrap();
    let store = EmbeddedStore::open(&path, Options::default()).unwrap();
    let records = store.range(all()).await.unwrap().records;
    assert!(records.len() >= acknowledged);
    assert_eq!((records[0].version, records[0].mod_revision), (2, revision));
    let then = Range { revision: Some(2), ..all() };
    assert_eq!(store.range(then).await.unwrap().records.len(), 1, "the history is there as well");
    store.close().await.unwrap();
}
