//! The rules of ObjectMeta that hold for every kind.

use kminik_meta::{ErrorList, FieldError, Object, Path, names};
use serde_json::Value;

use crate::registry::def::{NameRule, ResourceDef};

/// All annotations of an object together.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// Checks a new object's metadata.
pub fn validate(row: &ResourceDef, object: &Object) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    if !object.generate_name().is_empty() {
        // The rule is checked as if the dash before the suffix ended the name.
        let stem = object
            .generate_name()
            .strip_suffix('-')
            .map_or(object.generate_name().to_owned(), |stem| format!("{stem}a"));
        errors.invalid_each(&path.child("generateName"), object.generate_name(), name_errors(row, &stem));
    }
    if object.name().is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.invalid_each(&path.child("name"), object.name(), name_errors(row, object.name()));
    }
    if row.namespaced() {
        if object.namespace().is_empty() {
            errors.push(FieldError::required(&path.child("namespace"), ""));
        } else {
            errors.invalid_each(&path.child("namespace"), object.namespace(), names::dns1123_label(object.namespace()));
        }
    } else if !object.namespace().is_empty() {
        errors.push(FieldError::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    errors.append(validate_common(object));
    errors
}

/// Checks what an update may do to metadata.
pub fn validate_update(old: &Object, new: &Object) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    if old.is_deleting() {
        let before = old.finalizers();
        let added: Vec<&str> = new.finalizers().into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|finalizer| kminik_meta::field::quote(finalizer)).collect();
            errors.push(FieldError::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    for (key, was, is) in [("name", old.name(), new.name()), ("namespace", old.namespace(), new.namespace())] {
        if was != is {
            errors.push(FieldError::invalid(&path.child(key), is, "field is immutable"));
        }
    }
    errors.append(validate_common(new));
    errors
}

fn validate_common(object: &Object) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let labels = path.child("labels");
    for (key, value) in object.labels() {
        errors.invalid_each(&labels, key, names::qualified_name(key));
        errors.invalid_each(&labels, value, names::label_value(value));
    }
    let annotations = path.child("annotations");
    let mut size = 0;
    for (key, value) in object.annotations() {
        errors.invalid_each(&annotations, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(&annotations, ANNOTATIONS_LIMIT));
    }
    let owners = path.child("ownerReferences");
    let mut controllers = 0;
    for (at, owner) in object.owner_references().iter().enumerate() {
        let path = owners.index(at);
        for (key, value) in
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)]
        {
            if value.is_empty() {
                let detail = format!("{} must not be empty", if key == "apiVersion" { "version" } else { key });
                errors.push(FieldError::invalid(&path.child(key), "", detail));
            }
        }
        controllers += usize::from(owner.controller);
    }
    if controllers > 1 {
        let shown = object.get(&["metadata", "ownerReferences"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            &owners,
            shown,
            "Only one reference can have Controller set to true. Found \"true\" in references",
        ));
    }
    let finalizers = path.child("finalizers");
    for finalizer in object.finalizers() {
        errors.invalid_each(&finalizers, finalizer, names::qualified_name(finalizer));
        let standard = matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes");
        if !finalizer.contains('/') && !standard {
            errors.push(FieldError::invalid(
                &finalizers,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    let has = |name: &str| object.finalizers().contains(&name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(FieldError::invalid(
            &finalizers,
            object.get(&["metadata", "finalizers"]).cloned().unwrap_or(Value::Null),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    errors
}

fn name_errors(row: &ResourceDef, name: &str) -> Vec<String> {
    match row.policy.names {
        NameRule::Subdomain => names::dns1123_subdomain(name),
        NameRule::Label => names::dns1123_label(name),
        NameRule::Label1035 => names::dns1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
    }
}

/// Carries over what no client may change.
pub fn keep_system_fields(old: &Object, new: &mut Object) {
    for key in [
        "name",
        "namespace",
        "uid",
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
pub fn released(object: &Object) -> bool {
    object.is_deleting()
        && object.finalizers().is_empty()
        && object.deletion_grace_period_seconds().unwrap_or_default() == 0
}
