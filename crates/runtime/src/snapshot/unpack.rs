//! Tar layers onto a directory, without trust in what they say.
//!
//! Every name is resolved below the directory by the kernel (`openat2` with `RESOLVE_IN_ROOT`), so neither `..` nor a symbolic link
//! leads out; a name with `..` is refused in any case, for no honest tool writes one.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest, Sha256};

use crate::Compression;

/// Bytes of one layer; more is taken for a bomb.
const MAX_BYTES: u64 = 64 << 30;
/// Entries of one layer.
const MAX_ENTRIES: u64 = 4_000_000;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a layer's whiteouts become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// overlayfs's own marks, in a directory that holds this layer only.
    Marks,
    /// Removals, in a tree that holds the layers below.
    Removals,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot read {path}")]
    Blob {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the archive")]
    Archive {
        #[source]
        source: io::Error,
    },
    #[error("cannot unpack {path}")]
    Entry {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the archive's entry {path} leads out of the root")]
    Escape { path: PathBuf },
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    #[error("the archive is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the archive's digest is {found}, not {expected}")]
    Digest { expected: String, found: String },
    #[error("cannot prepare {path}")]
    Prepare {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Unpacks a layer into an existing directory and verifies the digest (`sha256:…`) of its uncompressed bytes. A failure leaves a part.
pub(crate) fn unpack(
    root: &Path,
    blob: &Path,
    compression: Compression,
    digest: &str,
    whiteouts: Whiteouts,
) -> Result<(), UnpackError> {
    let file = std::fs::File::open(blob).map_err(|source| UnpackError::Blob { path: blob.to_owned(), source })?;
    let archive_error = |source| UnpackError::Archive { source };
    let plain: Box<dyn Read> = match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(128 * 1024, file)))
        }
        Compression::Zstd => Box::new(zstd::Decoder::new(file).map_err(archive_error)?),
    };
    let mut hashed = Hashed { inner: plain, hash: Sha256::new(), read: 0 };
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| UnpackError::Prepare { path: root.to_owned(), source: error.into() })?;
    let mut tree = Tree { root, whiteouts, made: HashSet::new(), directory_times: Vec::new() };
    {
        let mut archive = tar::Archive::new(io::BufReader::with_capacity(128 * 1024, &mut hashed));
        let mut count = 0;
        for entry in archive.entries().map_err(archive_error)? {
            let mut entry = entry.map_err(archive_error)?;
            count += 1;
            if count > MAX_ENTRIES {
                return Err(UnpackError::TooManyEntries);
            }
            tree.entry(&mut entry)?;
        }
    }
    tree.finish()?;
    // What follows the end of the archive belongs to the digest too.
    io::copy(&mut hashed, &mut io::sink()).map_err(archive_error)?;
    if hashed.read > MAX_BYTES {
        return Err(UnpackError::TooLarge);
    }
    let found = format!("sha256:{}", hex::encode(hashed.hash.finalize()));
    if found != digest {
        return Err(UnpackError::Digest { expected: digest.to_owned(), found });
    }
    Ok(())
}

/// Hashes what passes, and stops at the limit.
struct Hashed {
    inner: Box<dyn Read>,
    hash: Sha256,
    read: u64,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read > MAX_BYTES {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.read += read as u64;
        Ok(read)
    }
}

struct Tree {
    root: OwnedFd,
    whiteouts: Whiteouts,
    /// What this layer has made, as far as an opaque mark may come after it.
    made: HashSet<PathBuf>,
    /// Set last: making entries changes them.
    directory_times: Vec<(PathBuf, Timestamps)>,
}

impl Tree {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let raw = entry.path_bytes().into_owned();
        let shown = PathBuf::from(std::ffi::OsStr::from_bytes(&raw));
        let path = inside(&shown)?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.make(entry, &path).map_err(|source| match source {
            Fault::Io(source) => UnpackError::Entry { path: shown.clone(), source },
            Fault::Escape => UnpackError::Escape { path: shown.clone() },
        })
    }

    fn make(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), Fault> {
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let Some(name) = path.file_name() else { return Ok(()) };
        let parent = self.directory(&parent_path)?;
        if name.as_bytes() == OPAQUE {
            return self.opaque(&parent, &parent_path);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden.starts_with(b".wh.") {
                return Ok(());
            }
            return self.whiteout(&parent, Path::new(std::ffi::OsStr::from_bytes(hidden)));
        }
        let name = Path::new(name);
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let existing = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let existing_directory =
            existing.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if existing.is_some() && !(existing_directory && kind.is_dir()) {
            remove(&parent, name)?;
        }
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        let device = || -> io::Result<rustix::fs::Dev> {
            let number = |field: io::Result<Option<u32>>| field.map(|number| number.unwrap_or(0));
            Ok(rustix::fs::makedev(number(entry.header().device_major())?, number(entry.header().device_minor())?))
        };
        match kind {
            tar::EntryType::Directory => {
                if !existing_directory {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                }
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = inside(Path::new(std::ffi::OsStr::from_bytes(&target))).map_err(|_| Fault::Escape)?;
                let from = self.directory(target.parent().unwrap_or(Path::new("")))?;
                let from_name = target.file_name().ok_or(Fault::Escape)?;
                rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())?;
                self.made.insert(path.to_owned());
                // Owner, mode and times are those of the file it names.
                return Ok(());
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                rustix::fs::symlinkat(std::ffi::OsStr::from_bytes(&target), &parent, name)?;
            }
            tar::EntryType::Fifo => rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?,
            tar::EntryType::Char => rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, mode, device()?)?,
            tar::EntryType::Block => rustix::fs::mknodat(&parent, name, FileType::BlockDevice, mode, device()?)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file =
                    std::fs::File::from(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?);
                io::copy(entry, &mut file)?;
            }
            _ => return Ok(()),
        }
        self.made.insert(path.to_owned());
        self.attributes(entry, &parent, name, path, mode)
    }

    /// Owner, then mode (a change of owner clears setuid), then extended attributes, then times.
    fn attributes(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        parent: &OwnedFd,
        name: &Path,
        path: &Path,
        mode: Mode,
    ) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        let old = entry.header().as_old();
        let uid = Uid::from_raw(owner(entry.header().uid(), &old.uid)?);
        let gid = Gid::from_raw(owner(entry.header().gid(), &old.gid)?);
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let mut seconds = entry.header().mtime()?.cast_signed();
        let mut nanos = 0;
        let mut attributes = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key_bytes();
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    attributes.push((name.to_vec(), extension.value_bytes().to_vec()));
                } else if key == b"mtime"
                    && let Some(time) = std::str::from_utf8(extension.value_bytes()).ok().and_then(parse_time)
                {
                    (seconds, nanos) = time;
                }
            }
        }
        if kind.is_symlink() {
            // Neither mode nor user attributes.
            return Ok(());
        }
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        if !attributes.is_empty() {
            let file =
                rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            for (name, value) in attributes {
                // overlayfs's own marks would let an image forge them.
                if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                    continue;
                }
                let name = std::ffi::OsStr::from_bytes(&name);
                match rustix::fs::setxattr(&by_descriptor, name, &value, XattrFlags::empty()) {
                    // The filesystem keeps no such attribute.
                    Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        if kind.is_dir() {
            self.directory_times.push((path.to_owned(), times));
        } else {
            rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// The directory at a path below the root, made with its parents if missing.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Fault> {
        match self.open_directory(path) {
            Err(rustix::io::Errno::NOENT) => {}
            result => return Ok(result?),
        }
        let parent = self.directory(path.parent().ok_or(Fault::Escape)?)?;
        let name = path.file_name().ok_or(Fault::Escape)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            // A symbolic link to nowhere stands in the way.
            Err(rustix::io::Errno::EXIST) => Err(Fault::Escape),
            result => {
                result?;
                Ok(self.open_directory(path)?)
            }
        }
    }

    fn open_directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn opaque(&self, parent: &OwnedFd, parent_path: &Path) -> Result<(), Fault> {
        match self.whiteouts {
            Whiteouts::Marks => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(parent));
                Ok(rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
            }
            Whiteouts::Removals => {
                for name in names(parent)? {
                    if !self.made.contains(&parent_path.join(&name)) {
                        remove(parent, Path::new(&name))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn whiteout(&self, parent: &OwnedFd, name: &Path) -> Result<(), Fault> {
        if rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            remove(parent, name)?;
        }
        if self.whiteouts == Whiteouts::Marks {
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), UnpackError> {
        for (path, times) in &self.directory_times {
            // It may have been replaced by something else since.
            let Ok(directory) = self.open_directory(path) else { continue };
            let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
            rustix::fs::utimensat(CWD, name, times, AtFlags::empty())
                .map_err(|error| UnpackError::Entry { path: path.clone(), source: error.into() })?;
        }
        Ok(())
    }
}

enum Fault {
    Io(io::Error),
    Escape,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<io::ErrorKind> for Fault {
    fn from(error: io::ErrorKind) -> Fault {
        Fault::Io(error.into())
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Fault {
        Fault::Io(error.into())
    }
}

/// The path relative to the root; one with `..` is refused.
fn inside(path: &Path) -> Result<PathBuf, UnpackError> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(UnpackError::Escape { path: path.to_owned() }),
        }
    }
    Ok(inside)
}

/// An owner's number; an empty field is root's.
fn owner(number: io::Result<u64>, field: &[u8]) -> io::Result<u32> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    u32::try_from(number?).ok().filter(|id| *id != u32::MAX).ok_or(io::ErrorKind::InvalidData.into())
}

/// `seconds[.fraction]` of a pax header.
fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn names(directory: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let readable =
        rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&readable)? {
        let entry = entry?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes a file or a whole directory, without following links.
fn remove(parent: impl AsFd, name: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    for child in names(&directory)? {
        remove(&directory, Path::new(&child))?;
    }
    Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}
