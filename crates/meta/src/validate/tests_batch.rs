//! Jobs, cron jobs, autoscalers, budgets, quotas and limits: what is wrong with an object, by its whole message.

use serde_json::{Value, json};

use super::tests::{created, object, updated};

#[test]
fn only_jobs_have_the_defaults_of_jobs() {
    let of = |kind: &str| {
        let (group, value) = with(kind, json!({}));
        object(group, kind, value)
    };
    let spec = of("Job").get(&["spec"]).cloned().unwrap();
    assert_eq!((&spec["completionMode"], &spec["suspend"]), (&json!("NonIndexed"), &json!(false)));
    let cron = of("CronJob");
    let template = cron.get(&["spec", "jobTemplate", "spec"]).and_then(Value::as_object).unwrap();
    assert_eq!(template.keys().collect::<Vec<_>>(), ["template"]);
}

/// A good object of a kind with these members of its specification.
fn with(kind: &str, changes: Value) -> (&'static str, Value) {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let (group, mut spec) = match kind {
        "Job" => {
            ("batch", json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": template}))
        }
        "CronJob" => ("batch", json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}})),
        "HorizontalPodAutoscaler" => (
            "autoscaling",
            json!({"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}),
        ),
        "PodDisruptionBudget" => ("policy", json!({})),
        _ => ("", json!({})),
    };
    for (member, value) in changes.as_object().unwrap() {
        spec[member] = value.clone();
    }
    (group, json!({ "spec": spec }))
}

#[test]
fn new_objects() {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 3});
        for (member, value) in more.as_object().unwrap() {
            spec[member] = value.clone();
        }
        spec
    };
    let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    let codes = |operator: &str, values: Value| {
        rule(json!({"action": "FailJob", "onExitCodes": {"operator": operator, "values": values}}))
    };
    let success = |rule: Value| indexed(json!({"successPolicy": {"rules": [rule]}}));
    let metric = |metric: Value| json!({"metrics": [metric]});
    let limit = |limit: Value| json!({"limits": [limit]});
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("Job", json!({}), &[]),
        (
            "Job",
            json!({"parallelism": -1}),
            &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "Job",
            json!({"selector": {"matchLabels": {"x": "y"}}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            "Job",
            json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        (
            "Job",
            json!({"managedBy": "me"}),
            &["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        ),
        (
            "Job",
            json!({"backoffLimitPerIndex": 1}),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            "Job",
            json!({"completionMode": "Indexed", "completions": null, "parallelism": 100_001}),
            &[
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ],
        ),
        (
            "Job",
            indexed(json!({"maxFailedIndexes": 4, "backoffLimitPerIndex": 0})),
            &["spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions"],
        ),
        (
            "Job",
            indexed(json!({"completions": 100_001, "backoffLimitPerIndex": 0})),
            &["spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"],
        ),
        (
            "Job",
            codes("In", json!([0, 2, 1, 1])),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Duplicate value: 1",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,2,1,1]: must be ordered",
            ],
        ),
        (
            "Job",
            rule(json!({"action": "FailIndex"})),
            &[
                "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        ),
        (
            "Job",
            success(json!({})),
            &[
                "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ],
        ),
        (
            "Job",
            success(json!({"succeededIndexes": "0-1", "succeededCount": 3})),
            &[
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
            ],
        ),
        (
            "Job",
            success(json!({"succeededIndexes": "1,0"})),
            &[
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"1,0\": error parsing succeededIndexes: non-increasing order, previous: 1, current: 0",
            ],
        ),
        (
            "Job",
            success(json!({"succeededIndexes": "0-3"})),
            &[
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-3\": error parsing succeededIndexes: too large index: \"3\"",
            ],
        ),
        (
            "Job",
            json!({"completionMode": "Sorted", "backoffLimitPerIndex": 1}),
            &["spec.completionMode: Unsupported value: \"Sorted\": supported values: \"NonIndexed\", \"Indexed\""],
        ),
        (
            "Job",
            json!({"podReplacementPolicy": "Never"}),
            &[
                "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
            ],
        ),
        ("CronJob", json!({}), &[]),
        (
            "CronJob",
            json!({"schedule": "CRON_TZ=UTC 0 0 * * *", "startingDeadlineSeconds": -1, "timeZone": "", "failedJobsHistoryLimit": -1}),
            &[
                "spec.schedule: Invalid value: \"CRON_TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "CronJob",
            json!({"timeZone": ""}),
            &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
        ),
        (
            "CronJob",
            json!({"failedJobsHistoryLimit": -1}),
            &["spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
        ),
        ("HorizontalPodAutoscaler", json!({}), &[]),
        (
            "HorizontalPodAutoscaler",
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "v1"}}),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "a/b/c"}}),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"scaleTargetRef": {"kind": "ReplicationController", "name": "d", "apiVersion": "v1"}}),
            &[],
        ),
        (
            "HorizontalPodAutoscaler",
            metric(json!({})),
            &[
                "spec.metrics[0].type: Required value: must specify a metric source type",
                "spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ],
        ),
        (
            "HorizontalPodAutoscaler",
            metric(json!({"type": "ContainerResource", "containerResource": {"name": "gold", "container": "A",
                "target": {"type": "Share", "averageValue": "1"}}})),
            &[
                "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource type or fully qualified",
                "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource for containers",
                "spec.metrics[0].containerResource.container: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.metrics[0].containerResource.target.type: Invalid value: \"Share\": must be either Utilization, Value, or AverageValue",
            ],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"behavior": {"scaleDown": {"selectPolicy": "Most", "policies": [{"type": "Nodes", "value": 1, "periodSeconds": 1}]}}}),
            &[
                "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Nodes\": supported values: \"Percent\", \"Pods\"",
            ],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"minReplicas": 3}),
            &["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
        ),
        (
            "HorizontalPodAutoscaler",
            metric(json!({"type": "Pods"})),
            &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
        ),
        (
            "HorizontalPodAutoscaler",
            metric(
                json!({"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "Value", "value": "0"}}}),
            ),
            &[
                "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
                "spec.metrics[0].pods.target.value: Invalid value: \"0\": must be positive",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
            ],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        ),
        (
            "PodDisruptionBudget",
            json!({"minAvailable": "101%"}),
            &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
        ),
        (
            "ResourceQuota",
            json!({"hard": {"cpu": "-1"}}),
            &["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
        (
            "ResourceQuota",
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        ),
        (
            "LimitRange",
            limit(json!({"type": "Pod", "default": {"cpu": "1"}})),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        ),
        (
            "LimitRange",
            limit(json!({"type": "Odd"})),
            &["spec.limits[0].type: Invalid value: \"Odd\": must be a standard limit type or fully qualified"],
        ),
        (
            "LimitRange",
            limit(json!({"type": "PersistentVolumeClaim"})),
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        ),
        (
            "LimitRange",
            limit(
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}),
            ),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ],
        ),
        (
            "LimitRange",
            limit(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}})),
            &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
        ),
    ];
    for (kind, changes, expected) in cases {
        let shown = changes.to_string();
        let (group, object) = with(kind, changes);
        assert_eq!(created(group, kind, object), expected, "{kind} {shown}");
    }
}

#[test]
fn changes() {
    let cases: Vec<(&str, Value, Value, &[&str])> = vec![
        ("Job", json!({"parallelism": 1}), json!({"parallelism": 2}), &[]),
        (
            "Job",
            json!({"completions": 1}),
            json!({"completions": 2}),
            &["spec.completions: Invalid value: 2: field is immutable"],
        ),
        (
            "Job",
            json!({}),
            json!({"managedBy": "acme.io/x"}),
            &["spec.managedBy: Invalid value: \"acme.io/x\": field is immutable"],
        ),
        ("CronJob", json!({"schedule": "TZ=UTC 0 0 * * *"}), json!({"schedule": "TZ=UTC 1 0 * * *"}), &[]),
        (
            "CronJob",
            json!({"schedule": "0 0 * * *"}),
            json!({"schedule": "TZ=UTC 1 0 * * *"}),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC 1 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        ),
        (
            "HorizontalPodAutoscaler",
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}}),
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "e"}}),
            &[],
        ),
        ("CronJob", json!({"timeZone": "Old/Zone"}), json!({"timeZone": "Old/Zone", "suspend": true}), &[]),
        (
            "ResourceQuota",
            json!({"scopes": ["Terminating"]}),
            json!({}),
            &["spec.scopes: Invalid value: null: field is immutable"],
        ),
    ];
    for (kind, before, after, expected) in cases {
        let shown = after.to_string();
        let ((group, before), (_, after)) = (with(kind, before), with(kind, after));
        assert_eq!(updated(group, kind, before, after), expected, "{kind} {shown}");
    }
}
