//! Priority: the number behind a pod's priority class.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

const GROUP: &str = "scheduling.k8s.io";
const PLURAL: &str = "priorityclasses";

pub(super) struct Priority;

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "pods")
            || attributes.is(Operation::Create, GROUP, PLURAL)
            || attributes.is(Operation::Update, GROUP, PLURAL)
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), StatusError> {
        if attributes.row.plural == PLURAL {
            return Ok(());
        }
        let name = pod.str(&["spec", "priorityClassName"]).unwrap_or_default().to_owned();
        let class = match name.as_str() {
            "" => default_class(attributes),
            name => Some(class(attributes, name).await?),
        };
        let value = class.as_ref().and_then(|class| class.i64(&["value"])).unwrap_or_default();
        if let Some(own) = pod.i64(&["spec", "priority"])
            && own != value
        {
            return Err(attributes.forbidden(format!(
                "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            )));
        }
        let policy =
            class.as_ref().and_then(|class| class.str(&["preemptionPolicy"])).unwrap_or("PreemptLowerPriority");
        match pod.str(&["spec", "preemptionPolicy"]).filter(|own| !own.is_empty()) {
            Some(own) if own != policy => {
                return Err(attributes.forbidden(format!(
                    "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
                     controller computed {policy} from the given PriorityClass name"
                )));
            }
            _ => pod.set(&["spec", "preemptionPolicy"], policy),
        }
        if let Some(class) = class {
            pod.set(&["spec", "priorityClassName"], class.name());
        }
        pod.set(&["spec", "priority"], value);
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let Some(class) = object.filter(|class| attributes.row.plural == PLURAL && is_default(class)) else {
            return Ok(());
        };
        match default_class(attributes).filter(|present| present.name() != class.name()) {
            Some(present) => Err(attributes.forbidden(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                present.name()
            ))),
            None => Ok(()),
        }
    }
}

async fn class(attributes: &Attributes<'_>, name: &str) -> Result<Arc<Object>, StatusError> {
    if let Some(class) = attributes.registry.cached_object(GROUP, PLURAL, "", name) {
        return Ok(class);
    }
    let class = attributes.registry.object(GROUP, PLURAL, "", name).await?;
    class.ok_or_else(|| attributes.forbidden(format!("no PriorityClass with name {name} was found")))
}

/// The default class; of several, the one with the lowest value.
fn default_class(attributes: &Attributes<'_>) -> Option<Arc<Object>> {
    let classes = attributes.registry.cached(GROUP, PLURAL);
    let classes = classes.entries.values().filter_map(|entry| entry.object().ok());
    classes.filter(|class| is_default(class)).min_by_key(|class| class.i64(&["value"]))
}

fn is_default(class: &Object) -> bool {
    class.bool(&["globalDefault"]) == Some(true)
}
