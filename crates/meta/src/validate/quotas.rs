//! Checks of resource quotas and limit ranges.

use std::collections::BTreeSet;

use super::node::Node;
use super::resources::{container_resource_name, is_quota, may_overcommit, quota, resource_name};
use super::{IMMUTABLE, Kind, NO_OPERATOR};
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "ResourceQuota", resource_quota)
        .change(|new, old, errors| {
            let (now, before) = (new.at(&["spec", "scopes"]), old.at(&["spec", "scopes"]));
            let set = |list: &Node<'_>| list.items().map(|scope| scope.text().to_owned()).collect::<BTreeSet<_>>();
            if set(&now) != set(&before) {
                errors.push(FieldError::invalid(&now.path, now.value.clone(), IMMUTABLE));
            }
        })
        .status(|new, _, errors| {
            for list in ["hard", "used"] {
                let amounts = new.at(&["status", list]);
                amounts.entries().for_each(|(name, amount)| quota(name, &amount, errors));
            }
        }),
    Kind::new("", "LimitRange", |range, errors| {
        let mut seen = BTreeSet::new();
        for limit in range.at(&["spec", "limits"]).items() {
            let kind = limit.child("type");
            self::kind(&kind, errors);
            if !seen.insert(kind.text()) {
                errors.push(FieldError::duplicate(&kind.path, kind.text()));
            }
            limits(&limit, errors);
        }
    }),
];

/// A scope, and whether it can be applied to a resource.
type ScopeRow = (&'static str, fn(&str) -> bool);

const SCOPES: [ScopeRow; 7] = [
    ("Terminating", of_pods),
    ("NotTerminating", of_pods),
    ("BestEffort", |name| name == "pods"),
    ("NotBestEffort", of_pods),
    ("PriorityClass", of_pods),
    ("CrossNamespacePodAffinity", of_pods),
    ("VolumeAttributesClass", |name| matches!(name, "persistentvolumeclaims" | "requests.storage")),
];

fn of_pods(name: &str) -> bool {
    const COMPUTED: [&str; 7] =
        ["pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    COMPUTED.contains(&name)
}

fn resource_quota(object: &Node<'_>, errors: &mut ErrorList) {
    let spec = object.child("spec");
    let hard = spec.child("hard");
    hard.entries().for_each(|(name, amount)| quota(name, &amount, errors));
    let scopes = spec.child("scopes");
    let mut seen = BTreeSet::new();
    for scope in scopes.items() {
        applicable(scope.text(), &hard, &scopes, &scopes, errors);
        seen.insert(scope.text());
    }
    conflicts(&seen, &scopes, errors);
    let selector = spec.child("scopeSelector");
    let expressions = selector.child("matchExpressions");
    let mut seen = BTreeSet::new();
    for expression in expressions.items() {
        let name = expression.child("scopeName");
        let named = name.clone().renamed(&expressions.path.child("scopeName"));
        applicable(name.text(), &hard, &named, &selector.clone().renamed(&expressions.path), errors);
        seen.insert(name.text());
        requirement(&expression, &expressions, errors);
    }
    conflicts(&seen, &selector.renamed(&expressions.path), errors);
}

/// Whether a scope is one, and can be applied to all that is limited.
fn applicable(scope: &str, hard: &Node<'_>, named: &Node<'_>, whole: &Node<'_>, errors: &mut ErrorList) {
    let Some((_, applies)) = SCOPES.iter().find(|(name, _)| *name == scope) else {
        errors.push(FieldError::invalid(&named.path, named.value.clone(), "unsupported scope"));
        return;
    };
    for _ in hard.entries().filter(|(name, _)| is_quota(name) && !applies(name)) {
        errors.push(FieldError::invalid(&whole.path, whole.value.clone(), "unsupported scope applied to resource"));
    }
}

fn conflicts(seen: &BTreeSet<&str>, whole: &Node<'_>, errors: &mut ErrorList) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| seen.contains(scope)) {
            errors.push(FieldError::invalid(&whole.path, whole.value.clone(), "conflicting scopes"));
        }
    }
}

fn requirement(expression: &Node<'_>, list: &Node<'_>, errors: &mut ErrorList) {
    let (operator, values) = (expression.child("operator").text(), expression.child("values"));
    let scope = expression.child("scopeName").text();
    let known = SCOPES.iter().any(|(name, _)| *name == scope);
    if known && !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
        let message = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(&list.path.child("operator"), operator, message));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&list.path.child("values"), message));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&list.path.child("values"), values.value.clone(), message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(&list.path.child("operator"), other, NO_OPERATOR)),
    }
}

fn kind(node: &Node<'_>, errors: &mut ErrorList) {
    let messages = names::qualified_name(node.text());
    let standard = matches!(node.text(), "Pod" | "Container" | "PersistentVolumeClaim");
    if !messages.is_empty() {
        errors.invalid_each(&node.path, node.text(), messages);
    } else if !node.text().contains('/') && !standard {
        let message = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

fn limits(limit: &Node<'_>, errors: &mut ErrorList) {
    const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let kind = limit.child("type").text();
    let check_name = if matches!(kind, "Pod" | "Container") { container_resource_name } else { resource_name };
    let mut keys = BTreeSet::new();
    for list in LISTS {
        let amounts = limit.child(list);
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if !amounts.is_empty() {
                errors.push(FieldError::forbidden(&amounts.path, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, amount) in amounts.entries() {
            check_name(name, &amount, errors);
            keys.insert(name);
        }
    }
    if kind == "PersistentVolumeClaim" && ["min", "max"].iter().all(|l| !limit.child(l).child("storage").is_set()) {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&limit.path.child("limits"), message));
    }
    keys.into_iter().for_each(|key| bounds(limit, key, errors));
}

/// What the amounts of one resource must be to each other.
fn bounds(limit: &Node<'_>, key: &str, errors: &mut ErrorList) {
    /// The smaller amount, the larger one, which of them is reported, at which list, and the words.
    type Order = (&'static str, &'static str, &'static str, &'static str, [&'static str; 2]);
    const ORDERS: [Order; 6] = [
        ("min", "max", "min", "min", ["min", "max"]),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", ["min", "default request"]),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", ["default request", "max"]),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", ["default request", "default limit"]),
        ("min", "default", "min", "default", ["min", "default"]),
        ("default", "max", "max", "default", ["default", "max"]),
    ];
    let amount = |list: &str| limit.child(list).child(key).quantity();
    let path = |list: &str| limit.path.child(list).key(key);
    for (low, high, shown, at, [low_name, high_name]) in ORDERS {
        if let (Some(small), Some(large)) = (amount(low), amount(high))
            && small > large
        {
            let message = format!("{low_name} value {small} is greater than {high_name} value {large}");
            let value = if shown == low { small } else { large };
            errors.push(FieldError::invalid(&path(at), value.to_string(), message));
        }
    }
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        if ratio.milli_value() < 1000 {
            let message = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(&path("maxLimitRequestRatio"), ratio.to_string(), message));
        }
        if let (Some(min), Some(max)) = (amount("min"), amount("max")) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                let message = format!("ratio {ratio} is greater than max/min = {most:.6}");
                errors.push(FieldError::invalid(&path("maxLimitRequestRatio"), ratio.to_string(), message));
            }
        }
    }
    if let (Some(default), Some(request)) = (amount("default"), amount("defaultRequest"))
        && !may_overcommit(key)
        && default != request
    {
        let message = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        errors.push(FieldError::invalid(&path("defaultRequest"), request.to_string(), message));
    }
}
