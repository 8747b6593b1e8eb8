//! The store: everything a node or the command line does with images.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::archive;
use crate::image::{Compression, ConfigFile};
use crate::layout::{Index, Layout};
use crate::mirrors::Resolver;
use crate::pull::{Health, Puller, Transport};
use crate::{
    Credential, Digest, Image, ImageError, ImageName, Layer, Platform, Progress, Query, ResolverConfig, Summary,
};

/// A store of images in a directory. Cheap to clone; all methods may be called concurrently, also by other processes
/// on the same directory.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    resolver: Resolver,
    transport: Transport,
    health: Health,
    config: ResolverConfig,
    platform: Platform,
}

impl ImageStore {
    /// Opens the directory, making it if it is not there, and removes what an interrupted process left unused.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`] when the configuration cannot be understood; I/O errors of the directory.
    pub fn open(dir: &Path, config: ResolverConfig) -> Result<ImageStore, ImageError> {
        ImageStore::open_for(dir, config, Platform::here())
    }

    /// As [`ImageStore::open`], for images of another platform than this machine's.
    pub fn open_for(dir: &Path, config: ResolverConfig, platform: Platform) -> Result<ImageStore, ImageError> {
        let layout = Layout::open(dir)?;
        let resolver = Resolver::new(&config)?;
        let transport = Transport::new(config.timeouts, config.extra_roots_pem.as_deref())?;
        let health = Health::load(dir.join("places.json"));
        let store = ImageStore { inner: Arc::new(Inner { layout, resolver, transport, health, config, platform }) };
        store.collect();
        Ok(store)
    }

    /// Fetches an image from the places the configuration names, whether it is stored or not; blobs that are stored
    /// are not fetched again, and partial ones go on where they stopped. Dropping the future keeps what has arrived.
    ///
    /// # Errors
    /// [`ImageError::AllFailed`] with what every place said; [`ImageError::WrongPlatform`]; what the disk says. The
    /// stored image of that name stays as it was.
    pub async fn pull(
        &self,
        name: &str,
        credentials: &[Credential],
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        let name: ImageName = name.parse()?;
        let inner = &self.inner;
        let layout = inner.layout.clone();
        // Waits for a collection that runs just now.
        let using = blocking(move || layout.in_use()).await?;
        let puller = Puller {
            layout: &inner.layout,
            transport: &inner.transport,
            health: &inner.health,
            resolver: &inner.resolver,
            timeouts: inner.config.timeouts,
            platform: &inner.platform,
            progress,
            credentials,
        };
        let pulled = puller.pull(&name).await;
        inner.health.save();
        let pulled = pulled?;
        let repo_digest = name.with_digest(&pulled.served);
        let tagged = name.tagged();
        let manifest = pulled.manifest.clone();
        let image = self
            .blocking(move |inner| {
                let size = pulled.manifest_size;
                inner.layout.update(|index| index.add(&manifest, size, tagged.as_deref(), Some(&repo_digest)))?;
                inner.image(&inner.layout.index()?, &manifest)
            })
            .await?;
        drop(using);
        Ok(image)
    }

    /// Brings in a docker-save or OCI archive (plain, gzip or zstd); returns the images, each with its names. Images
    /// for other platforms in it are skipped unless there is nothing else.
    ///
    /// # Errors
    /// [`ImageError::BadArchive`] for what is no such archive or tries to do harm: then nothing is stored.
    pub async fn import(&self, reader: impl AsyncRead + Send + Unpin) -> Result<Vec<Image>, ImageError> {
        let layout = self.inner.layout.clone();
        let using = blocking(move || layout.in_use()).await?;
        let layout = self.inner.layout.clone();
        let platform = self.inner.platform.clone();
        let blocking_reader = archive::BlockingReader::new(reader);
        let imported = blocking_reader.drive(move |reader| archive::import(&layout, &platform, reader)).await?;
        let images = self
            .blocking(move |inner| {
                inner.layout.update(|index| {
                    for image in &imported {
                        if image.names.is_empty() {
                            index.add(&image.manifest, image.size, None, Some(&format!("@{}", image.manifest)));
                        }
                        for name in &image.names {
                            index.add(&image.manifest, image.size, Some(name), None);
                        }
                    }
                })?;
                let index = inner.layout.index()?;
                imported.iter().map(|image| inner.image(&index, &image.manifest)).collect()
            })
            .await;
        drop(using);
        images
    }

    /// Every stored image, by id.
    pub async fn list(&self) -> Result<Vec<Summary>, ImageError> {
        self.blocking(|inner| {
            let index = inner.layout.index()?;
            let mut manifests: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest.clone()).collect();
            manifests.sort();
            manifests.dedup();
            let mut rows: std::collections::BTreeMap<Digest, Summary> = std::collections::BTreeMap::new();
            for manifest in manifests {
                let image = match inner.image(&index, &manifest) {
                    Ok(image) => image,
                    Err(error) => {
                        tracing::warn!(manifest = %manifest, error = %error, "stored image cannot be read");
                        continue;
                    }
                };
                // Two manifests of one configuration are one image.
                let row = rows.entry(image.id.clone()).or_insert_with(|| Summary {
                    id: image.id,
                    repo_tags: Vec::new(),
                    repo_digests: Vec::new(),
                    size_bytes: image.size_bytes,
                });
                row.repo_tags.extend(image.repo_tags);
                row.repo_digests.extend(image.repo_digests);
            }
            Ok(rows.into_values().collect())
        })
        .await
    }

    /// The stored image of a name or id, without any network.
    ///
    /// # Errors
    /// [`ImageError::Ambiguous`] for the beginning of several ids.
    pub async fn get(&self, query: &str) -> Result<Option<Image>, ImageError> {
        let query: Query = query.parse()?;
        self.blocking(move |inner| {
            let index = inner.layout.index()?;
            match inner.find(&index, &query)?.first() {
                Some(manifest) => inner.image(&index, manifest).map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    /// Removes a name, or with an id the image with all its names; blobs nobody needs go with it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub async fn remove(&self, query: &str) -> Result<(), ImageError> {
        let text = query.to_owned();
        let query: Query = query.parse()?;
        self.blocking(move |inner| {
            let found = inner.find(&inner.layout.index()?, &query)?;
            let tagged = match &query {
                Query::Name(name) if name.digest().is_none() => name.tagged(),
                Query::Name(_) | Query::Id(_) => None,
            };
            let removed = inner.layout.update(|index| match tagged {
                Some(name) => index.remove_name(&name),
                None => {
                    index.manifests.retain(|entry| !found.contains(&entry.digest));
                    !found.is_empty()
                }
            })?;
            if !removed {
                return Err(ImageError::NotFound(text));
            }
            inner.layout.collect().map(|_| ())
        })
        .await
    }

    /// Gives a stored image one more name, taking it from the image that had it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] if the source is not stored; [`ImageError::InvalidName`] if the target has a digest.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        let text = source.to_owned();
        let source: Query = source.parse()?;
        let target: ImageName = target.parse()?;
        let name = target.tagged().filter(|_| target.digest().is_none()).ok_or_else(|| ImageError::InvalidName {
            name: target.to_string(),
            detail: "a new name cannot have a digest".to_owned(),
        })?;
        self.blocking(move |inner| {
            let found = inner.find(&inner.layout.index()?, &source)?;
            let manifest = found.into_iter().next().ok_or(ImageError::NotFound(text))?;
            let size = inner.layout.size_of(&manifest).unwrap_or_default();
            inner.layout.update(|index| index.add(&manifest, size, Some(&name), None))
        })
        .await
    }

    /// Writes images as an archive that is both a docker-save archive and an OCI layout.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] before anything is written.
    pub async fn export(&self, queries: &[String], writer: impl AsyncWrite + Send + Unpin) -> Result<(), ImageError> {
        let mut images = Vec::new();
        for query in queries {
            let image = self.get(query).await?.ok_or_else(|| ImageError::NotFound(query.clone()))?;
            let names = match query.parse()? {
                Query::Name(name) => name.tagged().into_iter().collect(),
                Query::Id(_) => image.repo_tags.clone(),
            };
            images.push(archive::Exported { manifest: image.manifest, names });
        }
        let layout = self.inner.layout.clone();
        let using_layout = layout.clone();
        let using = blocking(move || using_layout.in_use()).await?;
        let written = archive::drive_writer(writer, move |writer| archive::export(&layout, &images, writer)).await;
        drop(using);
        written
    }

    /// Removes blobs that no image needs; while a pull or import runs nothing is removed.
    fn collect(&self) {
        if let Err(error) = self.inner.layout.collect() {
            tracing::warn!(error = %error, "unused blobs cannot be removed");
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = self.inner.clone();
        blocking(move || work(&inner)).await
    }
}

/// Runs what touches the disk off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Cancelled)?
}

impl Inner {
    /// The manifests a query means.
    fn find(&self, index: &Index, query: &Query) -> Result<Vec<Digest>, ImageError> {
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

    fn image(&self, index: &Index, manifest_digest: &Digest) -> Result<Image, ImageError> {
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
