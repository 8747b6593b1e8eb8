//! Power cuts: a storage that keeps what was synced and any part of what was not.
//!
//! At every sync point several images are made of what a disk may hold at that moment: the synced bytes, plus a random
//! subset of the writes since, some of them torn at a sector, in random order. A store opened on each must hold exactly
//! the state of one revision: not older than what had been acknowledged or seen, not newer than what had been asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kminik_store::{EmbeddedStore, EventKind, Op, Options, Range, Store, Txn, TxnResult, WatchOptions};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

const SECTOR: usize = 512;
const TRANSACTIONS: u64 = 160;
const IMAGES_PER_SYNC: usize = 3;
const IMAGES_MAX: usize = 400;

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>, keep: usize) {
        match self {
            Change::Length(length) => image.resize(*length, 0),
            Change::Write { offset, data } => {
                let data = &data[..keep.min(data.len())];
                if image.len() < offset + data.len() {
                    image.resize(offset + data.len(), 0);
                }
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// The tables, and the two parts of the journal.
const FILES: usize = 3;
/// Small enough for many turns.
const JOURNAL_BYTES: usize = 64 << 10;

/// A possible content of the files, and what had been promised by then.
struct Image {
    files: [Vec<u8>; FILES],
    promised: u64,
}

#[derive(Debug, Default)]
struct File {
    /// What the process reads: everything written.
    written: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

/// One of the files of a disk.
#[derive(Debug, Clone)]
struct Storage {
    disk: Arc<Mutex<[File; FILES]>>,
    file: usize,
    /// The newest revision that was acknowledged or visible.
    promised: Arc<AtomicU64>,
    random: Arc<Mutex<StdRng>>,
    images: Arc<Mutex<Vec<Image>>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("files", &self.files.each_ref().map(Vec::len))
            .field("promised", &self.promised)
            .finish()
    }
}

impl Storage {
    fn new(seed: u64) -> Self {
        Storage {
            disk: Arc::default(),
            file: 0,
            promised: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            images: Arc::default(),
        }
    }

    fn journal(&self) -> [Box<dyn StorageBackend>; 2] {
        [1, 2].map(|file| Box::new(Storage { file, ..self.clone() }) as Box<dyn StorageBackend>)
    }

    fn cut(&self, disk: &[File; FILES]) {
        let mut random = self.random.lock();
        let mut images = self.images.lock();
        for _ in 0..IMAGES_PER_SYNC {
            let files = disk.each_ref().map(|file| {
                let mut bytes = file.synced.clone();
                let mut kept: Vec<&Change> = file.unsynced.iter().filter(|_| random.random_bool(0.6)).collect();
                kept.shuffle(&mut *random);
                for change in kept {
                    let keep = match change {
                        Change::Write { data, .. } if random.random_bool(0.2) => {
                            random.random_range(0..=data.len() / SECTOR) * SECTOR
                        }
                        _ => usize::MAX,
                    };
                    change.apply(&mut bytes, keep);
                }
                bytes
            });
            images.push(Image { files, promised: self.promised.load(Ordering::SeqCst) });
        }
        while images.len() > IMAGES_MAX {
            let index = random.random_range(0..images.len());
            images.swap_remove(index);
        }
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock()[self.file].written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let disk = self.disk.lock();
        let data = disk[self.file].written.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        let file = &mut self.disk.lock()[self.file];
        file.written.resize(length, 0);
        file.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.cut(&disk);
        let File { synced, unsynced, .. } = &mut disk[self.file];
        for change in unsynced.drain(..) {
            change.apply(synced, usize::MAX);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let change = Change::Write { offset, data: data.to_vec() };
        let file = &mut self.disk.lock()[self.file];
        change.apply(&mut file.written, usize::MAX);
        file.unsynced.push(change);
        Ok(())
    }
}

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The state after every revision, by the store's own account while it ran.
async fn states(store: &EmbeddedStore) -> Vec<State> {
    let newest = store.revision().await.unwrap();
    let all = WatchOptions { prefix: "".into(), from: 1, buffer_bytes: 1 << 30 };
    let mut watcher = store.watch(all).await.unwrap();
    let mut states = vec![State::new()];
    while states.len() as u64 <= newest {
        for event in watcher.batches.recv().await.unwrap().unwrap().events.iter() {
            let revision = usize::try_from(event.record.mod_revision).unwrap();
            while states.len() <= revision {
                states.push(states.last().unwrap().clone());
            }
            match event.kind {
                EventKind::Put => states[revision].insert(event.record.key.to_vec(), event.record.value.to_vec()),
                EventKind::Delete => states[revision].remove(&event.record.key[..]),
            };
        }
    }
    states
}

async fn content(store: &EmbeddedStore) -> (u64, State) {
    let all = Range { start: "/".into(), end: "0".into(), limit: 0, revision: None, count: false };
    let read = store.range(all).await.unwrap();
    let state = read.records.iter().map(|record| (record.key.to_vec(), record.value.to_vec())).collect();
    (read.revision, state)
}

async fn load(store: Arc<EmbeddedStore>, promised: Arc<AtomicU64>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..TRANSACTIONS / 8 {
        let mut keys: Vec<u64> = (0..40).collect();
        keys.shuffle(&mut random);
        let ops = keys[..random.random_range(1..4)].iter().map(|key| {
            let key = format!("/{key}").into();
            match random.random_bool(0.2) {
                true => Op::Delete { key },
                false => {
                    let value = format!("{seed}-{n}-{}", "v".repeat(random.random_range(0..6000)));
                    Op::Put { key, value: value.into(), ttl: None }
                }
            }
        });
        let txn = Txn { compare: Vec::new(), ops: ops.collect() };
        match store.txn(txn).await.unwrap() {
            TxnResult::Committed { revision } => promised.fetch_max(revision, Ordering::SeqCst),
            conflict => panic!("{conflict:?}"),
        };
        promised.fetch_max(store.revision().await.unwrap(), Ordering::SeqCst);
    }
}

fn options() -> Options {
    Options { journal_bytes: JOURNAL_BYTES, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cut_leaves_the_state_of_one_revision() {
    let storage = Storage::new(7);
    let store = Arc::new(EmbeddedStore::open_on(storage.clone(), storage.journal(), options()).unwrap());
    // The file is created under another name and renamed when complete, so cuts before this point reach no store.
    storage.images.lock().clear();
    let seen = {
        let (store, promised) = (store.clone(), storage.promised.clone());
        tokio::spawn(async move {
            let mut watcher =
                store.watch(WatchOptions { prefix: "/".into(), from: 1, buffer_bytes: 1 << 30 }).await.unwrap();
            while let Some(batch) = watcher.batches.recv().await {
                promised.fetch_max(batch.unwrap().revision, Ordering::SeqCst);
            }
        })
    };
    let loads: Vec<_> = (0..8).map(|seed| tokio::spawn(load(store.clone(), storage.promised.clone(), seed))).collect();
    for load in loads {
        load.await.unwrap();
    }
    let states = states(&store).await;
    // Compaction is a write like any other: it may not lose a record either.
    store.compact(store.revision().await.unwrap() - 10).await.unwrap();
    store.close().await.unwrap();
    seen.await.unwrap();

    let images = std::mem::take(&mut *storage.images.lock());
    assert!(images.len() > 30, "only {} images", images.len());
    let mut recovered = Vec::new();
    for (index, image) in images.into_iter().enumerate() {
        let [tables, first, second] = image.files.each_ref().map(|bytes| {
            let file = InMemoryBackend::new();
            file.set_len(bytes.len() as u64).unwrap();
            file.write(0, bytes).unwrap();
            file
        });
        let store = EmbeddedStore::open_on(tables, [Box::new(first), Box::new(second)], options())
            .unwrap_or_else(|error| panic!("image {index} does not open: {error:?}"));
        let (revision, state) = content(&store).await;
        assert!(revision >= image.promised, "image {index}: {revision} is older than {}", image.promised);
        assert!(state == states[usize::try_from(revision).unwrap()], "image {index} mixes revisions ({revision})");
        // It also goes on: the next revision is a new one.
        let op = Op::Put { key: "/next".into(), value: "v".into(), ttl: None };
        let txn = Txn { compare: Vec::new(), ops: vec![op] };
        let written = store.txn(txn).await.unwrap();
        assert!(matches!(written, TxnResult::Committed { revision: next } if next == revision + 1));
        recovered.push(revision > image.promised);
        store.close().await.unwrap();
    }
    assert!(recovered.contains(&false), "some cut loses the batch that was being written");
}
