//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not heard of.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "pods")
    }

    async fn mutate(&self, _attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), StatusError> {
        let mut tolerations = pod.array(&["spec", "tolerations"]).to_vec();
        for taint in TAINTS {
            if !tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
                }));
            }
        }
        pod.set(&["spec", "tolerations"], tolerations);
        Ok(())
    }
}

/// Whether the toleration says anything about the taint's eviction, in whatever way.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |key: &str| toleration.get(key).and_then(Value::as_str).unwrap_or_default();
    matches!(text("effect"), "" | "NoExecute") && (text("key") == taint || text("key").is_empty())
}
