//! What every backend must do. A backend's test file implements [`Backend`] and invokes [`contract_suite!`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kminik_store::{
    Compare, Event, EventKind, Op, Range, Record, Revision, Store, StoreError, Txn, TxnResult, WatchBatch,
    WatchOptions, Watcher,
};

/// One store and where it keeps its data.
pub(crate) trait Backend: Send + Sync {
    /// Opens the store; after [`Store::close`] it can be opened again and has what it had.
    fn open(&self) -> Arc<dyn Store>;
}

/// Longest that anything in the suite may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the store answers in time")
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()), ttl: None }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Revision {
    match soon(store.txn(Txn { compare: Vec::new(), ops })).await.unwrap() {
        TxnResult::Committed { revision } => revision,
        conflict => panic!("no condition can fail here: {conflict:?}"),
    }
}

async fn write(store: &dyn Store, key: &str, value: &str) -> Revision {
    commit(store, vec![put(key, value)]).await
}

async fn read(store: &dyn Store, key: &str) -> Option<Record> {
    soon(store.get(key.as_bytes())).await.unwrap().1
}

fn range(prefix: &str) -> Range {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    Range { start: Bytes::copy_from_slice(prefix.as_bytes()), end: end.into(), limit: 0, revision: None, count: false }
}

fn values(records: &[Record]) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    records.iter().map(|record| (text(&record.key), text(&record.value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn watch(store: &dyn Store, prefix: &str, from: Revision) -> Watcher {
    watch_within(store, prefix, from, 1 << 20).await
}

async fn watch_within(store: &dyn Store, prefix: &str, from: Revision, buffer_bytes: usize) -> Watcher {
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    soon(store.watch(WatchOptions { prefix, from, buffer_bytes })).await.unwrap()
}

async fn next(watcher: &mut Watcher) -> WatchBatch {
    soon(watcher.batches.recv()).await.expect("the watch goes on").unwrap()
}

/// The next `count` events, however they are batched.
async fn take(watcher: &mut Watcher, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = next(watcher).await;
        assert!(batch.events.iter().all(|event| event.record.mod_revision <= batch.revision));
        events.extend(batch.events.iter().cloned());
    }
    assert_eq!(events.len(), count, "no more than expected: {events:?}");
    events
}

pub(crate) async fn revisions_count_effective_writes(backend: &dyn Backend) {
    let store = backend.open();
    let start = soon(store.revision()).await.unwrap();
    assert_eq!(write(&*store, "/a", "1").await, start + 1);
    assert_eq!(commit(&*store, vec![put("/b", "1"), put("/c", "1")]).await, start + 2);
    assert_eq!(commit(&*store, vec![delete("/absent")]).await, start + 2, "no effect, no revision");
    assert_eq!(commit(&*store, Vec::new()).await, start + 2);
    assert_eq!(commit(&*store, vec![delete("/a"), delete("/absent")]).await, start + 3);
    assert_eq!(soon(store.revision()).await.unwrap(), start + 3);
}

pub(crate) async fn records_tell_their_history(backend: &dyn Backend) {
    let store = backend.open();
    let created = write(&*store, "/a", "1").await;
    let updated = write(&*store, "/a", "2").await;
    let record = read(&*store, "/a").await.unwrap();
    assert_eq!((record.create_revision, record.mod_revision, record.version), (created, updated, 2));
    assert_eq!(record.value, "2");
    commit(&*store, vec![delete("/a")]).await;
    assert_eq!(read(&*store, "/a").await, None);
    let again = write(&*store, "/a", "3").await;
    let record = read(&*store, "/a").await.unwrap();
    assert_eq!((record.create_revision, record.mod_revision, record.version), (again, again, 1));
}

pub(crate) async fn conditions_hold_or_nothing_happens(backend: &dyn Backend) {
    let store = backend.open();
    let create = || Txn { compare: vec![Compare::Absent("/a".into())], ops: vec![put("/a", "1")] };
    let TxnResult::Committed { revision } = soon(store.txn(create())).await.unwrap() else { panic!("it is absent") };
    let TxnResult::Conflict { current, .. } = soon(store.txn(create())).await.unwrap() else { panic!("it is there") };
    assert_eq!(current[0].as_ref().unwrap().mod_revision, revision);

    let update = |revision, value: &str| Txn {
        compare: vec![Compare::ModRevision("/a".into(), revision), Compare::Absent("/b".into())],
        ops: vec![put("/a", value), put("/b", value)],
    };
    let TxnResult::Conflict { current, .. } = soon(store.txn(update(revision + 7, "x"))).await.unwrap() else {
        panic!("the revision is wrong")
    };
    assert_eq!(current.len(), 2);
    assert_eq!(current[1], None);
    assert_eq!(read(&*store, "/b").await, None);
    assert!(matches!(soon(store.txn(update(revision, "2"))).await.unwrap(), TxnResult::Committed { .. }));
    assert_eq!(read(&*store, "/b").await.unwrap().value, "2");
    let absent = Txn { compare: vec![Compare::ModRevision("/c".into(), 1)], ops: Vec::new() };
    assert!(matches!(soon(store.txn(absent)).await.unwrap(), TxnResult::Conflict { .. }));
}

pub(crate) async fn one_of_many_creators_wins(backend: &dyn Backend) {
    let store = backend.open();
    let tasks: Vec<_> = (0..32)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let create = Txn { compare: vec![Compare::Absent("/a".into())], ops: vec![put("/a", &i.to_string())] };
                match store.txn(create).await.unwrap() {
                    TxnResult::Committed { .. } => Some(i.to_string()),
                    TxnResult::Conflict { current, .. } => {
                        assert!(current[0].is_some(), "the loser sees who won");
                        None
                    }
                }
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(soon(task).await.unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(read(&*store, "/a").await.unwrap().value, winners[0].as_bytes());
}

pub(crate) async fn a_compare_and_swap_counter_loses_nothing(backend: &dyn Backend) {
    let store = backend.open();
    write(&*store, "/n", "0").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let mut record = store.get(b"/n").await.unwrap().1.unwrap();
                    loop {
                        let n: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                        let swap = Txn {
                            compare: vec![Compare::ModRevision("/n".into(), record.mod_revision)],
                            ops: vec![put("/n", &(n + 1).to_string())],
                        };
                        match store.txn(swap).await.unwrap() {
                            TxnResult::Committed { .. } => break,
                            TxnResult::Conflict { mut current, .. } => record = current.remove(0).unwrap(),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        soon(task).await.unwrap();
    }
    assert_eq!(read(&*store, "/n").await.unwrap().value, "200");
}

pub(crate) async fn ranges_are_ordered_limited_and_counted(backend: &dyn Backend) {
    let store = backend.open();
    for key in ["/p/c", "/p/a", "/q/x", "/p/b", "/o"] {
        write(&*store, key, "v").await;
    }
    let all = soon(store.range(range("/p/"))).await.unwrap();
    assert_eq!(values(&all.records), pairs(&[("/p/a", "v"), ("/p/b", "v"), ("/p/c", "v")]));
    assert_eq!((all.more, all.count, all.revision), (false, 3, store.revision().await.unwrap()));
    let page = soon(store.range(Range { limit: 2, ..range("/p/") })).await.unwrap();
    assert_eq!(values(&page.records), pairs(&[("/p/a", "v"), ("/p/b", "v")]));
    assert_eq!((page.more, page.count), (true, 2));
    let page = soon(store.range(Range { limit: 2, count: true, ..range("/p/") })).await.unwrap();
    assert_eq!((page.more, page.count, page.records.len()), (true, 3, 2));
    let exact = soon(store.range(Range { limit: 3, ..range("/p/") })).await.unwrap();
    assert!(!exact.more);
    let reversed = Range { start: "/p/c".into(), end: "/p/a".into(), ..range("/p/") };
    assert!(soon(store.range(reversed)).await.unwrap().records.is_empty());
}

pub(crate) async fn old_revisions_can_be_read(backend: &dyn Backend) {
    let store = backend.open();
    write(&*store, "/p/a", "1").await;
    write(&*store, "/p/b", "1").await;
    let then = write(&*store, "/p/d", "1").await;
    write(&*store, "/p/a", "2").await;
    write(&*store, "/p/a", "3").await;
    commit(&*store, vec![delete("/p/b"), put("/p/c", "2")]).await;
    write(&*store, "/p/b", "4").await;
    let at = |revision| Range { revision: Some(revision), ..range("/p/") };
    let old = soon(store.range(at(then))).await.unwrap();
    assert_eq!(values(&old.records), pairs(&[("/p/a", "1"), ("/p/b", "1"), ("/p/d", "1")]));
    assert_eq!(old.revision, then);
    let old = soon(store.range(at(then + 1))).await.unwrap();
    assert_eq!(old.records[0].value, "2");
    assert_eq!(old.records[0].mod_revision, then + 1);
    let old = soon(store.range(at(then + 3))).await.unwrap();
    assert_eq!(values(&old.records), pairs(&[("/p/a", "3"), ("/p/c", "2"), ("/p/d", "1")]));
    let page = soon(store.range(Range { limit: 1, count: true, start: "/p/b".into(), ..at(then) })).await.unwrap();
    assert_eq!((page.more, page.count, &page.records[0].key[..]), (true, 2, &b"/p/b"[..]));
    let now = store.revision().await.unwrap();
    assert!(matches!(
        soon(store.range(at(now + 1))).await,
        Err(StoreError::Future { requested, current }) if requested == now + 1 && current == now
    ));
}

pub(crate) async fn watches_tell_every_change_once(backend: &dyn Backend) {
    let store = backend.open();
    let first = write(&*store, "/w/a", "1").await;
    let mut from_first = watch(&*store, "/w/", first).await;
    let mut from_now = watch(&*store, "/w/", first + 1).await;
    write(&*store, "/other", "1").await;
    let second = write(&*store, "/w/a", "2").await;
    let third = commit(&*store, vec![delete("/w/a"), put("/w/b", "3")]).await;
    let events = take(&mut from_first, 4).await;
    assert_eq!(values(&[events[0].record.clone()]), pairs(&[("/w/a", "1")]));
    assert_eq!(events[0].prev, None);
    assert_eq!(events[1].kind, EventKind::Put);
    assert_eq!((events[1].record.mod_revision, events[1].record.version), (second, 2));
    assert_eq!(events[1].prev.as_ref().unwrap().mod_revision, first);
    assert_eq!(events[2].kind, EventKind::Delete);
    assert_eq!((events[2].record.mod_revision, &events[2].record.value[..]), (third, &b"2"[..]));
    assert_eq!(events[2].prev.as_ref().unwrap().mod_revision, second);
    assert_eq!(events[3].record.mod_revision, third);
    let later = take(&mut from_now, 3).await;
    assert_eq!(later[0].record, events[1].record);
    assert_eq!(later[2].record, events[3].record);
}

pub(crate) async fn watches_begin_in_history_and_go_on_live(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..300 {
                write(&*store, &format!("/w/{}", i % 7), &i.to_string()).await;
            }
        })
    };
    for round in 0..20 {
        let mut watcher = watch(&*store, "/w/", start + 1 + round).await;
        let wanted = 300 - usize::try_from(round).unwrap();
        let mut seen = Vec::new();
        while seen.len() < wanted {
            seen.extend(next(&mut watcher).await.events.iter().map(|event| event.record.mod_revision));
        }
        let expected: Vec<_> = (start + 1 + round..=start + 300).collect();
        assert_eq!(seen, expected, "every revision once, in order");
    }
    soon(writer).await.unwrap();
}

pub(crate) async fn a_revision_is_not_split(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let mut live = watch(&*store, "/w/", start + 1).await;
    for _ in 0..10 {
        commit(&*store, (0..100).map(|i| put(&format!("/w/{i:03}"), "v")).collect()).await;
    }
    let mut replayed = watch(&*store, "/w/", start + 1).await;
    for watcher in [&mut live, &mut replayed] {
        let mut seen = 0;
        while seen < 1000 {
            let batch = next(watcher).await;
            seen += batch.events.len();
            assert_eq!(batch.events.len() % 100, 0, "whole revisions only");
        }
    }
}

pub(crate) async fn a_watch_from_the_future_waits(backend: &dyn Backend) {
    let store = backend.open();
    let now = write(&*store, "/w/a", "1").await;
    let mut watcher = watch(&*store, "/w/", now + 2).await;
    write(&*store, "/w/a", "2").await;
    write(&*store, "/w/a", "3").await;
    let events = take(&mut watcher, 1).await;
    assert_eq!(events[0].record.value, "3");
}

pub(crate) async fn progress_is_told_on_request(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let mut watcher = watch(&*store, "/w/", start + 1).await;
    let other = write(&*store, "/other", "1").await;
    soon(store.progress()).await.unwrap();
    let batch = next(&mut watcher).await;
    assert_eq!((batch.events.len(), batch.revision), (0, other));
}

pub(crate) async fn a_slow_watcher_is_told_and_ended(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let mut slow = watch_within(&*store, "/w/", start + 1, 8 << 10).await;
    let mut fast = watch_within(&*store, "/w/", start + 1, 8 << 10).await;
    let value = "v".repeat(1024);
    for _ in 0..50 {
        write(&*store, "/w/a", &value).await;
        take(&mut fast, 1).await;
    }
    let mut delivered = 0;
    let error = loop {
        match soon(slow.batches.recv()).await.expect("an error comes before the end") {
            Ok(batch) => delivered += batch.events.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::SlowWatcher { limit_bytes } if limit_bytes == 8 << 10));
    assert!(delivered > 0 && delivered < 50, "{delivered} delivered");
    assert!(soon(slow.batches.recv()).await.is_none());
}

pub(crate) async fn compaction_forgets_changes_not_records(backend: &dyn Backend) {
    let store = backend.open();
    write(&*store, "/w/a", "1").await;
    let second = write(&*store, "/w/a", "2").await;
    let third = write(&*store, "/w/b", "3").await;
    let mut open = watch(&*store, "/w/", second + 1).await;
    soon(store.compact(second)).await.unwrap();
    soon(store.compact(second)).await.unwrap();
    soon(store.compact(second - 1)).await.unwrap();
    let at = |revision| Range { revision: Some(revision), ..range("/w/") };
    assert_eq!(values(&soon(store.range(at(second))).await.unwrap().records), pairs(&[("/w/a", "2")]));
    assert!(matches!(
        soon(store.range(at(second - 1))).await,
        Err(StoreError::Compacted { requested, oldest }) if requested == second - 1 && oldest == second
    ));
    let old = WatchOptions { prefix: "/w/".into(), from: second, buffer_bytes: 1 << 20 };
    assert!(matches!(
        soon(store.watch(old)).await,
        Err(StoreError::Compacted { requested, oldest }) if requested == second && oldest == second + 1
    ));
    assert_eq!(take(&mut watch(&*store, "/w/", second + 1).await, 1).await[0].record.mod_revision, third);
    assert_eq!(take(&mut open, 1).await[0].record.mod_revision, third);
    // A delete tells the value even if the write of it is forgotten.
    soon(store.compact(third)).await.unwrap();
    commit(&*store, vec![delete("/w/a")]).await;
    assert_eq!(take(&mut open, 1).await[0].prev.as_ref().unwrap().value, "2");
    assert!(matches!(soon(store.compact(third + 9)).await, Err(StoreError::Future { .. })));
}

pub(crate) async fn a_time_to_live_ends_in_a_delete(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let mut watcher = watch(&*store, "/t/", start + 1).await;
    let live = |key: &str, ms| Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "v".into(),
        ttl: Some(Duration::from_millis(ms)),
    };
    commit(&*store, vec![live("/t/short", 1000), live("/t/kept", 1000), live("/t/long", 3_600_000)]).await;
    write(&*store, "/t/kept", "for ever").await;
    let events = take(&mut watcher, 5).await;
    assert_eq!(events[4].kind, EventKind::Delete);
    assert_eq!(events[4].record.key, "/t/short");
    assert_eq!(events[4].record.mod_revision, start + 3);
    assert_eq!(read(&*store, "/t/short").await, None);
    assert_eq!(read(&*store, "/t/kept").await.unwrap().value, "for ever");
    assert!(read(&*store, "/t/long").await.is_some());
}

pub(crate) async fn a_restart_keeps_records_history_and_revisions(backend: &dyn Backend) {
    let store = backend.open();
    let first = write(&*store, "/w/a", "1").await;
    write(&*store, "/w/a", "2").await;
    commit(&*store, vec![delete("/w/a"), put("/w/b", "3")]).await;
    write(&*store, "/w/a", "4").await;
    let last = commit(&*store, vec![delete("/w/b")]).await;
    let before = take(&mut watch(&*store, "/w/", first).await, 6).await;
    soon(store.compact(first)).await.unwrap();
    soon(store.close()).await.unwrap();
    drop(store);

    let store = backend.open();
    assert_eq!(store.revision().await.unwrap(), last);
    assert_eq!(values(&soon(store.range(range("/w/"))).await.unwrap().records), pairs(&[("/w/a", "4")]));
    let after = take(&mut watch(&*store, "/w/", first + 1).await, 5).await;
    for (before, after) in before[1..].iter().zip(&after) {
        assert_eq!((before.kind, &before.record, &before.prev), (after.kind, &after.record, &after.prev));
    }
    let old = soon(store.range(Range { revision: Some(first + 1), ..range("/w/") })).await.unwrap();
    assert_eq!(values(&old.records), pairs(&[("/w/a", "2")]));
    let lost = WatchOptions { prefix: "/w/".into(), from: first, buffer_bytes: 1 << 20 };
    assert!(matches!(soon(store.watch(lost)).await, Err(StoreError::Compacted { .. })));
    assert_eq!(write(&*store, "/w/c", "5").await, last + 1);
}

pub(crate) async fn a_restart_keeps_times_to_live(backend: &dyn Backend) {
    let store = backend.open();
    let put = Op::Put { key: "/t/a".into(), value: "v".into(), ttl: Some(Duration::from_millis(1500)) };
    let written = commit(&*store, vec![put]).await;
    soon(store.close()).await.unwrap();
    drop(store);
    let store = backend.open();
    let events = take(&mut watch(&*store, "/t/", written + 1).await, 1).await;
    assert_eq!(events[0].kind, EventKind::Delete);
}

pub(crate) async fn a_closed_store_refuses_writes_and_ends_watches(backend: &dyn Backend) {
    let store = backend.open();
    let start = store.revision().await.unwrap();
    let mut watcher = watch(&*store, "/", start + 1).await;
    soon(store.close()).await.unwrap();
    assert!(matches!(soon(store.txn(Txn::default())).await, Err(StoreError::Closed)));
    assert!(soon(watcher.batches.recv()).await.is_none());
}

pub(crate) async fn malformed_transactions_are_refused(backend: &dyn Backend) {
    let store = backend.open();
    let twice = Txn { compare: Vec::new(), ops: vec![put("/a", "1"), delete("/a")] };
    assert!(matches!(soon(store.txn(twice)).await, Err(StoreError::DuplicateKey { key }) if key == "/a"));
    let huge = Op::Put { key: "/a".into(), value: vec![0; 16 << 20].into(), ttl: None };
    let huge = Txn { compare: Vec::new(), ops: vec![huge] };
    assert!(matches!(soon(store.txn(huge)).await, Err(StoreError::TooLarge { .. })));
    assert_eq!(read(&*store, "/a").await, None);
}

/// One test a behaviour, each on a fresh backend from the given constructor.
macro_rules! contract_suite {
    ($backend:expr) => {
        contract_suite!(@each $backend;
            revisions_count_effective_writes
            records_tell_their_history
            conditions_hold_or_nothing_happens
            one_of_many_creators_wins
            a_compare_and_swap_counter_loses_nothing
            ranges_are_ordered_limited_and_counted
            old_revisions_can_be_read
            watches_tell_every_change_once
            watches_begin_in_history_and_go_on_live
            a_revision_is_not_split
            a_watch_from_the_future_waits
            progress_is_told_on_request
            a_slow_watcher_is_told_and_ended
            compaction_forgets_changes_not_records
            a_time_to_live_ends_in_a_delete
            a_restart_keeps_records_history_and_revisions
            a_restart_keeps_times_to_live
            a_closed_store_refuses_writes_and_ends_watches
            malformed_transactions_are_refused
        );
    };
    (@each $backend:expr; $($behaviour:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                contract::$behaviour(&$backend).await;
            }
        )+
    };
}
pub(crate) use contract_suite;
