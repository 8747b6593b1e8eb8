//! Getting a container's image by its pull policy, with the back-off and the messages of upstream.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{EventType, ObjectKey, Recorder};
use kminik_oci::Credential;
use kminik_oci::credentials::DockerConfig;
use kminik_runtime::Runtime;
use parking_lot::Mutex;

use super::{Image, ImageError, ImageService};
use crate::objects::Objects;
use crate::pods::backoff::Backoffs;
use crate::pods::events::about;
use crate::pods::view::{ContainerView, PodView};

/// Reason and message of a container that waits for its image.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub(crate) struct PullFailure {
    pub reason: &'static str,
    pub message: String,
    /// Until when another pull is not tried.
    pub retry_at: Option<Timestamp>,
}

/// One for the node.
pub(crate) struct Puller {
    images: Arc<dyn ImageService>,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    /// By pod and image.
    backoffs: Mutex<Backoffs>,
}

impl Puller {
    pub(crate) fn new(images: Arc<dyn ImageService>, runtime: Arc<dyn Runtime>, recorder: Recorder) -> Self {
        Self { images, runtime, recorder, backoffs: Mutex::default() }
    }

    /// The container's image, stored and unpacked.
    pub(crate) async fn ensure(
        &self,
        view: &PodView,
        container: &ContainerView,
        objects: &Objects,
    ) -> Result<Image, PullFailure> {
        let reference = container.image();
        let told = |event_type, reason: &str, message: String| {
            self.recorder.event(about(view, Some(container)), event_type, reason, message);
        };
        let stored = match self.images.lookup(reference).await {
            Ok(stored) => stored,
            Err(ImageError::InvalidName { detail, .. }) => {
                let message = format!(
                    "Failed to apply default image tag \"{reference}\": couldn't parse image name \"{reference}\": {detail}"
                );
                told(EventType::Warning, "InspectFailed", message.clone());
                return Err(PullFailure { reason: "InvalidImageName", message, retry_at: None });
            }
            Err(error) => {
                let message = format!("Failed to inspect image \"{reference}\": {error}");
                told(EventType::Warning, "InspectFailed", message.clone());
                return Err(PullFailure { reason: "ImageInspectError", message, retry_at: None });
            }
        };
        let image = match (policy(container), stored) {
            (Policy::IfNotPresent | Policy::Never, Some(image)) => {
                told(
                    EventType::Normal,
                    "Pulled",
                    format!("Container image \"{reference}\" already present on machine"),
                );
                image
            }
            (Policy::Never, None) => {
                let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
                told(EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(PullFailure { reason: "ErrImageNeverPull", message, retry_at: None });
            }
            (Policy::Always | Policy::IfNotPresent, _) => self.pull(view, container, objects).await?,
        };
        for layer in &image.layers {
            self.runtime.ensure_layer(layer.clone()).await.map_err(|error| {
                let message = format!("Failed to unpack image \"{reference}\": {error}");
                told(EventType::Warning, "Failed", message.clone());
                PullFailure { reason: "ErrImagePull", message, retry_at: None }
            })?;
        }
        Ok(image)
    }

    async fn pull(&self, view: &PodView, container: &ContainerView, objects: &Objects) -> Result<Image, PullFailure> {
        let reference = container.image();
        let told = |event_type, reason: &str, message: String| {
            self.recorder.event(about(view, Some(container)), event_type, reason, message);
        };
        let key = format!("{}_{reference}", view.uid);
        told(EventType::Normal, "Pulling", format!("Pulling image \"{reference}\""));
        let begun = Instant::now();
        let credentials = credentials(view, objects).await;
        match self.images.pull(reference, &credentials).await {
            Ok(image) => {
                self.backoffs.lock().forget(&key);
                let took = begun.elapsed().as_secs_f64();
                let bytes = image.size_bytes;
                let message = format!(
                    "Successfully pulled image \"{reference}\" in {took:.3}s ({took:.3}s including waiting). Image size: {bytes} bytes."
                );
                told(EventType::Normal, "Pulled", message);
                Ok(image)
            }
            Err(error) => {
                told(EventType::Warning, "Failed", format!("Failed to pull image \"{reference}\": {error}"));
                told(EventType::Warning, "Failed", "Error: ErrImagePull".to_string());
                let now = Timestamp::now();
                let mut backoffs = self.backoffs.lock();
                backoffs.advance(&key, now, now);
                let retry_at = backoffs.until(&key, now, now).map(|(until, _)| until);
                Err(PullFailure { reason: "ErrImagePull", message: error.to_string(), retry_at })
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

fn policy(container: &ContainerView) -> Policy {
    match container.spec.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        _ => Policy::IfNotPresent,
    }
}

/// Logins of the pod's pull secrets; one that is missing or damaged is left out, as the image may be public.
async fn credentials(view: &PodView, objects: &Objects) -> Vec<Credential> {
    let mut out = Vec::new();
    for reference in view.spec().image_pull_secrets.iter().flatten() {
        let key = ObjectKey::new(&view.namespace, &reference.name);
        match objects.secret(&view.uid, &key).await {
            Ok(Some(secret)) => out.extend(logins(&secret)),
            Ok(None) => tracing::warn!(namespace = view.namespace, name = reference.name, "pull secret not found"),
            Err(error) => tracing::warn!(%error, "pull secret not read"),
        }
    }
    out
}

/// The logins of a `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` secret; of a damaged one none.
fn logins(secret: &Secret) -> Vec<Credential> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|bytes| bytes.0.as_slice());
    let config = match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(bytes), _) => DockerConfig::parse(bytes),
        (None, Some(bytes)) => DockerConfig::parse_old(bytes),
        (None, None) => return Vec::new(),
    };
    config.unwrap_or_default().logins()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn logins_of_a_pull_secret() {
        let auth = STANDARD.encode("user:pa:ss");
        let config = serde_json::json!({"auths": {"https://index.docker.io/v1/": {"auth": auth}, "r.example:5000": {"username": "u", "password": "p"}}});
        let secret = serde_json::json!({"data": {".dockerconfigjson": STANDARD.encode(config.to_string())}});
        let found = logins(&serde_json::from_value(secret).unwrap());
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].registry.as_str(), found[0].password.as_str()), ("https://index.docker.io/v1/", "pa:ss"));
        assert_eq!(found[1].registry, "r.example:5000");
    }
}
