//! Claims: the path of the volume a claim is bound to.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::Api;

use super::VolumeError;
use super::local;

/// A claim's volume on this node.
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// fsGroup applies to it.
    pub(super) owned_by_group: bool,
}

pub(super) async fn resolve(client: &kube::Client, namespace: &str, name: &str) -> Result<Found, VolumeError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get_opt(name).await.map_err(api_error("persistentvolumeclaim", name))?;
    let claim = claim.ok_or_else(|| VolumeError::NoClaim(name.to_string()))?;
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|v| bound && !v.is_empty());
    let volume = volume.ok_or_else(|| VolumeError::Unbound(name.to_string()))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes.get_opt(&volume).await.map_err(api_error("persistentvolume", &volume))?;
    let spec = found.and_then(|pv| pv.spec).ok_or(VolumeError::NoVolume(volume))?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(VolumeError::Unsupported);
    }
    if let Some(source) = &spec.host_path {
        local::host_path(source)?;
        return Ok(Found { path: PathBuf::from(&source.path), owned_by_group: false });
    }
    let Some(source) = &spec.local else { return Err(VolumeError::Unsupported) };
    let path = PathBuf::from(&source.path);
    if !path.exists() {
        return Err(VolumeError::NoLocalPath(source.path.clone()));
    }
    Ok(Found { path, owned_by_group: true })
}

fn api_error(kind: &'static str, name: &str) -> impl FnOnce(kube::Error) -> VolumeError {
    let name = name.to_string();
    move |source| VolumeError::Api { kind, name, source: Box::new(source) }
}
