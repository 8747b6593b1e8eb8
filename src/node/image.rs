//! The built-in image as pods see it: a directory of the node's data, never pulled, never packed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kminik_kubelet::images::{Credential, Image, ImageConfig, ImageError, ImageService, ImageSummary};
use kminik_runtime::{Compression, LayerId, LayerSource};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::addons::built_in_image;
use crate::ops::node_image;

/// Adds the built-in image to another source of images.
pub struct WithBuiltIn {
    inner: Arc<dyn ImageService>,
    image: Image,
}

/// The image's directory below `dir`, made if this binary has none there yet.
pub fn ensure(dir: &Path) -> std::io::Result<(LayerId, PathBuf)> {
    let identity = match node_image::identity_of_linked(dir) {
        Some(identity) => identity,
        None => node_image::identity(&[]).map_err(std::io::Error::other)?,
    };
    // A process that took another's place: containers that it adopts run from the image before.
    let root = node_image::ensure(dir, &identity, None, 1)?;
    // A name in the form of a digest; the directory is adopted as it is, nothing is checked against it.
    Ok((LayerId(format!("sha256:{}", hex::encode(Sha256::digest(&identity)))), root))
}

impl WithBuiltIn {
    pub fn new(inner: Arc<dyn ImageService>, layer: LayerId) -> Self {
        let image = Image {
            id: layer.0.clone(),
            repo_digests: Vec::new(),
            repo_tags: vec![built_in_image()],
            size_bytes: std::fs::metadata("/proc/self/exe").map_or(0, |m| m.len()),
            config: ImageConfig { env: vec!["PATH=/bin:/usr/bin".into()], ..ImageConfig::default() },
            layers: vec![LayerSource { id: layer, blob: "/proc/self/exe".into(), compression: Compression::None }],
        };
        Self { inner, image }
    }

    fn is_ours(&self, reference: &str) -> bool {
        reference == self.image.repo_tags[0] || reference == self.image.id
    }
}

#[async_trait]
impl ImageService for WithBuiltIn {
    async fn lookup(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        if self.is_ours(reference) { Ok(Some(self.image.clone())) } else { self.inner.lookup(reference).await }
    }

    async fn pull(&self, reference: &str, credentials: &[Credential]) -> Result<Image, ImageError> {
        if self.is_ours(reference) { Ok(self.image.clone()) } else { self.inner.pull(reference, credentials).await }
    }

    async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut all = self.inner.list().await?;
        all.push(ImageSummary {
            id: self.image.id.clone(),
            repo_digests: Vec::new(),
            repo_tags: self.image.repo_tags.clone(),
            size_bytes: self.image.size_bytes,
        });
        Ok(all)
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        if self.is_ours(reference) {
            return Err(ImageError::Storage {
                detail: format!("{reference} is part of the node and cannot be removed"),
            });
        }
        self.inner.remove(reference).await
    }

    async fn import(&self, archive: Box<dyn AsyncRead + Send + Unpin>) -> Result<Vec<String>, ImageError> {
        self.inner.import(archive).await
    }

    async fn export(
        &self,
        references: &[String],
        archive: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> Result<(), ImageError> {
        self.inner.export(references, archive).await
    }

    async fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        self.inner.tag(source, target).await
    }
}
