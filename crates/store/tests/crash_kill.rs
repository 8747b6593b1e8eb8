//! kill -9 under load: no acknowledged write is lost, nothing that was not on disk had been seen.
//!
//! The test binary starts itself again as the victim, which reports each acknowledged write and each revision it has
//! seen on its standard output; what reached the pipe before the kill is what the store must still have.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kminik_store::{EmbeddedStore, Op, Options, Range, Store, StoreError, Txn, TxnResult, WatchOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const VICTIM: &str = "STORE_CRASH_VICTIM";
const ROUNDS: u64 = 12;
const WRITERS: usize = 16;
const KEYS_PER_WRITER: u64 = 20;

/// What the store must have of one key: the newest acknowledged value, or a later one.
#[derive(Default)]
struct Witness {
    /// Key to (revision, value number) of its newest acknowledged write.
    acknowledged: HashMap<String, (u64, u64)>,
    seen_revision: u64,
}

#[test]
fn no_acknowledged_write_is_lost_to_kill_9() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return victim(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut random = StdRng::seed_from_u64(0x006b_6d69_6e69_6b00);
    let mut witness = Witness::default();
    for round in 0..ROUNDS {
        run_and_kill(&path, Duration::from_millis(random.random_range(20..400)), &mut witness);
        check(&path, &witness, round);
    }
    assert!(witness.acknowledged.len() > WRITERS, "the victims wrote something");
}

/// Runs a victim for `life` from its first sign of life on, then kills it; adds what it reported.
fn run_and_kill(path: &Path, life: Duration, witness: &mut Witness) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_acknowledged_write_is_lost_to_kill_9", "--nocapture", "--test-threads=1"])
        .env(VICTIM, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("victim ready") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the victim opens its store");
    }
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        lines.read_to_end(&mut output).unwrap();
        output
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = String::from_utf8(reader.join().unwrap()).unwrap();
    // The last line may be cut short by the kill.
    let complete = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
    for line in complete.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ack", key, value, revision] => {
                let (revision, value) = (revision.parse().unwrap(), value.parse().unwrap());
                let newest = witness.acknowledged.entry(key.to_owned()).or_default();
                *newest = (*newest).max((revision, value));
                witness.seen_revision = witness.seen_revision.max(revision);
            }
            ["seen", revision] => witness.seen_revision = witness.seen_revision.max(revision.parse().unwrap()),
            _ => panic!("unexpected line {line:?}"),
        }
    }
}

fn check(path: &Path, witness: &Witness, round: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(path, Options::default()).unwrap();
        let revision = store.revision().await.unwrap();
        assert!(revision >= witness.seen_revision, "round {round}: {revision} < {}", witness.seen_revision);
        for (key, (acknowledged, value)) in &witness.acknowledged {
            let record = store.get(key.as_bytes()).await.unwrap().1.unwrap_or_else(|| panic!("{key} is lost"));
            let now: u64 = std::str::from_utf8(&record.value[..20]).unwrap().trim().parse().unwrap();
            match record.mod_revision == *acknowledged {
                true => assert_eq!(now, *value),
                false => assert!(record.mod_revision > *acknowledged && now > *value, "{key} went back"),
            }
        }
        // A fast machine writes more than the history keeps: what is kept must be whole.
        let watch = async |from| store.watch(WatchOptions { prefix: "/".into(), from, buffer_bytes: 1 << 20 }).await;
        let (mut watcher, mut expected) = match watch(1).await {
            Err(StoreError::Compacted { oldest, .. }) => (watch(oldest).await.unwrap(), oldest),
            watcher => (watcher.unwrap(), 1),
        };
        while expected <= revision {
            for event in watcher.batches.recv().await.unwrap().unwrap().events.iter() {
                assert_eq!(event.record.mod_revision, expected, "the history has every revision");
                expected += 1;
            }
        }
        store.close().await.unwrap();
    });
}

fn say(line: &str) {
    // One write call a line, so that lines of several threads do not mix.
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn victim(path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(path, Options::default()).unwrap());
        let start = store.revision().await.unwrap();
        say("\nvictim ready\n");
        for writer in 0..WRITERS {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let key = format!("/{writer}/{}", n % KEYS_PER_WRITER);
                    let number = start * 1000 + n;
                    // Sizes from one page to several, so that writes of a batch spread over the file.
                    let value = format!("{number:20}{}", "x".repeat(usize::try_from(number % 9000).unwrap()));
                    let op = Op::Put { key: key.clone().into(), value: value.into(), ttl: None };
                    match store.txn(Txn { compare: Vec::new(), ops: vec![op] }).await.unwrap() {
                        TxnResult::Committed { revision } => say(&format!("ack {key} {number} {revision}\n")),
                        conflict => panic!("{conflict:?}"),
                    }
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let all = Range { start: "/".into(), end: "0".into(), limit: 1, revision: None, count: false };
            let seen = store.range(all).await.unwrap().revision;
            say(&format!("seen {seen}\n"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
