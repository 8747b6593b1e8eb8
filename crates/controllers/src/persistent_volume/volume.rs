//! A volume's side: which phase it is in, and what follows when its claim is gone.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::ObjectKey;
use kminik_client::claims::{BOUND_BY_CONTROLLER, PROVISIONED_BY};
use kube::ResourceExt;

use super::claim::is_owner;
use super::{Controller, claim_key};
use crate::error::Error;

impl Controller {
    pub(super) async fn sync_volume(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(()) };
        let Some(owner) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return self.set_volume_phase(key, &volume, "Available", None).await;
        };
        if owner.uid.as_ref().is_none_or(|uid| uid.is_empty()) {
            // Set aside for a claim that has not come.
            return self.set_volume_phase(key, &volume, "Available", None).await;
        }
        let Some(claim_key) = claim_key(&volume) else { return Ok(()) };
        let cached = self.claims.get(&claim_key).filter(|claim| is_owner(&volume, claim));
        let claim = match cached {
            Some(claim) => Some(claim.as_ref().clone()),
            // What follows destroys data, so the API is asked, not the cache.
            None => {
                self.context.read::<PersistentVolumeClaim>(&claim_key).await?.filter(|claim| is_owner(&volume, claim))
            }
        };
        match claim {
            Some(claim) => match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) {
                Some(name) if *name == key.name => self.set_volume_phase(key, &volume, "Bound", None).await,
                // The claim's own reconciliation writes the other half.
                None => Ok(()),
                Some(_) => self.give_up(key, &volume).await,
            },
            None => self.release(key, &volume).await,
        }
    }

    /// The claim took another volume: this one is free again if it was not given by name.
    async fn give_up(&self, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), Error> {
        if volume.annotations().contains_key(PROVISIONED_BY) && policy(volume) == "Delete" {
            return self.release(key, volume).await;
        }
        let mut updated = volume.clone();
        let spec = updated.spec.get_or_insert_default();
        if volume.annotations().contains_key(BOUND_BY_CONTROLLER) {
            spec.claim_ref = None;
        } else if let Some(owner) = &mut spec.claim_ref {
            (owner.uid, owner.resource_version) = (None, None);
        }
        if let Some(annotations) = &mut updated.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
        self.context.update_exact(key, &self.volumes, volume, &updated).await.map(|_| ())
    }

    async fn release(&self, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), Error> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Failed") {
            return Ok(());
        }
        // Whoever made the volume removes it when it sees this phase; so nothing is left to do but to tell if nobody will.
        if policy(volume) == "Delete" && !volume.annotations().contains_key(PROVISIONED_BY) {
            const TEXT: &str = "error getting deleter volume plugin for volume: no deletable volume plugin matched";
            if phase != Some("Failed") {
                self.context.recorder.warning(volume, "VolumeFailedDelete", TEXT);
            }
            return self.set_volume_phase(key, volume, "Failed", Some(TEXT)).await;
        }
        self.set_volume_phase(key, volume, "Released", None).await
    }

    pub(super) async fn set_volume_phase(
        &self,
        key: &ObjectKey,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<(), Error> {
        let mut updated = volume.clone();
        let status = updated.status.get_or_insert_default();
        if status.phase.as_deref() != Some(phase) {
            status.last_phase_transition_time = Some(Time(Timestamp::now()));
            status.phase = Some(phase.into());
        }
        status.message = message.map(str::to_string);
        self.context.update_status(key, &self.volumes, volume, &updated).await.map(|_| ())
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}
