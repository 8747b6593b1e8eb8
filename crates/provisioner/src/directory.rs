//! The directory tree: made and removed without following a link or leaving it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Prefix of directories on their way out.
const REMOVED: &str = ".removed-";
/// Entries looked at before some are removed: bounds the memory a large directory takes.
const BATCH: usize = 1024;

/// A step on the directory tree that failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot open the volumes' directory {path}")]
    OpenRoot {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the directory {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot remove the directory {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Namespaces and claims never have such names, so the path was not made here.
    #[error("{path} is not a volume of this provisioner")]
    Foreign { path: PathBuf },
}

/// The root of all volumes of a node.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the root, which must exist, and removes what an earlier process had begun to remove.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let open = rustix::fs::open(path, flags, Mode::empty());
        let root = open.map_err(|source| DirectoryError::OpenRoot { path: path.into(), source: source.into() })?;
        let directory = Self { root, path: path.into() };
        directory.finish_removals()?;
        Ok(directory)
    }

    /// Where the volume of a claim is.
    pub fn path_of(&self, namespace: &str, name: &str) -> PathBuf {
        self.path.join(namespace).join(name)
    }

    /// Namespace and name of a volume's path; refused if it is not directly below a namespace of this root.
    pub fn names_of(&self, path: &Path) -> Result<(String, String), DirectoryError> {
        let foreign = || DirectoryError::Foreign { path: path.into() };
        let inside = path.strip_prefix(&self.path).map_err(|_| foreign())?;
        let text = inside.to_str().ok_or_else(foreign)?;
        let (namespace, name) = text.split_once('/').ok_or_else(foreign)?;
        if is_name(namespace) && is_name(name) { Ok((namespace.into(), name.into())) } else { Err(foreign()) }
    }

    /// Makes the directory of a volume with mode 0777. It is no error if it exists.
    pub fn make(&self, namespace: &str, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path_of(namespace, name);
        if !is_name(namespace) || !is_name(name) {
            return Err(DirectoryError::Foreign { path });
        }
        let make = || -> Result<(), Errno> {
            make_one(self.root.as_fd(), namespace, 0o755)?;
            let parent = open_beneath(self.root.as_fd(), namespace)?;
            make_one(parent.as_fd(), name, 0o777)?;
            // What mkdir makes is narrowed by the umask.
            let own = open_beneath(parent.as_fd(), name)?;
            rustix::fs::fchmod(&own, Mode::from_raw_mode(0o777))?;
            rustix::fs::fsync(&parent)
        };
        match make() {
            Ok(()) => Ok(path),
            Err(error) => Err(DirectoryError::Make { path, source: error.into() }),
        }
    }

    /// Removes the directory of a volume with all in it. From the first step on its name is free; it is no error if it is gone.
    pub fn remove(&self, namespace: &str, name: &str) -> Result<(), DirectoryError> {
        let path = self.path_of(namespace, name);
        if !is_name(namespace) || !is_name(name) {
            return Err(DirectoryError::Foreign { path });
        }
        let remove = || -> Result<(), Errno> {
            let parent = match open_beneath(self.root.as_fd(), namespace) {
                Err(Errno::NOENT) => return Ok(()),
                parent => parent?,
            };
            let aside = self.unused_name()?;
            match rustix::fs::renameat(&parent, name, &self.open_root()?, &aside) {
                Err(Errno::NOENT) => return Ok(()),
                moved => moved?,
            }
            self.remove_aside(&aside)?;
            match rustix::fs::unlinkat(&self.root, namespace, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
                Err(error) => Err(error),
            }
        };
        remove().map_err(|error| DirectoryError::Remove { path, source: error.into() })
    }

    fn finish_removals(&self) -> Result<(), DirectoryError> {
        let finish = || -> Result<(), Errno> {
            for (name, _) in entries(&self.open_root()?, usize::MAX)? {
                if name.to_bytes().starts_with(REMOVED.as_bytes()) {
                    self.remove_aside(&name)?;
                }
            }
            Ok(())
        };
        finish().map_err(|error| DirectoryError::Remove { path: self.path.join(REMOVED), source: error.into() })
    }

    /// Removes a directory that stands directly below the root. However deep it is, three descriptors are enough: directories
    /// inside are moved up beside those above them before they are looked into.
    fn remove_aside(&self, name: &CStr) -> Result<(), Errno> {
        let top = match open_beneath(self.root.as_fd(), name) {
            // Not a directory: a pod cannot have made it, but it is in the way.
            Err(Errno::NOTDIR | Errno::LOOP) => return rustix::fs::unlinkat(&self.root, name, AtFlags::empty()),
            top => top?,
        };
        let mut lifted = 0u64;
        loop {
            let batch = entries(&top, BATCH)?;
            if batch.is_empty() {
                break;
            }
            for (entry, kind) in batch {
                if kind != FileType::Directory {
                    rustix::fs::unlinkat(&top, entry.as_c_str(), AtFlags::empty())?;
                    continue;
                }
                let inner = open_beneath(top.as_fd(), entry.as_c_str())?;
                loop {
                    let batch = entries(&inner, BATCH)?;
                    if batch.is_empty() {
                        break;
                    }
                    for (entry, kind) in batch {
                        if kind == FileType::Directory {
                            // Names in the volume are its user's: ours must not meet one.
                            loop {
                                lifted += 1;
                                let up = format!("{REMOVED}{lifted}");
                                let flags = rustix::fs::RenameFlags::NOREPLACE;
                                match rustix::fs::renameat_with(&inner, entry.as_c_str(), &top, up, flags) {
                                    Err(Errno::EXIST) => {}
                                    moved => break moved?,
                                }
                            }
                        } else {
                            rustix::fs::unlinkat(&inner, entry.as_c_str(), AtFlags::empty())?;
                        }
                    }
                }
                rustix::fs::unlinkat(&top, entry.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
        rustix::fs::unlinkat(&self.root, name, AtFlags::REMOVEDIR)
    }

    fn unused_name(&self) -> Result<CString, Errno> {
        for attempt in 0..u32::MAX {
            let name = CString::new(format!("{REMOVED}{}-{attempt}", std::process::id())).map_err(|_| Errno::INVAL)?;
            match rustix::fs::statat(&self.root, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(name),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(Errno::EXIST)
    }

    fn open_root(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.root, c".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }
}

/// What may be the name of a namespace or claim, and so never `.`, `..` or one of ours.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Opens a directory below `parent`: no link is followed and no mount crossed on the way.
fn open_beneath<P: rustix::path::Arg>(parent: BorrowedFd, name: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

fn make_one(parent: BorrowedFd, name: &str, mode: u32) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Up to `limit` entries with their types.
fn entries(directory: &OwnedFd, limit: usize) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        found.push((name.to_owned(), kind));
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("volumes")).unwrap();
        let directory = Directory::open(&root.path().join("volumes")).unwrap();
        (root, directory)
    }

    #[test]
    fn volumes_are_open_to_all_and_vanish_whole() {
        let (_root, directory) = directory();
        let path = directory.make("ns", "claim").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        assert_eq!(directory.make("ns", "claim").unwrap(), path);
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/b/c/file"), "x").unwrap();
        for n in 0..(BATCH + 10) {
            fs::write(path.join(format!("f{n}")), "").unwrap();
        }
        directory.make("ns", "other").unwrap();
        directory.remove("ns", "claim").unwrap();
        assert!(!path.exists() && path.parent().unwrap().exists());
        directory.remove("ns", "other").unwrap();
        assert!(!path.parent().unwrap().exists(), "an empty namespace goes too");
        directory.remove("ns", "other").unwrap();
    }

    #[test]
    fn links_are_removed_but_never_followed() {
        let (root, directory) = directory();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        let path = directory.make("ns", "claim").unwrap();
        symlink(&outside, path.join("link")).unwrap();
        symlink("/", path.join("root")).unwrap();
        directory.remove("ns", "claim").unwrap();
        assert!(outside.join("precious").exists());

        // A volume's own directory replaced by a link, and a namespace that is one.
        fs::create_dir_all(directory.path_of("ns", "")).unwrap();
        symlink(&outside, directory.path_of("ns", "claim")).unwrap();
        directory.remove("ns", "claim").unwrap();
        symlink(&outside, directory.path_of("", "evil")).unwrap();
        assert!(directory.remove("evil", "precious").is_err());
        assert!(directory.make("evil", "new").is_err());
        assert!(outside.join("precious").exists() && !outside.join("new").exists());
    }

    #[test]
    fn depth_does_not_matter() {
        let (_root, directory) = directory();
        let path = directory.make("ns", "claim").unwrap();
        let mut deepest = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&deepest, "d", Mode::from_raw_mode(0o755)).unwrap();
            deepest = rustix::fs::openat(&deepest, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        }
        directory.remove("ns", "claim").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn only_paths_of_its_own_are_volumes() {
        let (root, directory) = directory();
        let volume = directory.path_of("ns", "claim");
        assert_eq!(directory.names_of(&volume).unwrap(), ("ns".to_string(), "claim".to_string()));
        for path in ["..", "ns", "ns/..", "ns/a/b", "../outside/x", "ns/.removed-1"] {
            assert!(directory.names_of(&root.path().join("volumes").join(path)).is_err(), "{path}");
        }
        assert!(directory.names_of(Path::new("/etc/passwd")).is_err());
    }

    #[test]
    fn what_was_begun_is_finished_at_the_next_start() {
        let (root, directory) = directory();
        let half = root.path().join("volumes/.removed-1-0");
        fs::create_dir_all(half.join("a/b")).unwrap();
        drop(directory);
        Directory::open(&root.path().join("volumes")).unwrap();
        assert!(!half.exists());
    }
}
