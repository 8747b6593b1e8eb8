//! PodTopologyLabels: a pod carries the zone and region of its node, so that its containers can be told.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

/// The labels that a pod takes over.
pub(crate) const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) struct PodTopologyLabels;

#[async_trait]
impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && attributes.row.group.is_empty()
            && attributes.row.plural == "pods"
            && matches!(attributes.subresource, "" | "binding")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        // Binding takes the labels over from its own body to the pod.
        let node = match attributes.subresource {
            "binding" if matches!(object.str(&["target", "kind"]), Some("Node")) => object.str(&["target", "name"]),
            "binding" => None,
            _ => object.str(&["spec", "nodeName"]),
        };
        let Some(node) = node.filter(|node| !node.is_empty()) else { return Ok(()) };
        let Some(node) = attributes.registry.cached_object("", "nodes", "", node) else { return Ok(()) };
        for key in TOPOLOGY {
            if let (Some(value), None) = (node.label(key), object.label(key)) {
                object.set_label(key, value);
            }
        }
        Ok(())
    }
}
