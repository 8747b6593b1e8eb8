//! Checks of annotations that mean something for a pod: profiles by their old names, mirrors, the cost of its deletion.

use super::containers::local_path;
use super::node::Node;
use crate::field::{ErrorList, FieldError};
use crate::pod_annotations::{APP_ARMOR, MIRROR, SECCOMP_CONTAINER, SECCOMP_POD};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What each says by itself.
pub(super) fn own(annotations: &Node<'_>, spec: &Node<'_>, errors: &mut ErrorList) {
    for (key, annotation) in annotations.entries() {
        let text = annotation.text();
        let invalid = |value: &str, message: String| FieldError::invalid(&annotation.path, value, message);
        if key == MIRROR && spec.child("nodeName").is_empty() {
            errors.push(invalid(text, "must set spec.nodeName if mirror pod annotation is set".into()));
        } else if key == DELETION_COST && !is_cost(text) {
            errors.push(invalid(text, "must be a 32bit integer".into()));
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            let shown = annotation.clone().renamed(&annotations.path.child(key));
            match text.strip_prefix("localhost/") {
                Some(profile) => local_path(&Node::new(&profile.into(), shown.path), errors),
                None if matches!(text, "runtime/default" | "docker/default" | "unconfined") => {}
                None => errors.push(FieldError::invalid(&shown.path, text, "must be a valid seccomp profile")),
            }
        } else if let Some(container) = key.strip_prefix(APP_ARMOR) {
            if !spec.containers().any(|one| one.child("name").text() == container) {
                errors.push(invalid(container, "container not found".into()));
            }
            if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
                errors.push(invalid(text, format!("invalid AppArmor profile name: {text:?}")));
            }
        }
    }
}

/// A decimal number without leading zeros or a plus.
fn is_cost(text: &str) -> bool {
    text.parse::<i32>().is_ok_and(|cost| cost.to_string() == text)
}

/// Profiles that are given in both ways must be the same.
pub(super) fn fit(annotations: &Node<'_>, spec: &Node<'_>, errors: &mut ErrorList) {
    let named = |key: &str| annotations.members().and_then(|members| members.get(key)?.as_str());
    let context = spec.child("securityContext");
    let check = |key: &str, profile: &Node<'_>, what: &str, errors: &mut ErrorList| {
        if let Some(annotation) = named(key) {
            same(annotation, profile, what, errors);
        }
    };
    check(SECCOMP_POD, &context.child("seccompProfile"), "seccomp", errors);
    for container in spec.containers() {
        let (name, own) = (container.child("name"), container.child("securityContext"));
        check(&format!("{SECCOMP_CONTAINER}{}", name.text()), &own.child("seccompProfile"), "seccomp", errors);
        let (profile, whole) = (own.child("appArmorProfile"), context.child("appArmorProfile"));
        let profile = if profile.is_set() { profile } else { whole.renamed(&profile.path) };
        if spec.at(&["os", "name"]).text() != "windows" {
            check(&format!("{APP_ARMOR}{}", name.text()), &profile, "apparmor", errors);
        }
    }
}

fn same(annotation: &str, profile: &Node<'_>, what: &str, errors: &mut ErrorList) {
    let (kind, path) = (profile.child("type"), profile.child("localhostProfile"));
    let local = annotation.strip_prefix("localhost/");
    let kind_fits = match kind.text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !kind_fits {
        errors.push(FieldError::forbidden(&kind.path, format!("{what} type in annotation and field must match")));
    } else if kind.text() == "Localhost" && local != path.value.as_str() {
        errors.push(FieldError::forbidden(&path.path, format!("{what} profile in annotation and field must match")));
    }
}

/// What may not come, go or change.
pub(super) fn change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let fixed = |key: &str| {
        if key == MIRROR {
            Some("mirror pod annotation")
        } else {
            key.starts_with(APP_ARMOR).then_some("AppArmor annotations")
        }
    };
    for (key, annotation) in old.entries() {
        let kept = new.members().and_then(|members| members.get(key)) == Some(annotation.value);
        if let Some(what) = fixed(key).filter(|_| !kept) {
            errors.push(FieldError::forbidden(&new.path.key(key), format!("may not remove or update {what}")));
        }
    }
    for (key, annotation) in new.entries() {
        let known = old.members().is_some_and(|members| members.contains_key(key));
        if let Some(what) = fixed(key).filter(|_| !known) {
            errors.push(FieldError::forbidden(&annotation.path, format!("may not add {what}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::{created, updated};

    fn pod(annotations: Value, context: Value) -> Value {
        let container = json!({"name": "c", "image": "i", "securityContext": context});
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [container]}})
    }

    #[test]
    fn annotations_of_pods() {
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a"}});
        let (seccomp, armor) = (format!("{}c", super::SECCOMP_CONTAINER), format!("{}c", super::APP_ARMOR));
        assert_eq!(created("", "Pod", pod(json!({&seccomp: "localhost/a", &armor: ""}), local.clone())), [""; 0]);
        for (annotations, context, wanted) in [
            (
                json!({"kubernetes.io/config.mirror": "m"}),
                json!({}),
                "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"m\": must set spec.nodeName if mirror pod annotation is set".to_owned(),
            ),
            (
                json!({super::DELETION_COST: "+1"}),
                json!({}),
                format!("metadata.annotations[{}]: Invalid value: \"+1\": must be a 32bit integer", super::DELETION_COST),
            ),
            (
                json!({&seccomp: "x"}),
                json!({}),
                format!("metadata.annotations.{seccomp}: Invalid value: \"x\": must be a valid seccomp profile"),
            ),
            (
                json!({&seccomp: "localhost/b"}),
                local,
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match".to_owned(),
            ),
            (
                json!({&armor: "x"}),
                json!({}),
                format!("metadata.annotations[{armor}]: Invalid value: \"x\": invalid AppArmor profile name: \"x\""),
            ),
            (
                json!({&armor: "unconfined"}),
                json!({"appArmorProfile": {"type": "RuntimeDefault"}}),
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match".to_owned(),
            ),
        ] {
            assert_eq!(created("", "Pod", pod(annotations.clone(), context)), [wanted], "{annotations}");
        }
        let errors = updated("", "Pod", pod(json!({}), json!({})), pod(json!({&armor: ""}), json!({})));
        assert_eq!(errors, [format!("metadata.annotations[{armor}]: Forbidden: may not add AppArmor annotations")]);
    }
}
