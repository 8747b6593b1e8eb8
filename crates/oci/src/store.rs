//! The store: everything a node or the command line does with images.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::archive::{self, Outgoing};
use crate::image::{Compression, ConfigFile};
use crate::layout::{Index, Layout};
use crate::mirrors::{CACHE_USER, CacheAddress, Resolver, Source};
use crate::remote::{Health, Puller, Pusher, Transport};
use crate::transfer::RemoteStore;
use crate::{
    Credential, Digest, Image, ImageError, ImageName, Layer, NoProgress, Platform, Progress, Query, ResolverConfig,
    Summary,
};

/// A store of images in a directory. Cheap to clone; all methods may be called concurrently, also by other processes
/// on the same directory.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    setup: RwLock<Arc<Setup>>,
    health: Health,
    platform: Platform,
    /// One image after the other goes to the machine's cache.
    sharing: Semaphore,
}

/// What the configuration makes; replaced as a whole.
struct Setup {
    resolver: Resolver,
    /// Made when it is used first: with its certificates it is large, and some stores are only served.
    transport: OnceLock<Transport>,
    config: ResolverConfig,
}

impl Setup {
    fn new(config: ResolverConfig) -> Result<Arc<Setup>, ImageError> {
        let setup = Setup { resolver: Resolver::new(&config)?, transport: OnceLock::new(), config };
        if setup.config.extra_roots_pem.is_some() {
            // Certificates that cannot be used are refused now.
            setup.transport()?;
        }
        Ok(Arc::new(setup))
    }

    fn transport(&self) -> Result<&Transport, ImageError> {
        match self.transport.get() {
            Some(transport) => Ok(transport),
            None => {
                let made = Transport::new(self.config.timeouts, self.config.extra_roots_pem.as_deref())?;
                Ok(self.transport.get_or_init(|| made))
            }
        }
    }
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
        let setup = RwLock::new(Setup::new(config)?);
        let health = Health::load(dir.join("places.json"));
        let store =
            ImageStore { inner: Arc::new(Inner { layout, setup, health, platform, sharing: Semaphore::new(1) }) };
        store.collect();
        Ok(store)
    }

    /// Takes another configuration: pulls that begin from now on follow it, those that run end as they began.
    ///
    /// # Errors
    /// As [`ImageStore::open`]; the old configuration then stays.
    pub fn reconfigure(&self, config: ResolverConfig) -> Result<(), ImageError> {
        *self.inner.setup.write() = Setup::new(config)?;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> ResolverConfig {
        self.inner.setup.read().config.clone()
    }

    /// Hosts that a pull of this name may ask, without those of caches: whose logins it can use.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`].
    pub fn hosts(&self, name: &str) -> Result<Vec<String>, ImageError> {
        let places = self.inner.setup.read().resolver.places(&name.parse()?);
        let remote = places.iter().filter(|place| place.source != Source::Cache);
        let mut hosts: Vec<String> = remote.map(|place| place.host.clone()).collect();
        hosts.dedup();
        Ok(hosts)
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
        let setup = inner.setup.read().clone();
        let layout = inner.layout.clone();
        // Waits for a collection that runs just now.
        let using = blocking(move || layout.in_use()).await?;
        let puller = Puller {
            layout: &inner.layout,
            transport: setup.transport()?,
            health: &inner.health,
            resolver: &setup.resolver,
            timeouts: setup.config.timeouts,
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
        if let (Some(cache), []) = (&setup.config.cache, credentials) {
            tokio::spawn(self.clone().share(cache.clone(), name.to_string()));
        }
        Ok(image)
    }

    /// Gives the machine's cache what it lacks of an image that anybody may pull. It is nobody's work: what fails is left.
    async fn share(self, cache: CacheAddress, name: String) {
        let Ok(_turn) = self.inner.sharing.acquire().await else { return };
        let brought = async {
            let images = self.outgoing(std::slice::from_ref(&name)).await?;
            let client = self.inner.setup.read().clone().transport()?.client();
            let login = Some((CACHE_USER.to_owned(), cache.token));
            let remote = RemoteStore::new(client, format!("http://{}", cache.address), login);
            let silent: Arc<dyn Progress> = Arc::new(NoProgress);
            remote.load(images, &silent).await
        };
        match brought.await {
            Ok(names) => tracing::debug!(image = name, names = names.len(), "given to the machine's cache"),
            Err(error) => tracing::debug!(image = name, error = %error, "not given to the machine's cache"),
        }
    }

    /// Pushes a stored image to the registry that its name means; blobs the registry has are not sent.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] if it is not stored, [`ImageError::NotTaken`] with what the registry said.
    pub async fn push(
        &self,
        name: &str,
        credentials: &[Credential],
        progress: &dyn Progress,
    ) -> Result<Digest, ImageError> {
        let image = self.get(name).await?.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let name: ImageName = name.parse()?;
        let inner = &self.inner;
        let setup = inner.setup.read().clone();
        let layout = inner.layout.clone();
        let using = blocking(move || layout.in_use()).await?;
        let pusher = Pusher {
            layout: &inner.layout,
            transport: setup.transport()?,
            resolver: &setup.resolver,
            timeouts: setup.config.timeouts,
            progress,
            credentials,
        };
        pusher.push(&name, &image.manifest).await?;
        drop(using);
        Ok(image.manifest)
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
                        let served = image.repo_digest.clone();
                        if image.names.is_empty() {
                            let mark = served.clone().unwrap_or_else(|| format!("@{}", image.manifest));
                            index.add(&image.manifest, image.size, None, Some(&mark));
                        }
                        for name in &image.names {
                            index.add(&image.manifest, image.size, Some(name), served.as_deref());
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
        let images = self.exported(queries).await?;
        let layout = self.inner.layout.clone();
        let using_layout = layout.clone();
        let using = blocking(move || using_layout.in_use()).await?;
        let written =
            archive::drive_writer(writer, move |writer| archive::export(&layout, &layout.index()?, &images, writer));
        let written = written.await;
        drop(using);
        written
    }

    /// Stored images, to be sent to another store.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub async fn outgoing(&self, queries: &[String]) -> Result<Outgoing, ImageError> {
        let images = self.exported(queries).await?;
        self.blocking(move |inner| archive::outgoing(&inner.layout, &inner.layout.index()?, &images)).await
    }

    /// The images of an archive, found without taking them in.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub async fn scan(&self, reader: impl AsyncRead + Send + Unpin) -> Result<Outgoing, ImageError> {
        let (dir, platform) = (self.inner.layout.ingest(), self.inner.platform.clone());
        let reader = archive::BlockingReader::new(reader);
        reader.drive(move |source| archive::scan(&platform, archive::spool(source, &dir)?)).await
    }

    /// As [`ImageStore::scan`], of a file: one that is not compressed is read where it lies.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub async fn scan_file(&self, path: &Path) -> Result<Outgoing, ImageError> {
        let mut file = std::fs::File::open(path).map_err(ImageError::io("open", path))?;
        let mut head = [0; 4];
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let read = std::io::Read::read(&mut file, &mut head).map_err(ImageError::ReadArchive)?;
        let plain = Compression::of(head.get(..read).unwrap_or_default()) == Compression::None;
        if is_file && plain {
            let platform = self.inner.platform.clone();
            return blocking(move || archive::scan(&platform, file)).await;
        }
        if is_file {
            std::io::Seek::rewind(&mut file).map_err(ImageError::ReadArchive)?;
            return self.scan(tokio::fs::File::from_std(file)).await;
        }
        // Of a pipe what was read is gone from it.
        let head = std::io::Cursor::new(head.get(..read).unwrap_or_default().to_vec());
        self.scan(tokio::io::AsyncReadExt::chain(head, tokio::fs::File::from_std(file))).await
    }

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
                Ok(bytes) if Digest::of(&bytes) == digest => Ok(Some((digest, bytes))),
                _ => Ok(None),
            }
        })
        .await
    }

    /// The file of a stored blob, and its size.
    pub fn blob(&self, digest: &Digest) -> Option<(std::path::PathBuf, u64)> {
        let size = self.inner.layout.size_of(digest)?;
        Some((self.inner.layout.blob(digest), size))
    }

    async fn exported(&self, queries: &[String]) -> Result<Vec<archive::Exported>, ImageError> {
        let mut images = Vec::new();
        for query in queries {
            let image = self.get(query).await?.ok_or_else(|| ImageError::NotFound(query.clone()))?;
            let names = match query.parse()? {
                Query::Name(name) => name.tagged().into_iter().collect(),
                Query::Id(_) => image.repo_tags.clone(),
            };
            images.push(archive::Exported { manifest: image.manifest, names });
        }
        Ok(images)
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

impl Outgoing {
    /// Writes an OCI layout with all images but, of their pieces, only those of `wanted`.
    ///
    /// # Errors
    /// What the disk says of a piece; [`ImageError::WriteArchive`].
    pub async fn send(
        self,
        wanted: std::collections::BTreeSet<Digest>,
        writer: impl AsyncWrite + Send + Unpin,
    ) -> Result<(), ImageError> {
        archive::drive_writer(writer, move |writer| self.write(&wanted, writer)).await
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
