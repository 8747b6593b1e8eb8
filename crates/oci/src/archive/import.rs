//! Reading an archive: its files are hashed as they stream by; what the archive's own table of contents then names is kept,
//! the rest is not. What keeping means is the [`Target`]'s: an import makes blobs of a store, a scan only notes where in the
//! archive the bytes are.
//!
//! An OCI layout may leave out blobs that the target has already.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageManifest, OciManifest};
use serde::Deserialize;

use super::attached::{self, Attached};
use super::contents::{At, Contents, Ingested, Syncer, decompressed, hash_all, ingest, read, refused, within};
use super::outgoing::{Origin, Outgoing};
use super::stream::Source;
use crate::image::{Compression, ConfigFile, select_platform};
use crate::layout::{Layout, REF_NAME, REPO_DIGEST};
use crate::{Digest, ImageError, ImageName, Platform};

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
    size: Option<i64>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Brings an archive's images into a store; also gives the files that go with them. Nothing is kept of one whose files are not
/// `wanted`.
pub(crate) fn import(
    layout: &Layout,
    platform: &Platform,
    source: Source,
    wanted: impl FnOnce(&Attached) -> Result<(), String>,
) -> Result<(Vec<Imported>, Attached), ImageError> {
    let mut tar = tar::Archive::new(decompressed(source)?);
    let syncer = Syncer::start();
    let entries = tar.entries().map_err(ImageError::ReadArchive)?;
    let contents = read(entries, None, |entry| ingest(layout, &syncer, entry))?;
    syncer.finish(&layout.ingest())?;
    let attached = attached::read(&contents)?;
    wanted(&attached).map_err(refused)?;
    let mut target = layout;
    let imported = images(&mut target, platform, &contents)?;
    if imported.is_empty() && attached.is_empty() {
        return Err(no_image());
    }
    Ok((imported, attached))
}

fn no_image() -> ImageError {
    refused("it holds no image")
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
    if outgoing.images.is_empty() { Err(no_image()) } else { Ok(outgoing) }
}

fn images(target: &mut impl Target, platform: &Platform, contents: &Contents) -> Result<Vec<Imported>, ImageError> {
    if let Some(table) = contents.document(Path::new("manifest.json"))? {
        docker_images(target, platform, contents, &table)
    } else if let Some(table) = contents.document(Path::new("index.json"))? {
        oci_images(target, platform, contents, &table)
    } else {
        Err(refused("it has neither manifest.json nor index.json: not an image archive"))
    }
}

/// A blob of an OCI layout: a file of the archive, or the target's.
enum Blob {
    Here(PathBuf),
    There,
}

impl Contents {
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

    /// The size of a blob, which has to be what was `said` of it.
    fn blob_size(&self, target: &impl Target, digest: &Digest, said: Option<i64>) -> Result<u64, ImageError> {
        let size = match self.blob(target, digest)? {
            Blob::Here(path) => self.file(&path)?.size,
            Blob::There => target.size_of(digest).unwrap_or_default(),
        };
        match said {
            Some(said) if u64::try_from(said) != Ok(size) => {
                Err(refused(format!("blob {digest} is of {size} bytes, not {said}")))
            }
            _ => Ok(size),
        }
    }

    fn keep_blob(&self, target: &mut impl Target, digest: &Digest) -> Result<(), ImageError> {
        match self.blob(target, digest)? {
            Blob::Here(path) => target.keep(self, self.file(&path)?),
            Blob::There => Ok(()),
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
        match oci_image(target, platform, contents, (&entry.digest, entry.size), &label) {
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
    (wanted, said): (&str, Option<i64>),
    label: &str,
) -> Result<(Digest, u64), ImageError> {
    let mut wanted = digest(wanted)?;
    let mut size = contents.blob_size(target, &wanted, said)?;
    if let OciManifest::ImageIndex(index) = json(label, &contents.blob_document(target, &wanted)?)? {
        let entries: Vec<ImageIndexEntry> = index.manifests;
        let entry = select_platform(label, &entries, platform)?;
        wanted = digest(&entry.digest)?;
        size = contents.blob_size(target, &wanted, Some(entry.size))?;
    }
    let manifest: OciImageManifest = json(label, &contents.blob_document(target, &wanted)?)?;
    let config_digest = digest(&manifest.config.digest)?;
    let config = ConfigFile::parse(label, &contents.blob_document(target, &config_digest)?)?;
    config.check_platform(label, platform)?;
    config.check_layers(label, &manifest)?;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        contents.blob_size(target, &digest(&blob.digest)?, Some(blob.size))?;
    }
    for layer in &manifest.layers {
        contents.keep_blob(target, &digest(&layer.digest)?)?;
    }
    contents.keep_blob(target, &config_digest)?;
    contents.keep_blob(target, &wanted)?;
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
