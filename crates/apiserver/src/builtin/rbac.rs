//! The group rbac.authorization.k8s.io: roles and bindings.

use crate::auth::rbac::GROUP;
use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| ResourceDef::new(GROUP, "v1", plural, kind);
    vec![
        row("clusterrolebindings", "ClusterRoleBinding").cluster(),
        row("clusterroles", "ClusterRole").cluster(),
        row("rolebindings", "RoleBinding"),
        row("roles", "Role"),
    ]
}
