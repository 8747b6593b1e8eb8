//! The flowcontrol.apiserver.k8s.io group: how the server is shared between requests.

use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::flow_control::Mandatory;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| {
        ResourceDef::new(GROUP, "v1", plural, kind).cluster().strategy(Mandatory).with_status().policy(|policy| {
            policy.generation = true;
            policy.resets = Policy::STATUS_ALONE;
        })
    };
    vec![row("flowschemas", "FlowSchema"), row("prioritylevelconfigurations", "PriorityLevelConfiguration")]
}
