//! Checks of where a pod may run: tolerations, affinity, spreading, and what selects nodes.

use std::collections::BTreeSet;

use super::node::Node;
use super::{NO_OPERATOR, NameCheck, label_selector};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// A key of labels.
fn label_name(node: &Node<'_>, errors: &mut ErrorList) {
    errors.invalid_each(&node.path, node.text(), names::qualified_name(node.text()));
}

pub(super) fn tolerations(list: &Node<'_>, errors: &mut ErrorList) {
    for toleration in list.items() {
        let (key, operator) = (toleration.child("key"), toleration.child("operator"));
        let (value, effect) = (toleration.child("value"), toleration.child("effect"));
        if !key.is_empty() {
            label_name(&key, errors);
        } else if operator.text() != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator.path, operator.text(), message));
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&effect.path, effect.text(), message));
        }
        let messages = names::label_value(value.text());
        if operator.text() == "Exists" {
            if !value.is_empty() {
                let message = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&operator.path, value.text(), message));
            }
        } else if !messages.is_empty() {
            errors.push(FieldError::invalid(&operator.path, value.text(), messages.join(";")));
        }
    }
}

pub(super) fn spread(list: &Node<'_>, errors: &mut ErrorList) {
    let constraints: Vec<Node<'_>> = list.items().collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let skew = constraint.child("maxSkew");
        if skew.integer().unwrap_or_default() <= 0 {
            errors.push(FieldError::invalid(&skew.path, skew.value.clone(), "must be greater than zero"));
        }
        let key = constraint.child("topologyKey");
        let action = constraint.child("whenUnsatisfiable");
        if key.is_empty() {
            errors.push(FieldError::required(&key.path, "can not be empty"));
        }
        if action.is_empty() {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(&action.path, action.text(), &supported));
        }
        let same = |later: &Node<'_>| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|m| later.child(m).text() == constraint.child(m).text())
        };
        if constraints.iter().skip(index + 1).any(same) {
            let shown = format!("{{{}, {}}}", key.text(), action.text());
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, shown));
        }
        domains(&constraint.child("minDomains"), action.text(), errors);
        let (keys, selector) = (constraint.child("matchLabelKeys"), constraint.child("labelSelector"));
        if !keys.is_empty() && !selector.is_set() {
            let message = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(&keys.path, message));
        }
        for key in keys.items() {
            label_name(&key, errors);
        }
        label_selector(&selector, errors);
    }
}

fn domains(least: &Node<'_>, action: &str, errors: &mut ErrorList) {
    let Some(number) = least.integer() else { return };
    if number <= 0 {
        errors.push(FieldError::invalid(&least.path, number, "must be greater than zero"));
    }
    if action != "DoNotSchedule" {
        let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.push(FieldError::invalid(&least.path, number, message));
    }
}

pub(super) fn affinity(affinity: &Node<'_>, errors: &mut ErrorList) {
    let node = affinity.child("nodeAffinity");
    node_selector(&node.child("requiredDuringSchedulingIgnoredDuringExecution"), errors);
    for preferred in node.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred, errors);
        // What cannot be met does no harm here.
        node_term(&preferred.child("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.child(kind);
        kind.child("requiredDuringSchedulingIgnoredDuringExecution").items().for_each(|t| pod_term(&t, errors));
        for preferred in kind.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&preferred, errors);
            pod_term(&preferred.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(preferred: &Node<'_>, errors: &mut ErrorList) {
    let weight = preferred.child("weight");
    if !(1..=100).contains(&weight.integer().unwrap_or_default()) {
        errors.push(FieldError::invalid(&weight.path, weight.value.clone(), "must be in the range 1-100"));
    }
}

/// Terms of which one must hold for a node; nothing to say of an absent selector.
pub(super) fn node_selector(selector: &Node<'_>, errors: &mut ErrorList) {
    if !selector.is_set() {
        return;
    }
    let terms = selector.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&terms.path, "must have at least one node selector term"));
    }
    terms.items().for_each(|term| node_term(&term, true, errors));
}

/// Requirements of a node's labels and fields. `values`: whether values that no label can have are refused.
fn node_term(term: &Node<'_>, values: bool, errors: &mut ErrorList) {
    for requirement in term.child("matchExpressions").items() {
        let (operator, list) = (requirement.child("operator"), requirement.child("values"));
        let count = list.items().count();
        match operator.text() {
            "In" | "NotIn" if count == 0 => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&list.path, message));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&list.path, message));
            }
            "Gt" | "Lt" if count != 1 => {
                let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&list.path, message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(&operator.path, other, NO_OPERATOR)),
        }
        label_name(&requirement.child("key"), errors);
        for value in list.items().filter(|_| values) {
            errors.invalid_each(&value.path, value.text(), names::label_value(value.text()));
        }
    }
    for requirement in term.child("matchFields").items() {
        field_requirement(&requirement, errors);
    }
}

/// A requirement of a node's own fields: its name is the only one.
fn field_requirement(requirement: &Node<'_>, errors: &mut ErrorList) {
    let (key, operator) = (requirement.child("key"), requirement.child("operator"));
    let values = requirement.child("values");
    match operator.text() {
        "In" | "NotIn" if values.items().count() != 1 => {
            let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(&values.path, message));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(&operator.path, other, NO_OPERATOR)),
    }
    if key.text() == "metadata.name" {
        for value in values.items() {
            errors.invalid_each(&value.path, value.text(), names::dns1123_subdomain(value.text()));
        }
    } else {
        errors.push(FieldError::invalid(&key.path, key.text(), "not a valid field selector key"));
    }
}

fn pod_term(term: &Node<'_>, errors: &mut ErrorList) {
    let selector = term.child("labelSelector");
    label_selector(&selector, errors);
    label_selector(&term.child("namespaceSelector"), errors);
    let namespace: NameCheck = names::dns1123_label;
    for name in term.child("namespaces").items() {
        errors.invalid_each(&term.path.child("namespace"), name.text(), namespace(name.text()));
    }
    label_keys(term, &selector, errors);
    let key = term.child("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&key.path, "can not be empty"));
    }
    label_name(&key, errors);
}

/// Labels by which pods must be, or not be, like the one that says so.
fn label_keys(term: &Node<'_>, selector: &Node<'_>, errors: &mut ErrorList) {
    let (alike, unlike) = (term.child("matchLabelKeys"), term.child("mismatchLabelKeys"));
    for keys in [&alike, &unlike] {
        if keys.is_empty() {
            continue;
        }
        if selector.is_set() {
            keys.items().for_each(|key| label_name(&key, errors));
        } else {
            let message = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(&keys.path, message));
        }
    }
    // The selector has one requirement of each of these keys, made of them; a further one is the user's own.
    let mut seen: BTreeSet<&str> = selector.child("matchLabels").entries().map(|(key, _)| key.as_str()).collect();
    for expression in selector.child("matchExpressions").items() {
        let key = expression.child("key").text();
        let index = alike.items().position(|own| own.text() == key);
        if let Some(index) = index.filter(|_| seen.contains(key)) {
            let message = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&term.path.index(index), key, message));
        }
        seen.insert(key);
    }
    for key in alike.items().filter(|key| unlike.items().any(|other| other.text() == key.text())) {
        let message = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&key.path, key.text(), message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(spec: Value) -> Vec<String> {
        let mut all = json!({"containers": [{"name": "c", "image": "i"}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created("", "Pod", json!({"spec": all}))
    }

    #[test]
    fn where_a_pod_may_run() {
        let nodes = |term: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}})
        };
        let pods = |term: Value| {
            let mut all = json!({"topologyKey": "zone"});
            all.as_object_mut().unwrap().extend(term.as_object().unwrap().clone());
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [all]}}})
        };
        let spread = |more: Value| {
            let mut all = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"topologySpreadConstraints": [all]})
        };
        const NODES: &str =
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        const PODS: &str = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
        for (spec, wanted) in [
            (nodes(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})), None),
            (
                nodes(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]})),
                Some(format!(
                    "{NODES}.matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
                )),
            ),
            (
                nodes(json!({"matchFields": [{"key": "spec.x", "operator": "NotIn", "values": ["a"]}]})),
                Some(format!("{NODES}.matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key")),
            ),
            (
                pods(json!({"matchLabelKeys": ["a"]})),
                Some(format!("{PODS}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")),
            ),
            (
                pods(json!({"matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"], "labelSelector": {}})),
                Some(format!(
                    "{PODS}.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys"
                )),
            ),
            (
                spread(json!({"minDomains": 2})),
                Some(
                    "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"
                        .into(),
                ),
            ),
            (
                spread(json!({"matchLabelKeys": ["a"]})),
                Some(
                    "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"
                        .into(),
                ),
            ),
        ] {
            assert_eq!(refused(spec.clone()), Vec::from_iter(wanted), "{spec}");
        }
        let values = refused(nodes(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]})));
        assert!(
            values[0].starts_with(&format!("{NODES}.matchExpressions[0].values[0]: Invalid value: \"b c\"")),
            "{values:?}"
        );
    }
}
