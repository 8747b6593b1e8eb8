//! Termination messages: what a container leaves in its message file, or the end of its log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::logs::format::parse_line;

/// Longest message from a file, in bytes.
const FILE_BYTES: u64 = 4096;
/// Longest message from a log, in bytes and lines.
const LOG_BYTES: u64 = 2048;
const LOG_LINES: usize = 80;

/// Makes the empty file that is mounted into the container; any user may write it.
pub(crate) fn prepare(file: &Path) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(file)?;
    // The umask must not take it back.
    made.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// The message of an ended container. `from_log`: its policy says so and it failed.
pub(crate) fn read(file: Option<&Path>, log: &Path, from_log: bool) -> String {
    let message = file.and_then(|file| head(file).ok()).unwrap_or_default();
    if message.is_empty() && from_log { tail(log).unwrap_or_default() } else { message }
}

fn head(file: &Path) -> std::io::Result<String> {
    // The container may have replaced it: no links, nothing that blocks.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)?;
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let size = file.metadata()?.len();
    // Every line has some forty bytes of its own in the log.
    let window = LOG_BYTES + LOG_LINES as u64 * 64;
    file.seek(SeekFrom::Start(size.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let lines: Vec<&[u8]> =
        bytes.split_inclusive(|b| *b == b'\n').filter_map(|line| parse_line(line).map(|l| l.text)).collect();
    let mut out = Vec::new();
    for (index, line) in lines.iter().enumerate().skip(lines.len().saturating_sub(LOG_LINES)) {
        out.extend_from_slice(line);
        if index + 1 < lines.len() || line.is_empty() {
            continue;
        }
    }
    let start = out.len().saturating_sub(usize::try_from(LOG_BYTES).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&out[start..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_wins_log_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("m"), dir.path().join("log"));
        std::fs::write(&log, "2024-01-01T00:00:00.0Z stdout F one\n2024-01-01T00:00:00.0Z stderr P tw\n2024-01-01T00:00:00.0Z stderr F o\n").unwrap();
        prepare(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(read(Some(&file), &log, false), "");
        assert_eq!(read(Some(&file), &log, true), "one\ntwo\n");
        std::fs::write(&file, "bye").unwrap();
        assert_eq!(read(Some(&file), &log, true), "bye");
        std::fs::write(&file, vec![b'x'; 10_000]).unwrap();
        assert_eq!(read(Some(&file), &log, true).len(), 4096);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("m")).unwrap();
        assert_eq!(read(Some(&dir.path().join("m")), &dir.path().join("none"), true), "");
    }
}
