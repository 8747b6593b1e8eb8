//! Kinds of the groups beside core, apps and batch: all that is wrong with an object, in upstream's order.

use serde_json::{Value, json};

use super::tests::{created, object, updated};
use super::update_status;
use crate::gvk::Gvk;
use crate::schema::lookup;

const ADMISSION: &str = "admissionregistration.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const SCHEDULING: &str = "scheduling.k8s.io";
const STORAGE: &str = "storage.k8s.io";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn binding(kind: &str, subject: Value) -> Value {
    json!({"roleRef": {"apiGroup": RBAC, "kind": kind, "name": "r"}, "subjects": [subject]})
}

fn tls(tls: Value) -> Value {
    json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}, "tls": [tls]}})
}

fn behind_wildcard(replicas: &str, path: &str) -> Value {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    json!({"metadata": {"labels": {"r": replicas}}, "spec": {"rules": [{"host": "*.e.com", "http": {"paths": [
        {"pathType": "Prefix", "path": path, "backend": backend}]}}]}})
}

fn driver(spec: Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn new_objects() {
    let port = |port: Value| json!({"spec": {"ingress": [{"ports": [port]}]}});
    let slice = |addresses: Value| json!({"addressType": "FQDN", "endpoints": [{"addresses": addresses}], "ports": [{"port": 80}]});
    let class = |more: Value| {
        let mut class = json!({"provisioner": "p"});
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        class
    };
    let system = |name: &str, more: Value| {
        let mut class = json!({"metadata": {"name": name}, "value": 2_000_000_000});
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        class
    };
    let empty_host = format!("spec.tls[0].hosts[0]: Invalid value: \"\": {SUBDOMAIN}");
    let empty_host = [empty_host.as_str()];
    let cases: Vec<(&str, &str, Value, &[&str])> = vec![
        (
            NETWORKING,
            "NetworkPolicy",
            port(json!({"protocol": "ICMP", "port": 90, "endPort": 80})),
            &[
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[0].endPort: Invalid value: 90: must be greater than or equal to `port`",
            ],
        ),
        (
            NETWORKING,
            "NetworkPolicy",
            port(json!({"port": "http", "endPort": 80})),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric"],
        ),
        (
            NETWORKING,
            "NetworkPolicy",
            json!({"spec": {"policyTypes": ["Both"]}}),
            &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\""],
        ),
        (NETWORKING, "Ingress", tls(json!({"hosts": [""]})), &empty_host),
        (
            NETWORKING,
            "IngressClass",
            json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "", "name": ""}}}),
            &[
                "spec.parameters.kind: Required value: kind is required",
                "spec.parameters.name: Required value: name is required",
            ],
        ),
        (
            NETWORKING,
            "ServiceCIDR",
            json!({"spec": {"cidrs": ["10.0.0.0/16", "x"]}}),
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"x\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        ),
        (
            RBAC,
            "RoleBinding",
            binding("Rule", json!({"kind": "Robot", "name": "x"})),
            &[
                "roleRef.kind: Unsupported value: \"Rule\": supported values: \"Role\", \"ClusterRole\"",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
        (
            RBAC,
            "ClusterRoleBinding",
            binding("ClusterRole", json!({"kind": "ServiceAccount", "name": "x", "apiGroup": "v1"})),
            &[
                "subjects[0].apiGroup: Unsupported value: \"v1\": supported values: \"\"",
                "subjects[0].namespace: Required value",
            ],
        ),
        (
            RBAC,
            "ClusterRole",
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}}),
            &[
                "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
                "aggregationRule.clusterRoleSelectors[0]: Invalid value: null: invalid label selector.",
            ],
        ),
        (
            STORAGE,
            "StorageClass",
            class(json!({"provisioner": "A b", "reclaimPolicy": "Keep", "allowedTopologies": [{}]})),
            &[
                "provisioner: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
                "allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\"",
            ],
        ),
        (
            STORAGE,
            "StorageClass",
            class(json!({"allowedTopologies": [
                {"matchLabelExpressions": [{"key": "z", "values": ["a", "b"]}]},
                {"matchLabelExpressions": [{"key": "z", "values": ["b", "a"]}]}]})),
            &["allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\""],
        ),
        (
            STORAGE,
            "CSIDriver",
            driver(
                json!({"volumeLifecycleModes": ["Short"], "tokenRequests": [{"audience": "a"}, {"audience": "a", "expirationSeconds": 1}]}),
            ),
            &[
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                "spec.volumeLifecycleModes: Unsupported value: \"Short\": supported values: \"Persistent\", \"Ephemeral\"",
            ],
        ),
        (STORAGE, "CSIDriver", json!({"metadata": {"name": "d".repeat(64)}, "spec": {}}), &[]),
        (
            STORAGE,
            "CSINode",
            json!({"spec": {"drivers": [{"name": "d.e", "nodeID": "x", "topologyKeys": ["k", "k"]}]}}),
            &["spec.drivers[0]: Duplicate value: \"k\""],
        ),
        (
            SCHEDULING,
            "PriorityClass",
            system("system-x", json!({})),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
            ],
        ),
        (
            SCHEDULING,
            "PriorityClass",
            system("system-node-critical", json!({})),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
            ],
        ),
        (
            SCHEDULING,
            "PriorityClass",
            system("system-cluster-critical", json!({"globalDefault": true})),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: globalDefault of system-cluster-critical PriorityClass must be false",
            ],
        ),
        (SCHEDULING, "PriorityClass", system("system-cluster-critical", json!({})), &[]),
        (
            SCHEDULING,
            "PriorityClass",
            json!({"value": 1, "preemptionPolicy": "Maybe"}),
            &["preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"PreemptLowerPriority\", \"Never\""],
        ),
        (DISCOVERY, "EndpointSlice", slice(json!(["a.example.com."])), &[]),
        (
            DISCOVERY,
            "EndpointSlice",
            slice(json!(["", "a"])),
            &[
                "endpoints[0].addresses[0]: Required value",
                "endpoints[0].addresses[1]: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
            ],
        ),
        (
            DISCOVERY,
            "EndpointSlice",
            json!({"addressType": "Post", "endpoints": [{"addresses": ["a b"]}], "ports": [{"port": 80}]}),
            &["addressType: Unsupported value: \"Post\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
        ),
        (
            "apiregistration.k8s.io",
            "APIService",
            json!({"metadata": {"name": "v1.e.com"}, "spec": {"group": "e.com", "version": "v1",
                "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "s", "namespace": "n", "port": 70000}}}),
            &["spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive"],
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            json!({"spec": {"priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByDay"}}}),
            &[
                "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"ByDay\"}: supported values: \"ByNamespace\", \"ByUser\"",
            ],
        ),
        (
            ADMISSION,
            "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"],
                "matchResources": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"]}]},
                "paramRef": {"name": "x", "selector": {"matchLabels": {"-": "y"}}, "parameterNotFoundAction": "Deny"}}}),
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector.matchLabels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.matchResources.resourceRules[0].resources: Required value",
            ],
        ),
        (
            ADMISSION,
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"name": "a.example.com", "sideEffects": "Many", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://u:p@h/#f"}}]}),
            &[
                "webhooks[0].sideEffects: Unsupported value: \"Many\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            ],
        ),
        (
            "node.k8s.io",
            "RuntimeClass",
            json!({"handler": "h", "scheduling": {"tolerations": [
                {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
                {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}]}}),
            &[
                "scheduling.tolerations[1]: Duplicate value: {\"effect\":\"NoExecute\",\"key\":\"k\",\"operator\":\"Exists\",\"tolerationSeconds\":2}",
            ],
        ),
    ];
    for (group, kind, value, expected) in cases {
        let shown = value.to_string();
        assert_eq!(created(group, kind, value), expected, "{kind} {shown}");
    }
}

#[test]
fn changes() {
    let role = |name: &str| json!({"roleRef": {"kind": "Role", "name": name}});
    let topologies = |values: Value| json!({"provisioner": "p", "allowedTopologies": values});
    let node = |id: &str| json!({"spec": {"drivers": [{"name": "d.e", "nodeID": id}]}});
    let class = |handler: &str, more: Value| json!({"handler": handler, "scheduling": more});
    let cases: Vec<(&str, &str, Value, Value, &[&str])> = vec![
        (
            RBAC,
            "RoleBinding",
            role("a"),
            role("b"),
            &[
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"b\"}: cannot change roleRef",
            ],
        ),
        // Of these only what may not change is looked at.
        (STORAGE, "StorageClass", topologies(json!([])), topologies(json!([{}])), &[]),
        ("node.k8s.io", "RuntimeClass", class("h", json!({})), class("h", json!({"nodeSelector": {"-": "x"}})), &[]),
        (
            STORAGE,
            "CSIStorageCapacity",
            json!({"storageClassName": "c", "capacity": "1Gi"}),
            json!({"storageClassName": "c", "capacity": "-1Gi"}),
            &[],
        ),
        (
            SCHEDULING,
            "PriorityClass",
            json!({"value": 1}),
            json!({"value": 2}),
            &["value: Forbidden: may not be changed in an update."],
        ),
        (
            STORAGE,
            "CSINode",
            node("a"),
            node("b"),
            &[
                "spec.drivers: Invalid value: {\"name\":\"d.e\",\"nodeID\":\"b\",\"topologyKeys\":null}: field is immutable",
            ],
        ),
        // What an old ingress got wrong may stay.
        (NETWORKING, "Ingress", tls(json!({"secretName": "A"})), tls(json!({"secretName": "B"})), &[]),
        (NETWORKING, "Ingress", behind_wildcard("1", "x"), behind_wildcard("2", "x"), &[]),
        (
            NETWORKING,
            "Ingress",
            behind_wildcard("1", "/x"),
            behind_wildcard("2", "x"),
            &["spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"],
        ),
    ];
    for (group, kind, before, after, expected) in cases {
        let shown = after.to_string();
        assert_eq!(updated(group, kind, before, after), expected, "{kind} {shown}");
    }
}

/// A slice with one device of these members.
fn slice(device: Value) -> Value {
    let mut device = device;
    device["name"] = "d".into();
    json!({"spec": {"driver": "d.example.com", "perDeviceNodeSelection": true, "devices": [device],
        "pool": {"name": "p", "resourceSliceCount": 1}}})
}

#[test]
fn devices() {
    let capacity = |range: Value| {
        slice(json!({"allNodes": true, "allowMultipleAllocations": true, "capacity": {"m": {"value": "10",
            "requestPolicy": {"default": "1", "validRange": range}}}}))
    };
    let at = "spec.devices[0].capacity[m].requestPolicy.validRange";
    let ranged = |messages: &[&str]| messages.iter().map(|m| format!("{at}.{m}")).collect::<Vec<_>>();
    let attribute = |name: &str| slice(json!({"allNodes": true, "attributes": {name: {"int": 1}}}));
    let plain = |messages: &[&str]| messages.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
    let cases = [
        (
            slice(json!({"nodeName": "", "bindingConditions": ["a", "a"], "bindingFailureConditions": ["a"]})),
            plain(&[
                "spec.devices[0].nodeName: Invalid value: \"\": must not be empty",
                "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                "spec.devices[0].bindingConditions[1]: Duplicate value: \"a\"",
                "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
            ]),
        ),
        (
            slice(json!({"allNodes": true, "bindingFailureConditions": ["a"]})),
            plain(&[
                "spec.devices[0].bindingConditions: Invalid value: null: bindingConditions are required to use bindingFailureConditions",
            ]),
        ),
        (
            capacity(json!({"min": "2", "step": "9"})),
            ranged(&[
                "min: Invalid value: \"1\": default is less than min: 2",
                "step: Invalid value: \"9\": one step 11 is larger than capacity value: 10",
                "step: Invalid value: \"1\": value is not a multiple of a given step (9) from (2)",
            ]),
        ),
        (
            capacity(json!({"min": "0", "max": "0"})),
            ranged(&["max: Invalid value: \"1\": default is more than max: 0"]),
        ),
        (attribute("a/b/c"), Vec::new()),
        (
            attribute("/"),
            plain(&[
                "spec.devices[0].attributes[/]: Invalid value: \"\": the domain must not be empty",
                "spec.devices[0].attributes[/]: Invalid value: \"\": the name must not be empty",
            ]),
        ),
    ];
    for (value, expected) in cases {
        let shown = value.to_string();
        assert_eq!(created(RESOURCE, "ResourceSlice", value), expected, "{shown}");
    }
}

#[test]
fn allocated_devices_have_addresses_and_sources() {
    let gvk = Gvk::new(RESOURCE, "v1", "ResourceClaim");
    let make = |status: Value| {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Equal"}]}});
        let value = json!({"spec": {"devices": {"requests": [request]}}, "status": status});
        let mut claim = object(RESOURCE, "ResourceClaim", value);
        claim.set_resource_version("1");
        claim
    };
    let device = json!({"driver": "d.e", "pool": "p", "device": "d"});
    let mut result = device.clone();
    result["request"] = "r".into();
    let mut told = device;
    told["networkData"] = json!({"ips": ["10.0.0.1/24", "FD00::1/64"]});
    let config = json!({"source": "FromAbove", "opaque": {"driver": "d.e", "parameters": {}}});
    let status = json!({"devices": [told], "allocation": {"devices": {"results": [result], "config": [config]}}});
    let errors = update_status(&gvk, lookup(&gvk).unwrap(), &make(status), &make(json!({})));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.devices[0].networkData.ips[1]: Invalid value: \"FD00::1/64\": must be in canonical form (\"fd00::1/64\")",
            "status.allocation.devices.config[0].source: Unsupported value: \"FromAbove\": supported values: \"FromClaim\", \"FromClass\"",
        ]
    );
    // A toleration without a key takes every key.
    let gvk_errors = created(
        RESOURCE,
        "ResourceClaim",
        json!({"spec": {"devices": {"requests": [{"name": "r",
        "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Equal"}]}}]}}}),
    );
    assert_eq!(gvk_errors, [""; 0]);
}

#[test]
fn attachments_tell_of_errors() {
    let gvk = Gvk::new(STORAGE, "v1", "VolumeAttachment");
    let make = |error: Value| {
        let spec = json!({"attacher": "d.e", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
        let value = json!({"spec": spec, "status": {"attached": false, "attachError": error}});
        let mut attachment = object(STORAGE, "VolumeAttachment", value);
        attachment.set_resource_version("1");
        attachment
    };
    let wrong = json!({"message": "x".repeat(1025), "errorCode": -1});
    let errors = update_status(&gvk, lookup(&gvk).unwrap(), &make(wrong), &make(json!({"message": "x"})));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ]
    );
}
