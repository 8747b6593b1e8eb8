//! Images on their way to another store: what they consist of, and where each piece lies. The receiver says which pieces it
//! lacks; only those are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::attached::{self, Attached};
use super::export::{DockerImage, document, header};
use super::import::Imported;
use crate::layout::{REF_NAME, REPO_DIGEST};
use crate::{Digest, ImageError};

/// Where the bytes of a piece are.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A file of their own.
    Alone(PathBuf),
    /// At an offset of a file.
    Within(Arc<File>, u64),
    Memory(Vec<u8>),
}

#[derive(Clone)]
struct Piece {
    size: u64,
    origin: Origin,
}

/// Images and the pieces they consist of.
#[derive(Clone, Default)]
pub struct Outgoing {
    pub(crate) images: Vec<Imported>,
    pieces: BTreeMap<Digest, Piece>,
    attached: Attached,
}

impl Outgoing {
    /// Sends files with the images.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`] for more than who reads them takes.
    pub fn attach(&mut self, files: Attached) -> Result<(), ImageError> {
        self.attached.extend(files);
        attached::check(&self.attached)
    }

    pub(crate) fn add(&mut self, digest: Digest, size: u64, origin: Origin) {
        self.pieces.entry(digest).or_insert(Piece { size, origin });
    }

    /// Adds another's images to these.
    pub fn merge(&mut self, other: Outgoing) {
        self.images.extend(other.images);
        self.pieces.extend(other.pieces);
        self.attached.extend(other.attached);
    }

    /// Digests of all pieces.
    pub fn digests(&self) -> Vec<Digest> {
        self.pieces.keys().cloned().collect()
    }

    /// Names of all images.
    pub fn names(&self) -> Vec<String> {
        self.images.iter().flat_map(|image| image.names.clone()).collect()
    }

    /// Gives the only image another name, in place of those it has.
    pub fn rename(&mut self, name: String) {
        if let [image] = self.images.as_mut_slice() {
            image.names = vec![name];
        }
    }

    /// Bytes of these pieces.
    pub fn size_of(&self, digests: &BTreeSet<Digest>) -> u64 {
        digests.iter().filter_map(|digest| self.pieces.get(digest)).map(|piece| piece.size).sum()
    }

    /// Writes an OCI layout with all images but, of their pieces, only those of `wanted`.
    pub(crate) fn write(&self, wanted: &BTreeSet<Digest>, writer: &mut impl Write) -> Result<(), ImageError> {
        let mut tar = tar::Builder::new(writer);
        for (digest, piece) in self.pieces.iter().filter(|(digest, _)| wanted.contains(digest)) {
            let path = format!("blobs/sha256/{}", digest.hex());
            tar.append_data(&mut header(piece.size), path, piece.open()?).map_err(ImageError::WriteArchive)?;
        }
        attached::write(&mut tar, &self.attached)?;
        document(&mut tar, "index.json", self.index().to_string().as_bytes())?;
        document(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.finish().map_err(ImageError::WriteArchive)
    }

    /// As [`Outgoing::write`] with every piece, and with the table that `docker load` reads.
    pub(crate) fn write_for_docker(&self, table: &[DockerImage], writer: &mut impl Write) -> Result<(), ImageError> {
        let mut tar = tar::Builder::new(writer);
        for (digest, piece) in &self.pieces {
            let path = format!("blobs/sha256/{}", digest.hex());
            tar.append_data(&mut header(piece.size), path, piece.open()?).map_err(ImageError::WriteArchive)?;
        }
        document(&mut tar, "index.json", self.index().to_string().as_bytes())?;
        document(&mut tar, "manifest.json", serde_json::to_string(table).unwrap_or_default().as_bytes())?;
        document(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.finish().map_err(ImageError::WriteArchive)
    }

    fn index(&self) -> serde_json::Value {
        let mut entries = Vec::new();
        for image in &self.images {
            let names: Vec<Option<&String>> =
                if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
            for name in names {
                let mut annotations = BTreeMap::new();
                if let Some(name) = name {
                    annotations.insert(REF_NAME, name);
                    annotations.insert("io.containerd.image.name", name);
                }
                annotations.extend(image.repo_digest.as_ref().map(|served| (REPO_DIGEST, served)));
                entries.push(serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": image.manifest, "size": image.size, "annotations": annotations,
                }));
            }
        }
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        })
    }
}

impl Piece {
    fn open(&self) -> Result<Box<dyn Read + '_>, ImageError> {
        Ok(match &self.origin {
            Origin::Alone(path) => Box::new(File::open(path).map_err(ImageError::io("open", path))?.take(self.size)),
            Origin::Within(file, offset) => Box::new(Window::new(file, *offset, self.size)),
            Origin::Memory(bytes) => Box::new(bytes.as_slice()),
        })
    }
}

/// A part of a file that others read too.
pub(super) struct Window<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File, offset: u64, length: u64) -> Window<'a> {
        Window { file, offset, left: length }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(buf.get_mut(..length).unwrap_or_default(), self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
