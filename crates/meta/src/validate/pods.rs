//! Checks of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{Role, Surroundings, container, range, security};
use super::node::Node;
use super::pod_status::pod_status;
use super::resources::resources;
use super::volumes::volumes;
use super::{Kind, label_selector, labels, meta, non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "Pod", pod).change(pod_change).status(pod_status),
    Kind::new("", "PodTemplate", |template, errors| pod_template(&template.child("template"), errors)),
];

fn pod(pod: &Node<'_>, errors: &mut ErrorList) {
    let spec = pod.child("spec");
    pod_spec(&spec, errors);
    // A pod that is there gets ephemeral containers through their own door.
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() && pod.at(&["metadata", "resourceVersion"]).is_empty() {
        errors.push(FieldError::forbidden(&ephemeral.path, "cannot be set on create"));
    }
    let pod_resources = spec.child("resources");
    resources(&pod_resources, errors);
}

/// A template's labels and specification.
pub(super) fn pod_template(template: &Node<'_>, errors: &mut ErrorList) {
    labels(&template.at(&["metadata", "labels"]).renamed(&template.path.child("labels")), errors);
    meta::annotations(&template.at(&["metadata", "annotations"]).renamed(&template.path.child("annotations")), errors);
    let spec = template.child("spec");
    pod_spec(&spec, errors);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(FieldError::forbidden(&ephemeral.path, "ephemeral containers not allowed in pod template"));
    }
}

pub(super) fn pod_spec(spec: &Node<'_>, errors: &mut ErrorList) {
    let mut around = Surroundings {
        volumes: volumes(&spec.child("volumes"), errors),
        host_network: spec.child("hostNetwork").is_true(),
        names: BTreeSet::new(),
        host_ports: BTreeSet::new(),
    };
    let main = spec.child("containers");
    if main.is_empty() {
        errors.push(FieldError::required(&main.path, ""));
    }
    for (list, role) in
        [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        // Init containers run before the others and may use their ports.
        if role == Role::Init {
            around.host_ports.clear();
        }
        spec.child(list).items().for_each(|node| container(&node, role, &mut around, errors));
    }
    required(&spec.child("restartPolicy"), errors);
    required(&spec.child("dnsPolicy"), errors);
    non_negative(&spec.child("terminationGracePeriodSeconds"), errors);
    let deadline = spec.child("activeDeadlineSeconds");
    if let Some(seconds) = deadline.integer() {
        range(&deadline, names::in_range(seconds, 1, i64::from(i32::MAX)), errors);
    }
    let name_like: [(&str, super::NameCheck); 6] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ];
    for (member, check) in name_like {
        let node = spec.child(member);
        if !node.is_empty() {
            errors.invalid_each(&node.path, node.text(), check(node.text()));
        }
    }
    let name = spec.child("nodeName");
    if !name.is_empty() && !spec.child("schedulingGates").is_empty() {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&name.path, message));
    }
    gates(spec, errors);
    dns(spec, errors);
    labels(&spec.child("nodeSelector"), errors);
    security(&spec.child("securityContext"), errors);
    super::pod_context::pod_context(spec, errors);
    tolerations(&spec.child("tolerations"), errors);
    spread(&spec.child("topologySpreadConstraints"), errors);
    affinity(&spec.child("affinity"), errors);
    for alias in spec.child("hostAliases").items() {
        let ip = alias.child("ip");
        super::services::address(&ip, errors);
        for name in alias.child("hostnames").items() {
            errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
        }
    }
}

fn gates(spec: &Node<'_>, errors: &mut ErrorList) {
    for gate in spec.child("readinessGates").items() {
        let kind = gate.child("conditionType");
        errors.invalid_each(&kind.path, kind.text(), names::qualified_name(kind.text()));
    }
    let mut seen = BTreeSet::new();
    for gate in spec.child("schedulingGates").items() {
        let name = gate.child("name");
        errors.invalid_each(&gate.path, name.text(), names::qualified_name(name.text()));
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&gate.path, name.text()));
        }
    }
}

fn dns(spec: &Node<'_>, errors: &mut ErrorList) {
    const SERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    const SEARCH_TEXT_MAX: usize = 2048;
    let config = spec.child("dnsConfig");
    let (servers, searches) = (config.child("nameservers"), config.child("searches"));
    if spec.child("dnsPolicy").text() == "None" && servers.is_empty() {
        if config.is_set() {
            let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(&servers.path, message));
        } else {
            let message = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(&config.path, message));
        }
    }
    if servers.items().count() > SERVERS_MAX {
        let message = format!("must not have more than {SERVERS_MAX} nameservers");
        errors.push(FieldError::invalid(&servers.path, servers.value.clone(), message));
    }
    servers.items().for_each(|server| super::services::address(&server, errors));
    let texts: Vec<&str> = searches.items().map(|search| search.text()).collect();
    if texts.len() > SEARCHES_MAX {
        let message = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(FieldError::invalid(&searches.path, searches.value.clone(), message));
    }
    if texts.join(" ").len() > SEARCH_TEXT_MAX {
        let message =
            format!("must not have more than {SEARCH_TEXT_MAX} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&searches.path, searches.value.clone(), message));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let name = search.text().strip_suffix('.').unwrap_or(search.text()).replace('_', "-");
        errors.invalid_each(&search.path, search.text(), names::dns1123_subdomain(&name));
    }
    for option in config.child("options").items() {
        let name = option.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(&option.path, "must not be empty"));
        }
    }
}

pub(super) fn tolerations(list: &Node<'_>, errors: &mut ErrorList) {
    for toleration in list.items() {
        let (key, operator) = (toleration.child("key"), toleration.child("operator"));
        let (value, effect) = (toleration.child("value"), toleration.child("effect"));
        if !key.is_empty() {
            errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        } else if operator.text() != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator.path, operator.text(), message));
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&effect.path, effect.text(), message));
        }
        match operator.text() {
            "Exists" if !value.is_empty() => {
                let message = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&operator.path, value.text(), message));
            }
            "Exists" => {}
            _ => errors.invalid_each(&operator.path, value.text(), names::label_value(value.text())),
        }
    }
}

fn spread(list: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for constraint in list.items() {
        let skew = constraint.child("maxSkew");
        if skew.integer().unwrap_or_default() <= 0 {
            errors.push(FieldError::invalid(&skew.path, skew.value.clone(), "must be greater than zero"));
        }
        let key = constraint.child("topologyKey");
        let action = constraint.child("whenUnsatisfiable");
        if key.text().is_empty() {
            errors.push(FieldError::required(&key.path, "can not be empty"));
        } else {
            errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        }
        if !seen.insert((key.text(), action.text())) {
            let pair = format!("{{{}, {}}}", key.text(), action.text());
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, pair));
        }
        label_selector(&constraint.child("labelSelector"), errors);
    }
}

fn affinity(affinity: &Node<'_>, errors: &mut ErrorList) {
    let node = affinity.child("nodeAffinity");
    let wanted = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    node_selector(&wanted, errors);
    for preferred in node.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred, errors);
        node_term(&preferred.child("preference"), errors);
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
    terms.items().for_each(|term| node_term(&term, errors));
}

pub(super) fn node_term(term: &Node<'_>, errors: &mut ErrorList) {
    for requirement in term.child("matchExpressions").items() {
        let (operator, values) = (requirement.child("operator"), requirement.child("values"));
        let count = values.value.as_array().map_or(0, Vec::len);
        let message = match operator.text() {
            "In" | "NotIn" if count == 0 => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&values.path, message));
                None
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                Some("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            }
            "Gt" | "Lt" if count != 1 => {
                let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&values.path, message));
                None
            }
            _ => None,
        };
        if let Some(message) = message {
            errors.push(FieldError::forbidden(&values.path, message));
        }
        let key = requirement.child("key");
        errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
    }
}

fn pod_term(term: &Node<'_>, errors: &mut ErrorList) {
    label_selector(&term.child("labelSelector"), errors);
    let key = term.child("topologyKey");
    if key.text().is_empty() {
        errors.push(FieldError::required(&key.path, "can not be empty"));
    } else {
        errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
    }
}

/// A pod's specification stays as it is, but for images, deadlines, further tolerations and what scheduling gates allow.
fn pod_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    for list in ["containers", "initContainers"] {
        let count = |spec: &Node<'_>| spec.child(list).value.as_array().map_or(0, Vec::len);
        if count(&new) != count(&old) {
            let message = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(&new.path.child(list), message));
            return;
        }
    }
    deadline(&new.child("activeDeadlineSeconds"), &old.child("activeDeadlineSeconds"), errors);
    let held: Vec<&Value> = old.child("tolerations").value.as_array().into_iter().flatten().collect();
    let kept = new.child("tolerations");
    let has = |wanted: &Value| kept.items().any(|t| same_toleration(t.value, wanted));
    if !held.iter().all(|toleration| has(toleration)) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&kept.path, message));
    }
    let gated = !old.child("schedulingGates").is_empty();
    let gates = new.child("schedulingGates");
    if gates.items().any(|gate| !old.child("schedulingGates").items().any(|known| known.value == gate.value)) {
        errors.push(FieldError::forbidden(&gates.path, "only deletion is allowed, but found new scheduling gate"));
    }
    if gated {
        selector_grows(&new.child("nodeSelector"), &old.child("nodeSelector"), errors);
        affinity_grows(&new, &old, errors);
    }
    if frozen(&new, &old, gated) != frozen(&old, &old, gated) {
        errors.push(FieldError::forbidden(
            &new.path,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

const ONLY_ADDITIONS: &str = "only additions are allowed (no mutations or deletions)";

/// A pod that is not scheduled yet may be told more of the nodes it may run on, never less.
fn selector_grows(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    if old.entries().any(|(key, value)| new.child(key).value != value.value) {
        errors.push(FieldError::invalid(&new.path, new.value.clone(), ONLY_ADDITIONS));
    }
}

fn affinity_grows(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const TERMS: [&str; 4] =
        ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (now, before) = (new.at(&TERMS), old.at(&TERMS));
    if before.is_empty() {
        return;
    }
    let (terms, old_terms): (Vec<_>, Vec<_>) = (now.items().collect(), before.items().collect());
    if terms.len() != old_terms.len() {
        let message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&now.path, now.value.clone(), message));
        return;
    }
    for (term, old_term) in terms.iter().zip(&old_terms) {
        let kept = ["matchExpressions", "matchFields"].iter().all(|list| {
            let list_of = |term: &Node<'_>| term.child(list).value.as_array().cloned().unwrap_or_default();
            let (now, before) = (list_of(term), list_of(old_term));
            // A term without requirements selects nothing; one more would make it select something.
            before.len() <= now.len() && before.iter().zip(&now).all(|(before, now)| before == now)
        });
        let was_empty = old_term.child("matchExpressions").is_empty() && old_term.child("matchFields").is_empty();
        if !kept || (was_empty && term.value != old_term.value) {
            errors.push(FieldError::invalid(&term.path, term.value.clone(), ONLY_ADDITIONS));
        }
    }
}

fn deadline(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    match (new.integer(), old.integer()) {
        (None, Some(_)) => {
            let message = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&new.path, Value::Null, message));
        }
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => {
            let message = format!("must be less than or equal to previous value {old_seconds}");
            errors.push(FieldError::invalid(&new.path, new_seconds, message));
        }
        _ => {}
    }
}

fn same_toleration(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|member| a.get(member) == b.get(member))
}

/// The specification with what may change taken from the old one.
fn frozen(spec: &Node<'_>, old: &Node<'_>, gated: bool) -> Value {
    let mut out = spec.value.clone();
    let Some(map) = out.as_object_mut() else { return out };
    for member in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.remove(member);
    }
    if gated {
        map.remove("nodeSelector");
        crate::path::remove(map, &["affinity", "nodeAffinity"]);
        if map.get("affinity").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            map.remove("affinity");
        }
    }
    if old.child("terminationGracePeriodSeconds").integer().is_some_and(|s| s < 0)
        && spec.child("terminationGracePeriodSeconds").integer() == Some(1)
    {
        map.insert("terminationGracePeriodSeconds".into(), old.child("terminationGracePeriodSeconds").value.clone());
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    out
}
