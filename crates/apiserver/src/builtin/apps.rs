//! The apps group.

use kminik_meta::apply::Resets;

use crate::registry::def::ResourceDef;

pub(super) fn rows() -> Vec<ResourceDef> {
    let workload = |plural, kind, short: &'static str| {
        ResourceDef::new("apps", "v1", plural, kind)
            .short(&[short])
            .in_all()
            .with_status()
            .policy(|policy| policy.generation = true)
    };
    vec![
        ResourceDef::new("apps", "v1", "controllerrevisions", "ControllerRevision"),
        workload("daemonsets", "DaemonSet", "ds"),
        workload("deployments", "Deployment", "deploy")
            .with_scale()
            .policy(|policy| policy.resets = &[("status", Resets::Fields(&[&["spec"], &["metadata", "labels"]]))]),
        workload("replicasets", "ReplicaSet", "rs").with_scale().selectable_as(
            "status.replicas",
            "status.replicas",
            "0",
        ),
        workload("statefulsets", "StatefulSet", "sts").with_scale(),
    ]
}
