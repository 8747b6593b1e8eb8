//! Which volumes suit which claims: shared by the scheduler, which looks before a pod is placed, and the controller that binds.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_meta::Quantity;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

/// On a claim: it has been bound once; without its volume it is lost.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the binding was not asked for by name, so it may be undone.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a volume: who has made it, and will remove it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// What a class names as its provisioner when its volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The volume gives what the claim asks for: class, mode, access modes, labels, capacity. Whether it is free, and where it can be
/// reached, is not looked at.
pub fn suits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(wanted), Some(offered)) = (&claim.spec, &volume.spec) else { return false };
    let filesystem = "Filesystem".to_string();
    let selected = wanted
        .selector
        .clone()
        .is_none_or(|selector| Selector::try_from(selector).is_ok_and(|selector| selector.matches(volume.labels())));
    let offers = |mode: &String| offered.access_modes.iter().flatten().any(|own| own == mode);
    wanted.storage_class_name.as_deref().unwrap_or_default()
        == offered.storage_class_name.as_deref().unwrap_or_default()
        && wanted.volume_mode.as_ref().unwrap_or(&filesystem) == offered.volume_mode.as_ref().unwrap_or(&filesystem)
        && wanted.access_modes.iter().flatten().all(offers)
        && selected
        && capacity(volume) >= request(claim)
}

/// The volume belongs to no claim and can be given to one.
pub fn is_free(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none())
        && volume.metadata.deletion_timestamp.is_none()
        && matches!(
            volume.status.as_ref().and_then(|status| status.phase.as_deref()),
            None | Some("" | "Pending" | "Available")
        )
}

/// Size of a volume.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    capacity.and_then(|capacity| capacity.0.parse().ok()).unwrap_or_default()
}

/// Size that a claim asks for.
pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let request = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
    request.and_then(|request| request.0.parse().ok()).unwrap_or_default()
}

/// The class's claims wait until a pod that uses them is given a node.
pub fn is_delayed(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_must_give_all_that_is_asked() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {}, "spec": {
                "storageClassName": "c", "accessModes": ["ReadWriteOnce"], "selector": {"matchLabels": {"a": "b"}},
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
        .unwrap();
        let volume = |class: &str, mode: &str, label: &str, size: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"labels": {"a": label}},
                "spec": {"storageClassName": class, "accessModes": [mode, "ReadOnlyMany"], "capacity": {"storage": size}},
            }))
            .unwrap()
        };
        assert!(suits(&claim, &volume("c", "ReadWriteOnce", "b", "1024Mi")));
        assert!(!suits(&claim, &volume("", "ReadWriteOnce", "b", "2Gi")));
        assert!(!suits(&claim, &volume("c", "ReadWriteMany", "b", "2Gi")));
        assert!(!suits(&claim, &volume("c", "ReadWriteOnce", "x", "2Gi")));
        assert!(!suits(&claim, &volume("c", "ReadWriteOnce", "b", "1023Mi")));
    }
}
