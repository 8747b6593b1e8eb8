//! Registries. Pulling: the manifest from all places side by side, then the blobs from the best of them. Pushing: to the
//! registry that the name means.

mod auth;
mod blob;
mod files;
mod health;
mod lookup;
mod manifest;
mod probe;
mod push;
mod ranking;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use oci_client::manifest::{OciImageManifest, OciManifest};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use files::{Files, Limit};
pub use health::Experience;
pub(crate) use health::Health;
pub use probe::Probe;
pub(crate) use probe::probe;
pub(crate) use push::Pusher;
pub(crate) use transport::{Transport, innermost};

use crate::image::{ConfigFile, select_platform};
use crate::layout::{Layout, MAX_DOCUMENT_BYTES};
use crate::mirrors::{Place, Resolver};
use crate::{Attempt, Digest, ImageError, ImageName, Platform, Progress};

/// Most blobs of one image fetched or pushed at once.
const PARALLEL_BLOBS: usize = 6;
/// Most layers of an image; overlay mounts take no more either.
const MAX_LAYERS: usize = 500;

/// A login for a registry. It is only ever sent to that registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Host with optional port and path, as in Docker's configuration (`https://index.docker.io/v1/` is `docker.io`).
    pub registry: String,
    pub username: String,
    pub password: String,
}

/// The bounds of a pull's waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To connect, including TLS.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub answer: Duration,
    /// Without a byte (or with next to none) of a blob.
    pub stall: Duration,
    /// How long a place that answered waits for better ones to answer too.
    pub settle: Duration,
    /// Longest wait that a 429 can ask for, when no other place is left.
    pub retry_after: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(8),
            answer: Duration::from_secs(20),
            stall: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            retry_after: Duration::from_secs(60),
        }
    }
}

/// What a pull brought into the store.
pub(crate) struct Pulled {
    pub(crate) manifest: Digest,
    pub(crate) manifest_size: u64,
    /// What the registry serves under the name: the manifest's digest or its index's.
    pub(crate) served: Digest,
}

/// One pull, with everything it uses.
pub(crate) struct Puller<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) transport: &'a Transport,
    pub(crate) health: &'a Health,
    pub(crate) resolver: &'a Resolver,
    pub(crate) timeouts: Timeouts,
    pub(crate) platform: &'a Platform,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) credentials: &'a [Credential],
}

impl Puller<'_> {
    /// Fetches everything the image needs and is not stored yet. The index is the caller's.
    pub(crate) async fn pull(&self, name: &ImageName) -> Result<Pulled, ImageError> {
        let places = lookup::secured(self.resolver, self.resolver.places(name)).await;
        let found = self.find(name, places).await?;
        let (digest, body) = match parse(name, &found.body)? {
            OciManifest::Image(_) => (found.digest.clone(), found.body),
            OciManifest::ImageIndex(index) => {
                let entry = select_platform(&name.to_string(), &index.manifests, self.platform)?;
                // Kept, so that whoever asks for the image by its digest can be served from here.
                self.layout.put(&found.body)?;
                let digest = checked(name, &entry.digest)?;
                let size = u64::try_from(entry.size).unwrap_or(0);
                let body = self.document(name, &found.places, &digest, size, "manifests").await?;
                (digest, body)
            }
        };
        let OciManifest::Image(manifest) = parse(name, &body)? else {
            return Err(bad(name, "an index within an index".to_owned()));
        };
        // A configuration that is refused ends the download of the layers.
        let config = self.config(name, &found.places, &manifest);
        tokio::try_join!(config, self.layers(name, &found.places, &manifest))?;
        let stored = self.layout.put(&body)?;
        if stored != digest {
            return Err(bad(name, format!("its digest is {stored}, not {digest}")));
        }
        Ok(Pulled { manifest: digest, manifest_size: body.len() as u64, served: found.digest })
    }

    /// A manifest or configuration by digest: from the store or the first place that has it.
    async fn document(
        &self,
        name: &ImageName,
        places: &[Place],
        digest: &Digest,
        size: u64,
        kind: &'static str,
    ) -> Result<Vec<u8>, ImageError> {
        if let Ok(stored) = self.layout.read(digest)
            && Digest::of(&stored) == *digest
        {
            return Ok(stored);
        }
        if size > MAX_DOCUMENT_BYTES {
            return Err(bad(name, format!("{digest} is {size} bytes, more than {MAX_DOCUMENT_BYTES}")));
        }
        let mut attempts = Vec::new();
        for place in places {
            let started = tokio::time::Instant::now();
            let answer = match self.fetch_document(place, digest, kind).await {
                Ok(body) if Digest::of(&body) == *digest => {
                    self.layout.put(&body)?;
                    return Ok(body);
                }
                Ok(_) => "bytes of another digest".to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            self.progress.note(&format!("{}: {answer}", place.label()));
            let wanted = format!("{kind} {}", short(digest));
            attempts.push(Attempt { place: place.label(), wanted, answer, elapsed: started.elapsed() });
        }
        Err(ImageError::AllFailed { name: name.to_string(), attempts })
    }

    async fn config(&self, name: &ImageName, places: &[Place], manifest: &OciImageManifest) -> Result<(), ImageError> {
        let digest = checked(name, &manifest.config.digest)?;
        let size = u64::try_from(manifest.config.size).unwrap_or(0);
        let bytes = self.document(name, places, &digest, size, "blobs").await?;
        let config = ConfigFile::parse(&name.to_string(), &bytes)?;
        config.check_platform(&name.to_string(), self.platform)?;
        config.check_layers(&name.to_string(), manifest)
    }

    async fn layers(&self, name: &ImageName, places: &[Place], manifest: &OciImageManifest) -> Result<(), ImageError> {
        if manifest.layers.len() > MAX_LAYERS {
            return Err(bad(name, format!("it has {} layers, more than {MAX_LAYERS}", manifest.layers.len())));
        }
        let room = Arc::new(Semaphore::new(PARALLEL_BLOBS));
        let mut wanted = std::collections::BTreeMap::new();
        for layer in &manifest.layers {
            let size = u64::try_from(layer.size).map_err(|_| bad(name, format!("a layer of {} bytes", layer.size)))?;
            wanted.insert(checked(name, &layer.digest)?, size);
        }
        let mut running: FuturesUnordered<_> = wanted
            .iter()
            .map(|(digest, size)| {
                let room = room.clone();
                async move {
                    let _permit = room.acquire().await.map_err(|_| ImageError::Cancelled)?;
                    self.blob(name, places, digest, *size).await
                }
            })
            .collect();
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }
}

/// The first digits, for people.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

fn bad(name: &ImageName, detail: String) -> ImageError {
    ImageError::BadDocument { what: "the manifest", name: name.to_string(), detail }
}

fn checked(name: &ImageName, digest: &str) -> Result<Digest, ImageError> {
    digest.parse().map_err(|error: crate::digest::DigestError| bad(name, error.to_string()))
}

/// The two kinds share no required field but the schema version, so the fields decide, not the media type.
fn parse(name: &ImageName, body: &[u8]) -> Result<OciManifest, ImageError> {
    let version: oci_client::manifest::Versioned =
        serde_json::from_slice(body).map_err(|error| bad(name, error.to_string()))?;
    if version.schema_version != 2 {
        return Err(bad(name, format!("schema version {} is not supported", version.schema_version)));
    }
    serde_json::from_slice(body).map_err(|error| bad(name, error.to_string()))
}
