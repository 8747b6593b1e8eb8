//! The union of read-only layers and a writable directory.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    /// Bottom first; at least one.
    pub lower: Vec<PathBuf>,
    /// Made if missing, both on one filesystem, which must not be an overlay itself.
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Overlay {
    /// Mounts it at `target`, made if missing.
    pub(crate) fn mount(&self, target: &Path) -> io::Result<()> {
        for directory in [&self.upper, &self.work, &target.to_owned()] {
            std::fs::create_dir_all(directory)?;
        }
        // The kernel takes one page of options: each directory is named by a descriptor, so that many layers fit.
        let open = |path: &PathBuf| File::open(path);
        let lower = self.lower.iter().rev().map(open).collect::<io::Result<Vec<_>>>()?;
        let (upper, work) = (File::open(&self.upper)?, File::open(&self.work)?);
        let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let names: Vec<String> = lower.iter().map(&name).collect();
        let options = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), name(&upper), name(&work));
        let options = CString::new(options)?;
        Ok(rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())?)
    }
}

/// Takes every mount off `target`; succeeds if there is none.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or there is no such directory.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
