//! The resource.k8s.io group: devices and claims of them.

use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::devices::{ClaimStatus, ClaimTemplates, Claims};

const GROUP: &str = "resource.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| ResourceDef::new(GROUP, "v1", plural, kind).policy(|policy| policy.returns_deleted = true);
    vec![
        row("deviceclasses", "DeviceClass").cluster().policy(|policy| policy.generation = true),
        row("resourceclaims", "ResourceClaim")
            .strategy(Claims)
            .with_view("status", ClaimStatus)
            .policy(|policy| policy.resets = Policy::STATUS_ALONE),
        row("resourceclaimtemplates", "ResourceClaimTemplate").strategy(ClaimTemplates),
        row("resourceslices", "ResourceSlice")
            .cluster()
            .policy(|policy| policy.generation = true)
            .selectable(&["spec.driver", "spec.nodeName"]),
    ]
}
