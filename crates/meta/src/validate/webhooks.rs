//! Checks of what admission is configured by: webhooks, and the rules they share with admission policies.

use super::definitions::webhook_url;
use super::node::Node;
use super::{Kind, label_selector, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "MutatingWebhookConfiguration", configuration),
    Kind::new(GROUP, "ValidatingWebhookConfiguration", configuration),
];

/// Versions of AdmissionReview that this server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// What a webhook may do besides answering.
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const MAX_MATCH_CONDITIONS: usize = 64;

fn configuration(configuration: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for hook in configuration.child("webhooks").items() {
        webhook(&hook, errors);
        let name = hook.child("name");
        if !name.is_empty() && seen.contains(&name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        seen.push(name.text());
    }
}

fn webhook(hook: &Node<'_>, errors: &mut ErrorList) {
    fully_qualified(&hook.child("name"), errors);
    hook.child("rules").items().for_each(|rule| rule_with_operations(&rule, errors));
    let effects = hook.child("sideEffects");
    if !effects.is_set() {
        let message = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        errors.push(FieldError::required(&effects.path, message));
    } else if !SIDE_EFFECTS.contains(&effects.text()) {
        errors.push(FieldError::not_supported(&effects.path, effects.text(), &SIDE_EFFECTS));
    }
    let timeout = hook.child("timeoutSeconds");
    if let Some(seconds) = timeout.integer().filter(|seconds| !(1..=30).contains(seconds)) {
        errors.push(FieldError::invalid(&timeout.path, seconds, "the timeout value must be between 1 and 30 seconds"));
    }
    label_selector(&hook.child("namespaceSelector"), errors);
    label_selector(&hook.child("objectSelector"), errors);
    let client = hook.child("clientConfig");
    let (address, service) = (client.child("url"), client.child("service"));
    match (address.is_set(), service.is_set()) {
        (true, false) => webhook_url(address.text(), &address.path, errors),
        (false, true) => webhook_service(&service, errors),
        _ => errors.push(FieldError::required(&client.path, "exactly one of url or service is required")),
    }
    match_conditions(&hook.child("matchConditions"), errors);
    review_versions(&hook.child("admissionReviewVersions"), errors);
}

fn fully_qualified(name: &Node<'_>, errors: &mut ErrorList) {
    if !required(name, errors) {
        return;
    }
    let messages = names::dns1123_subdomain(name.text());
    if !messages.is_empty() {
        errors.push(FieldError::invalid(&name.path, name.text(), messages.join(",")));
    } else if name.text().split('.').count() < 3 {
        let message = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
}

fn review_versions(versions: &Node<'_>, errors: &mut ErrorList) {
    let accepted = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        errors.push(FieldError::required(&versions.path, format!("must specify one of {accepted}")));
        return;
    }
    let mut seen = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.text()) {
            errors.push(FieldError::invalid(&version.path, version.text(), "duplicate version"));
            continue;
        }
        seen.push(version.text());
        errors.invalid_each(&version.path, version.text(), names::dns1035_label(version.text()));
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let message = format!("must include at least one of {accepted}");
        errors.push(FieldError::invalid(&versions.path, versions.value.clone(), message));
    }
}

/// The Service behind a webhook: name, namespace, port, path.
pub(super) fn webhook_service(service: &Node<'_>, errors: &mut ErrorList) {
    required(&service.child("name"), errors);
    required(&service.child("namespace"), errors);
    port(&service.child("port"), errors);
    let path = service.child("path");
    let mut wrong = |message: String| errors.push(FieldError::invalid(&path.path, path.text(), message));
    match path.text() {
        "" | "/" => return,
        "//" => return wrong("segment[0] may not be empty".into()),
        text if !text.starts_with('/') => wrong("must start with a '/'".into()),
        _ => {}
    }
    // What stands in the place of the first slash is not looked at.
    let mut rest = path.text().chars();
    rest.next();
    let rest = rest.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            wrong(format!("segment[{index}] may not be empty"));
            continue;
        }
        names::dns1123_subdomain(segment).iter().for_each(|message| wrong(format!("segment[{index}]: {message}")));
    }
}

/// The port of a Service that the server calls.
pub(super) fn port(port: &Node<'_>, errors: &mut ErrorList) {
    let messages = port.integer().map(names::port_number).unwrap_or_default();
    if !messages.is_empty() {
        let message = format!("port is not valid: {}", messages.join(", "));
        errors.push(FieldError::invalid(&port.path, port.value.clone(), message));
    }
}

/// Which requests: operations, groups, versions, resources. Their words are checked by the field table.
pub(super) fn rule_with_operations(rule: &Node<'_>, errors: &mut ErrorList) {
    for (member, what) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.child(member);
        if list.is_empty() {
            errors.push(FieldError::required(&list.path, ""));
        }
        alone(&list, what, errors);
    }
    for version in rule.child("apiVersions").items() {
        required(&version, errors);
    }
    resources(&rule.child("resources"), errors);
}

/// `*` says it all, so nothing may stand beside it.
fn alone(list: &Node<'_>, what: &str, errors: &mut ErrorList) {
    if list.items().count() > 1 && list.items().any(|item| item.text() == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(&list.path, list.value.clone(), message));
    }
}

fn resources(list: &Node<'_>, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(FieldError::required(&list.path, ""));
    }
    let (mut all_subresources, mut of_all_resources) = (Vec::new(), Vec::new());
    let (mut every, mut plain) = (false, false);
    for entry in list.items() {
        if !required(&entry, errors) {
            continue;
        }
        let text = entry.text();
        every |= text == "*";
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_subresources.contains(&resource) {
            let message = format!("if '{resource}/*' is present, must not specify {text}");
            errors.push(FieldError::invalid(&entry.path, text, message));
        }
        if of_all_resources.contains(&subresource) {
            let message = format!("if '*/{subresource}' is present, must not specify {text}");
            errors.push(FieldError::invalid(&entry.path, text, message));
        }
        if subresource == "*" {
            all_subresources.push(resource);
        }
        if resource == "*" {
            of_all_resources.push(subresource);
        }
    }
    let mut wrong = |message: &str| errors.push(FieldError::invalid(&list.path, list.value.clone(), message));
    if list.items().count() > 1 && list.items().any(|entry| entry.text() == "*/*") {
        wrong("if '*/*' is present, must not specify other resources");
    }
    if every && plain {
        wrong("if '*' is present, must not specify other resources without subresources");
    }
}

/// Named CEL conditions. Whether their expressions compile is for the server to say.
pub(super) fn match_conditions(list: &Node<'_>, errors: &mut ErrorList) {
    let count = list.items().count();
    if count > MAX_MATCH_CONDITIONS {
        errors.push(FieldError::too_many(&list.path, count, MAX_MATCH_CONDITIONS));
    }
    let mut seen = Vec::new();
    for condition in list.items() {
        let (name, expression) = (condition.child("name"), condition.child("expression"));
        if expression.text().trim().is_empty() {
            errors.push(FieldError::required(&expression.path, ""));
        }
        if required(&name, errors) {
            errors.invalid_each(&name.path, name.text(), names::qualified_name(name.text()));
            if seen.contains(&name.text()) {
                errors.push(FieldError::duplicate(&name.path, name.text()));
            }
            seen.push(name.text());
        }
    }
}
