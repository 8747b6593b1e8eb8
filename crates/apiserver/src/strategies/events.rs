//! Events as events.k8s.io takes them: with a time, a series instead of a count, and none of the old group's members.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext};

/// Members of the stored form that only the core group may set.
const OLD: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];
/// Members that stay as they were created.
const FIXED: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "reportingComponent",
    "reportingInstance",
    "related",
];

pub(crate) struct Events;

impl Strategy for Events {
    fn validate(&self, _ctx: &StrategyContext<'_>, event: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        // What is stored already may be of the old group, and is only asked what it changes.
        if !event.resource_version().is_empty() {
            return errors;
        }
        series(event, &mut errors);
        if event.get(&["eventTime"]).is_none_or(Value::is_null) {
            errors.push(FieldError::required(&Path::new("eventTime"), ""));
        }
        let kind = event.str(&["type"]).unwrap_or_default();
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
        }
        for member in OLD.iter().filter(|member| is_set(event, member)) {
            errors.push(FieldError::invalid(&Path::new(member), "", "needs to be unset"));
        }
        errors
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if old.get(&["series"]) != new.get(&["series"]) {
            series(new, &mut errors);
        }
        for member in FIXED {
            errors.append(super::immutable(old, new, &[member]));
        }
        errors
    }
}

fn is_set(event: &Object, member: &str) -> bool {
    match event.get(&[member]) {
        None | Some(Value::Null) => false,
        Some(Value::Number(number)) => number.as_i64() != Some(0),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(_) => true,
    }
}

fn series(event: &Object, errors: &mut ErrorList) {
    let Some(series) = event.get(&["series"]).filter(|series| !series.is_null()) else { return };
    if series.get("count").and_then(Value::as_i64).unwrap_or_default() < 2 {
        errors.push(FieldError::invalid(&Path::new("series").child("count"), "", "should be at least 2"));
    }
    if series.get("lastObservedTime").is_none_or(Value::is_null) {
        errors.push(FieldError::required(&Path::new("series").child("lastObservedTime"), ""));
    }
}
