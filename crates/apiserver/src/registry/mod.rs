//! The resources this server knows, and access to their objects below the pipeline of requests.

pub mod action;
pub mod compose;
pub mod def;
pub mod hub;
mod shared;
pub mod strategy;
pub mod table;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use kminik_meta::{Object, StatusError, time};
use kminik_store::{Compare, Op, Store, Txn, TxnResult};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::compose::Composer;
use self::def::{ResourceDef, Storage};
use self::strategy::Companion;
use self::table::{ResourceTable, TableError};
use crate::error::from_store;
use crate::storage::cache::{Cache, Snapshot};
use crate::storage::entry::Entry;
use crate::storage::{codec, key};

/// Attempts of an optimistic write before the client is told to try again.
const UPDATE_ATTEMPTS: usize = 64;

/// The table of rows over the store and its cache. Nothing here admits, validates or authorises: that is the pipeline's.
pub struct Registry {
    composer: Composer,
    /// One table is composed at a time, so that a later one never is of an earlier state.
    composing: Mutex<()>,
    table: ArcSwap<ResourceTable>,
    swapped: watch::Sender<()>,
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
}

/// What became of a new object.
pub enum Inserted {
    Stored(Arc<Entry>),
    /// Another object has what this one claims. The cache has seen that object: what is asked for again will differ.
    Claimed,
}

/// What an optimistic write did.
pub enum Written {
    /// Stored at this revision.
    Stored(Arc<Entry>),
    /// The change changed nothing; the object stands as it was.
    Unchanged(Arc<Entry>),
    /// Removed at this revision; the entry is the last state, at the revision of the removal.
    Deleted(Arc<Entry>),
}

/// One optimistic write: asked with the newest state, again whenever someone else was faster.
#[async_trait]
pub trait Attempt: Send {
    /// Says what to do with the object; must have no effects of its own that outlive the next call.
    ///
    /// # Errors
    /// The write is given up with this status.
    async fn attempt(&mut self, current: &Entry) -> Result<Change, StatusError>;
}

/// What an optimistic write wants done.
pub enum Change {
    Put(Object),
    Delete,
    /// Leave the object as it is.
    Keep,
}

impl Registry {
    /// With the table that `composer` makes of what the cache holds.
    ///
    /// # Errors
    /// When rows contradict each other.
    pub fn new(composer: Composer, store: Arc<dyn Store>, cache: Arc<Cache>) -> Result<Self, TableError> {
        let table = ArcSwap::from_pointee(composer.compose(&cache)?);
        Ok(Registry { composer, composing: Mutex::new(()), table, swapped: watch::Sender::new(()), store, cache })
    }

    /// The present table. A request takes it once.
    pub fn table(&self) -> Arc<ResourceTable> {
        self.table.load_full()
    }

    /// Replaces the table; requests under way keep the one they have, watches of rows that are not in the new one end.
    fn swap_table(&self, table: Arc<ResourceTable>) {
        let before = self.table.swap(table.clone());
        for row in before.rows() {
            if !table.row(&row.group, &row.plural).is_some_and(|now| Arc::ptr_eq(row, now)) {
                row.retired.cancel();
            }
        }
        self.swapped.send_replace(());
    }

    /// Wakes whenever the table was replaced.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.swapped.subscribe()
    }

    fn composer(&self) -> &Composer {
        &self.composer
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// A row that is always in the table.
    ///
    /// # Errors
    /// 404 if it is not.
    pub fn row(&self, group: &str, plural: &str) -> Result<Arc<ResourceDef>, StatusError> {
        self.table().row(group, plural).cloned().ok_or_else(StatusError::resource_not_found)
    }

    /// What the cache holds of a resource: never blocks, may lack the newest writes. Empty for a resource without storage.
    pub fn cached(&self, group: &str, plural: &str) -> Snapshot {
        let prefix = self.row(group, plural).ok().and_then(|row| storage_prefix(&row).ok().map(str::to_owned));
        self.cache.snapshot(&prefix.unwrap_or_default())
    }

    /// The newest object from the cache; see [`Registry::cached`].
    pub fn cached_object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let row = self.row(group, plural).ok()?;
        let prefix = storage_prefix(&row).ok()?;
        let snapshot = self.cache.snapshot(prefix);
        snapshot.get(&key::object(prefix, namespace, name))?.object().ok()
    }

    /// What the cache holds of a resource in one namespace, decoded; see [`Registry::cached`].
    pub fn cached_in(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Ok(row) = self.row(group, plural) else { return Vec::new() };
        let Ok(prefix) = storage_prefix(&row) else { return Vec::new() };
        decoded(&self.cache.snapshot(prefix), &key::namespace(prefix, namespace))
    }

    /// As [`Registry::cached_in`], with everything that was written before the call.
    ///
    /// # Errors
    /// When the store fails, or the cache does not get so far in time.
    pub async fn fresh_in(&self, group: &str, plural: &str, namespace: &str) -> Result<Vec<Arc<Object>>, StatusError> {
        let row = self.row(group, plural)?;
        let prefix = storage_prefix(&row)?;
        Ok(decoded(&self.cache.fresh(prefix).await?, &key::namespace(prefix, namespace)))
    }

    /// Reads one object as the store has it now, in the version that the row works in.
    ///
    /// # Errors
    /// When the store or a conversion fails; an absent object is `None`.
    pub async fn get(&self, row: &ResourceDef, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, StatusError> {
        let (_, record) =
            self.store.get(&key::object(storage_prefix(row)?, namespace, name)).await.map_err(from_store)?;
        match record {
            Some(record) => row.shown(Arc::new(Entry::new(record))).await.map(Some),
            None => Ok(None),
        }
    }

    /// As [`Registry::get`], by name of the resource, decoded.
    ///
    /// # Errors
    /// When the store fails; an absent object is `None`.
    pub async fn object(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, StatusError> {
        let row = self.row(group, plural)?;
        let Some(entry) = self.get(&row, namespace, name).await? else { return Ok(None) };
        // What the cache holds at the same revision may be decoded already.
        let cached = self.cache.snapshot(storage_prefix(&row)?).get(&entry.key).cloned();
        match cached.filter(|cached| cached.revision == entry.revision) {
            Some(cached) => cached.object().map(Some),
            None => entry.object().map(Some),
        }
    }

    /// Stores a new object. `object` must be in the version that the row works in, and complete.
    ///
    /// # Errors
    /// 409 if the name is taken; whatever a conversion fails with, before or after the object is stored.
    pub async fn insert(&self, row: &ResourceDef, object: &Object) -> Result<Inserted, StatusError> {
        let key = key::object(storage_prefix(row)?, object.namespace(), object.name());
        let value = row.encode(object).await?;
        let mut txn =
            Txn { compare: vec![Compare::Absent(key.clone())], ops: vec![put(row, key.clone(), value.clone())] };
        claim(&mut txn, row, &key, None, Some(object))?;
        self.accompany(row.strategy.companions(None, Some(object)), &mut txn)?;
        match self.store.txn(txn).await.map_err(from_store)? {
            TxnResult::Committed { revision } => {
                row.shown(Arc::new(Entry::at(key, value, revision))).await.map(Inserted::Stored)
            }
            TxnResult::Conflict { revision, current } => match current.first() {
                Some(None) => {
                    self.cache.reach(revision).await?;
                    Ok(Inserted::Claimed)
                }
                _ => Err(StatusError::already_exists(&row.group, &row.plural, object.name())),
            },
        }
    }

    /// Adds the companions to the transaction.
    fn accompany(&self, companions: Vec<Companion>, txn: &mut Txn) -> Result<(), StatusError> {
        for companion in companions {
            match companion {
                Companion::Made { group, plural, mut object } => {
                    let row = self.row(group, plural)?;
                    object.set_meta("uid", &uuid::Uuid::new_v4().to_string());
                    object.set_meta("creationTimestamp", &time::format(Timestamp::now()));
                    let key = key::object(storage_prefix(&row)?, "", object.name());
                    txn.compare.push(Compare::Absent(key.clone()));
                    txn.ops.push(put(&row, key, codec::encode(&object)?));
                }
                Companion::Removed { group, plural, name } => {
                    let row = self.row(group, plural)?;
                    txn.ops.push(Op::Delete { key: key::object(storage_prefix(&row)?, "", &name) });
                }
            }
        }
        Ok(())
    }

    /// Changes one object under optimistic concurrency.
    ///
    /// # Errors
    /// 404 if the object does not exist, 409 after too many collisions, and whatever `write` refuses with.
    pub async fn update(
        &self,
        row: &ResourceDef,
        namespace: &str,
        name: &str,
        write: &mut dyn Attempt,
    ) -> Result<Written, StatusError> {
        let key = key::object(storage_prefix(row)?, namespace, name);
        let (_, mut record) = self.store.get(&key).await.map_err(from_store)?;
        for _ in 0..UPDATE_ATTEMPTS {
            let found = record.ok_or_else(|| StatusError::not_found(&row.group, &row.plural, name))?;
            let found = Arc::new(Entry::new(found));
            let current = row.shown(found.clone()).await?;
            let wanted = write.attempt(&current).await?;
            match self.write(row, &found, current, wanted).await? {
                Outcome::Written(written) => return Ok(written),
                Outcome::Overtaken(newer) => record = newer,
            }
        }
        Err(StatusError::modified(&row.group, &row.plural, name))
    }

    /// As [`Registry::update`], for changes that wait for nothing.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify<F>(
        &self,
        row: &ResourceDef,
        namespace: &str,
        name: &str,
        mut change: F,
    ) -> Result<Written, StatusError>
    where
        F: FnMut(&Object) -> Result<Change, StatusError> + Send,
    {
        let key = key::object(storage_prefix(row)?, namespace, name);
        let (_, mut record) = self.store.get(&key).await.map_err(from_store)?;
        for _ in 0..UPDATE_ATTEMPTS {
            let found = record.ok_or_else(|| StatusError::not_found(&row.group, &row.plural, name))?;
            let found = Arc::new(Entry::new(found));
            let current = row.shown(found.clone()).await?;
            let wanted = change(&*current.object()?)?;
            match self.write(row, &found, current, wanted).await? {
                Outcome::Written(written) => return Ok(written),
                Outcome::Overtaken(newer) => record = newer,
            }
        }
        Err(StatusError::modified(&row.group, &row.plural, name))
    }

    /// Writes the change if the object still is as it was found; `current` is that in the version that the row works in.
    async fn write(
        &self,
        row: &ResourceDef,
        found: &Entry,
        current: Arc<Entry>,
        change: Change,
    ) -> Result<Outcome, StatusError> {
        let key = current.key.clone();
        let (op, value, new) = match change {
            Change::Keep => return Ok(Outcome::Written(Written::Unchanged(current))),
            Change::Delete => (Op::Delete { key: key.clone() }, None, None),
            Change::Put(object) => {
                let value = row.encode(&object).await?;
                if value == found.value {
                    return Ok(Outcome::Written(Written::Unchanged(current)));
                }
                (put(row, key.clone(), value.clone()), Some(value), Some(object))
            }
        };
        let mut txn = Txn { compare: vec![Compare::ModRevision(key.clone(), current.revision)], ops: vec![op] };
        claim(&mut txn, row, &key, Some(&current), new.as_ref())?;
        self.accompany(row.strategy.companions(Some(&*current.object()?), new.as_ref()), &mut txn)?;
        Ok(match self.store.txn(txn).await.map_err(from_store)? {
            TxnResult::Committed { revision } => Outcome::Written(match value {
                Some(value) => Written::Stored(row.shown(Arc::new(Entry::at(key, value, revision))).await?),
                None => Written::Deleted(Arc::new(current.moved_to(revision))),
            }),
            TxnResult::Conflict { revision, current: found } => {
                let found = found.into_iter().next().flatten();
                if found.as_ref().is_some_and(|found| found.mod_revision == current.revision) {
                    // The object is as it was, so what belongs to it was taken by another: the cache must have seen that.
                    self.cache.reach(revision).await?;
                }
                Outcome::Overtaken(found)
            }
        })
    }
}

/// One round of an optimistic write.
enum Outcome {
    Written(Written),
    /// Someone else was faster; this is what they left.
    Overtaken(Option<kminik_store::Record>),
}

fn decoded(snapshot: &Snapshot, prefix: &str) -> Vec<Arc<Object>> {
    snapshot.range(prefix, None).filter_map(|entry| entry.object().ok()).collect()
}

/// Key prefix of a stored row.
///
/// # Errors
/// 405 for a virtual one.
pub fn storage_prefix(row: &ResourceDef) -> Result<&str, StatusError> {
    match &row.storage {
        Storage::Stored { prefix, .. } => Ok(prefix),
        Storage::Virtual(_) | Storage::Computed(_) => Err(StatusError::method_not_allowed()),
    }
}

/// Adds to the transaction what the object takes from now on and what it gives back.
fn claim(
    txn: &mut Txn,
    row: &ResourceDef,
    key: &Bytes,
    old: Option<&Entry>,
    new: Option<&Object>,
) -> Result<(), StatusError> {
    let taken = new.map(|new| row.strategy.claims(new)).unwrap_or_default();
    let held = match old {
        Some(old) => row.strategy.claims(&*old.object()?),
        None => Vec::new(),
    };
    let prefix = storage_prefix(row)?;
    for name in taken.iter().filter(|name| !held.contains(name)) {
        let name = key::claim(prefix, name);
        txn.compare.push(Compare::Absent(name.clone()));
        txn.ops.push(Op::Put { key: name, value: key.clone(), ttl: None });
    }
    for name in held.iter().filter(|name| !taken.contains(name)) {
        txn.ops.push(Op::Delete { key: key::claim(prefix, name) });
    }
    Ok(())
}

fn put(row: &ResourceDef, key: Bytes, value: Bytes) -> Op {
    let ttl = match &row.storage {
        Storage::Stored { ttl, .. } => *ttl,
        Storage::Virtual(_) | Storage::Computed(_) => None,
    };
    Op::Put { key, value, ttl }
}
