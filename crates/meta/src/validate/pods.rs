//! Checks of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{Role, Surroundings, container, range, security};
use super::node::Node;
use super::pod_status::pod_status;
use super::volume_sources::Holder;
use super::volumes::volumes;
use super::{Kind, labels, meta, pod_annotations, pod_resources, required, scheduling};
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "Pod", pod).created(pod_created).change(pod_change).status(|new, old, errors| {
        pod_annotations::change(&new.at(&["metadata", "annotations"]), &old.at(&["metadata", "annotations"]), errors);
        pod_status(new, old, errors);
    }),
    Kind::new("", "PodTemplate", |template, errors| pod_template(&template.child("template"), errors)),
];

fn pod(pod: &Node<'_>, errors: &mut ErrorList) {
    let (metadata, spec) = (pod.child("metadata"), pod.child("spec"));
    pod_annotations::own(&metadata.child("annotations"), &spec, errors);
    pod_spec(&spec, Some(metadata.child("name").text()), Holder::Pod, errors);
    if spec.child("serviceAccountName").is_empty() {
        for volume in spec.child("volumes").items() {
            for token in volume.at(&["projected", "sources"]).items().map(|part| part.child("serviceAccountToken")) {
                if token.is_set() {
                    let message = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(&token.path, message));
                }
            }
        }
    }
}

/// What only a pod that is there already may have.
fn pod_created(pod: &Node<'_>, errors: &mut ErrorList) {
    let spec = pod.child("spec");
    let (ephemeral, node) = (spec.child("ephemeralContainers"), spec.child("nodeName"));
    // A pod that is there gets ephemeral containers through their own door.
    if !ephemeral.is_empty() {
        errors.push(FieldError::forbidden(&ephemeral.path, "cannot be set on create"));
    }
    if !node.is_empty() && !spec.child("schedulingGates").is_empty() {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&node.path, message));
    }
    pod_annotations::fit(&pod.at(&["metadata", "annotations"]), &spec, errors);
}

/// A template's labels and specification.
pub(super) fn pod_template(template: &Node<'_>, errors: &mut ErrorList) {
    labels(&template.at(&["metadata", "labels"]).renamed(&template.path.child("labels")), errors);
    let (annotations, spec) = (template.at(&["metadata", "annotations"]), template.child("spec"));
    let annotations = annotations.renamed(&template.path.child("annotations"));
    meta::annotations(&annotations, errors);
    pod_annotations::own(&annotations, &spec, errors);
    pod_spec(&spec, None, Holder::Template, errors);
    pod_annotations::fit(&annotations, &spec, errors);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(FieldError::forbidden(&ephemeral.path, "ephemeral containers not allowed in pod template"));
    }
}

/// `name` is the pod's, where it is one.
fn pod_spec(spec: &Node<'_>, name: Option<&str>, holder: Holder, errors: &mut ErrorList) {
    let (main, init) = (spec.child("containers"), spec.child("initContainers"));
    let lasting = main.items().chain(init.items()).map(|container| container.child("name").text()).collect();
    let mut around = Surroundings {
        volumes: volumes(&spec.child("volumes"), name, holder, errors),
        holder,
        host_network: spec.child("hostNetwork").is_true(),
        host_users: spec.child("hostUsers").value != &Value::Bool(false),
        grace: spec.child("terminationGracePeriodSeconds").integer(),
        lasting,
        names: BTreeSet::new(),
        host_ports: BTreeSet::new(),
    };
    pod_resources::claims(&spec.child("resourceClaims"), errors);
    if main.is_empty() {
        errors.push(FieldError::required(&main.path, ""));
    }
    for (list, role) in
        [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        for node in spec.child(list).items() {
            // Init containers run before the others, one by one, and may use their ports.
            if role == Role::Init {
                around.host_ports.clear();
            }
            container(&node, role, &mut around, errors);
        }
    }
    pod_resources::pod_resources(spec, errors);
    required(&spec.child("restartPolicy"), errors);
    required(&spec.child("dnsPolicy"), errors);
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
    hostname_override(spec, errors);
    gates(spec, errors);
    dns(spec, errors);
    labels(&spec.child("nodeSelector"), errors);
    security(&spec.child("securityContext"), errors);
    super::pod_context::pod_context(spec, errors);
    scheduling::tolerations(&spec.child("tolerations"), errors);
    scheduling::spread(&spec.child("topologySpreadConstraints"), errors);
    scheduling::affinity(&spec.child("affinity"), errors);
    for alias in spec.child("hostAliases").items() {
        let ip = alias.child("ip");
        super::services::address(&ip, errors);
        for name in alias.child("hostnames").items() {
            errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
        }
    }
    super::pod_system::pod_system(spec, errors);
}

/// The name a pod has for itself, in the place of all others.
fn hostname_override(spec: &Node<'_>, errors: &mut ErrorList) {
    const LONGEST: usize = 64;
    let name = spec.child("hostnameOverride");
    if !name.is_set() {
        return;
    }
    errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
    if name.text().len() > LONGEST {
        errors.push(FieldError::too_long(&name.path, LONGEST));
    }
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.child(other).is_true() {
            errors.push(FieldError::forbidden(&name.path, format!("may not be specified when `{other}` is true")));
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

/// A pod's specification stays as it is, but for images, deadlines, further tolerations and what scheduling gates allow.
fn pod_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    pod_annotations::change(&new.at(&["metadata", "annotations"]), &old.at(&["metadata", "annotations"]), errors);
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
    for gate in
        gates.items().filter(|gate| !old.child("schedulingGates").items().any(|known| known.value == gate.value))
    {
        let name = gate.child("name");
        let message = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
        errors.push(FieldError::forbidden(&name.path, message));
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
        let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(&new.path, new.value.clone(), message));
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
            let message = "must be less than or equal to previous value";
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
