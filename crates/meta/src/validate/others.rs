//! Checks of rbac, coordination, scheduling and node.

use serde_json::{Value, json};

use super::node::Node;
use super::{Kind, immutable, label_selector, required};
use crate::field::{ErrorList, FieldError};
use crate::labels::LabelSelector;
use crate::names;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) const KINDS: &[Kind] = &[
    Kind::new(RBAC, "Role", |role, errors| rules(role, true, errors)).named(names::path_segment),
    Kind::new(RBAC, "ClusterRole", cluster_role).named(names::path_segment),
    Kind::new(RBAC, "RoleBinding", |b, errors| binding(b, &["Role", "ClusterRole"], true, errors))
        .named(names::path_segment)
        .change(role_stays),
    Kind::new(RBAC, "ClusterRoleBinding", |b, errors| binding(b, &["ClusterRole"], false, errors))
        .named(names::path_segment)
        .change(role_stays),
    Kind::new("coordination.k8s.io", "Lease", lease),
    Kind::new("scheduling.k8s.io", "PriorityClass", |_, _| {}).created(priority_class).change(|new, old, errors| {
        let (value, policy) = (new.child("value"), new.child("preemptionPolicy"));
        if value.value != old.child("value").value {
            errors.push(FieldError::forbidden(&value.path, "may not be changed in an update."));
        }
        immutable(&policy, &old.child("preemptionPolicy"), errors);
    }),
    Kind::new("node.k8s.io", "RuntimeClass", |_, _| {})
        .created(runtime_class)
        .change(|new, old, errors| immutable(&new.child("handler"), &old.child("handler"), errors)),
];

fn rules(role: &Node<'_>, namespaced: bool, errors: &mut ErrorList) {
    for rule in role.child("rules").items() {
        let verbs = rule.child("verbs");
        if verbs.is_empty() {
            errors.push(FieldError::required(&verbs.path, "verbs must contain at least one value"));
        }
        let urls = rule.child("nonResourceURLs");
        let (groups, resources) = (rule.child("apiGroups"), rule.child("resources"));
        if !urls.is_empty() {
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&urls.path, urls.value.clone(), message));
            }
            if !groups.is_empty() || !resources.is_empty() || !rule.child("resourceNames").is_empty() {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&urls.path, urls.value.clone(), message));
            }
            continue;
        }
        if groups.is_empty() {
            let message = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&groups.path, message));
        }
        if resources.is_empty() {
            let message = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&resources.path, message));
        }
    }
}

fn cluster_role(role: &Node<'_>, errors: &mut ErrorList) {
    rules(role, false, errors);
    let aggregation = role.child("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.child("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.push(FieldError::required(
                &selectors.path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for selector in selectors.items() {
            label_selector(&selector, errors);
            if LabelSelector::from_value(Some(selector.value)).is_err() {
                errors.push(FieldError::invalid(&selector.path, Value::Null, "invalid label selector."));
            }
        }
    }
}

fn binding(binding: &Node<'_>, kinds: &[&str], namespaced: bool, errors: &mut ErrorList) {
    let reference = binding.child("roleRef");
    let (group, kind) = (reference.child("apiGroup"), reference.child("kind"));
    if group.text() != RBAC {
        errors.push(FieldError::not_supported(&group.path, group.text(), &[RBAC]));
    }
    if !kinds.contains(&kind.text()) {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), kinds));
    }
    let name = reference.child("name");
    if required(&name, errors) {
        errors.invalid_each(&name.path, name.text(), names::path_segment(name.text()));
    }
    for subject in binding.child("subjects").items() {
        let name = subject.child("name");
        required(&name, errors);
        let (kind, group) = (subject.child("kind"), subject.child("apiGroup"));
        let wanted = match kind.text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
                }
                ""
            }
            "User" | "Group" => RBAC,
            other => {
                errors.push(FieldError::not_supported(&kind.path, other, &["ServiceAccount", "User", "Group"]));
                continue;
            }
        };
        if group.text() != wanted {
            errors.push(FieldError::not_supported(&group.path, group.text(), &[wanted]));
        }
        // In a namespace an account without one is that namespace's.
        if kind.text() == "ServiceAccount" && !namespaced {
            required(&subject.child("namespace"), errors);
        }
    }
}

fn role_stays(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (reference, before) = (new.child("roleRef"), old.child("roleRef"));
    if reference.value != before.value {
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|member| reference.child(member).text());
        // As upstream's own form of it has it.
        let shown = json!({ "APIGroup": group, "Kind": kind, "Name": name });
        errors.push(FieldError::invalid(&reference.path, shown, "cannot change roleRef"));
    }
}

fn lease(lease: &Node<'_>, errors: &mut ErrorList) {
    let spec = lease.child("spec");
    let duration = spec.child("leaseDurationSeconds");
    if duration.integer().is_some_and(|seconds| seconds <= 0) {
        errors.push(FieldError::invalid(&duration.path, duration.value.clone(), "must be greater than 0"));
    }
    super::non_negative(&spec.child("leaseTransitions"), errors);
}

fn priority_class(class: &Node<'_>, errors: &mut ErrorList) {
    const HIGHEST: i64 = 1_000_000_000;
    let (name, value) = (class.at(&["metadata", "name"]), class.child("value"));
    if name.text().starts_with("system-") {
        if let Some(why) = no_system_class(class, name.text()) {
            let message =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
            errors.push(FieldError::forbidden(&name.path, message));
        }
    } else if value.integer().is_some_and(|v| v > HIGHEST) {
        let message = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.push(FieldError::forbidden(&value.path, message));
    }
}

/// Why a class is none of the two that the system has.
fn no_system_class(class: &Node<'_>, name: &str) -> Option<String> {
    const CLASSES: [(&str, i64); 2] =
        [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    let Some((_, value)) = CLASSES.iter().find(|(own, _)| *own == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.child("value").integer().unwrap_or_default() != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    class.child("globalDefault").is_true().then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

fn runtime_class(class: &Node<'_>, errors: &mut ErrorList) {
    let (handler, overhead) = (class.child("handler"), class.child("overhead"));
    errors.invalid_each(&handler.path, handler.text(), names::dns1123_label(handler.text()));
    // Upstream checks the overhead as limits of a container, and says so.
    super::resources::overhead(&overhead.child("podFixed"), overhead.path.clone(), errors);
    let scheduling = class.child("scheduling");
    super::labels(&scheduling.child("nodeSelector"), errors);
    let tolerations = scheduling.child("tolerations");
    super::scheduling::tolerations(&tolerations, errors);
    let mut seen = Vec::new();
    for toleration in tolerations.items() {
        let key = ["key", "operator", "value", "effect"].map(|member| toleration.child(member).text());
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&toleration.path, toleration.value.clone()));
        }
        seen.push(key);
    }
}
