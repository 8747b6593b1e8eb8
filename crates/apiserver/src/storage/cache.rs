//! All live objects and the newest changes, fed by one watch of the store; lists and watches are served from here.
//!
//! The values are the store's own shared bytes; what is added is an ordered index a resource and a log of its newest
//! changes, bounded in bytes. A client that watches is a cursor into the log: it keeps nothing waiting for it, and one that
//! falls behind the log's beginning is told to start again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use imbl::OrdMap;
use kminik_meta::StatusError;
use kminik_store::{Event, EventKind, Range, Store, StoreError, WatchOptions, Watcher};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::entry::Entry;
use super::key;
use crate::error::{from_store, too_large_revision};
use crate::metrics::{Metrics, flag, group_resource};

/// Bytes of changes that are kept for each resource.
const LOG_BYTES: usize = 16 << 20;
/// Bytes of changes that are kept for all resources together; beyond it the oldest go, whosever they are.
const ALL_LOG_BYTES: usize = 64 << 20;
/// Forms of one change that are kept for further clients.
const KEPT_FRAMES: usize = 4;
/// Bytes that may wait between the store and the cache.
const FEED_BYTES: usize = 256 << 20;
/// A read waits so long for the cache to reach the revision it needs.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// If the cache is not there by then, the store is asked to tell how far it is.
const PROGRESS_AFTER: Duration = Duration::from_millis(10);
/// Pause before a feed that broke is opened again.
const REFEED_PAUSE: Duration = Duration::from_millis(100);

/// One change of one object.
pub struct Change {
    /// Revision of the change.
    pub revision: u64,
    /// The object after the change; `None` if it was deleted.
    pub now: Option<Arc<Entry>>,
    /// The object before; `None` if it was created.
    pub before: Option<Arc<Entry>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
}

/// How a change is put into words for a client; clients with equal keys get the same bytes.
pub type FrameKey = (&'static str, u64);

impl Change {
    pub fn from_event(event: &Event) -> Self {
        let before = event.prev.clone().map(|record| Arc::new(Entry::new(record)));
        let now = (event.kind == EventKind::Put).then(|| Arc::new(Entry::new(event.record.clone())));
        Change { revision: event.record.mod_revision, now, before, frames: Mutex::default() }
    }

    /// The bytes for this key, made by `encode` if nobody asked before.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn frame(
        &self,
        key: FrameKey,
        encode: impl FnOnce() -> Result<Bytes, StatusError>,
    ) -> Result<Bytes, StatusError> {
        let mut frames = self.frames.lock();
        if let Some((_, bytes)) = frames.iter().find(|(known, _)| *known == key) {
            return Ok(bytes.clone());
        }
        let bytes = encode()?;
        if frames.len() < KEPT_FRAMES {
            frames.push((key, bytes.clone()));
        }
        Ok(bytes)
    }

    fn cost(&self) -> usize {
        self.now.as_ref().or(self.before.as_ref()).map_or(0, |entry| entry.key.len() + 2 * entry.value.len()) + 256
    }
}

/// All objects of a resource at one revision.
#[derive(Clone)]
pub struct Snapshot {
    /// Everything up to this revision is in it.
    pub revision: u64,
    pub entries: OrdMap<Bytes, Arc<Entry>>,
}

impl Snapshot {
    /// The entries whose keys begin with `prefix`, in order, from behind `after` if given.
    pub fn range<'a>(&'a self, prefix: &str, after: Option<&[u8]>) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        use std::ops::Bound;
        let start = match after {
            Some(key) => Bound::Excluded(Bytes::copy_from_slice(key)),
            None => Bound::Included(Bytes::copy_from_slice(prefix.as_bytes())),
        };
        let end = Bound::Excluded(key::end_of(prefix.as_bytes()));
        self.entries.range((start, end)).map(|(_, entry)| entry)
    }

    pub fn get(&self, key: &Bytes) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }
}

/// Where a watch reads the log.
#[derive(Debug)]
pub struct Cursor {
    /// Number of the next change, counted from the cache's beginning.
    next: u64,
    epoch: u64,
}

/// What a cursor found.
pub enum Advance {
    Changes(Vec<Arc<Change>>),
    /// The changes it should have read next are gone.
    Behind,
}

struct State {
    entries: OrdMap<Bytes, Arc<Entry>>,
    log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    /// Number of the first change in the log.
    log_first: u64,
    /// All changes after this revision are in the log.
    log_after: u64,
    last: u64,
    epoch: u64,
}

impl State {
    fn forget_oldest(&mut self, total: &AtomicUsize) {
        if let Some(oldest) = self.log.pop_front() {
            let cost = oldest.cost();
            self.log_bytes -= cost;
            total.fetch_sub(cost, Ordering::Relaxed);
            self.log_first += 1;
            self.log_after = oldest.revision;
        }
    }
}

/// The cache's part for one resource.
pub struct ResourceCache {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

impl ResourceCache {
    fn new(revision: u64, epoch: u64) -> Self {
        ResourceCache {
            state: RwLock::new(State {
                entries: OrdMap::new(),
                log: VecDeque::new(),
                log_bytes: 0,
                log_first: 0,
                log_after: revision,
                last: 0,
                epoch,
            }),
            changed: watch::Sender::new(revision),
        }
    }

    /// Revision of the newest change of this resource; a derived value is current as long as it stays.
    pub fn last_changed(&self) -> u64 {
        self.state.read().last
    }

    pub fn is_empty(&self) -> bool {
        self.state.read().entries.is_empty()
    }

    /// All objects as of the newest change.
    pub fn entries(&self) -> OrdMap<Bytes, Arc<Entry>> {
        self.state.read().entries.clone()
    }

    /// Wakes whenever the resource changed; its value is the revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many are told of each change.
    pub fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// A cursor to the first change after `revision`; `None` if the log no longer reaches back so far.
    pub fn cursor(&self, revision: u64) -> Option<Cursor> {
        let state = self.state.read();
        if revision < state.log_after {
            return None;
        }
        let skip = state.log.partition_point(|change| change.revision <= revision);
        Some(Cursor { next: state.log_first + skip as u64, epoch: state.epoch })
    }

    /// The changes since the cursor was last read, at most `limit`.
    pub fn advance(&self, cursor: &mut Cursor, limit: usize) -> Advance {
        let state = self.state.read();
        if cursor.epoch != state.epoch || cursor.next < state.log_first {
            return Advance::Behind;
        }
        let start = (cursor.next - state.log_first) as usize;
        let changes: Vec<_> = state.log.iter().skip(start).take(limit).cloned().collect();
        cursor.next += changes.len() as u64;
        Advance::Changes(changes)
    }

    fn apply(&self, changes: Vec<Arc<Change>>, total: &AtomicUsize) {
        let Some(last) = changes.last().map(|change| change.revision) else { return };
        {
            let mut state = self.state.write();
            for change in changes {
                match (&change.now, &change.before) {
                    (Some(entry), _) => {
                        state.entries.insert(entry.key.clone(), entry.clone());
                    }
                    (None, Some(entry)) => {
                        state.entries.remove(&entry.key);
                    }
                    (None, None) => continue,
                }
                let cost = change.cost();
                state.log_bytes += cost;
                total.fetch_add(cost, Ordering::Relaxed);
                state.log.push_back(change);
            }
            while state.log_bytes > LOG_BYTES && state.log.len() > 1 {
                state.forget_oldest(total);
            }
            state.last = last;
        }
        self.changed.send_replace(last);
    }

    /// Revision of the oldest change in the log.
    fn oldest(&self) -> Option<u64> {
        self.state.read().log.front().map(|change| change.revision)
    }

    /// Forgets the changes up to `revision`, or until `total` is small enough.
    fn forget(&self, revision: u64, total: &AtomicUsize, enough: usize) {
        let mut state = self.state.write();
        while total.load(Ordering::Relaxed) > enough
            && state.log.front().is_some_and(|change| change.revision <= revision)
        {
            state.forget_oldest(total);
        }
    }

    fn reset(&self, entries: OrdMap<Bytes, Arc<Entry>>, revision: u64, total: &AtomicUsize) {
        {
            let mut state = self.state.write();
            state.entries = entries;
            state.log.clear();
            total.fetch_sub(state.log_bytes, Ordering::Relaxed);
            state.log_bytes = 0;
            state.log_after = revision;
            state.last = revision;
            state.epoch += 1;
        }
        self.changed.send_replace(revision);
    }
}

/// The cache of everything below [`key::ROOT`].
pub struct Cache {
    store: Arc<dyn Store>,
    resources: RwLock<HashMap<String, Arc<ResourceCache>>>,
    revision: watch::Sender<u64>,
    /// Bytes in the logs of all resources.
    log_bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Cache {
    /// Loads all objects and keeps following the store until cancelled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let cache = Arc::new(Cache {
            store,
            resources: RwLock::default(),
            revision: watch::Sender::new(0),
            log_bytes: AtomicUsize::new(0),
            metrics,
        });
        let watcher = cache.load().await?;
        tokio::spawn(cache.clone().follow(watcher, stop));
        Ok(cache)
    }

    /// Where what is read and seen here is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The newest revision up to which the cache is complete.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Wakes whenever [`Cache::revision`] grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The part of a storage prefix (`core/pods`).
    pub fn resource(&self, prefix: &str) -> Arc<ResourceCache> {
        if let Some(known) = self.resources.read().get(prefix) {
            return known.clone();
        }
        let mut resources = self.resources.write();
        // Nothing of this prefix was ever seen, so its log is complete from the beginning of the cache's own revision.
        let revision = self.revision();
        resources.entry(prefix.to_owned()).or_insert_with(|| Arc::new(ResourceCache::new(revision, 0))).clone()
    }

    /// What the cache holds of a prefix now; may be older than the newest write by the time of its delivery.
    pub fn snapshot(&self, prefix: &str) -> Snapshot {
        let revision = self.revision();
        let resource = self.resource(prefix);
        let state = resource.state.read();
        Snapshot { revision: revision.max(state.last), entries: state.entries.clone() }
    }

    /// What the cache holds of a prefix once it has seen everything written before the call.
    ///
    /// # Errors
    /// When the store fails, or the cache does not get so far in time.
    pub async fn fresh(&self, prefix: &str) -> Result<Snapshot, StatusError> {
        let newest = self.store.revision().await.map_err(from_store)?;
        let snapshot = self.at(prefix, newest).await;
        let (group, resource) = group_resource(prefix);
        // There is nothing else to fall back to.
        let labels = [flag(false), group, resource, flag(snapshot.is_ok())];
        self.metrics.table.watches.consistent_reads.with(labels).inc();
        snapshot
    }

    /// What the cache holds of a prefix once it is complete up to `revision`.
    ///
    /// # Errors
    /// When that takes too long, in upstream's words.
    pub async fn at(&self, prefix: &str, revision: u64) -> Result<Snapshot, StatusError> {
        let started = Instant::now();
        let reached = self.reach(revision).await;
        let (group, resource) = group_resource(prefix);
        self.metrics.table.watches.read_wait.with([group, resource]).took(started.elapsed());
        reached.map(|()| self.snapshot(prefix))
    }

    /// Waits until the cache is complete up to `revision`.
    ///
    /// # Errors
    /// When that takes too long, in upstream's words.
    pub async fn reach(&self, revision: u64) -> Result<(), StatusError> {
        let current = self.revision();
        if current >= revision {
            return Ok(());
        }
        let mut progress = self.revision.subscribe();
        let reached = progress.wait_for(|current| *current >= revision);
        let reached = async {
            let mut reached = std::pin::pin!(reached);
            if let Ok(reached) = tokio::time::timeout(PROGRESS_AFTER, reached.as_mut()).await {
                return reached.is_ok();
            }
            // Nothing of ours may have happened since, only something else that raised the store's revision.
            self.store.progress().await.is_ok() && reached.await.is_ok()
        };
        match tokio::time::timeout(FRESH_TIMEOUT, reached).await {
            Ok(true) => Ok(()),
            _ => Err(too_large_revision(revision, self.revision())),
        }
    }

    async fn load(&self) -> Result<Watcher, StoreError> {
        let all = Range {
            start: Bytes::from_static(key::ROOT.as_bytes()),
            end: key::end_of(key::ROOT.as_bytes()),
            limit: 0,
            revision: None,
            count: false,
        };
        let loaded = self.store.range(all).await?;
        let watcher = self
            .store
            .watch(WatchOptions {
                prefix: Bytes::from_static(key::ROOT.as_bytes()),
                from: loaded.revision + 1,
                buffer_bytes: FEED_BYTES,
            })
            .await?;
        let mut by_prefix: HashMap<String, OrdMap<Bytes, Arc<Entry>>> = HashMap::new();
        for record in loaded.records {
            let Some((prefix, _)) = key::split(&record.key) else { continue };
            let prefix = prefix.to_owned();
            by_prefix.entry(prefix).or_default().insert(record.key.clone(), Arc::new(Entry::new(record)));
        }
        let known: Vec<String> = self.resources.read().keys().cloned().collect();
        for prefix in known {
            by_prefix.entry(prefix).or_default();
        }
        for (prefix, entries) in by_prefix {
            let (group, resource) = group_resource(&prefix);
            self.metrics.table.watches.initializations.with([group, resource]).inc();
            self.resource(&prefix).reset(entries, loaded.revision, &self.log_bytes);
        }
        self.revision.send_replace(loaded.revision);
        Ok(watcher)
    }

    async fn follow(self: Arc<Self>, mut watcher: Watcher, stop: CancellationToken) {
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = watcher.batches.recv() => batch,
            };
            match batch {
                Some(Ok(batch)) => {
                    self.apply(&batch.events);
                    self.revision.send_if_modified(|revision| {
                        let newer = batch.revision > *revision;
                        *revision = batch.revision.max(*revision);
                        newer
                    });
                    continue;
                }
                Some(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "store watch broke"),
                None => tracing::warn!("store watch ended"),
            }
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(REFEED_PAUSE) => {}
                }
                match self.load().await {
                    Ok(fresh) => {
                        watcher = fresh;
                        break;
                    }
                    Err(StoreError::Closed) => return,
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "store cannot be read"),
                }
            }
        }
    }

    fn apply(&self, events: &[Event]) {
        let mut by_prefix: Vec<(&str, Vec<Arc<Change>>)> = Vec::new();
        for event in events {
            let Some((prefix, _)) = key::split(&event.record.key) else { continue };
            let change = Arc::new(Change::from_event(event));
            match by_prefix.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, changes)) => changes.push(change),
                None => by_prefix.push((prefix, vec![change])),
            }
        }
        let (stored, watches) = (&self.metrics.table.storage, &self.metrics.table.watches);
        for (prefix, changes) in by_prefix {
            let (group, resource) = group_resource(prefix);
            let (labels, count) = ([group, resource], changes.len() as u64);
            stored.events.with(labels).add(count);
            watches.received.with(labels).add(count);
            self.resource(prefix).apply(changes, &self.log_bytes);
            watches.dispatched.with(labels).add(count);
        }
        self.bound_logs(ALL_LOG_BYTES);
    }

    /// Forgets the oldest changes of all resources until an eighth below the limit is left.
    fn bound_logs(&self, limit: usize) {
        if self.log_bytes.load(Ordering::Relaxed) <= limit {
            return;
        }
        let enough = limit - limit / 8;
        let resources: Vec<Arc<ResourceCache>> = self.resources.read().values().cloned().collect();
        while self.log_bytes.load(Ordering::Relaxed) > enough {
            // Up to where the second oldest log begins, so that logs are forgotten in the order of their changes.
            let mut oldest: Vec<(u64, &Arc<ResourceCache>)> =
                resources.iter().filter_map(|resource| Some((resource.oldest()?, resource))).collect();
            oldest.sort_by_key(|(revision, _)| *revision);
            let Some((_, first)) = oldest.first() else { return };
            let until = oldest.get(1).map_or(u64::MAX, |(revision, _)| *revision);
            first.forget(until, &self.log_bytes, enough);
        }
    }
}

#[cfg(test)]
mod tests {
    use kminik_store::{EmbeddedStore, Options, Record};

    use super::*;

    fn change(revision: u64) -> Arc<Change> {
        let key = Bytes::from(format!("/registry/core/x/{revision}"));
        let value = Bytes::from(vec![b' '; 1000]);
        let record = Record { key, value, create_revision: revision, mod_revision: revision, version: 1 };
        Arc::new(Change::from_event(&Event { kind: EventKind::Put, record, prev: None }))
    }

    #[tokio::test]
    async fn the_oldest_changes_of_all_resources_go_first() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("s"), Options::default()).unwrap();
        let cache = Cache::start(Arc::new(store), Arc::default(), CancellationToken::new()).await.unwrap();
        for revision in 1..=90 {
            let resource = cache.resource(if revision % 3 == 0 { "core/a" } else { "core/b" });
            resource.apply(vec![change(revision)], &cache.log_bytes);
        }
        let before = cache.log_bytes.load(Ordering::Relaxed);
        cache.bound_logs(before / 2);
        let left = cache.log_bytes.load(Ordering::Relaxed);
        assert!(left <= before / 2 && left > before / 3, "{left} of {before}");
        let oldest = [cache.resource("core/a").oldest().unwrap(), cache.resource("core/b").oldest().unwrap()];
        assert!(oldest[0].abs_diff(oldest[1]) <= 3, "{oldest:?}");
        assert!(cache.resource("core/a").cursor(1).is_none(), "what is forgotten cannot be read");
        assert!(cache.resource("core/b").cursor(90).is_some());
        let sum: usize = ["core/a", "core/b"].iter().map(|prefix| cache.resource(prefix).state.read().log_bytes).sum();
        assert_eq!(sum, left);
    }
}
