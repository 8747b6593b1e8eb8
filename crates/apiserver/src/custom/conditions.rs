//! Conditions of definitions.

use jiff::Timestamp;
use kminik_meta::{Object, time};
use serde_json::{Value, json};

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    pub(crate) fn new(
        kind: &'static str,
        status: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Condition { kind, status, reason, message: message.into() }
    }
}

/// Whether a definition has this condition with status `True`.
pub(crate) fn is_true(definition: &Object, kind: &str) -> bool {
    find(definition, kind).is_some_and(|condition| condition["status"] == "True")
}

fn find<'a>(definition: &'a Object, kind: &str) -> Option<&'a Value> {
    definition.array(&["status", "conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// Sets a condition; its time changes with its status. One that says so already stays as it is.
pub(crate) fn set_condition(definition: &mut Object, condition: &Condition, now: Timestamp) {
    let mut conditions = definition.array(&["status", "conditions"]).to_vec();
    let known = conditions.iter().position(|known| known["type"] == condition.kind);
    let since = known
        .and_then(|at| conditions.get(at))
        .filter(|known| known["status"] == condition.status)
        .map_or_else(|| Value::from(time::format(now)), |known| known["lastTransitionTime"].clone());
    let value = json!({
        "type": condition.kind, "status": condition.status, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": since,
    });
    match known.and_then(|at| conditions.get_mut(at)) {
        Some(known) => *known = value,
        None => conditions.push(value),
    }
    definition.set(&["status", "conditions"], conditions);
}

/// Removes a condition.
pub(crate) fn remove_condition(definition: &mut Object, kind: &str) {
    if find(definition, kind).is_some() {
        let rest = definition.array(&["status", "conditions"]).iter().filter(|known| known["type"] != kind);
        let rest: Vec<Value> = rest.cloned().collect();
        definition.set(&["status", "conditions"], rest);
    }
}
