//! The group rbac.authorization.k8s.io: roles and bindings.

use crate::auth::rbac::GROUP;
use crate::registry::def::{NameRule, ResourceDef};
use crate::strategies::rbac::{Bindings, Roles};

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| {
        ResourceDef::new(GROUP, "v1", plural, kind).policy(|policy| policy.names = NameRule::PathSegment)
    };
    vec![
        row("clusterrolebindings", "ClusterRoleBinding").cluster().strategy(Bindings),
        row("clusterroles", "ClusterRole").cluster().strategy(Roles),
        row("rolebindings", "RoleBinding").strategy(Bindings),
        row("roles", "Role").strategy(Roles),
    ]
}
