//! What the pipeline itself does with ObjectMeta; its rules are the validation's.

use kminik_meta::{ErrorList, FieldError, Object, Path};

use crate::registry::def::ResourceDef;

/// Checks that the object has a namespace if its resource has them, and none if not.
pub(crate) fn validate_scope(row: &ResourceDef, object: &Object) -> ErrorList {
    let path = Path::new("metadata").child("namespace");
    match (row.namespaced(), object.namespace().is_empty()) {
        (true, true) => FieldError::required(&path, "").into(),
        (false, false) => FieldError::forbidden(&path, "not allowed on this type").into(),
        _ => ErrorList::new(),
    }
}

/// Carries over what no client may change. A UID of its own stays, for validation to refuse.
pub(crate) fn keep_system_fields(old: &Object, new: &mut Object) {
    if new.uid().is_empty() {
        new.set_meta("uid", old.uid());
    }
    for key in [
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        match old.get(&["metadata", key]) {
            Some(value) => new.set(&["metadata", key], value.clone()),
            None => {
                new.remove(&["metadata", key]);
            }
        }
    }
}

/// Whether a deletion has nothing left to wait for: no finalizer, no grace period.
pub(crate) fn released(object: &Object) -> bool {
    object.is_deleting()
        && object.finalizers().is_empty()
        && object.deletion_grace_period_seconds().unwrap_or_default() == 0
}
