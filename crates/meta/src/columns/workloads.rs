//! Columns of apps, batch, autoscaling and policy.

use jiff::Timestamp;
use serde_json::Value;

use super::describe::{NONE, UNSET, count, holds, labels, member, of_containers, or, selector, time_at};
use super::pods::{POD, ready_of};
use super::{AGE, Column, KindColumns, NAME, number, text, wide};
use crate::{Object, time};

const TEMPLATE: &[&str] = &["spec", "template"];

const CONTAINERS: Column =
    wide(text("Containers", "Names of the template's containers.", |o, _| of_containers(o, TEMPLATE, "name")));
const IMAGES: Column =
    wide(text("Images", "Images of the template's containers.", |o, _| of_containers(o, TEMPLATE, "image")));
const SELECTOR: Column =
    wide(text("Selector", "Which pods belong to it.", |o, _| selector(o.get(&["spec", "selector"])).into()));
const DESIRED: Column = number("Desired", "Replicas that are wanted.", |o, _| count(o, &["spec", "replicas"]).into());
const CURRENT: Column = number("Current", "Replicas that exist.", |o, _| count(o, &["status", "replicas"]).into());
const READY: Column = number("Ready", "Replicas that are ready.", |o, _| count(o, &["status", "readyReplicas"]).into());

pub(super) const KINDS: &[KindColumns] = &[
    ("", "Pod", POD),
    (
        "",
        "ReplicationController",
        &[
            NAME,
            DESIRED,
            CURRENT,
            READY,
            AGE,
            CONTAINERS,
            IMAGES,
            wide(text("Selector", "Which pods belong to it.", |o, _| labels(o.get(&["spec", "selector"])).into())),
        ],
    ),
    (
        "",
        "PodTemplate",
        &[
            NAME,
            text("Containers", "Names of the template's containers.", |o, _| of_containers(o, &["template"], "name")),
            text("Images", "Images of the template's containers.", |o, _| of_containers(o, &["template"], "image")),
            text("Pod Labels", "Labels of the template.", |o, _| {
                labels(o.get(&["template", "metadata", "labels"])).into()
            }),
        ],
    ),
    ("apps", "ReplicaSet", &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR]),
    (
        "apps",
        "Deployment",
        &[
            NAME,
            text("Ready", "Ready replicas, of those wanted.", |o, _| ready_of(o)),
            number("Up-to-date", "Replicas of the present template.", |o, _| {
                count(o, &["status", "updatedReplicas"]).into()
            }),
            number("Available", "Replicas that have been ready for long enough.", |o, _| {
                count(o, &["status", "availableReplicas"]).into()
            }),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
    ),
    (
        "apps",
        "StatefulSet",
        &[NAME, text("Ready", "Ready replicas, of those wanted.", |o, _| ready_of(o)), AGE, CONTAINERS, IMAGES],
    ),
    (
        "apps",
        "DaemonSet",
        &[
            NAME,
            number("Desired", "Nodes that should run it.", |o, _| {
                count(o, &["status", "desiredNumberScheduled"]).into()
            }),
            number("Current", "Nodes that run it as they should.", |o, _| {
                count(o, &["status", "currentNumberScheduled"]).into()
            }),
            number("Ready", "Nodes where it is ready.", |o, _| count(o, &["status", "numberReady"]).into()),
            number("Up-to-date", "Nodes with the present template.", |o, _| {
                count(o, &["status", "updatedNumberScheduled"]).into()
            }),
            number("Available", "Nodes where it has been ready for long enough.", |o, _| {
                count(o, &["status", "numberAvailable"]).into()
            }),
            text("Node Selector", "Labels of the nodes that should run it.", |o, _| {
                labels(o.get(&["spec", "template", "spec", "nodeSelector"])).into()
            }),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
    ),
    (
        "apps",
        "ControllerRevision",
        &[
            NAME,
            text("Controller", "Owner that manages it.", |o, _| {
                let Some(owner) = o.controller_of() else { return NONE.into() };
                let group = owner.group_version().map(|gv| gv.group).unwrap_or_default();
                format!("{}/{}", crate::gvk::qualified(&owner.kind.to_lowercase(), &group), owner.name).into()
            }),
            number("Revision", "Number of the revision.", |o, _| count(o, &["revision"]).into()),
            AGE,
        ],
    ),
    (
        "batch",
        "Job",
        &[
            NAME,
            text("Status", "The state of the job in one word.", |o, _| job_status(o).into()),
            text("Completions", "Pods that succeeded, of those wanted.", |o, _| completions(o).into()),
            text("Duration", "Time the job took or has taken so far.", |o, now| duration(o, now).into()),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
    ),
    (
        "batch",
        "CronJob",
        &[
            NAME,
            text("Schedule", "When jobs are started, in cron's form.", |o, _| or(o, &["spec", "schedule"], "").into()),
            text("Timezone", "Time zone of the schedule.", |o, _| or(o, &["spec", "timeZone"], NONE).into()),
            text("Suspend", "Whether no further jobs are started.", |o, _| {
                match o.bool(&["spec", "suspend"]) {
                    None => UNSET,
                    Some(true) => "True",
                    Some(false) => "False",
                }
                .into()
            }),
            number("Active", "Jobs that are running.", |o, _| o.array(&["status", "active"]).len().into()),
            text("Last Schedule", "Time since a job was last started.", |o, now| {
                time_at(o, &["status", "lastScheduleTime"])
                    .map_or_else(|| NONE.into(), |t| time::age(Some(t), now).into())
            }),
            AGE,
            wide(text("Containers", "Names of the template's containers.", |o, _| of_containers(o, JOB, "name"))),
            wide(text("Images", "Images of the template's containers.", |o, _| of_containers(o, JOB, "image"))),
            wide(text("Selector", "Which pods belong to it.", |o, _| {
                selector(o.get(&["spec", "jobTemplate", "spec", "selector"])).into()
            })),
        ],
    ),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            NAME,
            text("Reference", "What is scaled.", |o, _| {
                let part = |name| or(o, &["spec", "scaleTargetRef", name], "");
                format!("{}/{}", part("kind"), part("name")).into()
            }),
            text("Targets", "Metrics as they are and as they should be.", |o, _| hpa_targets(o).into()),
            text("MinPods", "Fewest replicas.", |o, _| {
                o.i64(&["spec", "minReplicas"]).map_or_else(|| UNSET.into(), |n| n.to_string().into())
            }),
            number("MaxPods", "Most replicas.", |o, _| count(o, &["spec", "maxReplicas"]).into()),
            number("Replicas", "Replicas at present.", |o, _| count(o, &["status", "currentReplicas"]).into()),
            AGE,
        ],
    ),
    (
        "policy",
        "PodDisruptionBudget",
        &[
            NAME,
            text("Min Available", "Pods that must stay available.", |o, _| amount(o, "minAvailable")),
            text("Max Unavailable", "Pods that may be unavailable.", |o, _| amount(o, "maxUnavailable")),
            number("Allowed Disruptions", "Pods that may be disrupted now.", |o, _| {
                count(o, &["status", "disruptionsAllowed"]).into()
            }),
            AGE,
        ],
    ),
];

const JOB: &[&str] = &["spec", "jobTemplate", "spec", "template"];

fn amount(budget: &Object, member: &str) -> Value {
    match budget.get(&["spec", member]) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "N/A".into(),
    }
}

fn job_status(job: &Object) -> &'static str {
    let by_condition = ["Complete", "Failed"].into_iter().find(|kind| holds(job, kind));
    let later = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    match by_condition {
        Some(kind) => kind,
        None if job.is_deleting() => "Terminating",
        None => later.into_iter().find(|kind| holds(job, kind)).unwrap_or("Running"),
    }
}

fn completions(job: &Object) -> String {
    let succeeded = count(job, &["status", "succeeded"]);
    match (job.i64(&["spec", "completions"]), job.i64(&["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallel)) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Object, now: Timestamp) -> String {
    let Some(start) = time_at(job, &["status", "startTime"]) else { return String::new() };
    let end = time_at(job, &["status", "completionTime"]).unwrap_or(now);
    time::human_duration(end.duration_since(start))
}

fn hpa_targets(hpa: &Object) -> String {
    // The first version knows only the processor, by share.
    if let Some(target) = hpa.i64(&["spec", "targetCPUUtilizationPercentage"]) {
        let current = hpa.i64(&["status", "currentCPUUtilizationPercentage"]);
        return format!("cpu: {}/{target}%", current.map_or_else(|| "<unknown>".to_owned(), |c| format!("{c}%")));
    }
    let current = hpa.array(&["status", "currentMetrics"]);
    let metrics = hpa.array(&["spec", "metrics"]).iter().enumerate();
    let texts: Vec<String> = metrics.map(|(i, metric)| hpa_metric(metric, current.get(i))).collect();
    match texts.as_slice() {
        [] => NONE.to_owned(),
        [a, b, rest @ ..] if !rest.is_empty() => format!("{a}, {b} + {} more...", rest.len()),
        few => few.join(", "),
    }
}

fn hpa_metric(metric: &Value, current: Option<&Value>) -> String {
    let kind = member(metric, "type");
    let source = match kind {
        "ContainerResource" => "containerResource".to_owned(),
        other => other.to_lowercase(),
    };
    let target = metric.get(&source).and_then(|m| m.get("target"));
    let now = current.and_then(|c| c.get(&source)).and_then(|m| m.get("current"));
    let named = metric.get(&source).map(|m| member(m, "name")).unwrap_or_default();
    let prefix = if matches!(kind, "Resource" | "ContainerResource") { format!("{named}: ") } else { String::new() };
    for (what, suffix, mark) in [("averageUtilization", "%", ""), ("averageValue", "", " (avg)"), ("value", "", "")] {
        let Some(wanted) = target.and_then(|t| t.get(what)) else { continue };
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let is = now.and_then(|n| n.get(what)).map_or_else(|| "<unknown>".to_owned(), |v| plain(v) + suffix);
        // Averages of what pods are measured by carry no mark.
        let mark = if matches!(kind, "External" | "Object") { mark } else { "" };
        return format!("{prefix}{is}/{}{suffix}{mark}", plain(wanted));
    }
    "<auto>".to_owned()
}
