//! subPath: a file or directory inside a volume, resolved without ever leaving it and pinned by a bind mount.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

/// Why a subPath cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubpathError {
    #[error("subPath \"{0}\" must be relative and not contain \"..\"")]
    Invalid(String),
    #[error("failed to {step} subPath \"{sub}\" of {}", base.display())]
    Io {
        step: &'static str,
        sub: String,
        base: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Opens `sub` below `base` (made as a directory if missing) and bind-mounts it on `pin`, which is returned.
pub(super) fn pin(base: &Path, sub: &str, pin: &Path) -> Result<PathBuf, SubpathError> {
    if Path::new(sub).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(SubpathError::Invalid(sub.to_string()));
    }
    let fail = |step: &'static str| {
        move |source: io::Error| SubpathError::Io { step, sub: sub.to_string(), base: base.to_path_buf(), source }
    };
    let target = open(base, sub).map_err(fail("open"))?;
    // A restarted container gets what its path is now, not what it was; nothing to undo if nothing was mounted.
    let _ = nix::mount::umount2(pin, nix::mount::MntFlags::MNT_DETACH);
    let directory = rustix::fs::fstat(&target).map_err(|e| fail("read")(e.into()))?;
    let directory = rustix::fs::FileType::from_raw_mode(directory.st_mode).is_dir();
    if let Some(parent) = pin.parent() {
        fs::create_dir_all(parent).map_err(fail("prepare"))?;
    }
    if directory {
        fs::create_dir_all(pin).map_err(fail("prepare"))?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(pin).map_err(fail("prepare"))?;
    }
    let source = format!("/proc/self/fd/{}", target.as_raw_fd());
    mount(Some(source.as_str()), pin, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| fail("mount")(errno.into()))?;
    Ok(pin.to_path_buf())
}

fn open(base: &Path, sub: &str) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open(base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(&root, sub, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mode = fs::metadata(base).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o7777)?;
    let mut current = root;
    for part in Path::new(sub).components() {
        let Component::Normal(name) = part else { continue };
        let directory = flags | OFlags::DIRECTORY;
        let next = match openat2(&current, name, directory, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&current, name, Mode::from_raw_mode(mode))?;
                let made = openat2(&current, name, directory | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
                // The umask must not take away what the volume itself allows.
                let path = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
                made
            }
            other => other?,
        };
        current = next;
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_cannot_lead_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("in")).unwrap();
        assert!(open(dir.path(), "out/passwd").is_err());
        assert!(open(dir.path(), "in").is_ok());
        assert!(open(dir.path(), "new/dir").is_ok());
        assert!(dir.path().join("new/dir").is_dir());
        assert!(matches!(pin(dir.path(), "../x", &dir.path().join("p")), Err(SubpathError::Invalid(_))));
    }
}
