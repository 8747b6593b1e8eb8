use serde_json::{Value, json};

use super::*;
use crate::decode::{FieldValidation, conform};
use crate::defaults;
use crate::schema::lookup;

fn gvk(group: &str, kind: &str) -> Gvk {
    Gvk::new(group, if kind == "HorizontalPodAutoscaler" { "v2" } else { "v1" }, kind)
}

/// An object as it comes to validation: in normal form, with defaults, named `x` unless it says otherwise.
pub(super) fn object(group: &str, kind: &str, value: Value) -> Object {
    let gvk = gvk(group, kind);
    let schema = lookup(&gvk).unwrap();
    let mut object = Object::try_from(value).unwrap();
    object.set_gvk(&gvk);
    if object.name().is_empty() && object.generate_name().is_empty() {
        object.set_name("x");
    }
    conform(&mut object, schema, FieldValidation::Strict).unwrap();
    defaults::apply(&mut object, schema);
    object
}

pub(super) fn created(group: &str, kind: &str, value: Value) -> Vec<String> {
    let gvk = gvk(group, kind);
    create(&gvk, lookup(&gvk).unwrap(), &object(group, kind, value)).iter().map(ToString::to_string).collect()
}

pub(super) fn updated(group: &str, kind: &str, old: Value, new: Value) -> Vec<String> {
    let make = |value| {
        let mut object = object(group, kind, value);
        object.set_resource_version("1");
        object
    };
    let gvk = gvk(group, kind);
    update(&gvk, lookup(&gvk).unwrap(), &make(new), &make(old)).iter().map(ToString::to_string).collect()
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

fn deployment(spec: Value) -> Value {
    let mut base = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    for (member, value) in spec.as_object().unwrap() {
        base[member] = value.clone();
    }
    json!({"spec": base})
}

#[test]
fn metadata() {
    assert_eq!(
        created(
            "",
            "ConfigMap",
            json!({"metadata": {"name": "A b", "labels": {"-": "x y"}, "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]}})
        )
        .len(),
        5
    );
    assert_eq!(
        created("", "ConfigMap", json!({"metadata": {"generateName": "web-"}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let errors = updated("", "ConfigMap", json!({"metadata": {"uid": "a"}}), json!({"metadata": {"uid": "b"}}));
    assert_eq!(errors, ["metadata.uid: Invalid value: \"b\": field is immutable"]);
    let big = json!({"metadata": {"annotations": {"a": "x".repeat(300_000)}}});
    assert_eq!(created("", "ConfigMap", big), ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
}

#[test]
fn good_objects_pass() {
    for (group, kind, value) in [
        (
            "",
            "Pod",
            pod(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}],
            "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"exec": {"command": ["x"]}},
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}],
            "resources": {"limits": {"cpu": "1", "example.com/gpu": "1"}}}])),
        ),
        ("apps", "Deployment", deployment(json!({}))),
        (
            "apps",
            "StatefulSet",
            deployment(json!({"serviceName": "s", "volumeClaimTemplates": [{"metadata": {"name": "d"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]})),
        ),
        ("apps", "StatefulSet", {
            let mut set = deployment(json!({"serviceName": "s", "volumeClaimTemplates": [{"metadata": {"name": "d"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}));
            set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "d", "mountPath": "/d"}]);
            set
        }),
        ("apps", "DaemonSet", deployment(json!({}))),
        ("", "Service", json!({"spec": {"ports": [{"port": 80}]}})),
        ("", "Secret", json!({"data": {"a": "AA=="}})),
        (
            "",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRole",
            json!({"metadata": {"name": "system:x"}, "rules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        ),
        ("storage.k8s.io", "StorageClass", json!({"provisioner": "p"})),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template":
            {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}),
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}}),
        ),
    ] {
        assert_eq!(created(group, kind, value), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn pods() {
    assert_eq!(created("", "Pod", json!({"spec": {}})), ["spec.containers: Required value"]);
    let errors = created(
        "",
        "Pod",
        pod(json!([
            {"name": "A", "image": ""}, {"name": "b", "image": "i", "imagePullPolicy": "Sometimes",
                "ports": [{"containerPort": 0}, {"containerPort": 70000, "name": "x--y"}],
                "volumeMounts": [{"name": "none", "mountPath": "/x"}],
                "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1", "gold": "1"}},
                "livenessProbe": {"successThreshold": 2}, "env": [{"name": "a=b"}]},
            {"name": "b", "image": "i"},
        ])),
    );
    for wanted in [
        "spec.containers[1].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        "spec.containers[0].image: Required value",
        "spec.containers[1].ports[0].containerPort: Required value",
        "spec.containers[1].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        "spec.containers[1].ports[1].name: Invalid value: \"x--y\": must not contain consecutive hyphens",
        "spec.containers[1].volumeMounts[0].name: Not found: \"none\"",
        "spec.containers[1].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        "spec.containers[1].resources.limits[gold]: Invalid value: \"gold\": must be a standard resource type or fully qualified",
        "spec.containers[1].livenessProbe: Required value: must specify a handler type",
        "spec.containers[1].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        "spec.containers[2].name: Duplicate value: \"b\"",
    ] {
        assert!(errors.iter().any(|e| e == wanted), "{wanted}\nnot in {errors:#?}");
    }
    let errors = created(
        "",
        "Pod",
        json!({"spec": {"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/../x"}}, {"name": "w", "emptyDir": {}},
            {"name": "w", "configMap": {}}],
        "tolerations": [{"operator": "Equal", "value": "x"}]}}),
    );
    for wanted in [
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        "spec.volumes[2].name: Duplicate value: \"w\"",
        "spec.volumes[2].configMap.name: Required value",
    ] {
        assert!(errors.iter().any(|e| e == wanted), "{wanted}\nnot in {errors:#?}");
    }
}

#[test]
fn pod_changes() {
    let base = pod(json!([{"name": "c", "image": "1"}]));
    assert!(updated("", "Pod", base.clone(), pod(json!([{"name": "c", "image": "2"}]))).is_empty());
    let mut tolerating = base.clone();
    tolerating["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    assert!(updated("", "Pod", base.clone(), tolerating.clone()).is_empty());
    assert_eq!(updated("", "Pod", tolerating, base.clone()).len(), 1);
    let errors = updated("", "Pod", base.clone(), pod(json!([{"name": "c", "image": "1", "command": ["x"]}])));
    assert!(
        errors[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
    );
    let errors = updated("", "Pod", base, pod(json!([{"name": "c", "image": "1"}, {"name": "d", "image": "1"}])));
    assert_eq!(errors, ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
}

#[test]
fn workloads() {
    assert_eq!(
        created("apps", "Deployment", deployment(json!({"selector": {"matchLabels": {"a": "c"}}, "replicas": -1}))),
        [
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(
        created("apps", "Deployment", deployment(json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}))),
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
    );
    assert_eq!(
        created(
            "apps",
            "Deployment",
            deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}))
        ),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"]
    );
    let rolling = |kind: &str, rolling: Value| {
        let member = if kind == "Deployment" { "strategy" } else { "updateStrategy" };
        created("apps", kind, deployment(json!({member: {"type": "RollingUpdate", "rollingUpdate": rolling}})))
    };
    assert_eq!(rolling("Deployment", json!({"maxUnavailable": 0, "maxSurge": "200%"})), [""; 0]);
    assert_eq!(
        rolling("Deployment", json!({"maxUnavailable": 1, "maxSurge": -1})),
        ["spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"]
    );
    assert_eq!(
        rolling("StatefulSet", json!({"maxUnavailable": 0})),
        ["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"]
    );
    let other = deployment(
        json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
    );
    let errors = updated("apps", "Deployment", deployment(json!({})), other.clone());
    assert!(
        errors[0].starts_with("spec.selector: Invalid value: ") && errors[0].ends_with(": field is immutable"),
        "{errors:?}"
    );
    assert!(
        updated("apps", "StatefulSet", deployment(json!({})), other)[0]
            .starts_with("spec: Forbidden: updates to statefulset spec")
    );
    assert!(updated("apps", "StatefulSet", deployment(json!({})), deployment(json!({"replicas": 3}))).is_empty());
}

#[test]
fn services_and_data() {
    assert_eq!(created("", "Service", json!({"spec": {}})), ["spec.ports: Required value"]);
    assert_eq!(
        created(
            "",
            "Service",
            json!({"metadata": {"name": "0x"}, "spec": {"ports": [{"port": 0, "nodePort": 30000}, {"port": 0}]}})
        )
        .len(),
        9
    );
    assert_eq!(
        updated(
            "",
            "Service",
            json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 1}]}}),
            json!({"spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"], "ports": [{"port": 1}]}})
        ),
        ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
    );
    assert_eq!(created("", "ConfigMap", json!({"data": {"a b": "x", "c": "y"}, "binaryData": {"c": "AA=="}})).len(), 2);
    assert_eq!(
        created("", "ConfigMap", json!({"data": {"a": "x".repeat(1_100_000)}})),
        [": Too long: may not be more than 1048576 bytes"]
    );
    let errors = updated(
        "",
        "ConfigMap",
        json!({"immutable": true, "data": {"a": "1"}}),
        json!({"immutable": true, "data": {"a": "2"}}),
    );
    assert_eq!(errors, ["data: Forbidden: field is immutable when `immutable` is set"]);
    assert_eq!(
        created("", "Secret", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
        ["data[tls.key]: Required value"]
    );
    assert_eq!(
        updated("", "Secret", json!({}), json!({"type": "x"})),
        ["type: Invalid value: \"x\": field is immutable"]
    );
}

#[test]
fn storage_and_rbac() {
    assert_eq!(
        created("", "PersistentVolumeClaim", json!({"spec": {}})),
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value"
        ]
    );
    let claim = |size: &str, phase: &str| json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}, "status": {"phase": phase, "capacity": {"storage": "1Gi"}}});
    assert!(updated("", "PersistentVolumeClaim", claim("1Gi", "Bound"), claim("2Gi", "Bound")).is_empty());
    assert!(
        updated("", "PersistentVolumeClaim", claim("1Gi", "Pending"), claim("2Gi", "Pending"))[0]
            .starts_with("spec: Forbidden: spec is immutable after creation")
    );
    assert_eq!(
        updated("", "PersistentVolumeClaim", claim("2Gi", "Bound"), claim("1Gi", "Bound")),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
    assert_eq!(
        created(
            "",
            "PersistentVolume",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}})
        ),
        ["spec: Required value: must specify a volume type"]
    );
    assert_eq!(
        created("rbac.authorization.k8s.io", "Role", json!({"rules": [{"verbs": [], "resources": ["pods"]}]})),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group"
        ]
    );
    // In a namespace an account without one is that namespace's.
    let bound = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "a"}]});
    assert_eq!(created("rbac.authorization.k8s.io", "RoleBinding", bound.clone()), [""; 0]);
    assert_eq!(
        created("rbac.authorization.k8s.io", "ClusterRoleBinding", bound),
        ["subjects[0].namespace: Required value"]
    );
    let binding = |name: &str| json!({"roleRef": {"kind": "Role", "name": name}});
    assert!(
        updated("rbac.authorization.k8s.io", "RoleBinding", binding("a"), binding("b"))[0]
            .ends_with("cannot change roleRef")
    );
    assert_eq!(
        updated("storage.k8s.io", "StorageClass", json!({"provisioner": "a"}), json!({"provisioner": "b"})),
        ["provisioner: Forbidden: updates to provisioner are forbidden."]
    );
}

#[test]
fn every_row_is_a_kind_and_takes_an_empty_object() {
    for (gvk, _) in crate::schema::kinds() {
        let mut empty = Object::new(&gvk);
        empty.set_name("x");
        let _ = create(&gvk, lookup(&gvk).unwrap(), &empty);
        let _ = update(&gvk, lookup(&gvk).unwrap(), &empty, &empty);
    }
    let tables =
        [core::KINDS, pods::KINDS, services::KINDS, storage::KINDS, workloads::KINDS, network::KINDS, others::KINDS];
    for row in tables.into_iter().flatten() {
        assert!(crate::schema::kinds().any(|(gvk, _)| gvk.group == row.group && gvk.kind == row.kind), "{}", row.kind);
    }
}

#[test]
fn logins_are_json_and_claims_have_a_fate() {
    let login = |text: &str| {
        created("", "Secret", json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": text}}))
    };
    assert!(login("e30=").is_empty());
    let redacted = "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": ";
    let number = "json: cannot unmarshal number into Go value of type map[string]interface {}";
    assert_eq!(login("MQ=="), [format!("{redacted}{number}")]);
    assert!(login("eA==")[0].starts_with(redacted));
    let set =
        deployment(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Lose", "whenScaled": "Delete"}}));
    assert_eq!(
        created("apps", "StatefulSet", set),
        [
            "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Lose\": supported values: \"Retain\", \"Delete\""
        ]
    );
}

#[test]
fn choices_are_told_as_upstream_tells_them() {
    let pod = json!({"spec": {"dnsPolicy": "x", "preemptionPolicy": "x", "securityContext": {"seLinuxChangePolicy": "MountOption"},
        "tolerations": [{"key": "k", "operator": "Gt", "value": "1", "effect": "x"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": "x"}]}]}}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "terminationMessagePolicy": "x", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "x", "values": [1]}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "x"}]}]}});
    let claim = json!({"spec": {"accessModes": ["x"], "resources": {"requests": {"storage": "1Gi"}}}});
    let quota = json!({"spec": {"scopes": ["x"], "scopeSelector": {"matchExpressions": [
        {"scopeName": "y", "operator": "In", "values": ["a"]}, {"scopeName": "PriorityClass", "operator": "z"}]}}});
    let service = json!({"spec": {"ports": [{"port": 1}], "ipFamilies": ["x"]}});
    let node = json!({"spec": {"taints": [{"key": "k", "effect": "x"}]}});
    let term = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let operator = format!("{term}.matchExpressions[0].operator: Invalid value: \"x\": not a valid selector operator");
    let effects = "Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"";
    let of_toleration = format!("spec.tolerations[0].effect: {effects}");
    let of_taint = format!("spec.taints[0].effect: {effects}");
    let unsupported = |field: &str, value: &str, known: &[&str]| {
        let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
        format!("{field}: Unsupported value: {value:?}: supported values: {}", known.join(", "))
    };
    let cases: [(&str, Value, Vec<String>); 5] = [
        (
            "Pod",
            pod,
            vec![
                unsupported("spec.dnsPolicy", "x", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
                unsupported("spec.preemptionPolicy", "x", &["PreemptLowerPriority", "Never"]),
                unsupported("spec.securityContext.seLinuxChangePolicy", "MountOption", &["Recursive"]),
                unsupported("spec.tolerations[0].operator", "Gt", &["Equal", "Exists"]),
                of_toleration,
                operator,
                unsupported("spec.containers[0].terminationMessagePolicy", "x", &["File", "FallbackToLogsOnError"]),
                unsupported("spec.containers[0].restartPolicyRules[0].action", "RestartAllContainers", &["Restart"]),
                unsupported("spec.containers[0].restartPolicyRules[0].exitCodes.operator", "x", &["In", "NotIn"]),
                unsupported(
                    "spec.containers[0].volumeMounts.mountPropagation",
                    "x",
                    &["Bidirectional", "HostToContainer", "None"],
                ),
            ],
        ),
        (
            "PersistentVolumeClaim",
            claim,
            vec![unsupported(
                "spec.accessModes",
                "x",
                &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"],
            )],
        ),
        (
            "ResourceQuota",
            quota,
            vec![
                "spec.scopes: Invalid value: [\"x\"]: unsupported scope".to_owned(),
                "spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"y\": unsupported scope".to_owned(),
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"z\": not a valid selector operator"
                    .to_owned(),
            ],
        ),
        ("Service", service, vec![unsupported("spec.ipFamilies[0]", "x", &["IPv4", "IPv6"])]),
        ("Node", node, vec![of_taint]),
    ];
    for (kind, object, wanted) in cases {
        let errors = created("", kind, object);
        for wanted in &wanted {
            assert_eq!(errors.iter().filter(|error| *error == wanted).count(), 1, "{wanted}\nin {errors:#?}");
        }
        let told = errors.iter().filter(|error| error.contains("supported") || error.contains("operator"));
        assert_eq!(told.count(), wanted.len(), "{errors:#?}");
    }
}
