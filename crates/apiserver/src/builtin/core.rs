//! The core group.

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("", "v1", "configmaps", "ConfigMap").short(&["cm"]),
        ResourceDef::new("", "v1", "pods", "Pod").short(&["po"]).in_all().with_status(),
    ]
}
