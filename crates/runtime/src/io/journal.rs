//! What makes a log whole across a kill: an intent, written before a piece of a stream goes into the log and taken back after the piece has been
//! taken from the pipe.
//!
//! The steps are: look at the pipe (which keeps its content), note the intent, write the log, take the piece from the pipe, clear the intent. A
//! reader that is killed in between leaves the intent. The next one compares the pipe's head with the intent's digest: if the piece is still
//! there, the log is cut back to where it was and the piece is written again; if not, the log was complete. So nothing is lost and nothing twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::log::{Position, Stream};

const LENGTH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub stream: Stream,
    pub position: Position,
    /// Bytes of the pipe.
    pub length: u64,
    pub digest: [u8; 32],
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Journal> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Journal { file })
    }

    /// What a killed reader was doing.
    pub(crate) fn pending(&self) -> io::Result<Option<Intent>> {
        let mut record = [0; LENGTH];
        match self.file.read_exact_at(&mut record, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let number =
            |at: usize| record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let stream = match number(0) {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return Ok(None),
        };
        let digest = record.get(32..).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let position = Position { inode: number(8), offset: number(16) };
        Ok(Some(Intent { stream, position, length: number(24), digest }))
    }

    pub(crate) fn note(&self, stream: Stream, position: Position, piece: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(LENGTH);
        let stream: u64 = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        for number in [stream, position.inode, position.offset, piece.len() as u64] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&digest(piece));
        self.file.write_all_at(&record, 0)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; 8], 0)
    }
}

pub(crate) fn digest(piece: &[u8]) -> [u8; 32] {
    Sha256::digest(piece).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_is_read_back_until_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("journal")).unwrap();
        assert_eq!(journal.pending().unwrap(), None);
        let position = Position { inode: 7, offset: 9 };
        journal.note(Stream::Stderr, position, b"abc").unwrap();
        let intent = Intent { stream: Stream::Stderr, position, length: 3, digest: digest(b"abc") };
        assert_eq!(journal.pending().unwrap(), Some(intent));
        journal.clear().unwrap();
        assert_eq!(journal.pending().unwrap(), None);
    }
}
