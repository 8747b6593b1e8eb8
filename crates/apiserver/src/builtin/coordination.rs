//! The coordination.k8s.io group.

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![ResourceDef::new("coordination.k8s.io", "v1", "leases", "Lease").policy(|policy| {
        policy.create_on_update = true;
        policy.unconditional_update = false;
    })]
}
