//! What makes batches durable: the journal at once, the tables some thousand changes at a time, on a thread of their own.
//!
//! ```text
//!  batch ──► journal (written, synced) ──► acknowledged
//!              └─ part full ─► all its batches as one ──► tables (written, synced) ──► the part is free
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use redb::backends::FileBackend;

use super::disk::{Disk, Expiry, Loaded, WriteBatch, corrupt, from_io, sync_directory};
use super::journal::{Journal, Medium, Record};
use super::state::Snapshot;
use crate::api::StoreError;

#[derive(Debug)]
pub(crate) struct Durable {
    tables: Tables,
    journal: Journal,
    /// What the tables do not have and are not being given.
    unwritten: WriteBatch,
}

#[derive(Debug)]
enum Tables {
    Idle(Disk),
    /// A part of the journal is being written into them.
    Busy(JoinHandle<(Disk, Result<(), StoreError>)>),
    /// Writing failed.
    Failed,
}

/// A store as it was found.
pub(crate) struct Opened {
    pub(crate) loaded: Loaded,
    /// `None` where the disk is too full to go on.
    pub(crate) durable: Result<Durable, StoreError>,
}

/// The files of the journal beside the one of the tables.
pub(crate) fn journal_files(tables: &Path) -> Result<[Medium; 2], StoreError> {
    let open = |extension: &str| -> Result<Medium, StoreError> {
        let path = tables.with_extension(extension);
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(from_io)?;
        FileBackend::new(file).map(|file| Box::new(file) as Medium).map_err(|error| corrupt(error.to_string()))
    };
    let files = [open("journal-0")?, open("journal-1")?];
    // What is acknowledged later must not be in a file that a power cut takes away.
    sync_directory(tables)?;
    Ok(files)
}

impl Durable {
    /// Reads the tables and what of the journal goes on from them, and brings that into the tables.
    ///
    /// # Errors
    /// When something cannot be read.
    pub(crate) fn open(disk: Disk, journal: [Medium; 2], part_bytes: usize) -> Result<Opened, StoreError> {
        let mut loaded = disk.load()?;
        let number = match loaded.number {
            Some(number) => Ok(number),
            // Of a format before there was a journal.
            None => disk.upgrade(),
        };
        let number = match number {
            Ok(number) => number,
            Err(error) => return Opened::without(loaded, error),
        };
        let (journal, records) = Journal::open(journal, number, loaded.snapshot.revision, part_bytes)?;
        let mut unwritten = WriteBatch::default();
        let mut expiries: HashMap<Bytes, Expiry> = loaded.expiries.drain(..).collect();
        for record in records {
            let batch = replay(record, &mut loaded);
            for event in &batch.events {
                expiries.remove(&event.record.key);
            }
            expiries.extend(batch.expiries.clone());
            unwritten.merge(&batch);
        }
        loaded.expiries = expiries.into_iter().collect();
        if unwritten.revision > 0
            && let Err(error) = disk.write(&unwritten, &loaded.snapshot)
        {
            return Opened::without(loaded, error);
        }
        Ok(Opened { loaded, durable: Ok(Durable::new(disk, journal)) })
    }

    /// Tables that have all there is, and a journal that goes on from there.
    fn new(disk: Disk, journal: Journal) -> Self {
        Durable { tables: Tables::Idle(disk), journal, unwritten: WriteBatch::default() }
    }

    /// As [`Durable::open`], of tables that were just made anew.
    ///
    /// # Errors
    /// As [`Durable::open`].
    pub(crate) fn begin(disk: Disk, journal: [Medium; 2], part_bytes: usize) -> Result<Self, StoreError> {
        Self::open(disk, journal, part_bytes)?.durable
    }

    /// Writes a batch that leads to `state`; on return it is on disk.
    ///
    /// # Errors
    /// What the journal failed with, or an earlier batch on its way into the tables.
    pub(crate) fn write(&mut self, batch: &WriteBatch, state: &Snapshot) -> Result<(), StoreError> {
        self.collect(self.journal.is_at_its_limit())?;
        self.journal.append(batch)?;
        self.unwritten.merge(batch);
        if self.journal.is_full() {
            self.hand_over(state)?;
        }
        Ok(())
    }

    /// Has the tables write what they do not have, unless they are still at it.
    fn hand_over(&mut self, state: &Snapshot) -> Result<(), StoreError> {
        self.tables = match std::mem::replace(&mut self.tables, Tables::Failed) {
            Tables::Idle(disk) => {
                let (batch, state) = (std::mem::take(&mut self.unwritten), state.clone());
                let write = move || {
                    let written = disk.write(&batch, &state);
                    (disk, written)
                };
                let thread = std::thread::Builder::new().name("store-tables".to_owned());
                let thread = thread.spawn(write).map_err(StoreError::Io)?;
                self.journal.turn();
                Tables::Busy(thread)
            }
            other => other,
        };
        Ok(())
    }

    /// Takes the tables back once they are written; `wait` for that or not.
    fn collect(&mut self, wait: bool) -> Result<(), StoreError> {
        if matches!(&self.tables, Tables::Busy(thread) if !wait && !thread.is_finished()) {
            return Ok(());
        }
        self.tables = match std::mem::replace(&mut self.tables, Tables::Failed) {
            Tables::Busy(thread) => {
                let ended = || StoreError::Io(std::io::Error::other("the thread that writes the tables has ended"));
                let (disk, written) = thread.join().map_err(|_| ended())?;
                written?;
                Tables::Idle(disk)
            }
            other => other,
        };
        Ok(())
    }

    /// Brings all there is into the tables, which lead to `state` then, and closes them. For what the disk has no space, the journal
    /// has it for the next start.
    ///
    /// # Errors
    /// What they fail with.
    pub(crate) fn close(self, state: &Snapshot) -> Result<(), StoreError> {
        match self.finish(state) {
            Err(StoreError::NoSpace(_)) => Ok(()),
            finished => finished,
        }
    }

    fn finish(mut self, state: &Snapshot) -> Result<(), StoreError> {
        self.collect(true)?;
        let Tables::Idle(disk) = self.tables else { return Ok(()) };
        if self.unwritten.revision > 0 {
            disk.write(&self.unwritten, state)?;
        }
        self.journal.clear()?;
        disk.close()
    }
}

impl Opened {
    /// A store that can be read only; not for anything but want of space.
    fn without(loaded: Loaded, error: StoreError) -> Result<Self, StoreError> {
        match error {
            StoreError::NoSpace(_) => Ok(Opened { loaded, durable: Err(error) }),
            error => Err(error),
        }
    }
}

/// Does once more what a record tells of.
fn replay(record: Record, loaded: &mut Loaded) -> WriteBatch {
    let mut batch = WriteBatch {
        expiries: record.ends.into_iter().collect(),
        revision: record.revision,
        compact: record.compact,
        ..WriteBatch::default()
    };
    for change in record.events {
        let event = match change.value {
            Some(value) => Some(loaded.snapshot.put(change.key, value, change.revision)),
            None => loaded.snapshot.delete(&change.key, change.revision),
        };
        batch.events.extend(event);
    }
    loaded.snapshot.revision = record.revision;
    let events: Arc<[_]> = batch.events.clone().into();
    loaded.log.push(events);
    if let Some(revision) = batch.compact {
        loaded.log.compact(revision);
    }
    batch
}
