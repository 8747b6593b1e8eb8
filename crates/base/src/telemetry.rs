//! Where `tracing` goes: one line an event, to a file or to stderr.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// Environment variable with the filter, `info` if unset: `LEVEL` or `TARGET=LEVEL`, separated by commas. Nothing finer than
/// `debug` is compiled in.
pub const FILTER_VARIABLE: &str = "KMINIK_LOG";
/// What the kernel answers is nlink's to return, and its caller's to judge: a link that is not there is no trouble.
const QUIET: &[&str] = &["nlink"];

fn filter() -> Targets {
    let of_user = std::env::var(FILTER_VARIABLE).ok();
    let parsed = of_user.and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| {
        let all = Targets::new().with_default(LevelFilter::INFO);
        QUIET.iter().fold(all, |targets, target| targets.with_target(*target, LevelFilter::ERROR))
    })
}

fn to(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter())).try_init();
}

/// Logs to stderr from now on; later calls have no effect.
pub fn to_stderr() {
    to(std::io::stderr);
}

/// Appends to the file at `path` from now on; later calls have no effect. A file that has grown to 16 MiB becomes
/// `<path>.1`, replacing the one before, so both together are bounded.
///
/// # Errors
/// When the file cannot be opened.
pub fn to_file(path: &Path) -> io::Result<()> {
    to(Mutex::new(Rotating::open(path)?));
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
