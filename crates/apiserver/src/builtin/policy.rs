//! The policy group.

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .short(&["pdb"])
            .with_status()
            .policy(|policy| {
                policy.generation = true;
                policy.unconditional_update = false;
            }),
    ]
}
