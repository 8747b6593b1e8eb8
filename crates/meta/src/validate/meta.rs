//! Checks of `metadata`, the same for every kind.

use super::node::Node;
use super::{NameCheck, immutable, labels};
use crate::field::{ErrorList, FieldError};
use crate::{Object, names};

/// Largest sum of the keys and values of all annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of a new object.
pub fn object_meta(object: &Object, name: NameCheck) -> ErrorList {
    let mut errors = ErrorList::new();
    let meta = Node::root(object).child("metadata");
    let (own, generate) = (meta.child("name"), meta.child("generateName"));
    if !generate.text().is_empty() {
        // What is appended makes a trailing dash good.
        let masked = generate.text().strip_suffix('-').map_or_else(|| generate.text().to_owned(), |t| format!("{t}a"));
        errors.invalid_each(&generate.path, generate.text(), name(&masked));
    }
    if own.text().is_empty() {
        errors.push(FieldError::required(&own.path, "name or generateName is required"));
    } else {
        errors.invalid_each(&own.path, own.text(), name(own.text()));
    }
    let namespace = meta.child("namespace");
    if !namespace.text().is_empty() {
        errors.invalid_each(&namespace.path, namespace.text(), names::dns1123_label(namespace.text()));
    }
    super::non_negative(&meta.child("generation"), &mut errors);
    common(&meta, &mut errors);
    finalizers(&meta.child("finalizers"), &mut errors);
    errors
}

/// Checks how metadata changes.
pub fn object_meta_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let (meta, old_meta) = (Node::root(new).child("metadata"), Node::root(old).child("metadata"));
    if old.is_deleting() {
        let before = old.finalizers();
        let mut extra: Vec<&str> = new.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| crate::field::quote(f)).collect();
            errors.push(FieldError::forbidden(
                &meta.path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    if new.resource_version().is_empty() {
        let path = meta.path.child("resourceVersion");
        errors.push(FieldError::invalid(&path, "", "must be specified for an update"));
    }
    if new.generation() < old.generation() {
        let path = meta.path.child("generation");
        errors.push(FieldError::invalid(&path, new.generation(), "must not be decremented"));
    }
    for member in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(&meta.child(member), &old_meta.child(member), &mut errors);
    }
    common(&meta, &mut errors);
    errors
}

fn common(meta: &Node<'_>, errors: &mut ErrorList) {
    labels(&meta.child("labels"), errors);
    annotations(&meta.child("annotations"), errors);
    owners(&meta.child("ownerReferences"), errors);
}

pub(super) fn annotations(map: &Node<'_>, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in map.entries() {
        size += key.len() + value.text().len();
        errors.invalid_each(&map.path, key, names::qualified_name(&key.to_lowercase()));
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(&map.path, MAX_ANNOTATIONS));
    }
}

fn owners(list: &Node<'_>, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for owner in list.items() {
        let version = owner.child("apiVersion");
        if version.text().rsplit('/').next().unwrap_or_default().is_empty() {
            errors.push(FieldError::invalid(&version.path, version.text(), "version must not be empty"));
        }
        for member in ["kind", "name", "uid"] {
            let node = owner.child(member);
            if node.text().is_empty() {
                errors.push(FieldError::invalid(&node.path, "", "must not be empty"));
            }
        }
        if version.text() == "v1" && owner.child("kind").text() == "Event" {
            errors.push(FieldError::invalid(
                &owner.path,
                owner.value.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.child("controller").is_true() {
            let this = format!("{}/{}", owner.child("kind").text(), owner.child("name").text());
            match &controller {
                None => controller = Some(this),
                Some(first) => errors.push(FieldError::invalid(
                    &list.path,
                    list.value.clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
            }
        }
    }
}

/// A finalizer of a built-in kind: one that everybody knows, or one with a domain.
pub(super) fn finalizer(node: &Node<'_>, errors: &mut ErrorList) {
    let known = matches!(node.text(), ORPHAN | FOREGROUND | "kubernetes");
    let messages = names::qualified_name(node.text());
    if !messages.is_empty() {
        errors.invalid_each(&node.path, node.text(), messages);
    } else if !node.text().contains('/') && !known {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

fn finalizers(list: &Node<'_>, errors: &mut ErrorList) {
    let mut known = Vec::new();
    for finalizer in list.items() {
        errors.invalid_each(&list.path, finalizer.text(), names::qualified_name(finalizer.text()));
        known.push(finalizer.text());
    }
    if known.contains(&ORPHAN) && known.contains(&FOREGROUND) {
        errors.push(FieldError::invalid(
            &list.path,
            list.value.clone(),
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
}
