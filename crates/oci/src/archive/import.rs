//! Reading an archive: every file of it is hashed into the store's ingest directory as it streams by; what the archive's
//! own table of contents then names becomes blobs, the rest is removed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageManifest, OciManifest};
use serde::Deserialize;

use super::stream::Source;
use crate::image::{ConfigFile, select_platform};
use crate::layout::{Layout, MAX_DOCUMENT_BYTES, REF_NAME};
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

/// An image whose blobs are all stored; the index is the caller's.
pub(crate) struct Imported {
    pub(crate) manifest: Digest,
    pub(crate) size: u64,
    /// Normalised.
    pub(crate) names: Vec<String>,
}

/// A file of the archive, hashed and waiting in the ingest directory.
struct Ingested {
    digest: Digest,
    file: tempfile::TempPath,
    size: u64,
}

#[derive(Default)]
struct Contents {
    files: BTreeMap<PathBuf, Ingested>,
    /// Symbolic and hard links, by where they lead within the archive.
    links: HashMap<PathBuf, PathBuf>,
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

pub(crate) fn import(layout: &Layout, platform: &Platform, source: Source) -> Result<Vec<Imported>, ImageError> {
    let mut contents = read(layout, decompressed(source)?)?;
    let imported = if let Some(table) = contents.document(Path::new("manifest.json"))? {
        docker_images(layout, platform, &mut contents, &table)?
    } else if let Some(table) = contents.document(Path::new("index.json"))? {
        oci_images(layout, platform, &mut contents, &table)?
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

/// Streams all files into the ingest directory.
fn read(layout: &Layout, reader: Box<dyn Read>) -> Result<Contents, ImageError> {
    let mut contents = Contents::default();
    let mut tar = tar::Archive::new(reader);
    for (number, entry) in tar.entries().map_err(ImageError::ReadArchive)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if number >= MAX_ENTRIES {
            return Err(refused(format!("it has more than {MAX_ENTRIES} files")));
        }
        let path = within(Path::new(""), &entry.path().map_err(broken)?)?;
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let ingested = ingest(layout, &mut entry)?;
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
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = reader.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes).map_err(ImageError::io("write", path.to_path_buf()))?;
        size += read as u64;
    }
    Ok(Ingested { digest: hasher.finish(), file: path, size })
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
        std::fs::read(&ingested.file).map(Some).map_err(ImageError::io("read", ingested.file.to_path_buf()))
    }

    fn need(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        self.document(path)?.ok_or_else(|| refused(format!("{} is missing", path.display())))
    }

    /// Makes a file of the archive a blob; returns its digest and size.
    fn store(&self, layout: &Layout, path: &Path) -> Result<(Digest, u64), ImageError> {
        let found = self.resolve(path).and_then(|path| self.files.get(&path));
        let ingested = found.ok_or_else(|| refused(format!("{} is missing", path.display())))?;
        if layout.size_of(&ingested.digest) != Some(ingested.size) {
            let temporary: &Path = &ingested.file;
            let synced = File::open(temporary).and_then(|file| file.sync_all());
            synced.map_err(ImageError::io("sync", temporary))?;
            // A hard link, not a rename: several images of the archive may share the file.
            let copy = temporary.with_extension("stored");
            std::fs::hard_link(temporary, &copy).map_err(ImageError::io("link", temporary))?;
            layout.commit(&copy, &ingested.digest)?;
        }
        Ok((ingested.digest.clone(), ingested.size))
    }

    /// A blob of an OCI layout by its digest, which its bytes must have.
    fn blob_path(&self, digest: &Digest) -> Result<PathBuf, ImageError> {
        let path = Path::new("blobs/sha256").join(digest.hex());
        let found = self.resolve(&path).and_then(|path| self.files.get(&path));
        match found {
            None => Err(refused(format!("blob {digest} is missing"))),
            Some(ingested) if ingested.digest != *digest => {
                Err(refused(format!("blob {digest} has the digest {}", ingested.digest)))
            }
            Some(_) => Ok(path),
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
    layout: &Layout,
    platform: &Platform,
    contents: &mut Contents,
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
        let (id, id_size) = contents.store(layout, &config_path)?;
        let descriptor = |media_type: &str, digest: &Digest, size: u64| OciDescriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let mut manifest = OciImageManifest {
            media_type: Some(IMAGE_MANIFEST.to_owned()),
            config: descriptor(IMAGE_CONFIG, &id, id_size),
            ..OciImageManifest::default()
        };
        for layer in image.layers.unwrap_or_default() {
            let path = within(Path::new(""), Path::new(&layer))?;
            let (digest, size) = contents.store(layout, &path)?;
            let suffix = match crate::image::Compression::of(&first_bytes(&layout.blob(&digest))?) {
                crate::image::Compression::None => "",
                crate::image::Compression::Gzip => "+gzip",
                crate::image::Compression::Zstd => "+zstd",
            };
            manifest.layers.push(descriptor(&format!("{LAYER_TAR}{suffix}"), &digest, size));
        }
        config.check_layers(&label, &manifest)?;
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        imported.push(Imported { manifest: layout.put(&bytes)?, size: bytes.len() as u64, names });
    }
    match (imported.is_empty(), skipped) {
        (true, Some(error)) => Err(error),
        _ => Ok(imported),
    }
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    file.take(4).read_to_end(&mut bytes).map_err(ImageError::io("read", path))?;
    Ok(bytes)
}

/// OCI layout: index.json names manifests, or indexes of which the fitting entry is taken.
fn oci_images(
    layout: &Layout,
    platform: &Platform,
    contents: &mut Contents,
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
        match oci_image(layout, platform, contents, &entry.digest, &label) {
            Ok((manifest, size)) => match imported.iter_mut().find(|image| image.manifest == manifest) {
                Some(image) => image.names.extend(names),
                None => imported.push(Imported { manifest, size, names }),
            },
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
    layout: &Layout,
    platform: &Platform,
    contents: &Contents,
    wanted: &str,
    label: &str,
) -> Result<(Digest, u64), ImageError> {
    let path = contents.blob_path(&digest(wanted)?)?;
    let path = match json(label, &contents.need(&path)?)? {
        OciManifest::Image(_) => path,
        OciManifest::ImageIndex(index) => {
            let entries: Vec<ImageIndexEntry> = index.manifests;
            let entry = select_platform(label, &entries, platform)?;
            contents.blob_path(&digest(&entry.digest)?)?
        }
    };
    let manifest: OciImageManifest = json(label, &contents.need(&path)?)?;
    let config_path = contents.blob_path(&digest(&manifest.config.digest)?)?;
    let config = ConfigFile::parse(label, &contents.need(&config_path)?)?;
    config.check_platform(label, platform)?;
    config.check_layers(label, &manifest)?;
    for layer in &manifest.layers {
        contents.store(layout, &contents.blob_path(&digest(&layer.digest)?)?)?;
    }
    contents.store(layout, &config_path)?;
    contents.store(layout, &path)
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
