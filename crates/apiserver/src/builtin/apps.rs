//! The apps group.

use crate::registry::def::ResourceDef;
use crate::strategies::workloads::{PodMakers, StatefulSets};

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
        workload("daemonsets", "DaemonSet", "ds").strategy(PodMakers),
        workload("deployments", "Deployment", "deploy").strategy(PodMakers).with_scale(),
        workload("replicasets", "ReplicaSet", "rs").strategy(PodMakers).with_scale().selectable(&["status.replicas"]),
        workload("statefulsets", "StatefulSet", "sts").strategy(StatefulSets).with_scale(),
    ]
}
