//! Container logs in the CRI format: `<RFC 3339 time> <stream> <F|P> <text>`, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A longer line is written in parts, tagged `P` until its end.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// How large a log may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub max_bytes: u64,
    /// Files in all, the current one included; at least 1.
    pub max_files: u32,
}

#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    length: u64,
    rotation: Rotation,
}

/// A place in a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub inode: u64,
    pub offset: u64,
}

impl LogWriter {
    /// Goes on at the end of an existing log.
    pub(crate) fn open(path: &Path, rotation: Rotation) -> io::Result<LogWriter> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(LogWriter { path: path.to_owned(), file, length, rotation })
    }

    pub(crate) fn position(&self) -> io::Result<Position> {
        Ok(Position { inode: self.file.metadata()?.ino(), offset: self.length })
    }

    /// Cuts off what was written after a place, if the file is still the one.
    pub(crate) fn cut(&mut self, to: Position) -> io::Result<()> {
        if self.position()?.inode == to.inode && to.offset <= self.length {
            self.file.set_len(to.offset)?;
            self.length = to.offset;
        }
        Ok(())
    }

    /// The next write would make it too large.
    pub(crate) fn rotate_if_due(&mut self) -> io::Result<()> {
        if self.length < self.rotation.max_bytes {
            return Ok(());
        }
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S%.9f").to_string();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{stamp}"));
        std::fs::rename(&self.path, name)?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.length = 0;
        self.remove_oldest()
    }

    pub(crate) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        self.length += records.len() as u64;
        Ok(())
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut rotated: Vec<PathBuf> = std::fs::read_dir(directory)?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect();
        // The stamp in the name sorts by time.
        rotated.sort();
        let keep = self.rotation.max_files.saturating_sub(1) as usize;
        for path in rotated.iter().take(rotated.len().saturating_sub(keep)) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Turns the head of what a stream said into records. With `last`, what is left without an end is
/// written as a part.
/// Returns how many bytes the records hold; the rest is a line that has not ended.
pub(crate) fn format(stream: Stream, at: Timestamp, text: &[u8], last: bool, records: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    loop {
        let rest = text.get(taken..).unwrap_or_default();
        let window = rest.get(..MAX_LINE_BYTES.min(rest.len())).unwrap_or_default();
        let (line, used, tag) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (window.get(..end).unwrap_or_default(), end + 1, 'F'),
            None if window.len() == MAX_LINE_BYTES => (window, window.len(), 'P'),
            // Readers end a whole line with a line break, and this one has none.
            None if last && !window.is_empty() => (window, window.len(), 'P'),
            None => return taken,
        };
        // Writing to memory does not fail.
        let _ = write!(records, "{at:.9} {} {tag} ", stream.name());
        records.extend_from_slice(line);
        records.push(b'\n');
        taken += used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], last: bool) -> (usize, Vec<String>) {
        let mut records = Vec::new();
        let at: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let taken = format(Stream::Stderr, at, text, last, &mut records);
        let text = String::from_utf8(records).unwrap();
        (taken, text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn whole_and_broken_lines() {
        let at = "2026-01-02T03:04:05.600000000Z stderr";
        assert_eq!(lines(b"one\n\ntwo", false), (5, vec![format!("{at} F one"), format!("{at} F ")]));
        assert_eq!(lines(b"two", true), (3, vec![format!("{at} P two")]));
        let long = vec![b'x'; MAX_LINE_BYTES + 3];
        let (taken, records) = lines(&long, false);
        assert_eq!((taken, records.len()), (MAX_LINE_BYTES, 1));
        assert!(records[0].starts_with(&format!("{at} P xxx")));
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogWriter::open(&path, Rotation { max_bytes: 10, max_files: 3 }).unwrap();
        for number in 0..6 {
            log.rotate_if_due().unwrap();
            log.write(format!("record {number}\n").repeat(2).as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "record 5\nrecord 5\n");
    }
}
