//! The apiregistration.k8s.io group: which server serves which group and version.

use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::api_services::ApiServices;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .cluster()
            .in_category("api-extensions")
            .strategy(ApiServices)
            .with_status()
            .policy(|policy| {
                policy.unconditional_update = false;
                policy.resets = Policy::STATUS_ALONE;
            }),
    ]
}
