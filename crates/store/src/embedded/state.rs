//! The visible state: one immutable map of the newest records, and the log of changes that led to it.
//!
//! Old revisions are read by undoing the logged changes after them, so a key has one slot however often it changed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::api::{Event, EventKind, Range, RangeResult, Record, Revision, StoreError};

/// The newest value of a key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) value: Bytes,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: u64,
}

impl Slot {
    pub(crate) fn record(&self, key: Bytes) -> Record {
        Record {
            key,
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }
}

/// The records at one revision. Cloning shares all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) map: OrdMap<Bytes, Slot>,
}

impl Snapshot {
    pub(crate) fn get(&self, key: &[u8]) -> Option<Record> {
        self.map.get_key_value(key).map(|(key, slot)| slot.record(key.clone()))
    }

    /// Applies a put at `revision` and tells what changed.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, revision: Revision) -> Event {
        let old = self.map.get_key_value(&key).map(|(key, slot)| (key.clone(), slot.clone()));
        let (key, slot, prev) = match old {
            Some((key, old)) => {
                let slot = Slot {
                    value,
                    create_revision: old.create_revision,
                    mod_revision: revision,
                    version: old.version + 1,
                };
                (key.clone(), slot, Some(old.record(key)))
            }
            None => (key, Slot { value, create_revision: revision, mod_revision: revision, version: 1 }, None),
        };
        self.map.insert(key.clone(), slot.clone());
        Event { kind: EventKind::Put, record: slot.record(key), prev }
    }

    /// Applies a delete at `revision`; `None` if the key is absent.
    pub(crate) fn delete(&mut self, key: &[u8], revision: Revision) -> Option<Event> {
        let (key, slot) = self.map.remove_with_key(key)?;
        let prev = slot.record(key);
        let record = Record { mod_revision: revision, ..prev.clone() };
        Some(Event { kind: EventKind::Delete, record, prev: Some(prev) })
    }

    /// Reads the range as of this snapshot with `undo` laid over it: the value each key in it had instead.
    pub(crate) fn range(
        &self,
        range: &Range,
        revision: Revision,
        undo: BTreeMap<Bytes, Option<Record>>,
    ) -> RangeResult {
        let mut result = RangeResult { records: Vec::new(), revision, more: false, count: 0 };
        if range.start >= range.end {
            return result;
        }
        let bounds = (Bound::Included(&range.start[..]), Bound::Excluded(&range.end[..]));
        let mut live = self.map.range::<_, [u8]>(bounds).peekable();
        let mut old = undo.into_iter().peekable();
        loop {
            let record = match (live.peek(), old.peek()) {
                (Some((live_key, _)), Some((old_key, _))) if *live_key > old_key => old.next().and_then(|(_, r)| r),
                (Some((live_key, _)), Some((old_key, _))) if *live_key == old_key => {
                    live.next();
                    old.next().and_then(|(_, record)| record)
                }
                (Some((key, slot)), _) => {
                    let record = slot.record((*key).clone());
                    live.next();
                    Some(record)
                }
                (None, Some(_)) => old.next().and_then(|(_, record)| record),
                (None, None) => break,
            };
            let Some(record) = record else { continue };
            if range.limit == 0 || result.records.len() < range.limit {
                result.records.push(record);
                result.count += 1;
                continue;
            }
            result.more = true;
            if !range.count {
                break;
            }
            result.count += 1;
            if old.peek().is_none() {
                // All that follows is as it was: nothing need be made of it to count it.
                result.count += live.count();
                break;
            }
        }
        result
    }
}

/// Consecutive changes; the revision of the last one ends the entry.
#[derive(Clone, Debug)]
struct Entry {
    events: Arc<[Event]>,
    last: Revision,
    cost: usize,
}

/// The changes that are kept, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// Changes up to and including this revision are gone.
    compacted: Revision,
    bytes: usize,
}

impl Log {
    pub(crate) fn new(compacted: Revision) -> Self {
        Log { compacted, ..Log::default() }
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn push(&mut self, events: Arc<[Event]>) {
        let Some(last) = events.last().map(|event| event.record.mod_revision) else { return };
        let cost = crate::watch::cost_of(&events);
        self.bytes += cost;
        self.entries.push_back(Entry { events, last, cost });
    }

    /// Forgets the changes up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while let Some(entry) = self.entries.front() {
            if entry.last <= revision {
                self.bytes -= entry.cost;
                self.entries.pop_front();
                continue;
            }
            if let Some(events) = crate::watch::select(&entry.events, b"", revision + 1)
                && events.len() < entry.events.len()
            {
                let kept = Entry { cost: crate::watch::cost_of(&events), last: entry.last, events };
                self.bytes = self.bytes - entry.cost + kept.cost;
                self.entries.pop_front();
                self.entries.push_front(kept);
            }
            break;
        }
    }

    /// The revision to compact at so that at most `limit_bytes` stay.
    pub(crate) fn excess(&self, limit_bytes: usize) -> Option<Revision> {
        let mut over = self.bytes.checked_sub(limit_bytes).filter(|over| *over > 0)?;
        let mut revision = None;
        for entry in &self.entries {
            revision = Some(entry.last);
            over = match over.checked_sub(entry.cost) {
                Some(over) if over > 0 => over,
                _ => break,
            };
        }
        revision
    }

    /// The entries that hold changes from `from` on, or why they cannot be had.
    pub(crate) fn since(&self, from: Revision) -> Result<VecDeque<Arc<[Event]>>, StoreError> {
        if from <= self.compacted {
            return Err(StoreError::Compacted { requested: from, oldest: self.compacted + 1 });
        }
        let first = self.entries.partition_point(|entry| entry.last < from);
        Ok(self.entries.range(first..).map(|entry| entry.events.clone()).collect())
    }
}

/// For every key in `start..end` that `events` changed after `revision`: its record at `revision`.
pub(crate) fn undo(
    events: &VecDeque<Arc<[Event]>>,
    revision: Revision,
    start: &[u8],
    end: &[u8],
) -> BTreeMap<Bytes, Option<Record>> {
    let mut undo = BTreeMap::new();
    let changes = events.iter().flat_map(|events| events.iter());
    for event in changes.filter(|event| event.record.mod_revision > revision) {
        let key = &event.record.key;
        if start <= &key[..] && &key[..] < end {
            // The first change after `revision` has the value of that time before it.
            undo.entry(key.clone()).or_insert_with(|| event.prev.clone());
        }
    }
    undo
}
