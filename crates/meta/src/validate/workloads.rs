//! Checks of apps, policy and replication controllers.

use serde_json::{Value, json};

use super::node::Node;
use super::pods::pod_template;
use super::storage::claim_spec;
use super::{Kind, conditions, immutable, label_selector, non_negative};
use crate::field::{ErrorList, ErrorType, FieldError};
use crate::labels::LabelSelector;
use crate::{IntOrString, Object, names};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "ReplicationController", replication_controller).status(replicas),
    Kind::new("apps", "Deployment", deployment).change(selector_stays).status(deployment_status),
    Kind::new("apps", "ReplicaSet", replica_set).change(selector_stays).status(replicas),
    Kind::new("apps", "StatefulSet", |_, _| {})
        .named(names::dns1123_label)
        .whole(stateful_set, |_, _| {})
        .change(stateful_set_change)
        .status(stateful_set_status),
    Kind::new("apps", "DaemonSet", daemon_set).change(selector_stays).status(daemon_set_status),
    Kind::new("apps", "ControllerRevision", |o, errors| non_negative(&o.child("revision"), errors))
        .created(|revision, errors| {
            let data = revision.child("data");
            if !data.is_set() {
                errors.push(FieldError::required(&data.path, "data is mandatory"));
            }
        })
        .change(|new, old, errors| immutable(&new.child("data"), &old.child("data"), errors)),
    Kind::new("policy", "PodDisruptionBudget", budget).named(names::path_segment).any_finalizers().status(
        |new, _, errors| {
            let status = new.child("status");
            conditions(&status.child("conditions"), errors);
            counts(&status, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], errors);
        },
    ),
];

fn selector_stays(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    immutable(&new.at(&["spec", "selector"]), &old.at(&["spec", "selector"]), errors);
}

/// Who owns pods: as empty selectors, unusable ones, and deadlines are told of.
struct Owner {
    empty: &'static str,
    unusable: &'static str,
    deadline: &'static str,
}

/// ReplicaSets and deployments, which share their words.
const REPLICA_SETS: Owner = Owner { empty: "deployment", unusable: "invalid label selector", deadline: "ReplicaSet" };
const STATEFUL_SETS: Owner = Owner { empty: "statefulset", unusable: "", deadline: "StatefulSet" };

/// A selector that is there, is well formed, and selects something; what it selects by, if that can be told.
fn selector(spec: &Node<'_>, owner: &Owner, errors: &mut ErrorList) -> Option<LabelSelector> {
    let selector = spec.child("selector");
    if selector.is_set() {
        label_selector(&selector, errors);
        not_empty(&selector, owner.empty, errors);
    } else {
        errors.push(FieldError::required(&selector.path, ""));
    }
    let parsed = LabelSelector::from_value(Some(selector.value)).ok();
    if parsed.is_none() {
        errors.push(FieldError::invalid(&selector.path, selector.value.clone(), owner.unusable));
    }
    parsed
}

fn not_empty(selector: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    if selector.is_set() && selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty() {
        let message = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(&selector.path, selector.value.clone(), message));
    }
}

/// The selector of a ReplicaSet or deployment, and the template that it matches.
fn selector_and_template(spec: &Node<'_>, errors: &mut ErrorList) {
    let template = spec.child("template");
    if let Some(parsed) = selector(spec, &REPLICA_SETS, errors) {
        template_matches(&parsed, &template, errors);
        pod_template(&template, errors);
        always_restarts(&template, errors);
        no_deadline(&template, REPLICA_SETS.deadline, errors);
    }
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
    const COUNTS: &[&str] = &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ];
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
    selector_and_template(&spec, errors);
}

fn deployment(deployment: &Node<'_>, errors: &mut ErrorList) {
    let spec = deployment.child("spec");
    counts(&spec, &["replicas"], errors);
    selector_and_template(&spec, errors);
    deployment_strategy(&spec.child("strategy"), errors);
    counts(&spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], errors);
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

fn deployment_strategy(strategy: &Node<'_>, errors: &mut ErrorList) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "Recreate" if rolling.is_set() => {
            let message = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&rolling.path, message));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            let (none_less, none_more) = (share(&unavailable, errors), share(&surge, errors));
            if none_less && none_more {
                let message = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&unavailable.path, unavailable.value.clone(), message));
            }
            at_most_all(&unavailable, errors);
        }
        _ => unknown_strategy(strategy, ["maxUnavailable", "maxSurge"], &["Recreate", "RollingUpdate"], errors),
    }
}

/// A strategy that is none, told as upstream has it: `members` are those of its parameters in their order.
fn unknown_strategy(strategy: &Node<'_>, members: [&str; 2], known: &[&str], errors: &mut ErrorList) {
    let known: Vec<String> = known.iter().map(|name| crate::field::quote(name)).collect();
    let detail = format!("supported values: {}", known.join(", "));
    let shown = strategy_shown(strategy, members);
    errors.push(FieldError::shown(ErrorType::NotSupported, &strategy.path, &shown, &detail));
}

fn strategy_shown(strategy: &Node<'_>, members: [&str; 2]) -> String {
    let (kind, rolling) = (strategy.child("type"), strategy.child("rollingUpdate"));
    format!("{{\"Type\":{},\"RollingUpdate\":{}}}", kind.value, rolling_shown(&rolling, members))
}

fn rolling_shown(rolling: &Node<'_>, members: [&str; 2]) -> String {
    if !rolling.is_set() {
        return "null".to_owned();
    }
    let [first, second] = members.map(|member| {
        let (initial, rest) = member.split_at(1);
        format!("\"{}{rest}\":{}", initial.to_uppercase(), rolling.child(member).value)
    });
    format!("{{{first},{second}}}")
}

/// A number or percentage that is not negative; gives whether it is zero, as what is neither counts.
fn share(node: &Node<'_>, errors: &mut ErrorList) -> bool {
    match IntOrString::from_value(node.value) {
        Some(IntOrString::Int(number)) => {
            non_negative(node, errors);
            number == 0
        }
        Some(IntOrString::String(text)) => {
            let messages = names::percent(&text);
            let number = if messages.is_empty() { text.trim_end_matches('%') } else { &text };
            let zero = number.parse::<i64>().unwrap_or_default() == 0;
            errors.invalid_each(&node.path, &text, messages);
            zero
        }
        None => true,
    }
}

/// A percentage of a whole.
fn at_most_all(node: &Node<'_>, errors: &mut ErrorList) {
    if let Some(IntOrString::String(text)) = IntOrString::from_value(node.value)
        && names::percent(&text).is_empty()
        && text.trim_end_matches('%').parse::<u64>().is_ok_and(|number| number > 100)
    {
        errors.push(FieldError::invalid(&node.path, text.as_str(), "must not be greater than 100%"));
    }
}

fn daemon_set(set: &Node<'_>, errors: &mut ErrorList) {
    let spec = set.child("spec");
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    label_selector(&selector, errors);
    if let Ok(parsed) = LabelSelector::from_value(Some(selector.value)) {
        template_matches(&parsed, &template, errors);
    }
    not_empty(&selector, "daemonset", errors);
    pod_template(&template, errors);
    always_restarts(&template, errors);
    no_deadline(&template, "DaemonSet", errors);
    counts(&spec, &["minReadySeconds"], errors);
    daemon_set_strategy(&spec.child("updateStrategy"), errors);
    counts(&spec, &["revisionHistoryLimit"], errors);
}

fn daemon_set_strategy(strategy: &Node<'_>, errors: &mut ErrorList) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => errors.push(FieldError::required(&rolling.path, "")),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            let none = (share(&unavailable, errors), share(&surge, errors));
            at_most_all(&unavailable, errors);
            at_most_all(&surge, errors);
            match none {
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
        _ => unknown_strategy(strategy, ["maxUnavailable", "maxSurge"], &["RollingUpdate", "OnDelete"], errors),
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

/// A set, new or changed. What an old one says of its service and its claims may stay, and so may its template where the old
/// specification was not good.
fn stateful_set(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let excused = old.is_some_and(|old| {
        let mut wrong = ErrorList::new();
        stateful_set_spec(&Node::root(old).child("spec"), false, false, &mut wrong);
        !wrong.is_empty()
    });
    stateful_set_spec(&Node::root(new).child("spec"), old.is_none(), excused, errors);
}

fn stateful_set_spec(spec: &Node<'_>, created: bool, any_template: bool, errors: &mut ErrorList) {
    let management = spec.child("podManagementPolicy");
    if !matches!(management.text(), "" | "OrderedReady" | "Parallel") {
        let message = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid(&management.path, management.text(), message));
    }
    stateful_set_strategy(&spec.child("updateStrategy"), errors);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for policy in ["whenDeleted", "whenScaled"].map(|member| retention.child(member)) {
        if policy.is_set() && !["Retain", "Delete"].contains(&policy.text()) {
            errors.push(FieldError::not_supported(&policy.path, policy.text(), &["Retain", "Delete"]));
        }
    }
    if created {
        let claims = spec.child("volumeClaimTemplates");
        claims.items().for_each(|claim| claim_spec(&claim.child("spec"), errors));
    }
    counts(spec, &["replicas", "minReadySeconds"], errors);
    non_negative(&spec.at(&["ordinals", "start"]), errors);
    let service = spec.child("serviceName");
    if created && !service.is_empty() {
        errors.invalid_each(&service.path, service.text(), names::dns1123_label(service.text()));
    }
    let with_claims = with_claims(spec.value);
    let template = Node::new(&with_claims, spec.path.clone()).child("template");
    if let Some(parsed) = selector(spec, &STATEFUL_SETS, errors) {
        template_matches(&parsed, &template, errors);
        if !any_template {
            pod_template(&template, errors);
        }
    }
    always_restarts(&template, errors);
    no_deadline(&template, STATEFUL_SETS.deadline, errors);
}

fn stateful_set_strategy(strategy: &Node<'_>, errors: &mut ErrorList) {
    const MEMBERS: [&str; 2] = ["partition", "maxUnavailable"];
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "OnDelete" if rolling.is_set() => {
            let message = "only allowed for updateStrategy 'RollingUpdate'";
            let shown = rolling_shown(&rolling, MEMBERS);
            errors.push(FieldError::shown(ErrorType::Invalid, &rolling.path, &shown, message));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            non_negative(&rolling.child("partition"), errors);
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() && share(&unavailable, errors) {
                errors.push(FieldError::invalid(&unavailable.path, unavailable.value.clone(), "cannot be 0"));
            }
            at_most_all(&unavailable, errors);
        }
        _ => {
            let (shown, message) = (strategy_shown(strategy, MEMBERS), "must be 'RollingUpdate' or 'OnDelete'");
            errors.push(FieldError::shown(ErrorType::Invalid, &strategy.path, &shown, message));
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
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            min.value,
            spec.child("selector").value,
            max.value,
            spec.child("unhealthyPodEvictionPolicy").value
        );
        let message = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::shown(ErrorType::Invalid, &spec.path, &shown, message));
    }
    for amount in [min, max].iter().filter(|a| a.is_set()) {
        share(amount, errors);
        at_most_all(amount, errors);
    }
    label_selector(&spec.child("selector"), errors);
}
