//! The root filesystem of a machine: the layers of its userland, unpacked one over the other, and the binary.
//!
//! It is named by what is in it, so a start with the same binary and image finds it, and one with another makes its own.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use crate::drivers::Userland;
use crate::ops::{delete::remove_tree, node_image};
use crate::reason::{DRV_CREATE, Failure, OrFail, Outcome, RSRC_INSUFFICIENT_STORAGE};

const PREFIX: &str = "rootfs-";

/// The directory, below the machine's; made if it is not there, older ones removed. Its binary is a link to `copy`, a copy of the
/// running one.
pub fn ensure(machine: &Path, userland: &Userland, copy: Option<&Path>) -> Outcome<PathBuf> {
    let digests = match userland {
        Userland::BuiltIn => Vec::new(),
        Userland::Pulled { layers, .. } => layers.iter().map(|layer| layer.diff_id.clone()).collect(),
    };
    let root = machine.join(format!("{PREFIX}{}", node_image::identity(&digests)?));
    if root.exists() {
        return Ok(root);
    }
    let entries = fs::read_dir(machine).or_fail(&DRV_CREATE, "cannot read the machine's directory")?;
    for old in entries.filter_map(Result::ok).filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)) {
        remove_tree(&old.path())?;
    }
    let temporary = root.with_extension("tmp");
    if let Userland::Pulled { layers, .. } = userland {
        for layer in layers {
            kminik_runtime::unpack_over(&temporary, &layer.blob, layer.compression, &layer.diff_id)
                .or_fail(&DRV_CREATE, "cannot unpack the base image")?;
        }
    }
    node_image::assemble(&temporary, !digests.is_empty(), copy).map_err(|error| {
        failure(format_args!("cannot make the node's root filesystem in {}", temporary.display()), &error)
    })?;
    fs::rename(&temporary, &root).or_fail(&DRV_CREATE, "cannot make the node's root filesystem")?;
    Ok(root)
}

/// What could not be written, by the reason that a full disk has.
pub fn failure(what: impl std::fmt::Display, error: &io::Error) -> Failure {
    let full = error.raw_os_error() == Some(libc::ENOSPC);
    Failure::because(if full { &RSRC_INSUFFICIENT_STORAGE } else { &DRV_CREATE }, what, error)
}

/// Copies what the image has in its /var into the node's own, as an engine fills a new volume; what is there already stays.
pub fn fill(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome?,
    };
    for entry in entries {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let (kind, there) = (entry.file_type()?, fs::symlink_metadata(&target).ok());
        if kind.is_dir() {
            if there.is_none() {
                fs::create_dir(&target)?;
                own(&source, &target)?;
            }
            // A link of the image's is not walked through.
            if fs::symlink_metadata(&target)?.is_dir() {
                fill(&source, &target)?;
            }
        } else if there.is_some() {
            continue;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            own(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            own(&source, &target)?;
        }
    }
    Ok(())
}

/// Gives `target` the owner and mode of `source`.
fn own(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    lchown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    // A change of owner clears bits of the mode.
    if metadata.is_symlink() { Ok(()) } else { fs::set_permissions(target, metadata.permissions()) }
}

/// The root filesystem that is there, if any.
pub fn find(machine: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(machine).ok()?.filter_map(Result::ok);
    let mut roots = entries.map(|e| e.path()).filter(|path| path.extension().is_none());
    roots.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)))
}

/// Gives the node the image of its pods as a link to the binary of `root`; a node that has none makes its own.
pub fn share(root: &Path, images: &Path) -> Outcome<()> {
    let identity = node_image::identity(&[])?;
    // Nothing runs from the others: the machine is only being made.
    node_image::ensure(images, &identity, Some(&binary(root)), 0)
        .map(drop)
        .or_fail(&DRV_CREATE, "cannot make the image of the cluster's own pods")
}

/// The binary in a root filesystem.
pub fn binary(root: &Path) -> PathBuf {
    root.join(node_image::BINARY.trim_start_matches('/'))
}
