//! The store: everything a node or the command line does with images.

mod archives;
mod lookup;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::io::AsyncRead;
use tokio::sync::Semaphore;

use crate::archive::{self, Attached};
use crate::layout::{InUse, Layout};
use crate::mirrors::{CACHE_USER, CacheAddress, Place, Resolver, Source};
use crate::remote::{Health, Puller, Pusher, Transport, probe};
use crate::room::Room;
use crate::transfer::RemoteStore;
use crate::{
    Credential, Digest, Experience, Image, ImageError, ImageName, NoProgress, Platform, Probe, Progress, Query,
    ResolverConfig, Summary, Usage,
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
    limit: OnceLock<Limit>,
}

/// What a store is kept within, as it is asked for; `None` is no limit.
type Limit = Box<dyn Fn() -> Option<Room> + Send + Sync>;

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
        let store = ImageStore::with(Layout::open(dir)?, dir, config, platform)?;
        store.collect();
        Ok(store)
    }

    /// The store of a directory that may not be written, or not be there: what only looks finds what there is, what brings
    /// anything in fails.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`] when the configuration cannot be understood.
    pub fn view(dir: &Path, config: ResolverConfig) -> Result<ImageStore, ImageError> {
        ImageStore::with(Layout::at(dir), dir, config, Platform::here())
    }

    fn with(layout: Layout, dir: &Path, config: ResolverConfig, platform: Platform) -> Result<ImageStore, ImageError> {
        let setup = RwLock::new(Setup::new(config)?);
        let health = Health::load(dir.join("places.json"));
        let (sharing, limit) = (Semaphore::new(1), OnceLock::new());
        Ok(ImageStore { inner: Arc::new(Inner { layout, setup, health, platform, sharing, limit }) })
    }

    /// Keeps the store within so many bytes from now on: after each pull the images that nobody has wanted for longest go, and
    /// whenever [`ImageStore::make_room`] is called. It is asked each time, so it may change. A store has one limit: a second is ignored.
    pub fn limit_to(&self, room: impl Fn() -> Option<Room> + Send + Sync + 'static) {
        let _ = self.inner.limit.set(Box::new(room));
    }

    /// Keeps all that is stored, and will be, until what is returned is dropped.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn hold(&self) -> Result<InUse, ImageError> {
        self.blocking(|inner| inner.layout.in_use()).await
    }

    /// How much is stored.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn usage(&self) -> Result<Usage, ImageError> {
        self.blocking(|inner| inner.layout.usage()).await
    }

    /// Brings the store within its limit, if it has one; the names of what has gone. Nobody's work fails for it.
    pub async fn make_room(&self) -> Vec<String> {
        let Some(room) = self.inner.limit.get().and_then(|limit| limit()) else { return Vec::new() };
        let made = self.blocking(move |inner| {
            let index = inner.layout.index()?;
            let queries = room.kept.iter().filter_map(|name| name.parse().ok());
            let kept: Vec<Digest> = queries.filter_map(|query| inner.find(&index, &query).ok()).flatten().collect();
            inner.layout.make_room(room.bytes, &kept)
        });
        let made = made.await;
        let gone = made.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "no room can be made");
            Vec::new()
        });
        if !gone.is_empty() {
            tracing::info!(images = gone.join(", "), "removed to make room");
        }
        gone
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

    /// The places of a name, in the order in which they are preferred, and what is remembered of each.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`].
    pub fn places(&self, name: &str) -> Result<Vec<(Place, Experience)>, ImageError> {
        let places = self.inner.setup.read().resolver.places(&name.parse()?);
        Ok(places.into_iter().map(|place| (place.clone(), self.inner.health.experience(&place))).collect())
    }

    /// Asks all places of all names at once for the manifest and the beginning of a layer. What they do is remembered.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`] and [`ImageError::Client`]; what a place says is in its row.
    pub async fn probe(&self, names: &[String], credentials: &[Credential]) -> Result<Vec<Probe>, ImageError> {
        let setup = self.inner.setup.read().clone();
        let names = names.iter().map(|name| name.parse()).collect::<Result<Vec<ImageName>, _>>()?;
        Ok(probe(&setup.resolver, setup.transport()?, &self.inner.health, &names, credentials).await)
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
                inner.layout.want_image(&manifest);
                inner.image(&inner.layout.index()?, &manifest)
            })
            .await?;
        drop(using);
        for name in self.make_room().await {
            progress.note(&format!("{name} was removed to make room"));
        }
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
        self.import_bundle(reader, |_| Ok(())).await.map(|(images, _)| images)
    }

    /// As [`ImageStore::import`]; also gives the files that go with the images, without which it is no archive of none. Unless
    /// they are `wanted` it is refused as a whole.
    ///
    /// # Errors
    /// As [`ImageStore::import`]; [`ImageError::BadArchive`] with why the files are not wanted.
    pub async fn import_bundle(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        wanted: impl FnOnce(&Attached) -> Result<(), String> + Send + 'static,
    ) -> Result<(Vec<Image>, Attached), ImageError> {
        let layout = self.inner.layout.clone();
        let using = blocking(move || layout.in_use()).await?;
        let layout = self.inner.layout.clone();
        let platform = self.inner.platform.clone();
        let blocking_reader = archive::BlockingReader::new(reader);
        let (imported, attached) =
            blocking_reader.drive(move |reader| archive::import(&layout, &platform, reader, wanted)).await?;
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
                imported.iter().for_each(|image| inner.layout.want_image(&image.manifest));
                imported.iter().map(|image| inner.image(&index, &image.manifest)).collect()
            })
            .await;
        drop(using);
        Ok((images?, attached))
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
                let given = index.manifests.iter().filter(|entry| entry.digest == manifest);
                let local = given.filter(|entry| entry.repo_digest().is_none()).filter_map(|entry| entry.name());
                let local: Vec<String> = local.map(str::to_owned).collect();
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
                    local_tags: Vec::new(),
                    repo_digests: Vec::new(),
                    size_bytes: image.size_bytes,
                });
                row.repo_tags.extend(image.repo_tags);
                row.local_tags.extend(local);
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
                Some(manifest) => {
                    inner.layout.want_image(manifest);
                    inner.image(&index, manifest).map(Some)
                }
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
