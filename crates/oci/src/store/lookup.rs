//! Finding what is stored, by name, id and digest.

use std::path::{Path, PathBuf};

use super::{ImageStore, Inner};
use crate::image::{Compression, ConfigFile};
use crate::layout::Index;
use crate::{Digest, Image, ImageError, ImageName, Layer, Query};

impl ImageStore {
    /// Those of these blobs that are not stored.
    pub async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ImageError> {
        self.blocking(move |inner| {
            Ok(digests.into_iter().filter(|digest| inner.layout.size_of(digest).is_none()).collect())
        })
        .await
    }

    /// What this store would answer for a manifest, as a registry: the manifest or index that a tag or digest of a name
    /// leads to, with its digest.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn manifest(&self, name: &str) -> Result<Option<(Digest, Vec<u8>)>, ImageError> {
        let name: ImageName = name.parse()?;
        self.blocking(move |inner| {
            let index = inner.layout.index()?;
            let tagged = name.tagged().filter(|_| name.digest().is_none());
            let entry = index.manifests.iter().find(|entry| match (&tagged, name.digest()) {
                (Some(tagged), _) => entry.name() == Some(tagged),
                (None, Some(digest)) => entry.digest == digest || entry.served() == Some(digest),
                (None, None) => false,
            });
            let Some(entry) = entry else { return Ok(None) };
            let served = entry.served().filter(|served| inner.layout.size_of(served).is_some());
            let digest = name.digest().or(served).unwrap_or_else(|| entry.digest.clone());
            match inner.layout.read(&digest) {
                Ok(bytes) if Digest::of(&bytes) == digest => {
                    inner.layout.want(&digest);
                    Ok(Some((digest, bytes)))
                }
                _ => Ok(None),
            }
        })
        .await
    }

    /// The file of a stored blob, and its size.
    pub fn blob(&self, digest: &Digest) -> Option<(PathBuf, u64)> {
        let size = self.inner.layout.size_of(digest)?;
        self.inner.layout.want(digest);
        Some((self.inner.layout.blob(digest), size))
    }
}

impl Inner {
    /// The manifests a query means.
    pub(super) fn find(&self, index: &Index, query: &Query) -> Result<Vec<Digest>, ImageError> {
        match query {
            Query::Name(name) => {
                let wanted_digest = name.digest().map(|digest| name.with_digest(&digest));
                let tagged = name.tagged();
                let hit = index.manifests.iter().find(|entry| match &wanted_digest {
                    Some(digest) => entry.repo_digest() == Some(digest),
                    None => tagged.is_some() && entry.name() == tagged.as_deref(),
                });
                Ok(hit.map(|entry| entry.digest.clone()).into_iter().collect())
            }
            Query::Id(digits) => {
                let mut found: Vec<(String, Digest)> = Vec::new();
                for entry in &index.manifests {
                    let Ok(manifest) = self.layout.manifest(&entry.digest) else { continue };
                    let id = manifest.config.digest;
                    if id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(digits)) {
                        found.push((id, entry.digest.clone()));
                    }
                }
                found.sort();
                found.dedup();
                match (found.first(), found.last()) {
                    (Some((first, _)), Some((last, _))) if first != last => Err(ImageError::Ambiguous(digits.clone())),
                    _ => Ok(found.into_iter().map(|(_, manifest)| manifest).collect()),
                }
            }
        }
    }

    pub(super) fn image(&self, index: &Index, manifest_digest: &Digest) -> Result<Image, ImageError> {
        let name = manifest_digest.to_string();
        let manifest = self.layout.manifest(manifest_digest)?;
        let bad = |error: crate::digest::DigestError| ImageError::BadDocument {
            what: "the manifest",
            name: name.clone(),
            detail: error.to_string(),
        };
        let id: Digest = manifest.config.digest.parse().map_err(bad)?;
        let config = ConfigFile::parse(&name, &self.layout.read(&id)?)?;
        config.check_layers(&name, &manifest)?;
        let platform = config.platform();
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, diff_id) in manifest.layers.iter().zip(config.rootfs.diff_ids) {
            let blob = self.layout.blob(&layer.digest.parse().map_err(bad)?);
            let (size_bytes, compression) = head(&blob)?;
            layers.push(Layer { diff_id, blob, compression, size_bytes });
        }
        let size_bytes = layers.iter().map(|layer| layer.size_bytes).sum::<u64>() + manifest.config.size.unsigned_abs();
        let entries = || index.manifests.iter().filter(|entry| entry.digest == *manifest_digest);
        let mut repo_digests: Vec<String> = entries()
            .filter_map(|entry| entry.repo_digest())
            .filter(|d| !d.starts_with('@'))
            .map(str::to_owned)
            .collect();
        repo_digests.sort();
        repo_digests.dedup();
        Ok(Image {
            id,
            manifest: manifest_digest.clone(),
            repo_tags: entries().filter_map(|entry| entry.name().map(str::to_owned)).collect(),
            repo_digests,
            size_bytes,
            platform,
            config: config.config,
            layers,
        })
    }
}

/// A layer's size, and its compression by its first bytes.
fn head(blob: &Path) -> Result<(u64, Compression), ImageError> {
    use std::io::Read;
    let file = std::fs::File::open(blob).map_err(ImageError::io("open", blob))?;
    let size = file.metadata().map_err(ImageError::io("look at", blob))?.len();
    let mut bytes = Vec::new();
    file.take(4).read_to_end(&mut bytes).map_err(ImageError::io("read", blob))?;
    Ok((size, Compression::of(&bytes)))
}
