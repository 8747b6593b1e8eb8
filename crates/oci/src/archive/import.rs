//! Reading an archive: its files are hashed as they stream by; what the archive's own table of contents then names is kept,
//! the rest is not. What keeping means is the [`Target`]'s: an import makes blobs of a store, a scan only notes where in the
//! archive the bytes are.
//!
//! An OCI layout may leave out blobs that the target has already.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageManifest, OciManifest};
use serde::Deserialize;

use super::outgoing::{Origin, Outgoing, Window};
use super::stream::Source;
use crate::image::{Compression, ConfigFile, select_platform};
use crate::layout::{Layout, MAX_DOCUMENT_BYTES, REF_NAME, REPO_DIGEST};
use crate::{Digest, Hasher, ImageError, ImageName, Platform};

const MAX_ENTRIES: usize = 100_000;
/// A compressed archive may unpack to this many bytes, and beyond to so many times what it is.
const FREE_EXPANSION_BYTES: u64 = 1024 * 1024 * 1024;
const MAX_EXPANSION: u64 = 100;
/// Longest chain of symbolic links within an archive.
const MAX_LINKS: usize = 8;
const MAX_PATH_BYTES: usize = 4096;
const INDEX_NAME: &str = "io.containerd.image.name";
const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image whose blobs are all kept; the index is the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    pub(crate) manifest: Digest,
    pub(crate) size: u64,
    /// Normalised.
    pub(crate) names: Vec<String>,
    /// `registry/repository@digest` as a registry served it; the digest has been checked to be of this image or of an
    /// index that lists it.
    pub(crate) repo_digest: Option<String>,
}

/// A file of the archive, hashed.
struct Ingested {
    digest: Digest,
    size: u64,
    at: At,
}

/// Where its bytes are.
enum At {
    /// Waiting in the ingest directory.
    Temporary(tempfile::TempPath),
    /// In the archive.
    Offset(u64),
}

#[derive(Default)]
struct Contents {
    files: BTreeMap<PathBuf, Ingested>,
    /// Symbolic and hard links, by where they lead within the archive.
    links: HashMap<PathBuf, PathBuf>,
    /// The archive, where files are read from it.
    archive: Option<Arc<File>>,
}

/// What becomes of what the tables name.
trait Target {
    /// An image needs this file.
    fn keep(&mut self, contents: &Contents, file: &Ingested) -> Result<(), ImageError>;
    /// A document that was made here.
    fn put(&mut self, bytes: Vec<u8>) -> Result<Digest, ImageError>;
    /// What the target has of a blob that the archive leaves out.
    fn document(&self, digest: &Digest) -> Option<Vec<u8>>;
    fn size_of(&self, digest: &Digest) -> Option<u64>;
}

/// Blobs of a store.
impl Target for &Layout {
    fn keep(&mut self, _: &Contents, file: &Ingested) -> Result<(), ImageError> {
        let At::Temporary(temporary) = &file.at else { return Ok(()) };
        let temporary: &Path = temporary;
        if Layout::size_of(self, &file.digest) != Some(file.size) {
            let synced = File::open(temporary).and_then(|file| file.sync_all());
            synced.map_err(ImageError::io("sync", temporary))?;
            // A hard link, not a rename: several images of the archive may share the file.
            let copy = temporary.with_extension("stored");
            std::fs::hard_link(temporary, &copy).map_err(ImageError::io("link", temporary))?;
            self.commit(&copy, &file.digest)?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: Vec<u8>) -> Result<Digest, ImageError> {
        Layout::put(self, &bytes)
    }

    fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.read(digest).ok().filter(|bytes| Digest::of(bytes) == *digest)
    }

    fn size_of(&self, digest: &Digest) -> Option<u64> {
        Layout::size_of(self, digest)
    }
}

/// Places in the archive.
impl Target for Outgoing {
    fn keep(&mut self, contents: &Contents, file: &Ingested) -> Result<(), ImageError> {
        if let (At::Offset(offset), Some(archive)) = (&file.at, &contents.archive) {
            self.add(file.digest.clone(), file.size, Origin::Within(archive.clone(), *offset));
        }
        Ok(())
    }

    fn put(&mut self, bytes: Vec<u8>) -> Result<Digest, ImageError> {
        let digest = Digest::of(&bytes);
        self.add(digest.clone(), bytes.len() as u64, Origin::Memory(bytes));
        Ok(digest)
    }

    fn document(&self, _: &Digest) -> Option<Vec<u8>> {
        None
    }

    fn size_of(&self, _: &Digest) -> Option<u64> {
        None
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Brings an archive's images into a store.
pub(crate) fn import(layout: &Layout, platform: &Platform, source: Source) -> Result<Vec<Imported>, ImageError> {
    let mut tar = tar::Archive::new(decompressed(source)?);
    let contents = read(tar.entries().map_err(ImageError::ReadArchive)?, None, |entry| ingest(layout, entry))?;
    let mut target = layout;
    images(&mut target, platform, &contents)
}

/// Finds an archive's images. Nothing is written, but for the copy of what is compressed or comes as a stream.
pub(crate) fn scan(platform: &Platform, mut file: File) -> Result<Outgoing, ImageError> {
    let shared = Arc::new(file.try_clone().map_err(ImageError::ReadArchive)?);
    io::Seek::rewind(&mut file).map_err(ImageError::ReadArchive)?;
    // First what there is, without reading it; then all of it, by all processors.
    let mut tar = tar::Archive::new(file);
    let entries = tar.entries_with_seek().map_err(ImageError::ReadArchive)?;
    let mut contents = read(entries, Some(shared.clone()), |entry| {
        let at = At::Offset(entry.raw_file_position());
        Ok(Ingested { digest: Digest::of(b""), size: entry.size(), at })
    })?;
    hash_all(&shared, contents.files.values_mut().collect())?;
    let mut outgoing = Outgoing::default();
    outgoing.images = images(&mut outgoing, platform, &contents)?;
    Ok(outgoing)
}

/// Gives each file, at its offset of the archive, its digest.
fn hash_all(archive: &Arc<File>, files: Vec<&mut Ingested>) -> Result<(), ImageError> {
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

fn images(target: &mut impl Target, platform: &Platform, contents: &Contents) -> Result<Vec<Imported>, ImageError> {
    let imported = if let Some(table) = contents.document(Path::new("manifest.json"))? {
        docker_images(target, platform, contents, &table)?
    } else if let Some(table) = contents.document(Path::new("index.json"))? {
        oci_images(target, platform, contents, &table)?
    } else {
        return Err(refused("it has neither manifest.json nor index.json: not an image archive"));
    };
    if imported.is_empty() {
        return Err(refused("it holds no image"));
    }
    Ok(imported)
}

fn refused(why: impl Into<String>) -> ImageError {
    ImageError::BadArchive(why.into())
}

/// Takes gzip and zstd off, counting what comes out.
fn decompressed(source: Source) -> Result<Box<dyn Read>, ImageError> {
    let mut counted = BufReader::with_capacity(64 * 1024, Counted { source, bytes: Default::default() });
    let bytes = counted.get_ref().bytes.clone();
    let head = io::BufRead::fill_buf(&mut counted).map_err(ImageError::ReadArchive)?;
    let limited = |reader: Box<dyn Read>| {
        Box::new(Limited { reader, free: FREE_EXPANSION_BYTES, produced: 0, consumed: bytes.clone() })
    };
    Ok(match crate::image::Compression::of(head) {
        crate::image::Compression::None => Box::new(counted),
        crate::image::Compression::Gzip => limited(Box::new(flate2::bufread::MultiGzDecoder::new(counted))),
        crate::image::Compression::Zstd => {
            limited(Box::new(zstd::Decoder::with_buffer(counted).map_err(ImageError::ReadArchive)?))
        }
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
fn read<'a, R: Read + 'a>(
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
        // The tar reader's own errors.
        io::ErrorKind::Other => refused(error.to_string()),
        _ => ImageError::ReadArchive(error),
    }
}

/// A path below the archive's root, without `.` and `..`. What is absolute or leads out is refused.
fn within(from: &Path, path: &Path) -> Result<PathBuf, ImageError> {
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

fn ingest(layout: &Layout, reader: &mut impl Read) -> Result<Ingested, ImageError> {
    let dir = layout.ingest();
    let mut builder = tempfile::Builder::new();
    let temporary = builder.prefix("import-").tempfile_in(&dir).map_err(ImageError::io("create a file in", &dir))?;
    let (mut file, path) = temporary.into_parts();
    let write = |bytes: &[u8]| file.write_all(bytes).map_err(ImageError::io("write", path.to_path_buf()));
    let (digest, size) = hash(reader, write)?;
    Ok(Ingested { digest, size, at: At::Temporary(path) })
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

/// A blob of an OCI layout: a file of the archive, or the target's.
enum Blob {
    Here(PathBuf),
    There,
}

impl Contents {
    /// The path of the file that a path leads to.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
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
    fn document(&self, path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(ingested) = self.resolve(path).and_then(|path| self.files.get(&path)) else { return Ok(None) };
        if ingested.size > MAX_DOCUMENT_BYTES {
            return Err(refused(format!("{} is {} bytes", path.display(), ingested.size)));
        }
        self.begin(ingested, ingested.size).map(Some)
    }

    /// The first bytes of a file.
    fn begin(&self, file: &Ingested, length: u64) -> Result<Vec<u8>, ImageError> {
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

    fn need(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        self.document(path)?.ok_or_else(|| refused(format!("{} is missing", path.display())))
    }

    fn file(&self, path: &Path) -> Result<&Ingested, ImageError> {
        let found = self.resolve(path).and_then(|path| self.files.get(&path));
        found.ok_or_else(|| refused(format!("{} is missing", path.display())))
    }

    /// A blob of an OCI layout by its digest, which its bytes must have.
    fn blob(&self, target: &impl Target, digest: &Digest) -> Result<Blob, ImageError> {
        let path = Path::new("blobs/sha256").join(digest.hex());
        let found = self.resolve(&path).and_then(|path| self.files.get(&path));
        match found {
            None if target.size_of(digest).is_some() => Ok(Blob::There),
            None => Err(refused(format!("blob {digest} is missing"))),
            Some(ingested) if ingested.digest != *digest => {
                Err(refused(format!("blob {digest} has the digest {}", ingested.digest)))
            }
            Some(_) => Ok(Blob::Here(path)),
        }
    }

    fn blob_document(&self, target: &impl Target, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match self.blob(target, digest)? {
            Blob::Here(path) => self.need(&path),
            Blob::There => target.document(digest).ok_or_else(|| refused(format!("blob {digest} is missing"))),
        }
    }

    fn keep_blob(&self, target: &mut impl Target, digest: &Digest) -> Result<u64, ImageError> {
        match self.blob(target, digest)? {
            Blob::Here(path) => {
                let file = self.file(&path)?;
                target.keep(self, file)?;
                Ok(file.size)
            }
            Blob::There => Ok(target.size_of(digest).unwrap_or_default()),
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| refused(format!("{what}: {error}")))
}

fn digest(text: &str) -> Result<Digest, ImageError> {
    text.parse().map_err(|error: crate::digest::DigestError| refused(error.to_string()))
}

/// docker-save: the table names a configuration and layers by path; the manifest is made here.
fn docker_images(
    target: &mut impl Target,
    platform: &Platform,
    contents: &Contents,
    table: &[u8],
) -> Result<Vec<Imported>, ImageError> {
    let table: Vec<DockerImage> = json("manifest.json", table)?;
    let many = table.len() > 1;
    let mut imported = Vec::new();
    let mut skipped = None;
    for image in table {
        let names = names(image.repo_tags.unwrap_or_default())?;
        let label = names.first().cloned().unwrap_or_else(|| image.config.clone());
        let config_path = within(Path::new(""), Path::new(&image.config))?;
        let config = ConfigFile::parse(&label, &contents.need(&config_path)?)?;
        if let Err(error) = config.check_platform(&label, platform) {
            if !many {
                return Err(error);
            }
            skipped = Some(error);
            continue;
        }
        let id = contents.file(&config_path)?;
        target.keep(contents, id)?;
        let descriptor = |media_type: &str, digest: &Digest, size: u64| OciDescriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let mut manifest = OciImageManifest {
            media_type: Some(IMAGE_MANIFEST.to_owned()),
            config: descriptor(IMAGE_CONFIG, &id.digest, id.size),
            ..OciImageManifest::default()
        };
        for layer in image.layers.unwrap_or_default() {
            let path = within(Path::new(""), Path::new(&layer))?;
            let layer = contents.file(&path)?;
            target.keep(contents, layer)?;
            let suffix = match Compression::of(&contents.begin(layer, 4)?) {
                Compression::None => "",
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
            };
            manifest.layers.push(descriptor(&format!("{LAYER_TAR}{suffix}"), &layer.digest, layer.size));
        }
        config.check_layers(&label, &manifest)?;
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        let size = bytes.len() as u64;
        imported.push(Imported { manifest: target.put(bytes)?, size, names, repo_digest: None });
    }
    match (imported.is_empty(), skipped) {
        (true, Some(error)) => Err(error),
        _ => Ok(imported),
    }
}

/// OCI layout: index.json names manifests, or indexes of which the fitting entry is taken.
fn oci_images(
    target: &mut impl Target,
    platform: &Platform,
    contents: &Contents,
    table: &[u8],
) -> Result<Vec<Imported>, ImageError> {
    let table: OciIndex = json("index.json", table)?;
    let many = table.manifests.len() > 1;
    let mut imported: Vec<Imported> = Vec::new();
    let mut skipped = None;
    for entry in table.manifests {
        let annotations = entry.annotations.unwrap_or_default();
        let full = annotations.get(INDEX_NAME).or_else(|| annotations.get(REF_NAME).filter(|name| name.contains('/')));
        let names = names(full.cloned().into_iter().collect())?;
        let label = names.first().cloned().unwrap_or_else(|| entry.digest.clone());
        match oci_image(target, platform, contents, &entry.digest, &label) {
            Ok((manifest, size)) => {
                let claimed = annotations.get(REPO_DIGEST);
                let repo_digest = match claimed {
                    Some(claimed) if served_as(target, contents, claimed, &manifest)? => Some(claimed.clone()),
                    _ => None,
                };
                let known = imported.iter_mut();
                match known.into_iter().find(|image| image.manifest == manifest && image.repo_digest == repo_digest) {
                    Some(image) => image.names.extend(names),
                    None => imported.push(Imported { manifest, size, names, repo_digest }),
                }
            }
            Err(error @ ImageError::WrongPlatform { .. }) if many => skipped = Some(error),
            Err(error) => return Err(error),
        }
    }
    match (imported.is_empty(), skipped) {
        (true, Some(error)) => Err(error),
        _ => Ok(imported),
    }
}

fn oci_image(
    target: &mut impl Target,
    platform: &Platform,
    contents: &Contents,
    wanted: &str,
    label: &str,
) -> Result<(Digest, u64), ImageError> {
    let mut wanted = digest(wanted)?;
    if let OciManifest::ImageIndex(index) = json(label, &contents.blob_document(target, &wanted)?)? {
        let entries: Vec<ImageIndexEntry> = index.manifests;
        wanted = digest(&select_platform(label, &entries, platform)?.digest)?;
    }
    let manifest: OciImageManifest = json(label, &contents.blob_document(target, &wanted)?)?;
    let config_digest = digest(&manifest.config.digest)?;
    let config = ConfigFile::parse(label, &contents.blob_document(target, &config_digest)?)?;
    config.check_platform(label, platform)?;
    config.check_layers(label, &manifest)?;
    for layer in &manifest.layers {
        contents.keep_blob(target, &digest(&layer.digest)?)?;
    }
    contents.keep_blob(target, &config_digest)?;
    let size = contents.keep_blob(target, &wanted)?;
    Ok((wanted, size))
}

/// Whether `claimed` (`registry/repository@digest`) can be what a registry serves for this manifest: its own digest, or
/// that of an index, in the archive or known, that lists it.
fn served_as(
    target: &mut impl Target,
    contents: &Contents,
    claimed: &str,
    manifest: &Digest,
) -> Result<bool, ImageError> {
    let Ok(name) = claimed.parse::<ImageName>() else { return Ok(false) };
    let Some(served) = name.digest() else { return Ok(false) };
    if served == *manifest {
        return Ok(true);
    }
    let Ok(document) = contents.blob_document(target, &served) else { return Ok(false) };
    let Ok(OciManifest::ImageIndex(index)) = serde_json::from_slice(&document) else { return Ok(false) };
    if !index.manifests.iter().any(|entry| entry.digest == manifest.as_str()) {
        return Ok(false);
    }
    contents.keep_blob(target, &served)?;
    Ok(true)
}

fn names(texts: Vec<String>) -> Result<Vec<String>, ImageError> {
    let mut names = Vec::new();
    for text in texts {
        let name: ImageName = text.parse()?;
        names.extend(name.tagged());
    }
    Ok(names)
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
