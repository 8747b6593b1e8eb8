//! The discovery.k8s.io group.

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .policy(|policy| policy.generation = true),
    ]
}
