//! Checks of horizontal pod autoscalers, in the form of their second version.

use super::node::Node;
use super::resources::{amount_of, container_resource_name};
use super::workloads::counts;
use super::{Kind, required};
use crate::field::{ErrorList, FieldError};
use crate::{Object, names};

const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

pub(super) const KINDS: &[Kind] = &[Kind::new("autoscaling", "HorizontalPodAutoscaler", |_, _| {})
    .whole(autoscaler, |_, _| {})
    .status(|new, _, errors| counts(&new.child("status"), &["currentReplicas", "desiredReplicas"], errors))];

/// The members of a metric that may hold its source, and the type that each goes with.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

/// What the API version of a reference must be.
#[derive(Clone, Copy, PartialEq)]
enum ApiVersion {
    Any,
    /// Of the core group, or with a group.
    Sound,
    WithGroup,
}

/// An autoscaler, new or changed. A reference that was no better before may stay.
fn autoscaler(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let hpa = Node::root(new);
    let (spec, before) = (hpa.child("spec"), old.map(|old| Node::root(old).child("spec")));
    let (min, max) = (spec.child("minReplicas"), spec.child("maxReplicas"));
    if min.integer().is_some_and(|n| n < 1) {
        errors.push(FieldError::invalid(&min.path, min.value.clone(), "must be greater than or equal to 1"));
    }
    let most = max.integer().unwrap_or_default();
    if most < 1 {
        errors.push(FieldError::invalid(&max.path, most, "must be greater than 0"));
    }
    if min.integer().is_some_and(|least| most < least) {
        errors.push(FieldError::invalid(&max.path, most, "must be greater than or equal to `minReplicas`"));
    }
    let target = spec.child("scaleTargetRef");
    let same = before.as_ref().is_some_and(|before| {
        let before = before.child("scaleTargetRef");
        ["apiVersion", "kind"].iter().all(|member| before.child(member).text() == target.child(member).text())
    });
    let wanted = match target.child("kind").text() {
        _ if same => ApiVersion::Any,
        "ReplicationController" => ApiVersion::Sound,
        _ => ApiVersion::WithGroup,
    };
    reference(&target, wanted, errors);
    let unsound = |metric: &Node<'_>| {
        let described = metric.at(&["object", "describedObject", "apiVersion"]);
        metric.child("type").text() == "Object"
            && metric.child("object").is_set()
            && api_version(described.text(), ApiVersion::Sound).is_some()
    };
    let described = if before.is_some_and(|before| before.child("metrics").items().any(|metric| unsound(&metric))) {
        ApiVersion::Any
    } else {
        ApiVersion::Sound
    };
    spec.child("metrics").items().for_each(|metric| self::metric(&metric, described, errors));
    if min.integer() == Some(0) {
        let metrics = spec.child("metrics");
        if !metrics.items().any(|metric| matches!(metric.child("type").text(), "Object" | "External")) {
            let message = "must specify at least one Object or External metric to support scaling to zero replicas";
            errors.push(FieldError::forbidden(&metrics.path, message));
        }
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.at(&["behavior", direction]);
        if rules.is_set() {
            scaling_rules(&rules, errors);
        }
    }
}

fn reference(target: &Node<'_>, wanted: ApiVersion, errors: &mut ErrorList) {
    for member in ["kind", "name"] {
        let node = target.child(member);
        if required(&node, errors) {
            errors.invalid_each(&node.path, node.text(), names::path_segment(node.text()));
        }
    }
    let version = target.child("apiVersion");
    if let Some(message) = api_version(version.text(), wanted) {
        errors.push(FieldError::invalid(&version.path, version.text(), message));
    }
}

fn api_version(text: &str, wanted: ApiVersion) -> Option<String> {
    let slashes = text.matches('/').count();
    match wanted {
        ApiVersion::Any => None,
        _ if slashes > 1 => Some(format!("unexpected GroupVersion string: {text}")),
        ApiVersion::WithGroup if slashes == 0 || text.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

/// A word that is one of a few.
fn one_of(node: &Node<'_>, words: &[&str], errors: &mut ErrorList) {
    if !words.contains(&node.text()) {
        errors.push(FieldError::not_supported(&node.path, node.text(), words));
    }
}

fn scaling_rules(rules: &Node<'_>, errors: &mut ErrorList) {
    let window = rules.child("stabilizationWindowSeconds");
    match window.integer() {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(&window.path, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_MAX => {
            let message = format!("must be less than or equal to {WINDOW_MAX}");
            errors.push(FieldError::invalid(&window.path, seconds, message));
        }
        _ => {}
    }
    let choice = rules.child("selectPolicy");
    if choice.is_set() {
        one_of(&choice, &["Disabled", "Max", "Min"], errors);
    }
    amount_of(&rules.child("tolerance"), errors);
    let policies = rules.child("policies");
    if policies.is_empty() {
        errors.push(FieldError::required(&policies.path, "must specify at least one Policy"));
    }
    for policy in policies.items() {
        one_of(&policy.child("type"), &["Percent", "Pods"], errors);
        for member in ["value", "periodSeconds"] {
            let node = policy.child(member);
            let number = node.integer().unwrap_or_default();
            if number <= 0 {
                errors.push(FieldError::invalid(&node.path, number, "must be greater than zero"));
            }
            if member == "periodSeconds" && number > PERIOD_MAX {
                let message = format!("must be less than or equal to {PERIOD_MAX}");
                errors.push(FieldError::invalid(&node.path, number, message));
            }
        }
    }
}

fn metric(metric: &Node<'_>, described: ApiVersion, errors: &mut ErrorList) {
    let kind = metric.child("type");
    if kind.is_empty() {
        errors.push(FieldError::required(&kind.path, "must specify a metric source type"));
    }
    one_of(&kind, &["ContainerResource", "External", "Object", "Pods", "Resource"], errors);
    let present: Vec<&str> =
        SOURCES.iter().map(|(member, _)| *member).filter(|member| metric.child(member).is_set()).collect();
    if let Some(first) = present.first() {
        source(first, &metric.child(first), described, errors);
    }
    let expected = SOURCES.iter().find(|(_, of)| *of == kind.text()).map(|(member, _)| *member);
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        let message = "must populate information for the given metric source";
        errors.push(FieldError::required(&metric.path.child(expected), message));
    }
    if present.len() != 1 {
        for other in present.into_iter().filter(|member| Some(*member) != expected) {
            let message = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&metric.path.child(other), message));
        }
    }
}

fn source(kind: &str, source: &Node<'_>, described: ApiVersion, errors: &mut ErrorList) {
    let (name, container) = (source.child("name"), source.child("container"));
    match kind {
        "object" => reference(&source.child("describedObject"), described, errors),
        "resource" | "containerResource" if name.is_empty() => {
            errors.push(FieldError::required(&name.path, "must specify a resource name"));
        }
        "containerResource" => container_resource_name(name.text(), &name, errors),
        _ => {}
    }
    if kind == "containerResource" && container.is_empty() {
        errors.push(FieldError::required(&container.path, "must specify a container"));
    } else if kind == "containerResource" {
        errors.invalid_each(&container.path, container.text(), names::dns1123_label(container.text()));
    }
    if matches!(kind, "object" | "external" | "pods") {
        let name = source.at(&["metric", "name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&name.path, "must specify a metric name"));
        } else {
            errors.invalid_each(&name.path, name.text(), names::path_segment(name.text()));
        }
    }
    let target = source.child("target");
    self::target(&target, errors);
    let (value, average, share) =
        (target.child("value"), target.child("averageValue"), target.child("averageUtilization"));
    match kind {
        "object" if !value.is_set() && !average.is_set() => {
            errors.push(FieldError::required(&average.path, "must set either a target value or averageValue"));
        }
        "external" if !value.is_set() && !average.is_set() => {
            let message = "must set either a target value for metric or a per-pod target";
            errors.push(FieldError::required(&average.path, message));
        }
        "external" if value.is_set() && average.is_set() => {
            let message = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(&value.path, message));
        }
        "pods" if !average.is_set() => {
            errors.push(FieldError::required(&average.path, "must specify a positive target averageValue"));
        }
        "resource" | "containerResource" if !share.is_set() && !average.is_set() => {
            let message = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&share.path, message));
        }
        "resource" | "containerResource" if share.is_set() && average.is_set() => {
            let message = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&average.path, message));
        }
        _ => {}
    }
}

fn target(target: &Node<'_>, errors: &mut ErrorList) {
    let kind = target.child("type");
    if kind.is_empty() {
        errors.push(FieldError::required(&kind.path, "must specify a metric target type"));
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&kind.path, kind.text(), message));
    }
    for member in ["value", "averageValue"] {
        let node = target.child(member);
        if let Some(quantity) = node.quantity()
            && quantity.sign() <= 0
        {
            errors.push(FieldError::invalid(&node.path, quantity.to_string(), "must be positive"));
        }
    }
    let share = target.child("averageUtilization");
    if let Some(number) = share.integer().filter(|number| *number < 1) {
        errors.push(FieldError::invalid(&share.path, number, "must be greater than 0"));
    }
}
