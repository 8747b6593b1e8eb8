//! The apiextensions.k8s.io group.

use crate::custom::{GROUP, PLURAL};
use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::definitions::Definitions;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new(GROUP, "v1", PLURAL, "CustomResourceDefinition")
            .cluster()
            .short(&["crd", "crds"])
            .in_category("api-extensions")
            .strategy(Definitions)
            .with_status()
            .policy(|policy| {
                policy.unconditional_update = false;
                policy.resets = Policy::STATUS_ALONE;
                policy.returns_deleted = true;
            }),
    ]
}
