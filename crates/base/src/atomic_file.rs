//! Files that are whole or absent: written beside the target, synced, renamed, directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of files that hold keys or credentials.
pub const SECRET: u32 = 0o600;
/// Mode of files anyone may read.
pub const PUBLIC: u32 = 0o644;

/// A failed step, with the file it was for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct FileError {
    pub step: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { step, path: path.to_path_buf(), source }
}

/// Replaces the file at `path`, which gets exactly `mode`; an existing file's owner is kept.
/// A symbolic link at `path` is followed, so that a linked configuration stays linked.
///
/// # Errors
/// The step that failed; the old content is then still whole.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let dir = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!("{}{}.{number}{TEMPORARY}", temporary_prefix(&name), std::process::id()));
    let result = write_beside(&target, &temporary, content, mode);
    if result.is_err() {
        // The error that matters is the one above; a file that was never made cannot be removed.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(at("sync the directory", dir))
}

const TEMPORARY: &str = ".tmp";
/// Tells this process' temporary files apart: several threads may write one file.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Removes what writers of `path` that were killed have left beside it. The caller excludes other writers.
///
/// # Errors
/// When the directory cannot be read or a file not be removed.
pub fn sweep(path: &Path) -> Result<(), FileError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = temporary_prefix(&name.to_string_lossy());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome.map_err(at("read", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(at("read", dir))?;
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(TEMPORARY));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if writer.is_some_and(|writer| writer.split('.').all(is_number)) {
            fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn write_beside(target: &Path, temporary: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(temporary)
        .map_err(at("create", temporary))?;
    // The mode given to open is subject to the umask and does not apply to a left-over file.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(at("set the mode of", temporary))?;
    if let Ok(old) = fs::metadata(target) {
        use std::os::unix::fs::MetadataExt;
        chown(temporary, Some(old.uid()), Some(old.gid())).map_err(at("set the owner of", temporary))?;
    }
    file.write_all(content).map_err(at("write", temporary))?;
    file.sync_all().map_err(at("sync", temporary))?;
    fs::rename(temporary, target).map_err(at("replace", target))
}

/// The content of the file, or `None` if there is none. At most `limit_bytes` are accepted.
///
/// # Errors
/// When it exists but cannot be read, or is larger.
pub fn read_optional(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, FileError> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at("open", path)(e)),
    };
    let mut content = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut content).map_err(at("read", path))?;
    if content.len() as u64 > limit_bytes {
        return Err(at("read", path)(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {limit_bytes} bytes"),
        )));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_keeps_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        write(&path, b"one", PUBLIC).unwrap();
        write(&path, b"two", SECRET).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, SECRET);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn threads_that_write_one_file_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::thread::scope(|scope| {
            for letter in [b'a', b'b', b'c', b'd'] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write(path, &vec![letter; 10_000], PUBLIC).unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 10_000 && content.iter().all(|byte| *byte == content[0]), "the last one's, whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for name in
            [".config.123.tmp", ".config.123.4.tmp", ".config.tmp", ".config.old.tmp", ".other.123.tmp", "config"]
        {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        sweep(&path).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".config.old.tmp", ".config.tmp", ".other.123.tmp", "config"]);
        sweep(&dir.path().join("none/config")).unwrap();
    }

    #[test]
    fn follows_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, b"new", SECRET).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn missing_is_none_and_too_large_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(read_optional(&path, 3).unwrap().is_none());
        fs::write(&path, "abcd").unwrap();
        assert!(read_optional(&path, 3).is_err());
        assert_eq!(read_optional(&path, 4).unwrap().unwrap(), b"abcd");
    }
}
