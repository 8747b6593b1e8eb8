//! Checks of apps, batch, autoscaling and policy.

use serde_json::{Value, json};

use super::node::Node;
use super::pods::pod_template;
use super::{Kind, immutable, label_selector, non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::labels::LabelSelector;
use crate::{IntOrString, names};

/// A CronJob appends eleven characters to its name for each job.
const CRON_NAME_MAX: usize = 52;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "ReplicationController", replication_controller),
    Kind::new("apps", "Deployment", deployment).change(selector_stays),
    Kind::new("apps", "ReplicaSet", replica_set).change(selector_stays),
    Kind::new("apps", "StatefulSet", stateful_set).change(stateful_set_change),
    Kind::new("apps", "DaemonSet", daemon_set).change(selector_stays),
    Kind::new("apps", "ControllerRevision", |o, errors| non_negative(&o.child("revision"), errors))
        .change(|new, old, errors| immutable(&new.child("data"), &old.child("data"), errors)),
    Kind::new("batch", "Job", |job, errors| job_spec(&job.child("spec"), true, errors)).change(job_change),
    Kind::new("batch", "CronJob", cron_job),
    Kind::new("autoscaling", "HorizontalPodAutoscaler", autoscaler),
    Kind::new("policy", "PodDisruptionBudget", budget),
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
    let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        let message = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(&deadline.path, message));
    }
}

fn template_matches(selector: &LabelSelector, template: &Node<'_>, errors: &mut ErrorList) {
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

fn counts(spec: &Node<'_>, members: &[&str], errors: &mut ErrorList) {
    members.iter().for_each(|member| non_negative(&spec.child(member), errors));
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
        let zero = share(&unavailable, errors) && share(&rolling.child("maxSurge"), errors);
        if zero {
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

/// A number or percentage; gives whether it is zero.
fn share(node: &Node<'_>, errors: &mut ErrorList) -> bool {
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
            if well_formed && number > 100 {
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
        match (share(&unavailable, errors), share(&surge, errors)) {
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
    non_negative(&spec.at(&["ordinals", "start"]), errors);
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

fn job_spec(spec: &Node<'_>, generated: bool, errors: &mut ErrorList) {
    counts(
        spec,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
        errors,
    );
    let selector = spec.child("selector");
    if generated && !selector.is_set() {
        errors.push(FieldError::required(&selector.path, ""));
    }
    label_selector(&selector, errors);
    let template = spec.child("template");
    if selector.is_set()
        && let Ok(parsed) = LabelSelector::from_value(Some(selector.value))
    {
        template_matches(&parsed, &template, errors);
    }
    pod_template(&template, errors);
    let policy = template.at(&["spec", "restartPolicy"]);
    match policy.text() {
        "OnFailure" | "Never" => {}
        "Always" => errors.push(FieldError::required(&policy.path, "valid values: \"OnFailure\", \"Never\"")),
        other => errors.push(FieldError::not_supported(&policy.path, other, &["OnFailure", "Never"])),
    }
    if spec.child("completionMode").text() == "Indexed" && !spec.child("completions").is_set() {
        let path = spec.path.child("completions");
        errors.push(FieldError::required(&path, "when completion mode is Indexed"));
    }
}

fn job_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let suspended = old.child("suspend").is_true();
    let elastic = new.child("completionMode").text() == "Indexed"
        && new.child("completions").value == new.child("parallelism").value;
    let fixed = ["completions", "selector", "template", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"];
    for member in fixed {
        // A suspended job's template and an elastic indexed job's completions may still change.
        if (member == "template" && suspended) || (member == "completions" && elastic) {
            continue;
        }
        immutable(&new.child(member), &old.child(member), errors);
    }
}

fn cron_job(cron: &Node<'_>, errors: &mut ErrorList) {
    let name = cron.at(&["metadata", "name"]);
    if name.text().len() > CRON_NAME_MAX {
        let message = format!("must be no more than {CRON_NAME_MAX} characters");
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
    let spec = cron.child("spec");
    let schedule = spec.child("schedule");
    if required(&schedule, errors) {
        if schedule.text().contains("TZ") {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&schedule.path, schedule.text(), message));
        } else if !schedule.text().starts_with('@') && schedule.text().split_whitespace().count() != 5 {
            let found = schedule.text().split_whitespace().count();
            let message = format!("expected exactly 5 fields, found {found}: {}", list_of_words(schedule.text()));
            errors.push(FieldError::invalid(&schedule.path, schedule.text(), message));
        }
    }
    required(&spec.child("concurrencyPolicy"), errors);
    counts(&spec, &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
    job_spec(&spec.at(&["jobTemplate", "spec"]), false, errors);
}

fn list_of_words(text: &str) -> String {
    format!("[{}]", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn autoscaler(hpa: &Node<'_>, errors: &mut ErrorList) {
    let spec = hpa.child("spec");
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
    for member in ["kind", "name"] {
        let node = target.child(member);
        if required(&node, errors) {
            errors.invalid_each(&node.path, node.text(), names::path_segment(node.text()));
        }
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
        share(amount, errors);
    }
    label_selector(&spec.child("selector"), errors);
}
