//! Checks of apiregistration: which server serves which group.

use super::node::Node;
use super::{Kind, required};
use crate::field::{ErrorList, FieldError, quote};
use crate::names;

pub(super) const KINDS: &[Kind] =
    &[Kind::new("apiregistration.k8s.io", "APIService", service).named(names::path_segment).status(status)];

const MAX_GROUP_PRIORITY: i64 = 20_000;
const MAX_VERSION_PRIORITY: i64 = 1000;

fn service(object: &Node<'_>, errors: &mut ErrorList) {
    let spec = object.child("spec");
    let (group, version) = (spec.child("group"), spec.child("version"));
    let name = object.at(&["metadata", "name"]);
    let wanted = format!("{}.{}", version.text(), group.text());
    if !name.is_empty() && names::path_segment(name.text()).is_empty() && name.text() != wanted {
        let message = format!("must be `spec.version+\".\"+spec.group`: {}", quote(&wanted));
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
    if !group.is_empty() {
        errors.invalid_each(&group.path, group.text(), names::dns1123_subdomain(group.text()));
    } else if version.text() != "v1" {
        let message = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(&group.path, message));
    }
    errors.invalid_each(&version.path, version.text(), names::dns1035_label(version.text()));
    for (member, max) in [("groupPriorityMinimum", MAX_GROUP_PRIORITY), ("versionPriority", MAX_VERSION_PRIORITY)] {
        let priority = spec.child(member);
        let number = priority.integer().unwrap_or_default();
        if !(1..=max).contains(&number) {
            let message = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(&priority.path, number, message));
        }
    }
    let (server, bundle, insecure) =
        (spec.child("service"), spec.child("caBundle"), spec.child("insecureSkipTLSVerify"));
    if !server.is_set() {
        if !bundle.is_empty() {
            let size = decoded_length(bundle.text());
            let message = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&bundle.path, format!("{size} bytes"), message));
        }
        if insecure.is_true() {
            let message = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&insecure.path, true, message));
        }
        return;
    }
    required(&server.child("namespace"), errors);
    required(&server.child("name"), errors);
    super::webhooks::port(&server.child("port"), errors);
    if insecure.is_true() && !bundle.is_empty() {
        errors.push(FieldError::invalid(&insecure.path, true, "may not be true if caBundle is present"));
    }
}

/// Bytes behind a base64 text.
fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn status(new: &Node<'_>, _old: &Node<'_>, errors: &mut ErrorList) {
    for condition in new.at(&["status", "conditions"]).items() {
        let status = condition.child("status");
        if !matches!(status.text(), "True" | "False" | "Unknown") {
            errors.push(FieldError::not_supported(&status.path, status.text(), &["True", "False", "Unknown"]));
        }
    }
}
