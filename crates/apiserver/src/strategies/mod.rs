//! Strategies of the resources that differ from the default; one file a resource.

pub(crate) mod custom;
pub(crate) mod definitions;
pub(crate) mod namespaces;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod volumes;

use kminik_meta::{ErrorList, FieldError, Object, Path};

/// The error for a field that may not change; nothing if it did not.
fn immutable(old: &Object, new: &Object, path: &[&str]) -> ErrorList {
    let (before, after) = (old.get(path), new.get(path));
    if before == after {
        return ErrorList::new();
    }
    FieldError::invalid(&Path::default().children(path), after.cloned().unwrap_or_default(), "field is immutable")
        .into()
}
