//! A store's images as archives.

use std::io::Write;

use serde::Serialize;

use super::import::Imported;
use super::outgoing::{Origin, Outgoing};
use crate::layout::{Index, Layout, MAX_DOCUMENT_BYTES};
use crate::{Digest, ImageError};

/// An image to send, with the names to give it.
pub(crate) struct Exported {
    pub(crate) manifest: Digest,
    pub(crate) names: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Stored images with all they consist of, also the indexes they were found by.
pub(crate) fn outgoing(layout: &Layout, index: &Index, images: &[Exported]) -> Result<Outgoing, ImageError> {
    let mut outgoing = Outgoing::default();
    for image in images {
        let mut digests = pieces(layout, &image.manifest)?;
        let entry = index.manifests.iter().filter(|entry| entry.digest == image.manifest).find(|entry| {
            let names = image.names.iter().any(|name| entry.name() == Some(name));
            entry.served().is_some() && (names || image.names.is_empty())
        });
        // What was imported without a name carries a mark in place of it.
        let repo_digest = entry.and_then(|entry| entry.repo_digest()).filter(|served| !served.starts_with('@'));
        digests.extend(entry.and_then(|entry| entry.served()).filter(|served| layout.size_of(served).is_some()));
        for digest in digests {
            let missing = || ImageError::NotFound(digest.to_string());
            let size = layout.size_of(&digest).ok_or_else(missing)?;
            let path = layout.blob(&digest);
            outgoing.add(digest, size, Origin::Alone(path));
        }
        outgoing.images.push(Imported {
            manifest: image.manifest.clone(),
            size: layout.size_of(&image.manifest).unwrap_or_default(),
            names: image.names.clone(),
            repo_digest: repo_digest.map(str::to_owned),
        });
    }
    Ok(outgoing)
}

/// One tar that `docker load` and OCI tools both read.
pub(crate) fn export(
    layout: &Layout,
    index: &Index,
    images: &[Exported],
    writer: &mut impl Write,
) -> Result<(), ImageError> {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut table = Vec::new();
    for image in images {
        let digests = pieces(layout, &image.manifest)?;
        table.push(DockerImage {
            config: digests.get(1).map(path).unwrap_or_default(),
            repo_tags: image.names.clone(),
            layers: digests.iter().skip(2).map(path).collect(),
        });
    }
    outgoing(layout, index, images)?.write_for_docker(&table, writer)
}

/// The manifest, the configuration, the layers.
fn pieces(layout: &Layout, digest: &Digest) -> Result<Vec<Digest>, ImageError> {
    let manifest = layout.manifest(digest)?;
    let mut digests = vec![digest.clone()];
    for named in std::iter::once(&manifest.config).chain(&manifest.layers).map(|descriptor| &descriptor.digest) {
        let bad = |error: crate::digest::DigestError| ImageError::BadDocument {
            what: "the manifest",
            name: digest.to_string(),
            detail: error.to_string(),
        };
        digests.push(named.parse().map_err(bad)?);
    }
    Ok(digests)
}

/// Adds a document, unless it is larger than who reads it takes.
pub(super) fn document(tar: &mut tar::Builder<&mut impl Write>, name: &str, content: &[u8]) -> Result<(), ImageError> {
    if content.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(ImageError::TooLarge { name: name.to_owned(), limit_mib: MAX_DOCUMENT_BYTES >> 20 });
    }
    tar.append_data(&mut header(content.len() as u64), name, content).map_err(ImageError::WriteArchive)
}

/// The same for the same image: no time, no owner.
pub(super) fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
