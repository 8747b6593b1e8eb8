//! Kinds of apps and policy: all that is wrong with an object, in upstream's order.

use serde_json::{Value, json};

use super::tests::{created, object, updated};
use super::update_status;
use crate::gvk::Gvk;
use crate::schema::lookup;

/// A good object of a kind of apps with these members of its specification; null takes one away.
fn with(changes: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    for (member, value) in changes.as_object().unwrap() {
        spec[member] = value.clone();
    }
    json!({"spec": spec})
}

#[test]
fn new_objects() {
    const MISMATCH: &str =
        "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
    let rolling = |member: &str, rolling: Value| json!({member: {"type": "RollingUpdate", "rollingUpdate": rolling}});
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("Deployment", json!({"selector": null}), &["spec.selector: Required value", MISMATCH]),
        ("ReplicaSet", json!({"selector": null}), &["spec.selector: Required value", MISMATCH]),
        ("StatefulSet", json!({"selector": null}), &["spec.selector: Required value", MISMATCH]),
        ("DaemonSet", json!({"selector": null}), &[MISMATCH]),
        (
            "Deployment",
            json!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            "ReplicaSet",
            json!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            "StatefulSet",
            json!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
        ),
        (
            "DaemonSet",
            json!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        ),
        (
            "Deployment",
            json!({"replicas": -1, "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
                "template": {"spec": {}}, "revisionHistoryLimit": -1}),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"In\"}]}: invalid label selector",
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "Deployment",
            json!({"strategy": {"type": "Slow"}}),
            &[
                "spec.strategy: Unsupported value: {\"Type\":\"Slow\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            "Deployment",
            rolling("strategy", json!({"maxUnavailable": "x", "maxSurge": 0})),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"x\": may not be 0 when `maxSurge` is 0",
            ],
        ),
        (
            "Deployment",
            rolling("strategy", json!({"maxUnavailable": "101%", "maxSurge": -1})),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        ),
        (
            "DaemonSet",
            json!({"updateStrategy": {"type": "Slow", "rollingUpdate": {"maxSurge": 1}}}),
            &[
                "spec.updateStrategy: Unsupported value: {\"Type\":\"Slow\",\"RollingUpdate\":{\"MaxUnavailable\":1,\"MaxSurge\":1}}: supported values: \"RollingUpdate\", \"OnDelete\"",
            ],
        ),
        (
            "StatefulSet",
            json!({"updateStrategy": {"type": "Slow"}, "podManagementPolicy": "Any", "serviceName": "A.b", "revisionHistoryLimit": -1}),
            &[
                "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy: Invalid value: {\"Type\":\"Slow\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
                "spec.serviceName: Invalid value: \"A.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            "StatefulSet",
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        ),
        (
            "StatefulSet",
            json!({"replicas": -1, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]}),
            &[
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
    ];
    for (kind, changes, expected) in cases {
        let shown = changes.to_string();
        assert_eq!(created("apps", kind, with(changes)), expected, "{kind} {shown}");
    }
    let mut dotted = with(json!({}));
    dotted["metadata"] = json!({"name": "a.b"});
    assert!(created("apps", "Deployment", dotted.clone()).is_empty());
    assert_eq!(
        created("apps", "StatefulSet", dotted),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
}

#[test]
fn what_an_old_set_got_wrong_may_stay() {
    let bad = |more: Value| {
        let mut changes = json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}},
            "serviceName": "A.b", "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(changes)
    };
    assert_eq!(updated("apps", "StatefulSet", bad(json!({})), bad(json!({"replicas": 3}))), [""; 0]);
    let template = json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}});
    assert_eq!(
        updated("apps", "StatefulSet", with(json!({})), with(template)),
        ["spec.template.spec.containers: Required value"]
    );
    // What a set says is read before what it may not change.
    assert_eq!(
        updated("apps", "StatefulSet", with(json!({})), with(json!({"serviceName": "s", "replicas": -1}))),
        [
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ]
    );
}

#[test]
fn budgets_and_counts() {
    let both = json!({"spec": {"minAvailable": 1, "maxUnavailable": "110%"}});
    assert_eq!(
        created("policy", "PodDisruptionBudget", both),
        [
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":\"110%\",\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: \"110%\": must not be greater than 100%",
        ]
    );
    // Nothing is asked of a budget's name and finalizers but what is asked of all.
    let named = json!({"metadata": {"name": "A_b", "finalizers": ["f"]}, "spec": {"maxUnavailable": 1}});
    assert_eq!(created("policy", "PodDisruptionBudget", named), [""; 0]);

    let gvk = Gvk::new("apps", "v1", "ReplicaSet");
    let make = |status: Value| {
        let mut set = with(json!({}));
        set["status"] = status;
        let mut set = object("apps", "ReplicaSet", set);
        set.set_resource_version("1");
        set
    };
    let status = make(json!({"replicas": 0, "terminatingReplicas": -1}));
    assert_eq!(
        update_status(&gvk, lookup(&gvk).unwrap(), &status, &make(json!({"replicas": 0}))).to_string(),
        "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0"
    );
}
