//! TaintNodesByCondition: a new node takes no pods before it is known to be ready.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};
use serde_json::json;

use super::{Admission, Attributes, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "nodes")
    }

    async fn mutate(&self, _attributes: &Attributes<'_>, node: &mut Object) -> Result<(), StatusError> {
        let mut taints = node.array(&["spec", "taints"]).to_vec();
        if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
            taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
            node.set(&["spec", "taints"], taints);
        }
        Ok(())
    }
}
