//! The rows that are always there: one file an API group.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

use std::sync::Arc;

use crate::registry::def::ResourceDef;
use crate::strategies::services::Pools;

/// All built-in rows in the order of discovery. Services take their addresses from `pools`; MutatingAdmissionPolicies are among them
/// if `mutating_policies`.
pub(crate) fn rows(pools: &Arc<Pools>, mutating_policies: bool) -> Vec<ResourceDef> {
    [
        core::rows(pools),
        apiregistration::rows(),
        apps::rows(),
        events::rows(),
        authentication::rows(),
        authorization::rows(),
        autoscaling::rows(),
        batch::rows(),
        certificates::rows(),
        networking::rows(),
        policy::rows(),
        rbac::rows(),
        storage::rows(),
        admissionregistration::rows(mutating_policies),
        apiextensions::rows(),
        scheduling::rows(),
        coordination::rows(),
        node::rows(),
        discovery::rows(),
        resource::rows(),
        flowcontrol::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::config::Cidr;
    use crate::registry::table::ResourceTable;
    use crate::strategies::services::Pools;

    #[test]
    fn every_row_is_whole() {
        let rows = super::rows(&Pools::new(Cidr::default(), (30000, 32767)), true);
        let table = ResourceTable::new(rows.into_iter().map(Arc::new).collect()).unwrap();
        for row in table.rows() {
            assert!(row.plural.chars().all(|c| c.is_ascii_lowercase()), "{}", row.qualified());
            for version in &row.versions {
                assert!(version.schema.is_named(), "{} has no type", row.gvk(version));
            }
            let mut names: Vec<_> = row.subresources.iter().map(|sub| sub.name.clone()).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), row.subresources.len(), "{} has a subresource twice", row.qualified());
        }
    }
}
