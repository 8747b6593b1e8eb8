//! A claim's side: finds it a volume, has one made, or finds the one it has lost.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_client::claims::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, SELECTED_NODE, STORAGE_PROVISIONER, capacity, is_delayed,
    is_free, suits,
};
use kminik_client::{EventType, ObjectKey, reference};
use kube::ResourceExt;

use super::{BY_CLAIM, Controller, claim_key};
use crate::error::Error;
use crate::pods::node_of;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

impl Controller {
    pub(super) async fn sync_claim(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        if claim.annotations().contains_key(BIND_COMPLETED) {
            self.sync_bound(key, &claim).await
        } else {
            self.sync_unbound(key, &claim).await
        }
    }

    async fn sync_bound(&self, key: &ObjectKey, claim: &Arc<PersistentVolumeClaim>) -> Result<(), Error> {
        let Some(name) = volume_name(claim) else {
            const TEXT: &str = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lose(key, claim, "ClaimLost", TEXT).await;
        };
        let Some(volume) = self.volumes.get(&ObjectKey::cluster(name)) else {
            // A volume just made may be newer than the cache.
            if self.context.read::<PersistentVolume>(&ObjectKey::cluster(name)).await?.is_some() {
                return Ok(());
            }
            const TEXT: &str = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lose(key, claim, "ClaimLost", TEXT).await;
        };
        let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        match owner {
            Some(owner) if owner.uid.is_some() && owner.uid != claim.metadata.uid => {
                const TEXT: &str = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.lose(key, claim, "ClaimMisbound", TEXT).await
            }
            _ => self.bind(key, claim, &volume).await,
        }
    }

    async fn sync_unbound(&self, key: &ObjectKey, claim: &Arc<PersistentVolumeClaim>) -> Result<(), Error> {
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if let Some(name) = volume_name(claim) {
            let volume = self.volumes.get(&ObjectKey::cluster(name));
            let owner = volume.as_ref().and_then(|volume| volume.spec.as_ref()?.claim_ref.clone());
            return match (volume, owner) {
                (Some(volume), None) if !suits(claim, &volume) => {
                    let message =
                        format!("Cannot bind to requested volume \"{name}\": requested PV does not satisfy the claim");
                    self.context.recorder.warning(claim.as_ref(), "VolumeMismatch", message);
                    self.set_pending(key, claim).await
                }
                (Some(volume), None) => self.bind(key, claim, &volume).await,
                (Some(volume), Some(owner)) if is_for(&owner, claim) => self.bind(key, claim, &volume).await,
                (Some(_), Some(_)) => {
                    let message = format!("volume \"{name}\" already bound to a different claim.");
                    self.context.recorder.warning(claim.as_ref(), "FailedBinding", message);
                    self.set_pending(key, claim).await
                }
                (None, _) => self.set_pending(key, claim).await,
            };
        }
        let class = self.class_of(claim);
        let delayed = class.as_ref().is_some_and(|class| is_delayed(class));
        let selected = claim.annotations().contains_key(SELECTED_NODE);
        if let Some(volume) = self.find_volume(claim, delayed && !selected) {
            return self.bind(key, claim, &volume).await;
        }
        self.set_pending(key, claim).await?;
        match class {
            Some(_) if delayed && !selected => self.tell_waiting(key, claim),
            Some(class) => return self.ask_provisioner(key, claim, &class).await,
            None if claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_none()) => {
                // A default class may have come after the claim.
                if let Some(class) = self.default_class() {
                    let mut updated = claim.as_ref().clone();
                    updated.spec.get_or_insert_default().storage_class_name = Some(class.name_any());
                    self.context.update_exact(key, &self.claims, claim, &updated).await?;
                    return Ok(());
                }
                self.tell_no_volume(claim);
            }
            None => match claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()) {
                Some("") | None => self.tell_no_volume(claim),
                Some(class) => {
                    let message = format!("storageclass.storage.k8s.io \"{class}\" not found");
                    self.context.recorder.warning(claim.as_ref(), "ProvisioningFailed", message);
                }
            },
        }
        Ok(())
    }

    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let name = claim.spec.as_ref()?.storage_class_name.clone().filter(|name| !name.is_empty())?;
        self.classes.get(&ObjectKey::cluster(name))
    }

    /// Of several default classes the newest, then the first by name.
    fn default_class(&self) -> Option<Arc<StorageClass>> {
        let classes = self.classes.list().into_iter();
        let defaults = classes.filter(|class| class.annotations().get(DEFAULT_CLASS).is_some_and(|is| is == "true"));
        defaults.max_by_key(|class| {
            let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, std::cmp::Reverse(class.name_any()))
        })
    }

    /// A volume set aside for the claim, or (unless only that counts) the smallest free one that suits it.
    fn find_volume(&self, claim: &PersistentVolumeClaim, set_aside_only: bool) -> Option<Arc<PersistentVolume>> {
        let volumes = self.volumes.list();
        let own = volumes.iter().find(|volume| {
            let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            owner.is_some_and(|owner| is_for(owner, claim)) && volume.metadata.deletion_timestamp.is_none()
        });
        if own.is_some() || set_aside_only {
            return own.cloned();
        }
        let free = volumes.into_iter().filter(|volume| is_free(volume) && suits(claim, volume));
        free.min_by_key(|volume| (capacity(volume), volume.name_any()))
    }

    async fn ask_provisioner(
        &self,
        key: &ObjectKey,
        claim: &Arc<PersistentVolumeClaim>,
        class: &StorageClass,
    ) -> Result<(), Error> {
        if class.provisioner == NO_PROVISIONER {
            self.tell_no_volume(claim);
            return Ok(());
        }
        let mut updated = claim.as_ref().clone();
        let annotations = updated.metadata.annotations.get_or_insert_default();
        for name in [STORAGE_PROVISIONER, "volume.beta.kubernetes.io/storage-provisioner"] {
            annotations.insert(name.into(), class.provisioner.clone());
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If \
             volume creation is delayed, please verify that the provisioner is running and correctly registered.",
            class.provisioner
        );
        self.context.update_exact(key, &self.claims, claim, &updated).await?;
        self.context.recorder.normal(claim.as_ref(), "ExternalProvisioning", message);
        Ok(())
    }

    fn tell_no_volume(&self, claim: &PersistentVolumeClaim) {
        const TEXT: &str = "no persistent volumes available for this claim and no storage class is set";
        self.context.recorder.normal(claim, "FailedBinding", TEXT);
    }

    fn tell_waiting(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) {
        let users = self.pods.by_index(BY_CLAIM, &format!("{}/{}", key.namespace, key.name));
        let mut waiting: Vec<_> =
            users.iter().filter(|pod| node_of(pod).is_empty()).map(|pod| pod.name_any()).collect();
        waiting.sort();
        let (reason, message) = if waiting.is_empty() {
            ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_string())
        } else {
            ("WaitForPodScheduled", format!("waiting for pod {} to be scheduled", waiting.join(",")))
        };
        self.context.recorder.event(reference(claim), EventType::Normal, reason, message);
    }

    async fn set_pending(&self, key: &ObjectKey, claim: &Arc<PersistentVolumeClaim>) -> Result<(), Error> {
        let mut updated = claim.as_ref().clone();
        updated.status.get_or_insert_default().phase = Some("Pending".into());
        self.context.update_status(key, &self.claims, claim, &updated).await.map(|_| ())
    }

    async fn lose(
        &self,
        key: &ObjectKey,
        claim: &Arc<PersistentVolumeClaim>,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let mut updated = claim.as_ref().clone();
        let status = updated.status.get_or_insert_default();
        status.phase = Some("Lost".into());
        (status.capacity, status.access_modes) = (None, None);
        if self.context.update_status(key, &self.claims, claim, &updated).await?.is_some() {
            self.context.recorder.warning(claim.as_ref(), reason, message);
        }
        Ok(())
    }

    /// Writes what is missing of a binding. Steps already taken cost nothing.
    async fn bind(
        &self,
        key: &ObjectKey,
        claim: &Arc<PersistentVolumeClaim>,
        volume: &Arc<PersistentVolume>,
    ) -> Result<(), Error> {
        let context = &self.context;
        let mut bound = volume.as_ref().clone();
        let owner = bound.spec.get_or_insert_default().claim_ref.clone();
        if owner.as_ref().is_none_or(|owner| owner.uid != claim.metadata.uid) {
            if owner.is_none() {
                let annotations = bound.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
            }
            bound.spec.get_or_insert_default().claim_ref =
                Some(ObjectReference { resource_version: claim.resource_version(), ..reference(claim.as_ref()) });
        }
        let written = context.update_exact(key, &self.volumes, volume, &bound).await?;
        let current = written.unwrap_or_else(|| volume.as_ref().clone());
        self.set_volume_phase(key, &current, "Bound", None).await?;

        let mut bound = claim.as_ref().clone();
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.into(), "yes".into());
        if volume_name(claim).is_none() {
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        bound.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
        let written = context.update_exact(key, &self.claims, claim, &bound).await?;
        let current = written.unwrap_or_else(|| claim.as_ref().clone());
        let mut bound = current.clone();
        let offered = volume.spec.as_ref();
        let before = bound.status.take().unwrap_or_default();
        bound.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Bound".into()),
            access_modes: offered.and_then(|spec| spec.access_modes.clone()),
            capacity: before.capacity.clone().or_else(|| offered.and_then(|spec| spec.capacity.clone())),
            ..before
        });
        context.update_status(key, &self.claims, &current, &bound).await?;
        tracing::debug!(claim = %key, volume = volume.metadata.name, "bound");
        Ok(())
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The reference names this claim, with its uid or (set aside by hand) without one.
fn is_for(owner: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    owner.name == claim.metadata.name
        && owner.namespace == claim.metadata.namespace
        && owner.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

/// The claim that a volume names is this one, by uid.
pub(super) fn is_owner(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let uid = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref());
    claim_key(volume).as_ref() == Some(&ObjectKey::of(claim)) && uid == claim.metadata.uid.as_ref()
}
