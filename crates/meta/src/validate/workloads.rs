//! Checks of apps, policy and replication controllers.

use serde_json::{Value, json};

use super::node::Node;
use super::pods::pod_template;
use super::{Kind, conditions, immutable, label_selector, non_negative};
use crate::field::{ErrorList, FieldError};
use crate::labels::LabelSelector;
use crate::{IntOrString, names};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "ReplicationController", replication_controller).status(replicas),
    Kind::new("apps", "Deployment", deployment).change(selector_stays).status(deployment_status),
    Kind::new("apps", "ReplicaSet", replica_set).change(selector_stays).status(replicas),
    Kind::new("apps", "StatefulSet", stateful_set).change(stateful_set_change).status(stateful_set_status),
    Kind::new("apps", "DaemonSet", daemon_set).change(selector_stays).status(daemon_set_status),
    Kind::new("apps", "ControllerRevision", |o, errors| non_negative(&o.child("revision"), errors))
        .created(|revision, errors| {
            let data = revision.child("data");
            if !data.is_set() {
                errors.push(FieldError::required(&data.path, "data is mandatory"));
            }
        })
        .change(|new, old, errors| immutable(&new.child("data"), &old.child("data"), errors)),
    Kind::new("policy", "PodDisruptionBudget", budget).status(|new, _, errors| {
        let status = new.child("status");
        conditions(&status.child("conditions"), errors);
        counts(&status, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], errors);
    }),
];

fn selector_stays(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    immutable(&new.at(&["spec", "selector"]), &old.at(&["spec", "selector"]), errors);
}

/// A selector that is there, is well formed, selects something, and matches the template.
fn selector_and_template(spec: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    if selector.is_set() {
        label_selector(&selector, errors);
        if selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty() {
            let message = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid(&selector.path, selector.value.clone(), message));
        } else if let Ok(parsed) = LabelSelector::from_value(Some(selector.value)) {
            template_matches(&parsed, &template, errors);
        }
    } else {
        errors.push(FieldError::required(&selector.path, ""));
    }
    pod_template(&template, errors);
    always_restarts(&template, errors);
    // Deployments share ReplicaSets' words.
    let owner = match kind {
        "statefulset" => "StatefulSet",
        "daemonset" => "DaemonSet",
        _ => "ReplicaSet",
    };
    no_deadline(&template, owner, errors);
}

fn no_deadline(template: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&deadline.path, message));
    }
}

pub(super) fn template_matches(selector: &LabelSelector, template: &Node<'_>, errors: &mut ErrorList) {
    let own = template.at(&["metadata", "labels"]);
    if !selector.matches_labels(Some(own.value)) {
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&own.path, own.value.clone(), message));
    }
}

fn always_restarts(template: &Node<'_>, errors: &mut ErrorList) {
    let policy = template.at(&["spec", "restartPolicy"]);
    if !matches!(policy.text(), "Always" | "") {
        errors.push(FieldError::not_supported(&policy.path, policy.text(), &["Always"]));
    }
}

pub(super) fn counts(spec: &Node<'_>, members: &[&str], errors: &mut ErrorList) {
    members.iter().for_each(|member| non_negative(&spec.child(member), errors));
}

/// Numbers of a status that are parts of another: (the part, the whole, the whole as the message names it).
fn parts(status: &Node<'_>, rules: &[(&str, &str, &str)], errors: &mut ErrorList) {
    let count = |member: &str| status.child(member).integer().unwrap_or_default();
    for (part, whole, named) in rules {
        if count(part) > count(whole) {
            let message = format!("cannot be greater than {named}");
            errors.push(FieldError::invalid(&status.path.child(part), count(part), message));
        }
    }
}

fn replicas(new: &Node<'_>, _old: &Node<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] =
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    const PARTS: &[(&str, &str, &str)] = &[
        ("fullyLabeledReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    let status = new.child("status");
    counts(&status, COUNTS, errors);
    parts(&status, PARTS, errors);
}

/// The count of colliding names only rises.
fn collisions(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (now, before) = (new.at(&["status", "collisionCount"]), old.at(&["status", "collisionCount"]));
    non_negative(&now, errors);
    if before.integer().is_some_and(|before| now.integer().is_none_or(|now| now < before)) {
        let message = "cannot be decremented";
        errors.push(FieldError::invalid(&now.path, now.integer().unwrap_or_default(), message));
    }
}

fn deployment_status(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] = &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
    ];
    const PARTS: &[(&str, &str, &str)] = &[
        ("updatedReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    let status = new.child("status");
    counts(&status, COUNTS, errors);
    parts(&status, PARTS, errors);
    collisions(new, old, errors);
}

fn stateful_set_status(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] =
        &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration"];
    const PARTS: &[(&str, &str, &str)] = &[
        ("readyReplicas", "replicas", "status.replicas"),
        ("currentReplicas", "replicas", "status.replicas"),
        ("updatedReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "status.readyReplicas"),
    ];
    let status = new.child("status");
    counts(&status, COUNTS, errors);
    parts(&status, PARTS, errors);
    collisions(new, old, errors);
}

fn daemon_set_status(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    counts(&new.child("status"), COUNTS, errors);
    collisions(new, old, errors);
}

fn replication_controller(controller: &Node<'_>, errors: &mut ErrorList) {
    let spec = controller.child("spec");
    counts(&spec, &["replicas", "minReadySeconds"], errors);
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    if selector.is_empty() {
        errors.push(FieldError::required(&selector.path, ""));
    }
    if !template.is_set() {
        errors.push(FieldError::required(&template.path, ""));
        return;
    }
    if let Ok(parsed) = LabelSelector::from_map(Some(selector.value)) {
        template_matches(&parsed, &template, errors);
    }
    pod_template(&template, errors);
    always_restarts(&template, errors);
    no_deadline(&template, "ReplicationController", errors);
}

fn replica_set(set: &Node<'_>, errors: &mut ErrorList) {
    let spec = set.child("spec");
    counts(&spec, &["replicas", "minReadySeconds"], errors);
    selector_and_template(&spec, "replicaset", errors);
}

fn deployment(deployment: &Node<'_>, errors: &mut ErrorList) {
    let spec = deployment.child("spec");
    counts(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], errors);
    selector_and_template(&spec, "deployment", errors);
    let strategy = spec.child("strategy");
    let rolling = strategy.child("rollingUpdate");
    if strategy.child("type").text() == "Recreate" && rolling.is_set() {
        let message = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden(&rolling.path, message));
    } else if rolling.is_set() {
        let unavailable = rolling.child("maxUnavailable");
        let (none_less, none_more) =
            (share(&unavailable, true, errors), share(&rolling.child("maxSurge"), false, errors));
        if none_less && none_more {
            let message = "may not be 0 when `maxSurge` is 0";
            errors.push(FieldError::invalid(&unavailable.path, unavailable.value.clone(), message));
        }
    }
    let deadline = spec.child("progressDeadlineSeconds");
    let ready = spec.child("minReadySeconds").integer().unwrap_or_default();
    if deadline.integer().is_some_and(|seconds| seconds <= ready) {
        errors.push(FieldError::invalid(
            &deadline.path,
            deadline.value.clone(),
            "must be greater than minReadySeconds",
        ));
    }
}

/// A number or percentage, of a whole where it is `limited`; gives whether it is zero.
fn share(node: &Node<'_>, limited: bool, errors: &mut ErrorList) -> bool {
    match IntOrString::from_value(node.value) {
        Some(IntOrString::Int(number)) => {
            non_negative(node, errors);
            number == 0
        }
        Some(IntOrString::String(text)) => {
            let messages = names::percent(&text);
            let well_formed = messages.is_empty();
            errors.invalid_each(&node.path, &text, messages);
            let number = text.trim_end_matches('%').parse::<u64>().unwrap_or_default();
            if limited && well_formed && number > 100 {
                errors.push(FieldError::invalid(&node.path, text.as_str(), "must not be greater than 100%"));
            }
            well_formed && number == 0
        }
        None => true,
    }
}

fn daemon_set(set: &Node<'_>, errors: &mut ErrorList) {
    let spec = set.child("spec");
    counts(&spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
    selector_and_template(&spec, "daemonset", errors);
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    if strategy.child("type").text() == "RollingUpdate" {
        if !rolling.is_set() {
            errors.push(FieldError::required(&rolling.path, ""));
            return;
        }
        let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
        match (share(&unavailable, true, errors), share(&surge, true, errors)) {
            (true, true) => {
                errors.push(FieldError::required(&unavailable.path, "cannot be 0 when maxSurge is 0"));
            }
            (false, false) => errors.push(FieldError::invalid(
                &surge.path,
                surge.value.clone(),
                "may not be set when maxUnavailable is non-zero",
            )),
            _ => {}
        }
    }
}

/// The specification as its pods will see it: each claim template is a volume of theirs.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims = spec.get("volumeClaimTemplates").and_then(Value::as_array).cloned().unwrap_or_default();
    let names = claims.iter().filter_map(|claim| claim.pointer("/metadata/name").cloned());
    let claimed = names.map(|name| json!({ "name": name, "emptyDir": {} }));
    if let Some(Value::Object(pod)) = spec.pointer_mut("/template/spec") {
        let volumes = pod.entry("volumes").or_insert_with(|| json!([]));
        if let Value::Array(volumes) = volumes {
            // A volume of the same name gives way to the claim.
            let own: Vec<_> =
                claimed.filter(|claim| volumes.iter().all(|v| v.get("name") != claim.get("name"))).collect();
            volumes.extend(own);
        }
    }
    spec
}

fn stateful_set(set: &Node<'_>, errors: &mut ErrorList) {
    let spec = set.child("spec");
    counts(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], errors);
    let with_claims = with_claims(spec.value);
    selector_and_template(&Node::new(&with_claims, spec.path.clone()), "statefulset", errors);
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    if strategy.child("type").text() == "OnDelete" && rolling.is_set() {
        let message = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(FieldError::invalid(&rolling.path, rolling.value.clone(), message));
    }
    non_negative(&rolling.child("partition"), errors);
    let unavailable = rolling.child("maxUnavailable");
    if unavailable.is_set() && share(&unavailable, true, errors) {
        errors.push(FieldError::invalid(&unavailable.path, unavailable.value.clone(), "cannot be 0"));
    }
    non_negative(&spec.at(&["ordinals", "start"]), errors);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for policy in ["whenDeleted", "whenScaled"].map(|member| retention.child(member)) {
        if policy.is_set() && !["Retain", "Delete"].contains(&policy.text()) {
            errors.push(FieldError::not_supported(&policy.path, policy.text(), &["Retain", "Delete"]));
        }
    }
}

fn stateful_set_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |set: &Node<'_>| {
        let mut spec = set.child("spec").value.clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|member, _| !FREE.contains(&member.as_str()));
            // A claim template's status is nobody's wish.
            for template in map.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(template) = template.as_object_mut() {
                    template.remove("status");
                }
            }
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.push(FieldError::forbidden(
            &new.path.child("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

fn budget(budget: &Node<'_>, errors: &mut ErrorList) {
    let spec = budget.child("spec");
    let (min, max) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
    if min.is_set() && max.is_set() {
        let message = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&spec.path, spec.value.clone(), message));
    }
    for amount in [min, max].iter().filter(|a| a.is_set()) {
        share(amount, true, errors);
    }
    label_selector(&spec.child("selector"), errors);
}
