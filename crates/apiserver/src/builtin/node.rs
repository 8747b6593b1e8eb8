//! The node.k8s.io group.

use crate::registry::def::ResourceDef;
use crate::strategies::node_labels::RuntimeClasses;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
            .cluster()
            .strategy(RuntimeClasses)
            .policy(|policy| policy.unconditional_update = false),
    ]
}
