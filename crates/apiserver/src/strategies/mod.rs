//! Strategies of the resources that differ from the default; one file a resource.

pub(crate) mod api_services;
pub(crate) mod certificates;
pub(crate) mod components;
pub(crate) mod custom;
pub(crate) mod definitions;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod expressions;
pub(crate) mod flow_control;
pub(crate) mod jobs;
pub(crate) mod namespaces;
pub(crate) mod networking;
pub(crate) mod node_labels;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod priority_classes;
pub(crate) mod secrets;
pub(crate) mod service_accounts;
pub(crate) mod services;
pub(crate) mod volumes;
pub(crate) mod workloads;

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
