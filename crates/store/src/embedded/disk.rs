//! The redb file: the tables of what survives. What was written last may only be in the [journal](super::journal) yet.
//!
//! | table     | key               | value                                        |
//! |-----------|-------------------|----------------------------------------------|
//! | `meta`    | name              | `format`, `revision`, `compacted`, `journal` |
//! | `current` | key               | record: revisions, time to live, value       |
//! | `history` | (revision, index) | change: kind, key, the record before it      |
//!
//! A change holds only what was before it: what came after it is the next change's "before", or the current record.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use super::state::{Log, Slot, Snapshot};
use crate::api::{Event, EventKind, Record, Revision, StoreError};

/// Version of the layout above. Version 1 had no journal.
const FORMAT: u64 = 2;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
const HISTORY: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("history");

/// Reads come from memory, so redb needs no more than its upper tree levels.
const CACHE_BYTES: usize = 16 << 20;

/// Replayed history is grouped into entries of about this many events.
const EVENTS_PER_ENTRY: usize = 256;

/// When a record's time to live ends, in wall-clock time (it goes on while the store is closed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) ttl: Duration,
    /// Milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
}

/// The times to live by key.
pub(crate) type Expiries = HashMap<Bytes, Expiry>;

/// What the file held.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    pub(crate) log: Log,
    pub(crate) expiries: Vec<(Bytes, Expiry)>,
    /// By which the journal knows these tables; `None` in a file from before there was one.
    pub(crate) number: Option<u64>,
}

/// Changes of one batch, ready to be written.
#[derive(Debug, Default)]
pub(crate) struct WriteBatch {
    pub(crate) events: Vec<Event>,
    /// The time to live of the keys that have one after this batch.
    pub(crate) expiries: Expiries,
    /// The newest revision after this batch.
    pub(crate) revision: Revision,
    /// Forget the history up to and including this revision.
    pub(crate) compact: Option<Revision>,
}

impl WriteBatch {
    /// Adds the batch that follows.
    pub(crate) fn merge(&mut self, next: &WriteBatch) {
        for event in &next.events {
            self.expiries.remove(&event.record.key);
        }
        self.expiries.extend(next.expiries.iter().map(|(key, expiry)| (key.clone(), *expiry)));
        self.events.extend(next.events.iter().cloned());
        self.revision = next.revision;
        self.compact = self.compact.max(next.compact);
    }
}

#[derive(Debug)]
pub(crate) struct Disk {
    db: Database,
}

impl Disk {
    /// Opens or creates the file. A new file appears under its name only when it is complete.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.try_exists().map_err(StoreError::Io)? {
            let draft = Draft::new(path)?;
            match draft.finish()?.persist_noclobber(path) {
                Ok(_) => sync_directory(path)?,
                // Someone else created it meanwhile; opening it tells whether they still hold it.
                Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(from_io(error.error)),
            }
        }
        let db = builder().open(path).map_err(from_redb)?;
        Ok(Disk { db })
    }

    /// Replaces the file by a new one that holds this state and nothing else. Needed where a write has failed for want of
    /// space: what such a failure left in the old file cannot be known.
    pub(crate) fn replace(path: &Path, state: &Snapshot, log: &Log, expiries: &Expiries) -> Result<Self, StoreError> {
        let draft = Draft::new(path)?;
        let write = draft.db.begin_write().map_err(from_redb)?;
        let kept = log.since(log.compacted() + 1)?;
        write_history(&write, kept.iter().flat_map(|events| events.iter()))?;
        {
            let mut meta = write.open_table(META).map_err(from_redb)?;
            meta.insert("revision", state.revision).map_err(from_redb)?;
            meta.insert("compacted", log.compacted()).map_err(from_redb)?;
            let mut current = write.open_table(CURRENT).map_err(from_redb)?;
            let mut buffer = Vec::new();
            for (key, slot) in &state.map {
                buffer.clear();
                encode_slot(slot, expiries.get(key).copied(), &mut buffer);
                current.insert(&key[..], buffer.as_slice()).map_err(from_redb)?;
            }
        }
        write.commit().map_err(from_redb)?;
        draft.finish()?.persist(path).map_err(|error| from_io(error.error))?;
        sync_directory(path)?;
        Disk::open(path)
    }

    pub(crate) fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        let db = builder().create_with_backend(backend).map_err(from_redb)?;
        initialise(&db)?;
        Ok(Disk { db })
    }

    /// Reads everything.
    pub(crate) fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.db.begin_read().map_err(from_redb)?;
        let meta = read.open_table(META).map_err(from_redb)?;
        let found = |name: &str| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(from_redb)?.map(|value| value.value()))
        };
        let number = |name: &str| -> Result<u64, StoreError> {
            found(name)?.ok_or_else(|| corrupt(format!("no {name} in the meta table")))
        };
        let format = number("format")?;
        if format > FORMAT {
            return Err(StoreError::NewerFormat { found: format, supported: FORMAT });
        }
        let mut loaded = Loaded {
            snapshot: Snapshot { revision: number("revision")?, ..Snapshot::default() },
            log: Log::new(number("compacted")?),
            expiries: Vec::new(),
            number: found("journal")?,
        };
        let current = read.open_table(CURRENT).map_err(from_redb)?;
        for entry in current.iter().map_err(from_redb)? {
            let (key, value) = entry.map_err(from_redb)?;
            let key = Bytes::copy_from_slice(key.value());
            let mut value = value.value();
            let (slot, expiry) = decode_slot(&mut value)?;
            if let Some(expiry) = expiry {
                loaded.expiries.push((key.clone(), expiry));
            }
            loaded.snapshot.map.insert(key, slot);
        }
        let history = read.open_table(HISTORY).map_err(from_redb)?;
        let events = load_events(&loaded.snapshot, history.iter().map_err(from_redb)?.rev())?;
        for events in by_entry(events) {
            loaded.log.push(events);
        }
        Ok(loaded)
    }

    /// Makes a file of an older format one of this; gives the number by which the journal knows it.
    pub(crate) fn upgrade(&self) -> Result<u64, StoreError> {
        let write = self.db.begin_write().map_err(from_redb)?;
        let number = rand::random();
        {
            let mut meta = write.open_table(META).map_err(from_redb)?;
            meta.insert("format", FORMAT).map_err(from_redb)?;
            meta.insert("journal", number).map_err(from_redb)?;
        }
        write.commit().map_err(from_redb)?;
        Ok(number)
    }

    /// Writes a batch; on return it is on disk.
    pub(crate) fn write(&self, batch: &WriteBatch, snapshot: &Snapshot) -> Result<(), StoreError> {
        let write = self.db.begin_write().map_err(from_redb)?;
        {
            let mut meta = write.open_table(META).map_err(from_redb)?;
            meta.insert("revision", batch.revision).map_err(from_redb)?;
            if let Some(revision) = batch.compact {
                meta.insert("compacted", revision).map_err(from_redb)?;
                let mut history = write.open_table(HISTORY).map_err(from_redb)?;
                history.retain_in(..(revision + 1, 0), |_, _| false).map_err(from_redb)?;
            }
            let mut current = write.open_table(CURRENT).map_err(from_redb)?;
            let mut buffer = Vec::new();
            // Neighbours in the file come one after the other.
            let mut events: Vec<&Event> = batch.events.iter().collect();
            events.sort_by(|a, b| a.record.key.cmp(&b.record.key));
            for event in events {
                let key = &event.record.key;
                match snapshot.map.get(key) {
                    // Only what stays of a key after the whole batch is written.
                    Some(slot) if slot.mod_revision == event.record.mod_revision => {
                        buffer.clear();
                        encode_slot(slot, batch.expiries.get(key).copied(), &mut buffer);
                        current.insert(&key[..], buffer.as_slice()).map_err(from_redb)?;
                    }
                    Some(_) => {}
                    None => drop(current.remove(&key[..]).map_err(from_redb)?),
                }
            }
        }
        let forgotten = batch.compact.unwrap_or_default();
        write_history(&write, batch.events.iter().filter(|event| event.record.mod_revision > forgotten))?;
        write.commit().map_err(from_redb)
    }

    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.db.close().map_err(from_redb)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A store file under another name beside the one it is for; gone if it is not finished.
struct Draft {
    db: Database,
    file: tempfile::NamedTempFile,
}

impl Draft {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let directory = directory_of(path);
        std::fs::create_dir_all(directory).map_err(from_io)?;
        let file = tempfile::Builder::new().prefix(".store-").tempfile_in(directory).map_err(from_io)?;
        let db = builder().create(file.path()).map_err(from_redb)?;
        initialise(&db)?;
        Ok(Draft { db, file })
    }

    /// Makes the file complete on disk, ready to be renamed.
    fn finish(self) -> Result<tempfile::NamedTempFile, StoreError> {
        self.db.close().map_err(from_redb)?;
        self.file.as_file().sync_all().map_err(from_io)?;
        Ok(self.file)
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    std::fs::File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(from_io)
}

/// Adds changes, which come in order.
fn write_history<'a>(write: &WriteTransaction, events: impl Iterator<Item = &'a Event>) -> Result<(), StoreError> {
    let mut history = write.open_table(HISTORY).map_err(from_redb)?;
    let mut buffer = Vec::new();
    let (mut revision, mut index) = (0, 0);
    for event in events {
        index = if event.record.mod_revision == revision { index + 1 } else { 0 };
        revision = event.record.mod_revision;
        buffer.clear();
        encode_change(event, &mut buffer);
        history.insert((revision, index), buffer.as_slice()).map_err(from_redb)?;
    }
    Ok(())
}

/// Writes the tables of an empty store, unless they are there.
fn initialise(db: &Database) -> Result<(), StoreError> {
    let write = db.begin_write().map_err(from_redb)?;
    {
        let mut meta = write.open_table(META).map_err(from_redb)?;
        if meta.get("format").map_err(from_redb)?.is_some() {
            return Ok(());
        }
        for (name, value) in [("format", FORMAT), ("revision", 0), ("compacted", 0), ("journal", rand::random())] {
            meta.insert(name, value).map_err(from_redb)?;
        }
        write.open_table(CURRENT).map_err(from_redb)?;
        write.open_table(HISTORY).map_err(from_redb)?;
    }
    write.commit().map_err(from_redb)
}

type HistoryItem<'a> =
    Result<(redb::AccessGuard<'a, (u64, u32)>, redb::AccessGuard<'a, &'static [u8]>), redb::StorageError>;

/// Rebuilds the changes, oldest first, from the newest one back to the oldest.
fn load_events<'a>(
    snapshot: &Snapshot,
    newest_first: impl Iterator<Item = HistoryItem<'a>>,
) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    // What each key was after the change that is looked at, if that is not what it is now.
    let mut after: HashMap<Bytes, Option<Record>> = HashMap::new();
    for item in newest_first {
        let (at, change) = item.map_err(from_redb)?;
        let (revision, _) = at.value();
        let mut change = change.value();
        let (kind, key, prev) = decode_change(&mut change)?;
        let record = match kind {
            EventKind::Put => after.remove(&key).unwrap_or_else(|| snapshot.get(&key)),
            EventKind::Delete => prev.as_ref().map(|prev: &Record| Record { mod_revision: revision, ..prev.clone() }),
        };
        let record = record
            .filter(|record| record.mod_revision == revision)
            .ok_or_else(|| corrupt(format!("the change at revision {revision} has lost its value")))?;
        after.insert(key, prev.clone());
        events.push(Event { kind, record, prev });
    }
    events.reverse();
    Ok(events)
}

/// Groups changes; a revision is never split.
fn by_entry(events: Vec<Event>) -> Vec<Arc<[Event]>> {
    let mut entries = Vec::new();
    let mut entry: Vec<Event> = Vec::new();
    for event in events {
        let next_revision = entry.last().is_some_and(|last| last.record.mod_revision != event.record.mod_revision);
        if entry.len() >= EVENTS_PER_ENTRY && next_revision {
            entries.push(std::mem::take(&mut entry).into());
        }
        entry.push(event);
    }
    entries.push(entry.into());
    entries
}

fn encode_slot(slot: &Slot, expiry: Option<Expiry>, out: &mut Vec<u8>) {
    out.put_u64_le(slot.create_revision);
    out.put_u64_le(slot.mod_revision);
    out.put_u64_le(slot.version);
    match expiry {
        None => out.put_u8(0),
        Some(expiry) => {
            out.put_u8(1);
            out.put_u64_le(u64::try_from(expiry.ttl.as_millis()).unwrap_or(u64::MAX));
            out.put_u64_le(expiry.at_unix_ms);
        }
    }
    out.put_slice(&slot.value);
}

fn decode_slot(input: &mut &[u8]) -> Result<(Slot, Option<Expiry>), StoreError> {
    let create_revision = number(input)?;
    let mod_revision = number(input)?;
    let version = number(input)?;
    let expiry = match byte(input)? {
        0 => None,
        1 => Some(Expiry { ttl: Duration::from_millis(number(input)?), at_unix_ms: number(input)? }),
        flag => return Err(corrupt(format!("unknown record flag {flag}"))),
    };
    let value = Bytes::copy_from_slice(input);
    Ok((Slot { value, create_revision, mod_revision, version }, expiry))
}

fn encode_change(event: &Event, out: &mut Vec<u8>) {
    out.put_u8(match event.kind {
        EventKind::Put => 1,
        EventKind::Delete => 2,
    });
    // Keys are bounded far below 4 GiB by the limit on a transaction's size.
    out.put_u32_le(u32::try_from(event.record.key.len()).unwrap_or(u32::MAX));
    out.put_slice(&event.record.key);
    if let Some(prev) = &event.prev {
        let slot = Slot {
            value: prev.value.clone(),
            create_revision: prev.create_revision,
            mod_revision: prev.mod_revision,
            version: prev.version,
        };
        encode_slot(&slot, None, out);
    }
}

fn decode_change(input: &mut &[u8]) -> Result<(EventKind, Bytes, Option<Record>), StoreError> {
    let kind = match byte(input)? {
        1 => EventKind::Put,
        2 => EventKind::Delete,
        kind => return Err(corrupt(format!("unknown kind of change {kind}"))),
    };
    let length = input.try_get_u32_le().map_err(|_| corrupt("a change is cut short".to_owned()))? as usize;
    let (key, rest) = input.split_at_checked(length).ok_or_else(|| corrupt("a change is cut short".to_owned()))?;
    let key = Bytes::copy_from_slice(key);
    *input = rest;
    let prev = match input.is_empty() {
        true => None,
        false => Some(decode_slot(input)?.0.record(key.clone())),
    };
    Ok((kind, key, prev))
}

fn number(input: &mut &[u8]) -> Result<u64, StoreError> {
    input.try_get_u64_le().map_err(|_| corrupt("a record is cut short".to_owned()))
}

fn byte(input: &mut &[u8]) -> Result<u8, StoreError> {
    input.try_get_u8().map_err(|_| corrupt("a record is cut short".to_owned()))
}

pub(crate) fn corrupt(detail: String) -> StoreError {
    StoreError::Corrupt { detail }
}

pub(crate) fn from_io(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::NoSpace(error),
        // redb says so of a file that is none of its own.
        std::io::ErrorKind::InvalidData => corrupt(error.to_string()),
        _ => StoreError::Io(error),
    }
}

fn from_redb(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => from_io(error),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        redb::Error::Corrupted(detail) => corrupt(detail),
        error => corrupt(error.to_string()),
    }
}
