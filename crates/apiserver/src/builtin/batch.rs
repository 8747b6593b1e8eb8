//! The batch group.

use crate::registry::def::{Propagation, ResourceDef};
use crate::strategies::jobs::Jobs;

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("batch", "v1", "cronjobs", "CronJob")
            .short(&["cj"])
            .in_all()
            .with_status()
            .policy(|policy| policy.generation = true),
        ResourceDef::new("batch", "v1", "jobs", "Job")
            .in_all()
            .strategy(Jobs)
            .with_status()
            .selectable_as("status.successful", "status.succeeded", "0")
            .policy(|policy| {
                policy.generation = true;
                // Since before owner references were; whoever wants the pods gone says so.
                policy.propagation = Propagation::Orphan;
                policy.silent_delete = Some(
                    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                     them or set propagationPolicy=Orphan to suppress this warning",
                );
            }),
    ]
}
