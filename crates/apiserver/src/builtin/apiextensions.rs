//! The apiextensions.k8s.io group.

use crate::custom::{GROUP, PLURAL};
use crate::registry::def::ResourceDef;
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
                policy.status_keeps = &[&["spec"], &["metadata"]];
                policy.returns_deleted = true;
            }),
    ]
}
