//! RuntimeClass: a pod of a class gets the class's overhead, and goes where the class can run.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::pod_resources::amounts;
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use super::{Admission, Attributes, Operation};

const GROUP: &str = "node.k8s.io";
const PLURAL: &str = "runtimeclasses";

pub(super) struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "pods")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), StatusError> {
        let Some(class) = class_of(attributes, pod).await? else { return Ok(()) };
        if let Some(overhead) = class.get(&["overhead", "podFixed"]) {
            if pod.get(&["spec", "overhead"]).is_some_and(|own| !same_amounts(own, overhead)) {
                return Err(mismatch(attributes));
            }
            pod.set(&["spec", "overhead"], overhead.clone());
        }
        for (key, value) in class.get(&["scheduling", "nodeSelector"]).and_then(Value::as_object).into_iter().flatten()
        {
            let own = pod.get(&["spec", "nodeSelector", key.as_str()]);
            if let Some(own) = own.filter(|own| *own != value) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(attributes.forbidden(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(own)
                )));
            }
            pod.set(&["spec", "nodeSelector", key.as_str()], value.clone());
        }
        let more = class.array(&["scheduling", "tolerations"]);
        if !more.is_empty() {
            let mut tolerations = pod.array(&["spec", "tolerations"]).to_vec();
            tolerations.extend(
                more.iter().filter(|toleration| !tolerations.contains(toleration)).cloned().collect::<Vec<_>>(),
            );
            pod.set(&["spec", "tolerations"], tolerations);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: Option<&Object>) -> Result<(), StatusError> {
        let Some(pod) = pod else { return Ok(()) };
        let own = pod.get(&["spec", "overhead"]);
        let class = class_of(attributes, pod).await?;
        match (class.as_ref().and_then(|class| class.get(&["overhead", "podFixed"])), own) {
            (Some(overhead), Some(own)) if same_amounts(own, overhead) => Ok(()),
            (Some(_), _) => Err(mismatch(attributes)),
            (None, Some(_)) => Err(attributes
                .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
            (None, None) => Ok(()),
        }
    }
}

fn mismatch(attributes: &Attributes<'_>) -> StatusError {
    attributes.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

fn same_amounts(a: &Value, b: &Value) -> bool {
    amounts(Some(a)) == amounts(Some(b))
}

/// The class the pod names, if it names one.
async fn class_of(attributes: &Attributes<'_>, pod: &Object) -> Result<Option<Arc<Object>>, StatusError> {
    let Some(name) = pod.str(&["spec", "runtimeClassName"]) else { return Ok(None) };
    if let Some(class) = attributes.registry.cached_object(GROUP, PLURAL, "", name) {
        return Ok(Some(class));
    }
    let class = attributes.registry.object(GROUP, PLURAL, "", name).await?;
    let missing = || attributes.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"));
    class.ok_or_else(missing).map(Some)
}
