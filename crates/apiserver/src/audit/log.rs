//! The log file: one event a line, closed and kept under a dated name when it has grown to its bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where events are written, with upstream's names for the bounds.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: PathBuf,
    /// `maxsize`: bytes of one file.
    pub max_size_bytes: u64,
    /// `maxbackup`: older files that are kept; 0 keeps all.
    pub max_backups: usize,
    /// `maxage`: for how long they are kept; zero is for ever.
    pub max_age: Duration,
}

impl LogOptions {
    /// Upstream's bounds: files of 100 MB.
    pub fn new(path: PathBuf) -> Self {
        LogOptions { path, max_size_bytes: 100 << 20, max_backups: 0, max_age: Duration::ZERO }
    }
}

#[derive(Debug)]
pub(super) struct Log {
    options: LogOptions,
    file: Option<File>,
    size: u64,
    /// Time in the name of the newest file that is full.
    rotated: jiff::Timestamp,
}

const MILLISECOND: Duration = Duration::from_millis(1);

impl Log {
    pub(super) fn open(options: LogOptions) -> io::Result<Self> {
        let mut log = Log { options, file: None, size: 0, rotated: jiff::Timestamp::UNIX_EPOCH };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let path = &self.options.path;
        if path == Path::new("-") {
            return Ok(());
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // Requests may hold secrets.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes one line, which ends in a newline.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size > 0 && self.size + line.len() as u64 > self.options.max_size_bytes {
            self.rotate()?;
        }
        match &mut self.file {
            Some(file) => file.write_all(line)?,
            None => io::stdout().lock().write_all(line)?,
        }
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Names tell the order, also of two in one millisecond.
        let mut now = jiff::Timestamp::now().max(self.rotated + MILLISECOND);
        while backup(&self.options.path, now).exists() {
            now += MILLISECOND;
        }
        self.rotated = now;
        let to = backup(&self.options.path, now);
        self.file = None;
        std::fs::rename(&self.options.path, to)?;
        self.reopen()?;
        if let Err(error) = self.prune() {
            tracing::warn!(error = &error as &dyn std::error::Error, "old audit logs cannot be removed");
        }
        Ok(())
    }

    fn prune(&self) -> io::Result<()> {
        let (prefix, suffix) = affixes(&self.options.path);
        let directory = self.options.path.parent().unwrap_or(Path::new("."));
        let mut backups: Vec<PathBuf> = std::fs::read_dir(directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let middle = name.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_suffix(suffix.as_str()));
                // The date and nothing else: a neighbour's file is left alone.
                middle.is_some_and(|date| date.len() == DATE_LENGTH && date.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        backups.sort();
        let excess = match self.options.max_backups {
            0 => 0,
            most => backups.len().saturating_sub(most),
        };
        let now = SystemTime::now();
        for (index, path) in backups.iter().enumerate() {
            let modified = path.metadata()?.modified()?;
            let age = now.duration_since(modified).unwrap_or_default();
            if index < excess || !self.options.max_age.is_zero() && age > self.options.max_age {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Length of `2026-01-31T23-59-59.000`.
const DATE_LENGTH: usize = 23;

/// `audit-` and `.log` of `audit.log`.
fn affixes(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let suffix = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), suffix)
}

fn backup(path: &Path, at: jiff::Timestamp) -> PathBuf {
    let (prefix, suffix) = affixes(path);
    let at = at.strftime("%Y-%m-%dT%H-%M-%S.%3f");
    path.with_file_name(format!("{prefix}{at}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/audit.log");
        let options = LogOptions { max_size_bytes: 100, max_backups: 3, ..LogOptions::new(path.clone()) };
        let mut log = Log::open(options).unwrap();
        std::fs::write(path.with_file_name("audit-notes.log"), "mine").unwrap();
        for n in 0..40 {
            log.write(format!("{n:029}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 5, "{names:?}");
        let read = |name: &String| std::fs::read_to_string(path.with_file_name(name)).unwrap();
        let kept: String = names.iter().filter(|name| *name != "audit-notes.log").map(read).collect();
        let lines: Vec<u32> = kept.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(lines, (30..40).collect::<Vec<_>>(), "the newest three files and the open one, in order");
        let mut again = Log::open(LogOptions::new(path.clone())).unwrap();
        again.write(b"more\n").unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("more\n"), "an existing file is gone on with");
    }
}
