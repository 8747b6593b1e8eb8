//! Defaults of apps, batch and autoscaling.

use serde_json::{Map, Value, json};

use super::{Row, Rule, is_empty, set_absent, text};
use crate::path::object_at;

pub(super) const ROWS: &[Row] = &[
    ("apps.v1.DeploymentSpec", "replicas", "1"),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("apps.v1.DeploymentStrategy", "type", r#""RollingUpdate""#),
    ("apps.v1.RollingUpdateDeployment", "maxUnavailable", r#""25%""#),
    ("apps.v1.RollingUpdateDeployment", "maxSurge", r#""25%""#),
    ("apps.v1.ReplicaSetSpec", "replicas", "1"),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DaemonSetUpdateStrategy", "type", r#""RollingUpdate""#),
    ("apps.v1.RollingUpdateDaemonSet", "maxUnavailable", "1"),
    ("apps.v1.RollingUpdateDaemonSet", "maxSurge", "0"),
    ("apps.v1.StatefulSetSpec", "podManagementPolicy", r#""OrderedReady""#),
    ("apps.v1.StatefulSetSpec", "persistentVolumeClaimRetentionPolicy", "{}"),
    ("apps.v1.StatefulSetSpec", "replicas", "1"),
    ("apps.v1.StatefulSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.RollingUpdateStatefulSetStrategy", "maxUnavailable", "1"),
    ("apps.v1.RollingUpdateStatefulSetStrategy", "partition", "0"),
    ("apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenDeleted", r#""Retain""#),
    ("apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenScaled", r#""Retain""#),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", "status", r#""True""#),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", r#""Allow""#),
    ("batch.v1.CronJobSpec", "suspend", "false"),
    ("batch.v1.CronJobSpec", "successfulJobsHistoryLimit", "3"),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", "1"),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    (
        "autoscaling.v2.HorizontalPodAutoscalerSpec",
        "metrics",
        r#"[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]"#,
    ),
];

pub(super) const RULES: &[Rule] = &[
    ("apps.v1.DeploymentStrategy", rolling_update),
    ("apps.v1.DaemonSetUpdateStrategy", rolling_update),
    ("apps.v1.StatefulSetUpdateStrategy", stateful_set_strategy),
    ("batch.v1.Job", job),
    ("autoscaling.v2.HorizontalPodAutoscalerBehavior", behavior),
];

fn rolling_update(strategy: &mut Map<String, Value>) {
    if text(strategy, "type") == "RollingUpdate" {
        object_at(strategy, "rollingUpdate");
    }
}

/// A strategy whose type is given keeps its parameters absent.
fn stateful_set_strategy(strategy: &mut Map<String, Value>) {
    if text(strategy, "type").is_empty() {
        strategy.insert("type".into(), "RollingUpdate".into());
        object_at(strategy, "rollingUpdate");
    }
}

/// A job has all of these; the template of one in a cron job has none until it becomes a job.
fn job(job: &mut Map<String, Value>) {
    let template = job.get("spec").and_then(|s| s.get("template"));
    let labels = template.and_then(|t| t.get("metadata")?.get("labels")).cloned();
    let spec = object_at(job, "spec");
    let unset = |member: &str, spec: &Map<String, Value>| spec.get(member).is_none_or(Value::is_null);
    if unset("completions", spec) && unset("parallelism", spec) {
        spec.insert("completions".into(), 1.into());
    }
    set_absent(spec, "parallelism", 1);
    // With a limit for each index the limit for all of them is out of the way.
    let limit = if unset("backoffLimitPerIndex", spec) { 6 } else { i32::MAX };
    set_absent(spec, "backoffLimit", limit);
    set_absent(spec, "completionMode", "NonIndexed");
    set_absent(spec, "suspend", false);
    let policy = if unset("podFailurePolicy", spec) { "TerminatingOrFailed" } else { "Failed" };
    set_absent(spec, "podReplacementPolicy", policy);
    set_absent(spec, "manualSelector", false);
    if let Some(labels) = labels {
        let metadata = object_at(job, "metadata");
        if is_empty(metadata, "labels") {
            metadata.insert("labels".into(), labels);
        }
    }
}

fn behavior(behavior: &mut Map<String, Value>) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let up = object_at(behavior, "scaleUp");
    set_absent(up, "stabilizationWindowSeconds", 0);
    set_absent(up, "selectPolicy", "Max");
    set_absent(up, "policies", vec![pods, percent.clone()]);
    let down = object_at(behavior, "scaleDown");
    set_absent(down, "selectPolicy", "Max");
    set_absent(down, "policies", vec![percent]);
}
