//! The storage.k8s.io group.

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![ResourceDef::new("storage.k8s.io", "v1", "storageclasses", "StorageClass").cluster().short(&["sc"])]
}
