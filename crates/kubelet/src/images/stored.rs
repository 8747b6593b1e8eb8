//! The node's image layout as an [`ImageService`].

use std::sync::Arc;

use async_trait::async_trait;
use kminik_oci::{ImageStore, NoProgress};
use kminik_runtime::{Compression, LayerId, LayerSource};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Credential, Image, ImageConfig, ImageError, ImageService, ImageSummary};

/// Images of a layout on disk.
pub struct StoredImages(ImageStore);

impl StoredImages {
    pub fn new(store: ImageStore) -> Arc<Self> {
        Arc::new(Self(store))
    }
}

#[async_trait]
impl ImageService for StoredImages {
    async fn lookup(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        Ok(self.0.get(reference).await.map_err(error(reference))?.map(image))
    }

    async fn pull(&self, reference: &str, credentials: &[Credential]) -> Result<Image, ImageError> {
        self.0.pull(reference, credentials, &NoProgress).await.map(image).map_err(error(reference))
    }

    async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let stored = self.0.list().await.map_err(error(""))?;
        let summary = |summary: kminik_oci::Summary| ImageSummary {
            id: summary.id.to_string(),
            repo_digests: summary.repo_digests,
            repo_tags: summary.repo_tags,
            size_bytes: summary.size_bytes,
        };
        Ok(stored.into_iter().map(summary).collect())
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        self.0.remove(reference).await.map_err(error(reference))
    }

    async fn import(&self, archive: Box<dyn AsyncRead + Send + Unpin>) -> Result<Vec<String>, ImageError> {
        let images = self.0.import(archive).await.map_err(error(""))?;
        let named = |image: kminik_oci::Image| {
            if image.repo_tags.is_empty() { vec![image.id.to_string()] } else { image.repo_tags }
        };
        Ok(images.into_iter().flat_map(named).collect())
    }

    async fn export(
        &self,
        references: &[String],
        archive: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> Result<(), ImageError> {
        self.0.export(references, archive).await.map_err(error(""))
    }

    async fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        self.0.tag(source, target).await.map_err(error(source))
    }
}

fn image(stored: kminik_oci::Image) -> Image {
    let layer = |layer: kminik_oci::Layer| LayerSource {
        id: LayerId(layer.diff_id.to_string()),
        blob: layer.blob,
        compression: match layer.compression {
            kminik_oci::Compression::None => Compression::None,
            kminik_oci::Compression::Gzip => Compression::Gzip,
            kminik_oci::Compression::Zstd => Compression::Zstd,
        },
    };
    Image {
        id: stored.id.to_string(),
        repo_digests: stored.repo_digests,
        repo_tags: stored.repo_tags,
        size_bytes: stored.size_bytes,
        config: ImageConfig {
            entrypoint: stored.config.entrypoint,
            cmd: stored.config.cmd,
            env: stored.config.env,
            user: stored.config.user,
            working_dir: stored.config.working_dir,
            stop_signal: stored.config.stop_signal,
            labels: stored.config.labels,
            volumes: stored.config.volumes,
        },
        layers: stored.layers.into_iter().map(layer).collect(),
    }
}

fn error(reference: &str) -> impl FnOnce(kminik_oci::ImageError) -> ImageError {
    use kminik_oci::ImageError as Stored;
    let name = reference.to_string();
    move |error| {
        let detail = kminik_base::component::chain(&error);
        match error {
            Stored::InvalidName { name, detail } => ImageError::InvalidName { name, detail },
            Stored::NotFound(name) => ImageError::NotFound(name),
            Stored::AllFailed { .. } | Stored::NotTaken { .. } | Stored::NoFile { .. } | Stored::BadDocument { .. } => {
                ImageError::Pull { name, detail }
            }
            Stored::WrongPlatform { name, wanted, .. } => ImageError::Platform { name, platform: wanted.to_string() },
            Stored::BadArchive(_) | Stored::ReadArchive(_) | Stored::WriteArchive(_) => ImageError::Archive { detail },
            Stored::Ambiguous(_)
            | Stored::BadConfig { .. }
            | Stored::NoSpace(_)
            | Stored::Io { .. }
            | Stored::File(_)
            | Stored::Client(_)
            | Stored::TooLarge { .. }
            | Stored::Cancelled => ImageError::Storage { detail },
        }
    }
}
