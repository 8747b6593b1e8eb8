//! What an archive has in it: its files, hashed, by their paths. Paths stay within it, and it unpacks to no more than an archive
//! of images does.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::outgoing::Window;
use super::stream::Source;
use crate::image::Compression;
use crate::layout::{Layout, MAX_DOCUMENT_BYTES};
use crate::{Digest, Hasher, ImageError};

const MAX_ENTRIES: usize = 100_000;
/// A compressed archive may unpack to this many bytes, and beyond to so many times what it is.
const FREE_EXPANSION_BYTES: u64 = 1024 * 1024 * 1024;
const MAX_EXPANSION: u64 = 100;
/// Longest chain of symbolic links within an archive.
const MAX_LINKS: usize = 8;
const MAX_PATH_BYTES: usize = 4096;

/// A file of the archive, hashed.
pub(super) struct Ingested {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) at: At,
}

/// Where its bytes are.
pub(super) enum At {
    /// Waiting in the ingest directory.
    Temporary(tempfile::TempPath),
    /// In the archive.
    Offset(u64),
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) files: BTreeMap<PathBuf, Ingested>,
    /// Symbolic and hard links, by where they lead within the archive.
    links: HashMap<PathBuf, PathBuf>,
    /// The archive, where files are read from it.
    pub(super) archive: Option<Arc<File>>,
}

/// Gives each file, at its offset of the archive, its digest.
pub(super) fn hash_all(archive: &Arc<File>, files: Vec<&mut Ingested>) -> Result<(), ImageError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
    let queue = parking_lot::Mutex::new(files);
    let work = || {
        loop {
            let Some(file) = queue.lock().pop() else { return Ok(()) };
            let At::Offset(offset) = file.at else { continue };
            let mut window = Window::new(archive, offset, file.size);
            let (digest, size) = hash(&mut window, |_| Ok(()))?;
            if size != file.size {
                return Err(refused("it ends in the midst of a file"));
            }
            file.digest = digest;
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| worker.join().map_err(|_| ImageError::Cancelled)?)
    })
}

/// The plain form of an archive in a file without a name.
pub(crate) fn spool(source: Source, dir: &Path) -> Result<File, ImageError> {
    let mut file = tempfile::tempfile_in(dir).map_err(ImageError::io("create a file in", dir))?;
    let mut reader = decompressed(source)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = reader.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            return Ok(file);
        }
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(ImageError::io("write to", dir))?;
    }
}

impl Contents {
    /// The path of the file that a path leads to.
    pub(super) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            if self.files.contains_key(&path) {
                return Some(path);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    /// Reads a JSON document; `None` if there is none.
    pub(super) fn document(&self, path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(ingested) = self.resolve(path).and_then(|path| self.files.get(&path)) else { return Ok(None) };
        if ingested.size > MAX_DOCUMENT_BYTES {
            return Err(refused(format!("{} is {} bytes", path.display(), ingested.size)));
        }
        self.begin(ingested, ingested.size).map(Some)
    }

    /// The first bytes of a file.
    pub(super) fn begin(&self, file: &Ingested, length: u64) -> Result<Vec<u8>, ImageError> {
        let length = length.min(file.size);
        match (&file.at, &self.archive) {
            (At::Temporary(path), _) => {
                let mut bytes = Vec::new();
                let opened = File::open(path).map_err(ImageError::io("open", path.to_path_buf()))?;
                let read = opened.take(length).read_to_end(&mut bytes);
                read.map_err(ImageError::io("read", path.to_path_buf()))?;
                Ok(bytes)
            }
            (At::Offset(offset), Some(archive)) => {
                let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
                archive.read_exact_at(&mut bytes, *offset).map_err(ImageError::ReadArchive)?;
                Ok(bytes)
            }
            (At::Offset(_), None) => Ok(Vec::new()),
        }
    }

    pub(super) fn need(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        self.document(path)?.ok_or_else(|| refused(format!("{} is missing", path.display())))
    }

    pub(super) fn file(&self, path: &Path) -> Result<&Ingested, ImageError> {
        let found = self.resolve(path).and_then(|path| self.files.get(&path));
        found.ok_or_else(|| refused(format!("{} is missing", path.display())))
    }
}

pub(super) fn refused(why: impl Into<String>) -> ImageError {
    ImageError::BadArchive(why.into())
}

/// Takes gzip and zstd off, counting what comes out.
pub(super) fn decompressed(source: Source) -> Result<Box<dyn Read>, ImageError> {
    let mut counted = BufReader::with_capacity(64 * 1024, Counted { source, bytes: Default::default() });
    let bytes = counted.get_ref().bytes.clone();
    let head = io::BufRead::fill_buf(&mut counted).map_err(ImageError::ReadArchive)?;
    let limited = |reader: Box<dyn Read>| {
        Box::new(Limited { reader, free: FREE_EXPANSION_BYTES, produced: 0, consumed: bytes.clone() })
    };
    Ok(match Compression::of(head) {
        Compression::None => Box::new(counted),
        Compression::Gzip => limited(Box::new(flate2::bufread::MultiGzDecoder::new(counted))),
        Compression::Zstd => limited(Box::new(zstd::Decoder::with_buffer(counted).map_err(ImageError::ReadArchive)?)),
    })
}

struct Counted {
    source: Source,
    bytes: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Refuses what unpacks to far more than any image does.
struct Limited {
    reader: Box<dyn Read>,
    free: u64,
    produced: u64,
    consumed: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.produced += read as u64;
        let allowed = self.free + self.consumed.get().saturating_mul(MAX_EXPANSION);
        if self.produced > allowed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it unpacks to far more than it is: a bomb"));
        }
        Ok(read)
    }
}

/// Streams all files through `take`.
pub(super) fn read<'a, R: Read + 'a>(
    entries: tar::Entries<'a, R>,
    archive: Option<Arc<File>>,
    take: impl Fn(&mut tar::Entry<'a, R>) -> Result<Ingested, ImageError>,
) -> Result<Contents, ImageError> {
    let mut contents = Contents { archive, ..Contents::default() };
    for (number, entry) in entries.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if number >= MAX_ENTRIES {
            return Err(refused(format!("it has more than {MAX_ENTRIES} files")));
        }
        let path = within(Path::new(""), &entry.path().map_err(broken)?)?;
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let ingested = take(&mut entry)?;
            // The last of a name wins, as when unpacking.
            contents.links.remove(&path);
            contents.files.insert(path, ingested);
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name().map_err(broken)?.ok_or_else(|| refused("a link leads nowhere"))?;
            let from = if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
            let target = within(from, &target)?;
            contents.files.remove(&path);
            contents.links.insert(path, target);
        } else if !kind.is_dir() && !kind.is_pax_global_extensions() {
            return Err(refused(format!("{} is neither file, directory nor link", path.display())));
        }
    }
    Ok(contents)
}

/// What broke off or is no tar is refused; what the disk says is the disk's.
fn broken(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            refused(error.to_string())
        }
        // The tar reader's own errors, which may quote what it has read.
        io::ErrorKind::Other if error.to_string().starts_with("numeric field was not a number") => {
            refused("it is no tar archive, or damaged")
        }
        io::ErrorKind::Other => refused(error.to_string()),
        _ => ImageError::ReadArchive(error),
    }
}

/// A path below the archive's root, without `.` and `..`. What is absolute or leads out is refused.
pub(super) fn within(from: &Path, path: &Path) -> Result<PathBuf, ImageError> {
    let mut clean = from.to_path_buf();
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(refused("a path is too long"));
    }
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir => return Err(refused(format!("{} leads out of it", path.display()))),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refused(format!("{} is an absolute path", path.display())));
            }
        }
    }
    Ok(clean)
}

pub(super) fn ingest(layout: &Layout, syncer: &Syncer, reader: &mut impl Read) -> Result<Ingested, ImageError> {
    let dir = layout.ingest();
    let mut builder = tempfile::Builder::new();
    let temporary = builder.prefix("import-").tempfile_in(&dir).map_err(ImageError::io("create a file in", &dir))?;
    let (mut file, path) = temporary.into_parts();
    let write = |bytes: &[u8]| file.write_all(bytes).map_err(ImageError::io("write", path.to_path_buf()));
    let (digest, size) = hash(reader, write)?;
    syncer.sync(file);
    Ok(Ingested { digest, size, at: At::Temporary(path) })
}

/// Files that wait to be synced.
const UNSYNCED: usize = 16;

/// Brings files to the disk while the next ones are read.
pub(super) struct Syncer {
    files: SyncSender<File>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    pub(super) fn start() -> Syncer {
        let (files, waiting) = sync_channel::<File>(UNSYNCED);
        let thread = std::thread::spawn(move || waiting.into_iter().try_for_each(|file| file.sync_all()));
        Syncer { files, thread }
    }

    fn sync(&self, file: File) {
        // A thread that has ended early says why when it is waited for.
        let _ = self.files.send(file);
    }

    /// Returns when all are on the disk.
    pub(super) fn finish(self, dir: &Path) -> Result<(), ImageError> {
        drop(self.files);
        self.thread.join().map_err(|_| ImageError::Cancelled)?.map_err(ImageError::io("sync files in", dir))
    }
}

fn hash(
    reader: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> Result<(), ImageError>,
) -> Result<(Digest, u64), ImageError> {
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = reader.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            return Ok((hasher.finish(), size));
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        hasher.update(bytes);
        each(bytes)?;
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped_and_an_honest_archive_is_not() {
        let limited = |produces: u64, consumed: u64| Limited {
            reader: Box::new(io::repeat(0).take(produces)),
            free: 1000,
            produced: 0,
            consumed: std::rc::Rc::new(std::cell::Cell::new(consumed)),
        };
        assert!(io::copy(&mut limited(2000, 10), &mut io::sink()).is_ok());
        let error = io::copy(&mut limited(2001, 10), &mut io::sink()).unwrap_err();
        assert!(matches!(broken(error), ImageError::BadArchive(text) if text.contains("bomb")));
    }

    #[test]
    fn paths_stay_within() {
        let ok = |from: &str, path: &str| within(Path::new(from), Path::new(path)).unwrap();
        assert_eq!(ok("", "./a/../b"), Path::new("b"));
        assert_eq!(ok("a", "../b/layer.tar"), Path::new("b/layer.tar"));
        for (from, path) in [("", "../x"), ("a", "../../x"), ("", "/etc/passwd"), ("a", "/x")] {
            assert!(
                matches!(within(Path::new(from), Path::new(path)), Err(ImageError::BadArchive(_))),
                "{from} {path}"
            );
        }
    }
}
