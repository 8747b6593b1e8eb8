//! Jobs, cron jobs, autoscalers, budgets, quotas and limits: what is wrong with an object, by its whole message.

use serde_json::{Value, json};

use super::tests::{created, updated};

/// A good object of a kind with these members of its specification.
fn with(kind: &str, changes: Value) -> (&'static str, Value) {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let (group, mut spec) = match kind {
        "Job" => {
            ("batch", json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": template}))
        }
        "CronJob" => ("batch", json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}})),
        "HorizontalPodAutoscaler" => {
            ("autoscaling", json!({"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}))
        }
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
        ("CronJob", json!({}), &[]),
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
