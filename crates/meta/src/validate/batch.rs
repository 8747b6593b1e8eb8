//! Checks of jobs and cron jobs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::node::Node;
use super::pods::pod_template;
use super::workloads::{counts, template_matches};
use super::{Kind, cron, immutable, job_status, label_selector, non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::labels::LabelSelector;
use crate::{Object, names};

/// A CronJob appends eleven characters to its name for each job.
const CRON_NAME_MAX: usize = 52;
const MANAGER_MAX: usize = 63;
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// With more completions than this, and a limit for each index, the limits below hold.
const MANY_COMPLETIONS: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_INDEXES_OF_MANY: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const INDEXES_MAX: usize = 64 * 1024;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("batch", "Job", |_, _| {}).whole(job, |_, _| {}).change(job_change).status(job_status::check),
    Kind::new("batch", "CronJob", |_, _| {}).whole(cron_job, |_, _| {}),
];

fn job(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let job = Node::root(new);
    let spec = job.child("spec");
    let selector = spec.child("selector");
    if old.is_none() && selector.is_set() && !spec.child("manualSelector").is_true() {
        generated_labels(&job, errors);
    }
    job_spec(&spec, errors);
    if selector.is_set() {
        label_selector(&selector, errors);
    } else {
        errors.push(FieldError::required(&selector.path, ""));
    }
    if let Ok(parsed) = LabelSelector::from_value(Some(selector.value)) {
        template_matches(&parsed, &spec.child("template"), errors);
    }
    if let (true, true, Some(count @ 1..)) = (old.is_none(), is_indexed(&spec), spec.child("completions").integer()) {
        // The largest index is part of a pod's host name.
        let name = job.at(&["metadata", "name"]);
        let host = format!("{}-{}", name.text(), count - 1);
        if !names::dns1123_label(&host).is_empty() {
            let message = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(FieldError::invalid(&name.path, name.text(), message));
        }
    }
}

/// The labels that a job without a selector of its own gives its pods.
fn generated_labels(job: &Node<'_>, errors: &mut ErrorList) {
    let metadata = job.child("metadata");
    let template = job.at(&["spec", "template", "metadata"]);
    let (uid, name) = (metadata.child("uid").text(), metadata.child("name").text());
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let labels = template.child("labels");
    for (key, value) in expected {
        let found = labels.child(key);
        if !found.is_set() {
            errors.push(FieldError::required(&labels.path.key(key), format!("must be '{value}'")));
        } else if found.text() != value {
            let message = format!("must be '{value}'");
            errors.push(FieldError::invalid(&labels.path.key(key), labels.value.clone(), message));
        }
    }
    let selector = job.at(&["spec", "selector"]);
    if let Ok(parsed) = LabelSelector::from_value(Some(selector.value)) {
        let expected: Value = expected.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        if !parsed.matches_labels(Some(&expected)) {
            let message = "`selector` not auto-generated";
            errors.push(FieldError::invalid(&selector.path, selector.value.clone(), message));
        }
    }
}

pub(super) fn is_indexed(spec: &Node<'_>) -> bool {
    spec.child("completionMode").text() == "Indexed"
}

fn at_most(node: &Node<'_>, most: i64, suffix: &str, errors: &mut ErrorList) {
    if let Some(number) = node.integer().filter(|number| *number > most) {
        let message = format!("must be less than or equal to {most}{suffix}");
        errors.push(FieldError::invalid(&node.path, number, message));
    }
}

fn job_spec(spec: &Node<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] = &[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    counts(spec, COUNTS, errors);
    let (per_index, failed) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    if failed.is_set() && !per_index.is_set() {
        errors.push(FieldError::required(&per_index.path, "when maxFailedIndexes is specified"));
    }
    manager(&spec.child("managedBy"), errors);
    if is_indexed(spec) {
        indexed(spec, errors);
    } else if matches!(spec.child("completionMode").text(), "" | "NonIndexed") {
        for node in [&per_index, &failed] {
            if let Some(number) = node.integer() {
                errors.push(FieldError::invalid(&node.path, number, "requires indexed completion mode"));
            }
        }
    }
    failure_policy(spec, errors);
    let success = spec.child("successPolicy");
    if success.is_set() && is_indexed(spec) {
        success_policy(spec, &success.child("rules"), errors);
    } else if success.is_set() {
        errors.push(FieldError::invalid(&success.path, success.value.clone(), "requires indexed completion mode"));
    }
    let replacement = spec.child("podReplacementPolicy");
    let fails = spec.child("podFailurePolicy").is_set();
    let supported: &[&str] = if fails { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if replacement.is_set() && !supported.contains(&replacement.text()) {
        errors.push(FieldError::not_supported(&replacement.path, replacement.text(), supported));
    }
    let template = spec.child("template");
    pod_template(&template, errors);
    let policy = template.at(&["spec", "restartPolicy"]);
    match policy.text() {
        "Never" => {}
        "OnFailure" if fails => {
            let message = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&policy.path, policy.text(), message));
        }
        "OnFailure" => {}
        "Always" | "" => errors.push(FieldError::required(&policy.path, "valid values: \"OnFailure\", \"Never\"")),
        other => errors.push(FieldError::not_supported(&policy.path, other, &["OnFailure", "Never"])),
    }
}

fn manager(node: &Node<'_>, errors: &mut ErrorList) {
    if !node.is_set() {
        return;
    }
    if node.text().is_empty() {
        errors.push(FieldError::required(&node.path, ""));
    } else {
        for (part, message) in names::domain_prefixed_path(node.text()) {
            errors.push(FieldError::invalid(&node.path, part, message));
        }
    }
    if node.text().len() > MANAGER_MAX {
        errors.push(FieldError::too_long(&node.path, MANAGER_MAX));
    }
}

fn indexed(spec: &Node<'_>, errors: &mut ErrorList) {
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    let (per_index, failed) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    if !completions.is_set() {
        errors.push(FieldError::required(&completions.path, "when completion mode is Indexed"));
    }
    at_most(&parallelism, INDEXED_PARALLELISM_MAX, " when completion mode is Indexed", errors);
    let count = completions.integer();
    if let (Some(count), Some(limit)) = (count, failed.integer())
        && limit > count
    {
        errors.push(FieldError::invalid(&failed.path, limit, "must be less than or equal to completions"));
    }
    at_most(&failed, FAILED_INDEXES_MAX, "", errors);
    if count.is_some_and(|count| count > MANY_COMPLETIONS) && per_index.is_set() {
        if !failed.is_set() {
            let message = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.push(FieldError::required(&failed.path, message));
        }
        let suffix = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most(&parallelism, PARALLELISM_OF_MANY, &suffix, errors);
        at_most(&failed, FAILED_INDEXES_OF_MANY, &suffix, errors);
    }
}

fn too_many(list: &Node<'_>, max: usize, errors: &mut ErrorList) {
    let count = list.items().count();
    if count > max {
        errors.push(FieldError::too_many(&list.path, count, max));
    }
}

fn failure_policy(spec: &Node<'_>, errors: &mut ErrorList) {
    let rules = spec.at(&["podFailurePolicy", "rules"]);
    too_many(&rules, RULES_MAX, errors);
    let lists = ["containers", "initContainers"].map(|list| spec.at(&["template", "spec", list]));
    let known: BTreeSet<&str> =
        lists.iter().flat_map(|list| list.items().map(|c| c.child("name").text()).collect::<Vec<_>>()).collect();
    for rule in rules.items() {
        let action = rule.child("action");
        match action.text() {
            "" => {
                let message = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
                errors.push(FieldError::required(&action.path, message));
            }
            "FailIndex" if !spec.child("backoffLimitPerIndex").is_set() => {
                let message = "requires the backoffLimitPerIndex to be set";
                errors.push(FieldError::invalid(&action.path, action.text(), message));
            }
            _ => {}
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &known, errors);
        }
        pod_conditions(&conditions, errors);
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                let message = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid_as_a_whole(&rule.path, message));
            }
            (false, false) => {
                let message = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid_as_a_whole(&rule.path, message));
            }
            _ => {}
        }
    }
}

fn pod_conditions(list: &Node<'_>, errors: &mut ErrorList) {
    too_many(list, PATTERNS_MAX, errors);
    for pattern in list.items() {
        let (kind, status) = (pattern.child("type"), pattern.child("status"));
        errors.invalid_each(&kind.path, kind.text(), names::qualified_name(kind.text()));
        match status.text() {
            "True" | "False" | "Unknown" => {}
            "" => {
                let message = "valid values: [\"False\" \"True\" \"Unknown\"]";
                errors.push(FieldError::required(&status.path, message));
            }
            other => errors.push(FieldError::not_supported(&status.path, other, &["False", "True", "Unknown"])),
        }
    }
}

fn exit_codes(node: &Node<'_>, containers: &BTreeSet<&str>, errors: &mut ErrorList) {
    let operator = node.child("operator");
    if operator.text().is_empty() {
        errors.push(FieldError::required(&operator.path, "valid values: [\"In\" \"NotIn\"]"));
    }
    let name = node.child("containerName");
    if name.is_set() && !containers.contains(name.text()) {
        let message = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
    let values = node.child("values");
    if values.is_empty() {
        errors.push(FieldError::invalid(&values.path, values.value.clone(), "at least one value is required"));
    }
    too_many(&values, EXIT_CODES_MAX, errors);
    let mut seen = BTreeSet::new();
    let mut before = i64::MIN;
    let mut ordered = true;
    for value in values.items() {
        let code = value.integer().unwrap_or_default();
        if operator.text() == "In" && code == 0 {
            errors.push(FieldError::invalid(&value.path, 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(&value.path, code));
        }
        ordered &= before <= code;
        before = code;
    }
    if !ordered {
        errors.push(FieldError::invalid(&values.path, values.value.clone(), "must be ordered"));
    }
}

fn success_policy(spec: &Node<'_>, rules: &Node<'_>, errors: &mut ErrorList) {
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&rules.path, message));
    }
    too_many(rules, RULES_MAX, errors);
    let completions = spec.child("completions").integer().unwrap_or_default();
    for rule in rules.items() {
        let (indexes, count) = (rule.child("succeededIndexes"), rule.child("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            let message = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&rule.path, message));
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.text().len() > INDEXES_MAX {
                errors.push(FieldError::too_long(&indexes.path, INDEXES_MAX));
            }
            match total_of(indexes.text(), completions) {
                Ok(found) => total = found,
                Err(why) => {
                    let message = format!("error parsing succeededIndexes: {why}");
                    errors.push(FieldError::invalid(&indexes.path, indexes.text(), message));
                }
            }
        }
        non_negative(&count, errors);
        at_most(&count, completions, " (the number of specified completions)", errors);
        if indexes.is_set() {
            at_most(&count, total, " (the number of indexes in the specified succeededIndexes field)", errors);
        }
    }
}

/// `3` or `5-9`, below the number of completions.
pub(super) fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let mut parts = text.split('-');
    let (first, last) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            crate::field::quote(text)
        ));
    }
    let index = |text: &str| {
        let shown = crate::field::quote(text);
        match text.parse::<i64>() {
            Err(_) => Err(format!("cannot convert string to integer for index: {shown}")),
            Ok(number) if number >= completions => Err(format!("too large index: {shown}")),
            Ok(number) => Ok(number),
        }
    };
    let start = index(first)?;
    let Some(last) = last else { return Ok((start, start)) };
    let end = index(last)?;
    if start >= end {
        return Err(format!("non-increasing order, previous: {start}, current: {end}"));
    }
    Ok((start, end))
}

/// How many indexes a list such as `1,3-5` names.
pub(super) fn total_of(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut before) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (start, end) = interval(part, completions)?;
        if let Some(before) = before.filter(|before| *before >= start) {
            return Err(format!("non-increasing order, previous: {before}, current: {start}"));
        }
        total += end - start + 1;
        before = Some(end);
    }
    Ok(total)
}

fn job_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let started = old.at(&["status", "startTime"]).is_set();
    let (new, old) = (new.child("spec"), old.child("spec"));
    let (completions, before) = (new.child("completions"), old.child("completions"));
    if !is_indexed(&new) {
        immutable(&completions, &before, errors);
    } else if completions.is_set()
        && completions.value != before.value
        && completions.value != new.child("parallelism").value
    {
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(&completions.path, completions.value.clone(), message));
    }
    immutable(&new.child("selector"), &old.child("selector"), errors);
    let (template, before) = (new.child("template"), old.child("template"));
    let may_move = old.child("suspend").is_true() && !started;
    if !may_move || without_directives(template.value) != without_directives(before.value) {
        immutable(&template, &before, errors);
    }
    for member in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&new.child(member), &old.child(member), errors);
    }
}

/// A template without what it says of where its pods may run: a job that has not begun may still change that.
fn without_directives(template: &Value) -> Value {
    const FREE: [&[&str]; 6] = [
        &["spec", "affinity", "nodeAffinity"],
        &["spec", "nodeSelector"],
        &["spec", "tolerations"],
        &["spec", "schedulingGates"],
        &["metadata", "annotations"],
        &["metadata", "labels"],
    ];
    let mut fixed = template.clone();
    let Some(map) = fixed.as_object_mut() else { return fixed };
    for path in FREE {
        crate::path::remove(map, path);
    }
    for path in [&["spec", "affinity"][..], &["metadata"]] {
        if crate::path::get(map, path).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            crate::path::remove(map, path);
        }
    }
    fixed
}

/// A cron job, new or changed. What an old one says of its time zone may stay as it is.
fn cron_job(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let cron = Node::root(new);
    let (spec, before) = (cron.child("spec"), old.map(|old| Node::root(old).child("spec")));
    let schedule = spec.child("schedule");
    if required(&schedule, errors) {
        if let Err(why) = cron::schedule(schedule.text()) {
            errors.push(FieldError::invalid(&schedule.path, schedule.text(), why));
        }
        let had_zone = before.as_ref().is_some_and(|before| before.child("schedule").text().contains("TZ"));
        zone_in_schedule(&spec, had_zone, errors);
    }
    counts(&spec, &["startingDeadlineSeconds"], errors);
    let zone = spec.child("timeZone");
    if before.is_none_or(|before| before.child("timeZone").value != zone.value) {
        time_zone(&zone, errors);
    }
    required(&spec.child("concurrencyPolicy"), errors);
    let job = spec.at(&["jobTemplate", "spec"]);
    job_spec(&job, errors);
    let (selector, manual) = (job.child("selector"), job.child("manualSelector"));
    if selector.is_set() {
        let message = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&selector.path, selector.value.clone(), message));
    }
    if manual.is_true() {
        errors.push(FieldError::not_supported(&manual.path, true, &["nil", "false"]));
    }
    counts(&spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
    let name = cron.at(&["metadata", "name"]);
    if old.is_none() && name.text().len() > CRON_NAME_MAX {
        let message = format!("must be no more than {CRON_NAME_MAX} characters");
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
}

fn zone_in_schedule(spec: &Node<'_>, allowed: bool, errors: &mut ErrorList) {
    let schedule = spec.child("schedule");
    if !schedule.text().contains("TZ") {
        return;
    }
    let message = match (allowed, spec.child("timeZone").is_set()) {
        (false, _) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        (true, true) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        (true, false) => return,
    };
    errors.push(FieldError::invalid(&schedule.path, schedule.text(), message));
}

fn time_zone(node: &Node<'_>, errors: &mut ErrorList) {
    if !node.is_set() {
        return;
    }
    if node.text().is_empty() {
        errors.push(FieldError::invalid(&node.path, "", "timeZone must be nil or non-empty string"));
    } else if let Err(why) = cron::time_zone(node.text()) {
        errors.push(FieldError::invalid(&node.path, node.text(), why));
    }
}
