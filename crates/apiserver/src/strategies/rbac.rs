//! Roles and bindings: what the schema does not say about them.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::Value;

use crate::auth::rbac::GROUP;
use crate::registry::strategy::{Strategy, StrategyContext};

/// Roles and cluster roles.
pub(crate) struct Roles;

impl Strategy for Roles {
    fn validate(&self, ctx: &StrategyContext<'_>, role: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        for (index, rule) in role.array(&["rules"]).iter().enumerate() {
            validate_rule(rule, ctx.row.namespaced(), &Path::new("rules").index(index), &mut errors);
        }
        errors
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let is_empty = |key: &str| rule.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if is_empty("verbs") {
        errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !is_empty("nonResourceURLs") {
        let urls = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&urls, rule["nonResourceURLs"].clone(), detail));
        }
        if !is_empty("apiGroups") || !is_empty("resources") || !is_empty("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&urls, rule["nonResourceURLs"].clone(), detail));
        }
        return;
    }
    if is_empty("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        errors.push(FieldError::required(&path.child("apiGroups"), detail));
    }
    if is_empty("resources") {
        let detail = "resource rules must supply at least one resource";
        errors.push(FieldError::required(&path.child("resources"), detail));
    }
}

/// Role bindings and cluster role bindings.
pub(crate) struct Bindings;

impl Strategy for Bindings {
    fn validate(&self, ctx: &StrategyContext<'_>, binding: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let role_ref = Path::new("roleRef");
        let text = |key: &str| binding.str(&["roleRef", key]).unwrap_or_default();
        if text("apiGroup") != GROUP {
            errors.push(FieldError::not_supported(&role_ref.child("apiGroup"), text("apiGroup"), &[GROUP]));
        }
        let kinds: &[&str] = if ctx.row.namespaced() { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&text("kind")) {
            errors.push(FieldError::not_supported(&role_ref.child("kind"), text("kind"), kinds));
        }
        if text("name").is_empty() {
            errors.push(FieldError::required(&role_ref.child("name"), ""));
        }
        for (index, subject) in binding.array(&["subjects"]).iter().enumerate() {
            validate_subject(subject, ctx.row.namespaced(), &Path::new("subjects").index(index), &mut errors);
        }
        errors
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        if old.get(&["roleRef"]) == new.get(&["roleRef"]) {
            return ErrorList::new();
        }
        let wanted = new.get(&["roleRef"]).cloned().unwrap_or_default();
        FieldError::invalid(&Path::new("roleRef"), wanted, "cannot change roleRef").into()
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("name").is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    match text("kind") {
        "ServiceAccount" => {
            if !text("apiGroup").is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), text("apiGroup"), &[""]));
            }
            if !namespaced && text("namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if text("apiGroup") != GROUP {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), text("apiGroup"), &[GROUP]));
            }
        }
        kind => errors.push(FieldError::not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"])),
    }
}
