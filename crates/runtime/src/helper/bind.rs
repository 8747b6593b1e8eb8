//! A directory or file of this process' mounts, shown in another's: the tree is taken here and put there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree};
use rustix::thread::ThreadNameSpaceType;

use super::BindRequest;

/// `source` is the directory or file, open by whoever asks.
pub(super) fn run(request: &BindRequest, source: &OwnedFd) -> Result<(), String> {
    let step = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    let target = request.process.open().map_err(|_| "the node's process has gone".to_owned())?;
    let is_directory = rustix::fs::fstat(source)
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
        .map_err(step("look at the source"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags).map_err(step("take the source"))?;
    // A process in other mounts has no working directory of these.
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), ThreadNameSpaceType::MOUNT)
        .map_err(step("enter the node's mounts"))?;
    make_place(&request.path, is_directory)
        .map_err(|error| format!("cannot make {}: {error}", request.path.display()))?;
    move_mount(&tree, "", CWD, &request.path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| format!("cannot mount at {}: {error}", request.path.display()))?;
    if request.read_only {
        mount_remount(&request.path, MountFlags::BIND | MountFlags::RDONLY, "").map_err(step("make it read-only"))?;
    }
    Ok(())
}

fn make_place(path: &Path, is_directory: bool) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if is_directory {
        return std::fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::File::create(path).map(drop)
}
