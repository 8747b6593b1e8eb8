//! Where `tracing` goes: one line an event, to a file or to stderr.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, [`DEFAULT`] if unset; `tracing_subscriber`'s directives.
pub const FILTER_VARIABLE: &str = "KMINIK_LOG";
/// What the kernel answers is nlink's to return, and its caller's to judge: a link that is not there is no trouble.
const DEFAULT: &str = "info,nlink=error";

fn filter() -> EnvFilter {
    EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT))
}

/// Logs to stderr from now on; later calls have no effect.
pub fn to_stderr() {
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(std::io::stderr).try_init();
}

/// Appends to the file at `path` from now on; later calls have no effect. A file that has grown to 16 MiB becomes
/// `<path>.1`, replacing the one before, so both together are bounded.
///
/// # Errors
/// When the file cannot be opened.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = Rotating::open(path)?;
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(Mutex::new(file)).try_init();
    Ok(())
}

const LIMIT_BYTES: u64 = 16 << 20;

struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, written })
    }
}

impl Write for Rotating {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.written > LIMIT_BYTES {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = Self::open(&self.path)?;
        }
        let n = self.file.write(data)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/node.log");
        let mut log = Rotating::open(&path).unwrap();
        log.write_all(b"old").unwrap();
        log.written = LIMIT_BYTES + 1;
        log.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read(dir.path().join("logs/node.log.1")).unwrap(), b"old");
    }
}
