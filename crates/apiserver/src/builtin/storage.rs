//! The storage.k8s.io group.

use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::node_labels::StorageClasses;
use crate::strategies::volumes::Drivers;

const GROUP: &str = "storage.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| {
        ResourceDef::new(GROUP, "v1", plural, kind).policy(|policy| {
            policy.unconditional_update = false;
            policy.returns_deleted = true;
        })
    };
    vec![
        row("csidrivers", "CSIDriver").cluster().strategy(Drivers),
        row("csinodes", "CSINode").cluster(),
        row("csistoragecapacities", "CSIStorageCapacity").policy(|policy| policy.returns_deleted = false),
        row("storageclasses", "StorageClass")
            .cluster()
            .short(&["sc"])
            .strategy(StorageClasses)
            .policy(|policy| policy.unconditional_update = true),
        row("volumeattachments", "VolumeAttachment")
            .cluster()
            .with_status()
            .policy(|policy| policy.resets = Policy::STATUS_ALONE),
        row("volumeattributesclasses", "VolumeAttributesClass").cluster().short(&["vac"]),
    ]
}
