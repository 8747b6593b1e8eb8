//! Images as the kubelet needs them: found by reference, pulled with credentials, told what they run.

mod puller;
mod stored;

pub(crate) use puller::{PullFailure, Puller};
pub use stored::StoredImages;

use std::collections::BTreeMap;

use async_trait::async_trait;
pub use kminik_oci::Credential;
use kminik_runtime::LayerSource;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where images come from. Implemented over the node's image layout; tests bring their own.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// The image stored for a reference (name, name:tag, name@digest or image id), without any network.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`] if the reference cannot be parsed, [`ImageError::Storage`] if the store cannot be read.
    async fn lookup(&self, reference: &str) -> Result<Option<Image>, ImageError>;

    /// Fetches the image from its registry (or a mirror), whether it is stored or not; blobs that are stored are not fetched again.
    ///
    /// # Errors
    /// As [`ImageError`] says; a failed pull leaves the stored image of that name as it was.
    async fn pull(&self, reference: &str, credentials: &[Credential]) -> Result<Image, ImageError>;

    /// Every stored image, in no particular order.
    async fn list(&self) -> Result<Vec<ImageSummary>, ImageError>;

    /// Removes a name, or with an image id the image and all its names; blobs nobody needs go with it.
    async fn remove(&self, reference: &str) -> Result<(), ImageError>;

    /// Imports a docker-save or OCI archive as it streams in; returns the names it brought.
    async fn import(&self, archive: Box<dyn AsyncRead + Send + Unpin>) -> Result<Vec<String>, ImageError>;

    /// Writes stored images as one docker-save archive.
    async fn export(
        &self,
        references: &[String],
        archive: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> Result<(), ImageError>;

    /// Gives a stored image one more name.
    async fn tag(&self, source: &str, target: &str) -> Result<(), ImageError>;
}

/// A stored image of the node's platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `registry/repository@sha256:…`; empty for an image that was loaded from an archive without one.
    pub repo_digests: Vec<String>,
    /// Normalised names.
    pub repo_tags: Vec<String>,
    /// Compressed bytes of all layers and the configuration.
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<LayerSource>,
}

/// The part of the OCI image configuration that says how it is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    pub working_dir: String,
    /// E.g. `SIGQUIT`.
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Paths the image declares as volumes.
    pub volumes: Vec<String>,
}

/// One line of `image ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    pub id: String,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    pub size_bytes: u64,
}

/// Why an image is not to be had. The text is what users read in events.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("couldn't parse image name \"{name}\": {detail}")]
    InvalidName { name: String, detail: String },
    #[error("no image \"{0}\" is stored")]
    NotFound(String),
    /// No registry could serve it: the text holds a line for each place that was asked.
    #[error("failed to pull and unpack image \"{name}\": {detail}")]
    Pull { name: String, detail: String },
    #[error("image \"{name}\" has no variant for {platform}")]
    Platform { name: String, platform: String },
    #[error("archive cannot be imported: {detail}")]
    Archive { detail: String },
    #[error("image store: {detail}")]
    Storage { detail: String },
}
