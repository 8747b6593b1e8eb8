//! The journal: batches in the order of their revisions, each written in one piece, until the tables have them.
//!
//! It has two parts, written in turns: what one holds goes to the tables while batches are added to the other. Nothing is ever
//! removed; a part is begun anew once all of it is in the tables. What is read back is what goes on, revision by revision, where the
//! tables end.
//!
//! ```text
//! record:  length u32 | CRC-32 of what follows u32 | store u64 | base u64 | revision u64 | compact u64 (0: no compaction)
//!          | number of events u32 | events | number of ends u32 | ends
//! event:   kind u8 (1 put, 2 delete) | revision u64 | key | value (of a put)
//! end:     key | time to live u64 | at u64 (ms since 1970)
//! ```
//! Numbers are little-endian; keys and values stand behind their lengths (u32). `store` tells the journal's records from those of another
//! tables file, `base` is the revision of the record before.

use bytes::{Buf, BufMut, Bytes};
use redb::StorageBackend;

use super::commit::millis;
use super::disk::{Expiry, WriteBatch, from_io};
use crate::api::{EventKind, Revision, StoreError};

const PARTS: usize = 2;
/// A part may grow to so many times its size where the tables do not keep up.
const PART_LIMIT: u64 = 4;
/// What is kept of the buffer for records.
const BUFFER_BYTES: usize = 1 << 20;
/// Files grow in such steps, so that most writes need no new space.
const GROWTH_BYTES: u64 = 1 << 20;
/// Length and checksum.
const HEAD_BYTES: usize = 8;

/// Where a part is kept.
pub(crate) type Medium = Box<dyn StorageBackend>;

/// What a record tells.
#[derive(Debug)]
pub(crate) struct Record {
    base: Revision,
    pub(crate) revision: Revision,
    pub(crate) compact: Option<Revision>,
    pub(crate) events: Vec<Change>,
    pub(crate) ends: Vec<(Bytes, Expiry)>,
}

/// One change of one key; without a value it is deleted.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    parts: [Medium; PARTS],
    /// Which part is added to, and where it ends.
    part: usize,
    end: u64,
    /// Revision of the last record.
    last: Revision,
    store: u64,
    /// A part is handed to the tables once it is so large.
    part_bytes: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Of the tables with this number, which have everything up to `revision`; gives the records that go on from there.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub(crate) fn open(
        parts: [Medium; PARTS],
        store: u64,
        revision: Revision,
        part_bytes: usize,
    ) -> Result<(Self, Vec<Record>), StoreError> {
        let mut found = Vec::new();
        for part in &parts {
            found.push(records(&read(part.as_ref())?, store));
        }
        found.sort_by_key(|records| records.first().map(|record| record.base));
        let mut last = revision;
        let mut following = Vec::new();
        for record in found.into_iter().flatten() {
            // What the tables have is older; behind a gap there is nothing that was ever acknowledged.
            if record.base == last && (record.revision > last || record.compact.is_some()) {
                last = record.revision;
                following.push(record);
            }
        }
        let (part_bytes, buffer) = (part_bytes as u64, Vec::new());
        Ok((Journal { parts, part: 0, end: 0, last, store, part_bytes, buffer }, following))
    }

    /// Adds a batch; on return it is on disk.
    pub(crate) fn append(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.buffer.clear();
        encode(batch, self.store, self.last, &mut self.buffer);
        let end = self.end + self.buffer.len() as u64;
        let part = &self.parts[self.part];
        let size = part.len().map_err(from_io)?;
        if end > size {
            let grown = end.next_multiple_of(GROWTH_BYTES);
            part.set_len(grown).map_err(from_io)?;
            // Zeros, so that the space is there.
            let zeros = vec![0; GROWTH_BYTES as usize];
            let mut at = size;
            while at < grown {
                let step = (grown - at).min(GROWTH_BYTES);
                part.write(at, zeros.get(..step as usize).unwrap_or_default()).map_err(from_io)?;
                at += step;
            }
        }
        part.write(self.end, &self.buffer).map_err(from_io)?;
        part.sync_data().map_err(from_io)?;
        self.end = end;
        self.last = batch.revision;
        self.buffer.shrink_to(BUFFER_BYTES);
        Ok(())
    }

    /// Says that the tables have everything, so that whoever opens the store next need not look for it.
    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        for part in &self.parts {
            if part.len().map_err(from_io)? > 0 {
                part.write(0, &[0; HEAD_BYTES]).map_err(from_io)?;
                part.sync_data().map_err(from_io)?;
            }
        }
        self.end = 0;
        Ok(())
    }

    /// Whether the part should go to the tables.
    pub(crate) fn is_full(&self) -> bool {
        self.end >= self.part_bytes
    }

    /// Whether the tables must have the other part before more is added.
    pub(crate) fn is_at_its_limit(&self) -> bool {
        self.end >= PART_LIMIT * self.part_bytes
    }

    /// Goes on in the other part, all of which is in the tables.
    pub(crate) fn turn(&mut self) {
        self.part = (self.part + 1) % PARTS;
        self.end = 0;
    }
}

/// What a part holds; nothing where it does not begin with a record.
fn read(part: &dyn StorageBackend) -> Result<Bytes, StoreError> {
    let length = usize::try_from(part.len().map_err(from_io)?).unwrap_or(usize::MAX);
    let mut head = [0; HEAD_BYTES];
    if length >= HEAD_BYTES {
        part.read(0, &mut head).map_err(from_io)?;
    }
    if head == [0; HEAD_BYTES] {
        return Ok(Bytes::new());
    }
    let mut content = vec![0; length];
    part.read(0, &mut content).map_err(from_io)?;
    Ok(content.into())
}

fn encode(batch: &WriteBatch, store: u64, base: Revision, out: &mut Vec<u8>) {
    // Keys and values are bounded far below 4 GiB by the limits on a transaction and on a batch.
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let text = |out: &mut Vec<u8>, text: &[u8]| {
        out.put_u32_le(length(text.len()));
        out.put_slice(text);
    };
    out.put_slice(&[0; HEAD_BYTES]);
    for number in [store, base, batch.revision, batch.compact.unwrap_or_default()] {
        out.put_u64_le(number);
    }
    out.put_u32_le(length(batch.events.len()));
    for event in &batch.events {
        out.put_u8(match event.kind {
            EventKind::Put => 1,
            EventKind::Delete => 2,
        });
        out.put_u64_le(event.record.mod_revision);
        text(out, &event.record.key);
        if event.kind == EventKind::Put {
            text(out, &event.record.value);
        }
    }
    out.put_u32_le(length(batch.expiries.len()));
    for (key, expiry) in &batch.expiries {
        text(out, key);
        out.put_u64_le(millis(expiry.ttl));
        out.put_u64_le(expiry.at_unix_ms);
    }
    let content = out.get(HEAD_BYTES..).unwrap_or_default();
    let (size, checksum) = (length(content.len()), crc32fast::hash(content));
    if let Some(mut head) = out.get_mut(..HEAD_BYTES) {
        head.put_u32_le(size);
        head.put_u32_le(checksum);
    }
}

/// The records from the beginning up to the first that is none, is another store's, or does not follow.
fn records(content: &Bytes, store: u64) -> Vec<Record> {
    let (mut rest, mut records) = (content.clone(), Vec::<Record>::new());
    while let Some(record) = next(&mut rest, store) {
        if records.last().is_some_and(|last| last.revision != record.base) {
            break;
        }
        records.push(record);
    }
    records
}

fn next(rest: &mut Bytes, store: u64) -> Option<Record> {
    let (length, checksum) = (rest.try_get_u32_le().ok()?, rest.try_get_u32_le().ok()?);
    let mut content = split(rest, length)?;
    if crc32fast::hash(&content) != checksum || content.try_get_u64_le().ok()? != store {
        return None;
    }
    let base = content.try_get_u64_le().ok()?;
    let revision = content.try_get_u64_le().ok()?;
    let compact = content.try_get_u64_le().ok().filter(|compact| *compact > 0);
    let mut events = Vec::new();
    for _ in 0..content.try_get_u32_le().ok()? {
        let (kind, revision) = (content.try_get_u8().ok()?, content.try_get_u64_le().ok()?);
        let key = text(&mut content)?;
        let value = if kind == 1 { Some(text(&mut content)?) } else { None };
        events.push(Change { revision, key, value });
    }
    let mut ends = Vec::new();
    for _ in 0..content.try_get_u32_le().ok()? {
        let key = text(&mut content)?;
        let ttl = std::time::Duration::from_millis(content.try_get_u64_le().ok()?);
        ends.push((key, Expiry { ttl, at_unix_ms: content.try_get_u64_le().ok()? }));
    }
    Some(Record { base, revision, compact, events, ends })
}

/// A copy of its own, so that what stays in memory does not keep the whole part there.
fn text(content: &mut Bytes) -> Option<Bytes> {
    let length = content.try_get_u32_le().ok()?;
    split(content, length).map(|text| Bytes::copy_from_slice(&text))
}

fn split(content: &mut Bytes, length: u32) -> Option<Bytes> {
    let length = length as usize;
    (length <= content.len()).then(|| content.split_to(length))
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::api::{Event, Record as Stored};

    #[derive(Clone, Debug)]
    struct Shared(std::sync::Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write(offset, data)
        }
    }

    struct Files([Shared; 2]);

    impl Files {
        fn new() -> Self {
            Files([(); 2].map(|()| Shared(std::sync::Arc::new(InMemoryBackend::new()))))
        }

        fn open(&self, store: u64, revision: Revision) -> (Journal, Vec<Revision>) {
            let parts = self.0.clone().map(|part| Box::new(part) as Medium);
            let (journal, records) = Journal::open(parts, store, revision, 1000).unwrap();
            (journal, records.iter().map(|record| record.revision).collect())
        }
    }

    fn batch(revision: Revision) -> WriteBatch {
        let record = |key: &'static str| Stored {
            key: key.into(),
            value: vec![b'v'; 100].into(),
            create_revision: 1,
            mod_revision: revision,
            version: 1,
        };
        let event = |kind, key| Event { kind, record: record(key), prev: None };
        let expiry = Expiry { ttl: std::time::Duration::from_secs(7), at_unix_ms: revision };
        WriteBatch {
            events: vec![event(EventKind::Put, "/a"), event(EventKind::Delete, "/b")],
            expiries: [("/a".into(), expiry)].into(),
            revision,
            compact: revision.checked_sub(5),
        }
    }

    #[test]
    fn what_was_added_is_read_back_from_where_the_tables_end() {
        let files = Files::new();
        let (mut journal, found) = files.open(7, 0);
        assert!(found.is_empty());
        for revision in 1..=20 {
            journal.append(&batch(revision)).unwrap();
            if journal.is_full() {
                journal.turn();
            }
        }
        // The parts hold what came last; the tables had all that is overwritten.
        let oldest = (1..=20).find(|revision| files.open(7, *revision).1.len() == 20 - *revision as usize).unwrap();
        assert!((2..20).contains(&oldest), "{oldest}");
        assert_eq!(files.open(7, oldest).1, (oldest + 1..=20).collect::<Vec<_>>());
        assert_eq!(files.open(7, 19).1, [20]);
        assert!(files.open(7, 20).1.is_empty() && files.open(7, 30).1.is_empty(), "nothing that the tables have");
        assert!(files.open(7, 0).1.is_empty(), "nothing behind a gap");
        assert!(files.open(8, oldest).1.is_empty(), "nothing of another store");

        let parts = files.0.clone().map(|part| Box::new(part) as Medium);
        let (_, records) = Journal::open(parts, 7, 19, 1000).unwrap();
        let Record { base: 19, compact: Some(15), events, ends, .. } = &records[0] else { panic!("{records:?}") };
        let values: Vec<_> = events.iter().map(|change| change.value.as_ref().map(Bytes::len)).collect();
        assert_eq!((values, events[1].key.as_ref()), (vec![Some(100), None], &b"/b"[..]));
        assert_eq!((ends[0].0.as_ref(), ends[0].1), (&b"/a"[..], batch(20).expiries["/a".as_bytes()]));
    }

    #[test]
    fn what_is_damaged_ends_it() {
        let files = Files::new();
        let (mut journal, _) = files.open(7, 0);
        for revision in 1..=3 {
            journal.append(&batch(revision)).unwrap();
        }
        let size = journal.end / 3;
        for at in [0, 4, 8, 20, size - 1] {
            let mut byte = [0];
            files.0[0].read(size + at, &mut byte).unwrap();
            files.0[0].write(size + at, &[byte[0] ^ 0x41]).unwrap();
            assert_eq!(files.open(7, 0).1, [1], "damaged at {at}");
            files.0[0].write(size + at, &byte).unwrap();
        }
        assert_eq!(files.open(7, 0).1, [1, 2, 3]);
        // Goes on over what was there.
        let (mut journal, _) = files.open(7, 3);
        journal.append(&batch(4)).unwrap();
        assert_eq!(files.open(7, 3).1, [4]);
        assert!(files.open(7, 4).1.is_empty());
        journal.clear().unwrap();
        assert!(files.open(7, 3).1.is_empty(), "cleared");
        journal.append(&batch(5)).unwrap();
        assert_eq!(files.open(7, 4).1, [5]);
    }
}
