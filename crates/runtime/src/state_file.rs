//! Small state files, replaced whole.

use std::io;
use std::path::Path;

/// Replaces `path` so that a reader, also after a crash of this process, sees the old content or the new one. Not synced: what the files
/// speak of (processes, mounts) does not survive a power cut either.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}
