//! Checks of admission policies and their bindings. Whether CEL expressions compile is for the server to say.

use super::node::Node;
use super::webhooks::{GROUP, match_conditions, rule_with_operations};
use super::{Kind, conditions, label_selector, required};
use crate::field::{ErrorList, FieldError};
use crate::{GroupVersion, names};

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "ValidatingAdmissionPolicy", policy).status(policy_status),
    Kind::new(GROUP, "ValidatingAdmissionPolicyBinding", binding),
    Kind::new(GROUP, "MutatingAdmissionPolicy", mutating_policy),
    Kind::new(GROUP, "MutatingAdmissionPolicyBinding", mutating_binding),
];

const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// In bytes.
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// What can be changed on its way: not a deletion.
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
/// Kinds of mutations, each with the member that it needs.
const PATCH_TYPES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];

/// What policies of both kinds have.
fn common(spec: &Node<'_>, errors: &mut ErrorList) {
    let kind = spec.child("paramKind");
    if kind.is_set() {
        param_kind(&kind, errors);
    }
    let constraints = spec.child("matchConstraints");
    if constraints.is_set() {
        match_resources(&constraints, errors);
        let rules = constraints.child("resourceRules");
        if rules.is_empty() {
            errors.push(FieldError::required(&rules.path, ""));
        }
    } else {
        errors.push(FieldError::required(&constraints.path, ""));
    }
    match_conditions(&spec.child("matchConditions"), errors);
    spec.child("variables").items().for_each(|variable| self::variable(&variable, errors));
}

fn policy(policy: &Node<'_>, errors: &mut ErrorList) {
    let spec = policy.child("spec");
    common(&spec, errors);
    let (validations, annotations) = (spec.child("validations"), spec.child("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let message = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required(&validations.path, message));
        errors.push(FieldError::required(&annotations.path, message));
        return;
    }
    validations.items().for_each(|validation| self::validation(&validation, errors));
    if annotations.items().count() > MAX_AUDIT_ANNOTATIONS {
        let message = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(&annotations.path, annotations.value.clone(), message));
    }
    let mut keys = Vec::new();
    for annotation in annotations.items() {
        audit_annotation(policy.at(&["metadata", "name"]).text(), &annotation, errors);
        let key = annotation.child("key");
        if keys.contains(&key.text()) {
            errors.push(FieldError::duplicate(&key.path, key.text()));
        }
        keys.push(key.text());
    }
}

fn mutating_policy(policy: &Node<'_>, errors: &mut ErrorList) {
    let spec = policy.child("spec");
    let failure = spec.child("failurePolicy");
    if required(&failure, errors) && !matches!(failure.text(), "Fail" | "Ignore") {
        errors.push(FieldError::not_supported(&failure.path, failure.text(), &["Fail", "Ignore"]));
    }
    common(&spec, errors);
    mutable_operations(&spec.child("matchConstraints"), errors);
    let mutations = spec.child("mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required(&mutations.path, "mutations must contain at least one item"));
    }
    mutations.items().for_each(|mutation| self::mutation(&mutation, errors));
    let again = spec.child("reinvocationPolicy");
    if required(&again, errors) && !matches!(again.text(), "Never" | "IfNeeded") {
        errors.push(FieldError::not_supported(&again.path, again.text(), &["IfNeeded", "Never"]));
    }
}

/// Upstream's errors name no index here.
fn mutable_operations(resources: &Node<'_>, errors: &mut ErrorList) {
    let path = resources.path.child("resourceRules").child("operations");
    for rule in resources.child("resourceRules").items() {
        for operation in rule.child("operations").items().filter(|operation| !MUTABLE.contains(&operation.text())) {
            errors.push(FieldError::not_supported(&path, operation.text(), &MUTABLE));
        }
    }
}

fn mutation(mutation: &Node<'_>, errors: &mut ErrorList) {
    let kind = mutation.child("patchType");
    if !required(&kind, errors) {
        return;
    }
    if !PATCH_TYPES.iter().any(|(name, _)| *name == kind.text()) {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), &PATCH_TYPES.map(|(name, _)| name)));
        return;
    }
    for (name, member) in PATCH_TYPES {
        let patch = mutation.child(member);
        match (name == kind.text(), patch.is_set()) {
            (true, true) => {
                let expression = patch.child("expression");
                if expression.text().trim().is_empty() {
                    errors.push(FieldError::required(&expression.path, ""));
                }
            }
            (true, false) => {
                let message = format!("must be specified when patchType is {}", kind.text());
                errors.push(FieldError::required(&patch.path, message));
            }
            (false, true) => {
                let message = format!("must not be specified when patchType is {}", kind.text());
                errors.push(FieldError::invalid(&patch.path, patch.value.clone(), message));
            }
            (false, false) => {}
        }
    }
}

fn mutating_binding(binding: &Node<'_>, errors: &mut ErrorList) {
    let spec = binding.child("spec");
    bound(&spec, errors);
    let resources = spec.child("matchResources");
    if resources.is_set() {
        match_resources(&resources, errors);
        mutable_operations(&resources, errors);
    }
}

/// The policy and the parameters that a binding names.
fn bound(spec: &Node<'_>, errors: &mut ErrorList) {
    let name = spec.child("policyName");
    if required(&name, errors) {
        errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
    }
    param_ref(&spec.child("paramRef"), errors);
}

/// The kind of a policy's parameters.
fn param_kind(node: &Node<'_>, errors: &mut ErrorList) {
    let (api_version, kind) = (node.child("apiVersion"), node.child("kind"));
    let mut wrong = |value: &str, message: String| errors.push(FieldError::invalid(&api_version.path, value, message));
    match GroupVersion::parse(api_version.text()) {
        _ if api_version.is_empty() => errors.push(FieldError::required(&api_version.path, "")),
        None => {
            wrong(api_version.text(), format!("unexpected GroupVersion string: {}", api_version.text()));
        }
        Some(parsed) => {
            let messages = names::dns1123_subdomain(&parsed.group);
            if !parsed.group.is_empty() && !messages.is_empty() {
                wrong(&parsed.group, messages.join(","));
            }
            let messages = names::dns1035_label(&parsed.version);
            if parsed.version.is_empty() {
                wrong(api_version.text(), "version must be specified".into());
            } else if !messages.is_empty() {
                wrong(&parsed.version, messages.join(","));
            }
        }
    }
    if required(&kind, errors) {
        let messages = names::dns1035_label(&kind.text().to_lowercase());
        if !messages.is_empty() {
            let message = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            errors.push(FieldError::invalid(&kind.path, kind.text(), message));
        }
    }
}

fn match_resources(node: &Node<'_>, errors: &mut ErrorList) {
    required(&node.child("matchPolicy"), errors);
    for member in ["namespaceSelector", "objectSelector"] {
        let selector = node.child(member);
        if selector.is_set() {
            label_selector(&selector, errors);
        } else {
            errors.push(FieldError::required(&selector.path, ""));
        }
    }
    for member in ["resourceRules", "excludeResourceRules"] {
        for rule in node.child(member).items() {
            let mut seen = Vec::new();
            for name in rule.child("resourceNames").items() {
                errors.invalid_each(&name.path, name.text(), names::path_segment(name.text()));
                if seen.contains(&name.text()) {
                    errors.push(FieldError::duplicate(&name.path, name.text()));
                }
                seen.push(name.text());
            }
            rule_with_operations(&rule, errors);
        }
    }
}

fn variable(variable: &Node<'_>, errors: &mut ErrorList) {
    let name = variable.child("name");
    if name.text().trim().is_empty() {
        errors.push(FieldError::required(&name.path, "name is not specified"));
    } else if !is_identifier(name.text()) {
        errors.push(FieldError::invalid(&name.path, name.text(), "name is not a valid CEL identifier"));
    }
    expression(&variable.child("expression"), errors);
}

fn expression(node: &Node<'_>, errors: &mut ErrorList) {
    if node.text().trim().is_empty() {
        errors.push(FieldError::required(&node.path, "expression is not specified"));
    }
}

fn is_identifier(text: &str) -> bool {
    let shaped = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    shaped && !names::CEL_RESERVED.contains(&text)
}

fn validation(validation: &Node<'_>, errors: &mut ErrorList) {
    expression(&validation.child("expression"), errors);
    let by_expression = validation.child("messageExpression");
    if !by_expression.is_empty() && by_expression.text().trim().is_empty() {
        let text = by_expression.text();
        errors.push(FieldError::invalid(&by_expression.path, text, "must be non-empty if specified"));
    }
    let message = validation.child("message");
    if !message.is_empty() && message.text().trim().is_empty() {
        let text = message.text();
        errors.push(FieldError::invalid(&message.path, text, "message must be non-empty if specified"));
    } else if message.text().trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&message.path, message.text(), "message must not contain line breaks"));
    }
    let reason = validation.child("reason");
    if reason.is_set() && !REASONS.contains(&reason.text()) {
        errors.push(FieldError::not_supported(&reason.path, reason.text(), &REASONS));
    }
}

fn audit_annotation(policy: &str, annotation: &Node<'_>, errors: &mut ErrorList) {
    let (key, value) = (annotation.child("key"), annotation.child("valueExpression"));
    if policy.is_empty() {
        errors.push(FieldError::invalid(&key.path, key.text(), "requires metadata.name be non-empty"));
    } else {
        let whole = format!("{policy}/{}", key.text());
        errors.invalid_each(&key.path, &whole, names::qualified_name(&whole));
    }
    let length = value.text().trim().len();
    if length == 0 {
        errors.push(FieldError::required(&value.path, "valueExpression is not specified"));
    } else if length > MAX_VALUE_EXPRESSION {
        let message = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
        errors.push(FieldError::required(&value.path, message));
    }
}

fn policy_status(new: &Node<'_>, _old: &Node<'_>, errors: &mut ErrorList) {
    let status = new.child("status");
    for warning in status.at(&["typeChecking", "expressionWarnings"]).items() {
        required(&warning.child("warning"), errors);
        let field = warning.child("fieldRef");
        if field.text().trim().is_empty() {
            errors.push(FieldError::required(&field.path, ""));
        }
    }
    conditions(&status.child("conditions"), errors);
}

fn binding(binding: &Node<'_>, errors: &mut ErrorList) {
    let spec = binding.child("spec");
    bound(&spec, errors);
    let resources = spec.child("matchResources");
    if resources.is_set() {
        match_resources(&resources, errors);
    }
    let actions = spec.child("validationActions");
    let mut seen = Vec::new();
    for action in actions.items() {
        if seen.contains(&action.text()) {
            errors.push(FieldError::duplicate(&action.path, action.text()));
        }
        seen.push(action.text());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(&actions.path, actions.value.clone(), message));
    }
    if seen.is_empty() {
        errors.push(FieldError::required(&actions.path, "at least one validation action is required"));
    }
}

/// Which objects are a policy's parameters.
fn param_ref(node: &Node<'_>, errors: &mut ErrorList) {
    if !node.is_set() {
        return;
    }
    let (name, selector) = (node.child("name"), node.child("selector"));
    let both = !name.is_empty() && selector.is_set();
    let exclusive = |node: &Node<'_>| FieldError::forbidden(&node.path, "name and selector are mutually exclusive");
    if !name.is_empty() {
        errors.invalid_each(&name.path, name.text(), names::path_segment(name.text()));
        errors.extend(both.then(|| exclusive(&name)));
    }
    if selector.is_set() {
        label_selector(&selector, errors);
        errors.extend(both.then(|| exclusive(&selector)));
    }
    if name.is_empty() && !selector.is_set() {
        errors.push(FieldError::required(&node.path, "one of name or selector must be specified"));
    }
    let absent = node.child("parameterNotFoundAction");
    if required(&absent, errors) && !matches!(absent.text(), "Deny" | "Allow") {
        errors.push(FieldError::not_supported(&absent.path, absent.text(), &["Deny", "Allow"]));
    }
}
