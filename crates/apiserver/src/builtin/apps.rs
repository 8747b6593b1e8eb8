//! The apps group.

use kminik_meta::apply::Resets;

use crate::registry::def::ResourceDef;
use crate::strategies::workloads::{DaemonSetStatus, DaemonSets, Deployments};

pub(super) fn rows() -> Vec<ResourceDef> {
    let workload = |plural, kind, short: &'static str| {
        ResourceDef::new("apps", "v1", plural, kind).short(&[short]).in_all().policy(|policy| policy.generation = true)
    };
    vec![
        ResourceDef::new("apps", "v1", "controllerrevisions", "ControllerRevision"),
        workload("daemonsets", "DaemonSet", "ds").strategy(DaemonSets).with_view("status", DaemonSetStatus),
        workload("deployments", "Deployment", "deploy")
            .strategy(Deployments)
            .with_status()
            .with_scale()
            .policy(|policy| policy.resets = &[("status", Resets::Fields(&[&["spec"], &["metadata", "labels"]]))]),
        workload("replicasets", "ReplicaSet", "rs").with_status().with_scale().selectable_as(
            "status.replicas",
            "status.replicas",
            "0",
        ),
        workload("statefulsets", "StatefulSet", "sts").with_status().with_scale(),
    ]
}
