//! The scheduling.k8s.io group.

use crate::registry::def::ResourceDef;
use crate::strategies::priority_classes::PriorityClasses;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
            .cluster()
            .short(&["pc"])
            .strategy(PriorityClasses),
    ]
}
