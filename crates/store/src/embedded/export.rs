//! A snapshot as a file: written while the store works, read back into a store that has been stopped.
//!
//! ```text
//! magic "kminik-snapshot\n" | format u32 | revision u64 | saved at u64 (ms since 1970)
//! records: key length u32 | value length u32 | created, modified, version u64 | lives until u64 (ms since 1970, 0 for ever) | key | value
//! end: u32::MAX | number of records u64 | SHA-256 of all before it
//! ```
//! Numbers are little-endian; records come in key order.

use std::io::{BufReader, Read};
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use sha2::{Digest, Sha256};

use super::disk::{Disk, Expiries, Expiry};
use super::state::{Log, Slot, Snapshot};
use crate::api::{Revision, StoreError};

const MAGIC: &[u8; 16] = b"kminik-snapshot\n";
/// Version of the layout above.
const FORMAT: u32 = 1;
/// Stands where a key's length would be.
const END: u32 = u32::MAX;
/// Size of the pieces that are sent.
const PIECE_BYTES: usize = 256 << 10;
/// Longer keys and values cannot be in a store.
const LENGTH_LIMIT: u32 = 64 << 20;
/// A restored store goes on so far behind every revision that was ever handed out: also those of a later state that the
/// snapshot does not know of. A client that has one of them is told to read anew.
const REVISION_LEAP: u64 = 1_000_000_000;

/// Why a file is no snapshot that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("it is not a snapshot made by kminik")]
    Foreign,
    #[error("it has format {found}, this kminik reads up to {supported}")]
    NewerFormat { found: u32, supported: u32 },
    #[error("it is incomplete: it ends within a record")]
    CutShort,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
    #[error("the store cannot be written")]
    Store(#[from] StoreError),
}

/// What a snapshot file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub format: u32,
    /// The revision it is of.
    pub revision: Revision,
    /// Milliseconds since 1970.
    pub saved_at_unix_ms: u64,
    pub records: u64,
    /// Size of the file in bytes.
    pub size: u64,
    pub sha256: [u8; 32],
}

/// A snapshot on its way into a file, piece by piece. It shares the records with the store, whatever happens there.
#[derive(Debug)]
pub struct Export {
    snapshot: Snapshot,
    expiries: Expiries,
    digest: Sha256,
    /// Key of the last record given.
    after: Option<Bytes>,
    records: u64,
    state: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Records,
    Done,
}

impl Export {
    pub(crate) fn new(snapshot: Snapshot, expiries: Expiries) -> Self {
        Export { snapshot, expiries, digest: Sha256::new(), after: None, records: 0, state: Stage::Head }
    }

    /// The revision it is of.
    pub fn revision(&self) -> Revision {
        self.snapshot.revision
    }
}

impl Iterator for Export {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        if self.state == Stage::Done {
            return None;
        }
        if self.state == Stage::Head {
            piece.put_slice(MAGIC);
            piece.put_u32_le(FORMAT);
            piece.put_u64_le(self.snapshot.revision);
            piece.put_u64_le(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, super::commit::millis));
            self.state = Stage::Records;
        }
        let start = match &self.after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        };
        let mut last = None;
        for (key, slot) in self.snapshot.map.range((start, Bound::Unbounded)) {
            put_record(&mut piece, key, slot, self.expiries.get(key));
            self.records += 1;
            last = Some(key.clone());
            if piece.len() >= PIECE_BYTES {
                break;
            }
        }
        if last.is_some() {
            self.after = last;
        }
        if piece.len() < PIECE_BYTES {
            piece.put_u32_le(END);
            piece.put_u64_le(self.records);
            self.state = Stage::Done;
        }
        self.digest.update(&piece);
        if self.state == Stage::Done {
            piece.put_slice(&self.digest.clone().finalize());
        }
        Some(piece.into())
    }
}

fn put_record(out: &mut Vec<u8>, key: &Bytes, slot: &Slot, expiry: Option<&Expiry>) {
    // Lengths are bounded far below 4 GiB by the limit on a transaction's size.
    out.put_u32_le(u32::try_from(key.len()).unwrap_or(LENGTH_LIMIT));
    out.put_u32_le(u32::try_from(slot.value.len()).unwrap_or(LENGTH_LIMIT));
    out.put_u64_le(slot.create_revision);
    out.put_u64_le(slot.mod_revision);
    out.put_u64_le(slot.version);
    out.put_u64_le(expiry.map_or(0, |expiry| expiry.at_unix_ms));
    out.put_slice(key);
    out.put_slice(&slot.value);
}

/// Reads what it digests.
struct Input<R> {
    reader: BufReader<R>,
    digest: Sha256,
    size: u64,
}

impl<R: Read> Input<R> {
    fn take(&mut self, length: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        let taken = self.reader.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(SnapshotError::Io)?;
        self.size += taken as u64;
        if taken < length {
            return Err(SnapshotError::CutShort);
        }
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| SnapshotError::CutShort)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Reads a whole snapshot, gives each record to `visit`, and checks that it is complete and unharmed. What was visited
/// counts only when this succeeds.
fn read(source: impl Read, mut visit: impl FnMut(Bytes, Slot, u64)) -> Result<SnapshotInfo, SnapshotError> {
    let mut input = Input { reader: BufReader::with_capacity(1 << 20, source), digest: Sha256::new(), size: 0 };
    match input.array::<16>() {
        Ok(magic) if magic == *MAGIC => {}
        Ok(_) | Err(SnapshotError::CutShort) => return Err(SnapshotError::Foreign),
        Err(error) => return Err(error),
    }
    let format = input.u32()?;
    if format > FORMAT {
        return Err(SnapshotError::NewerFormat { found: format, supported: FORMAT });
    }
    let (revision, saved_at_unix_ms) = (input.u64()?, input.u64()?);
    let mut records = 0;
    let mut previous: Option<Bytes> = None;
    loop {
        let key_length = input.u32()?;
        if key_length == END {
            break;
        }
        let value_length = input.u32()?;
        if key_length > LENGTH_LIMIT || value_length > LENGTH_LIMIT {
            return Err(SnapshotError::Damaged("a length is beyond all bounds"));
        }
        let (create_revision, mod_revision, version, until) = (input.u64()?, input.u64()?, input.u64()?, input.u64()?);
        let key = Bytes::from(input.take(key_length as usize)?);
        let value = Bytes::from(input.take(value_length as usize)?);
        if mod_revision > revision || create_revision > mod_revision {
            return Err(SnapshotError::Damaged("a record is newer than the snapshot"));
        }
        if previous.as_ref().is_some_and(|previous| *previous >= key) {
            return Err(SnapshotError::Damaged("its records are not in order"));
        }
        previous = Some(key.clone());
        records += 1;
        visit(key, Slot { value, create_revision, mod_revision, version }, until);
    }
    if input.u64()? != records {
        return Err(SnapshotError::Damaged("it lacks records"));
    }
    let sha256: [u8; 32] = input.digest.clone().finalize().into();
    if input.array::<32>()? != sha256 {
        return Err(SnapshotError::Damaged("its content does not have the digest it names"));
    }
    if input.reader.read(&mut [0]).map_err(SnapshotError::Io)? > 0 {
        return Err(SnapshotError::Damaged("something follows its end"));
    }
    Ok(SnapshotInfo { format, revision, saved_at_unix_ms, records, size: input.size, sha256 })
}

/// Checks a snapshot from its first byte to its last.
///
/// # Errors
/// Why it cannot be used.
pub fn inspect(source: impl Read) -> Result<SnapshotInfo, SnapshotError> {
    read(source, |_, _, _| {})
}

/// Makes the store file at `path` hold what the snapshot has, and nothing else. The file appears, or is replaced, at once
/// and only if the snapshot is whole. No revision that the old file or the snapshot knew is used again, and watches from
/// them are told that history is gone.
///
/// # Errors
/// Why the snapshot cannot be used; [`StoreError::InUse`] if the store at `path` is open.
pub fn restore(source: impl Read, path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    let mut state = Snapshot::default();
    let mut expiries = Expiries::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, super::commit::millis);
    let info = read(source, |key, slot, until| {
        if until > 0 {
            let ttl = Duration::from_millis(until.saturating_sub(now));
            expiries.insert(key.clone(), Expiry { ttl, at_unix_ms: until });
        }
        state.map.insert(key, slot);
    })?;
    let before = match path.try_exists().map_err(|error| SnapshotError::Store(StoreError::Io(error)))? {
        true => newest_of(path)?,
        false => 0,
    };
    state.revision = info.revision.max(before).saturating_add(REVISION_LEAP);
    let log = Log::new(state.revision);
    Disk::replace(path, &state, &log, &expiries)?.close()?;
    Ok(info)
}

/// The newest revision of the store in this file; 0 if it cannot be read any more, which may be why it is replaced.
fn newest_of(path: &Path) -> Result<Revision, StoreError> {
    match Disk::open(path).and_then(|disk| disk.load()) {
        Ok(loaded) => Ok(loaded.snapshot.revision),
        Err(StoreError::Corrupt { detail }) => {
            tracing::warn!(detail, "the store that is replaced is damaged");
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
