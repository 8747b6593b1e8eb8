//! Checks of objects whose type carries its rules with it: those of custom resources.

mod embedded;
mod lists;
mod values;

use serde_json::Value;

use crate::Object;
use crate::field::{ErrorList, FieldError};
use crate::schema::Schema;

/// Checks an object, new or changed, against the rules of its type; a type of the table has none.
pub(super) fn check(schema: &Schema, new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    if schema.rules.is_none() {
        return;
    }
    let (new, old) = (new.to_value(), old.map(Object::to_value));
    errors.extend(values::check(schema, &new, old.as_ref(), ""));
    errors.extend(embedded::check(schema, &new, ""));
    errors.extend(changed_lists(schema, &new, old.as_ref()));
}

/// As [`check`], for a change through the `status` door.
pub(super) fn check_status(schema: &Schema, new: &Object, old: &Object, errors: &mut ErrorList) {
    if schema.rules.is_none() {
        return;
    }
    if let (Some(node), Some(status)) = (schema.member("status"), new.map().get("status")) {
        errors.extend(values::check(node, status, old.map().get("status"), "status"));
    }
    errors.extend(changed_lists(schema, &new.to_value(), Some(&old.to_value())));
}

/// Checks a value that a node of a schema gives as its default.
pub(super) fn check_default(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = embedded::check(schema, value, "");
    if errors.is_empty() {
        errors = values::check(schema, value, None, "");
    }
    errors
}

/// Elements of lists that must differ; not looked at where the old object had equal ones already.
fn changed_lists(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let errors = lists::check(schema, new, "");
    match old {
        Some(old) if !errors.is_empty() && !lists::check(schema, old, "").is_empty() => Vec::new(),
        _ => errors,
    }
}

#[cfg(test)]
mod tests;
