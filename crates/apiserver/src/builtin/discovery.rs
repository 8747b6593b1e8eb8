//! The discovery.k8s.io group.

use crate::registry::def::ResourceDef;
use crate::strategies::workloads::EndpointSlices;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .strategy(EndpointSlices)
            .policy(|policy| policy.generation = true),
    ]
}
