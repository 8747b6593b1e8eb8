//! This program, as a file that nobody can write through `/proc/<pid>/exe`.
//!
//! Best is a read-only overlay that is mounted nowhere: it shares the binary's pages with every other process that runs it.
//! Where the kernel has none to give (no root, no overlayfs, too many layers below), a sealed copy in memory serves as well.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Open for execution, by its path under `/proc/self/fd`; made once in a process.
pub(super) fn sealed() -> io::Result<BorrowedFd<'static>> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.as_fd());
    }
    let sealed = overlaid().or_else(|error| {
        tracing::debug!(%error, "no overlay of the program; a copy in memory instead");
        copied()
    })?;
    Ok(PROGRAM.get_or_init(|| sealed).as_fd())
}

/// Through an overlay without an upper layer: a write has nowhere to go.
fn overlaid() -> io::Result<OwnedFd> {
    let running = std::fs::metadata("/proc/self/exe")?;
    let path = std::env::current_exe()?;
    let (Some(directory), Some(name)) = (path.parent().and_then(|d| d.to_str()), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let found = std::fs::metadata(&path)?;
    if (found.dev(), found.ino()) != (running.dev(), running.ino()) {
        return Err(io::Error::other("another file has taken the program's place"));
    }
    // What separates layers and options in the mount's parameters.
    if directory.contains([':', '\\', ',']) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    // Without an upper layer an overlay wants two lower ones; the second may go once the first has been found.
    let empty = tempfile::tempdir()?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let layers = format!("{directory}:{}", empty.path().display());
    rustix::mount::fsconfig_set_string(&context, "lowerdir", layers)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// In a memfd that can no longer change.
fn copied() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("kminik", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag; there a memfd can always be executed.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("kminik", flags)?,
        other => other?,
    };
    let mut copy = File::from(memfd);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    // Executing needs that no descriptor open for writing is left.
    let read_only = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(read_only.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn neither_can_be_written_and_both_run() {
        for sealed in [overlaid().unwrap(), copied().unwrap()] {
            let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
            assert!(std::fs::read(&path).unwrap() == std::fs::read("/proc/self/exe").unwrap());
            let write = std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, b"changed"));
            assert!(write.is_err());
            let child = std::process::Command::new(&path).arg("--list").output().unwrap();
            assert!(child.status.success(), "{child:?}");
        }
    }
}
