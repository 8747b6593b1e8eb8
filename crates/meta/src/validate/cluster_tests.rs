//! Kinds that configure the cluster: admission, aggregation, flow control, networking, storage, devices, certificates.

use serde_json::{Value, json};

use super::tests::{created, object, updated};
use super::update_status;
use crate::gvk::Gvk;
use crate::schema::lookup;

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOWS: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

/// Changes members of a JSON object, by pointer.
fn with(mut base: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        base.pointer_mut(parent).unwrap()[member] = value.clone();
    }
    base
}

fn hook() -> Value {
    json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/x"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]})
}

fn policy() -> Value {
    json!({"spec": {"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": [
        {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}}})
}

fn level() -> Value {
    json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}})
}

fn flow() -> Value {
    json!({"spec": {"priorityLevelConfiguration": {"name": "l"}, "rules": [{
        "subjects": [{"kind": "User", "user": {"name": "u"}}],
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}]}]}})
}

/// An ingress with one path, of which these members are as given.
fn ingress(changes: Value) -> Value {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let mut path = json!({"pathType": "Prefix", "path": "/", "backend": backend});
    for (member, value) in changes.as_object().unwrap() {
        path[member] = value.clone();
    }
    json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}})
}

fn claim(request: Value) -> Value {
    json!({"spec": {"devices": {"requests": [request]}}})
}

fn slice() -> Value {
    json!({"spec": {"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1},
        "devices": [{"name": "d", "attributes": {"a": {"string": "x"}}, "capacity": {"e.com/m": {"value": "1Gi"}}}]}})
}

#[test]
fn good_objects_pass() {
    for (group, kind, value) in [
        (ADMISSION, "MutatingWebhookConfiguration", hook()),
        (ADMISSION, "ValidatingWebhookConfiguration", hook()),
        (ADMISSION, "ValidatingAdmissionPolicy", policy()),
        (
            ADMISSION,
            "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Audit"],
                "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}}}),
        ),
        (FLOWS, "PriorityLevelConfiguration", level()),
        (FLOWS, "FlowSchema", flow()),
        (NETWORKING, "Ingress", ingress(json!({}))),
        (
            NETWORKING,
            "IPAddress",
            json!({"metadata": {"name": "10.96.0.1"}, "spec": {"parentRef": {"resource": "services", "name": "k"}}}),
        ),
        (NETWORKING, "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/16", "fd00::/112"]}})),
        (STORAGE, "CSIDriver", json!({"spec": {}})),
        (STORAGE, "CSINode", json!({"spec": {"drivers": [{"name": "d.e", "nodeID": "x"}]}})),
        (STORAGE, "VolumeAttributesClass", json!({"driverName": "d.e", "parameters": {"a": "b"}})),
        (
            STORAGE,
            "VolumeAttachment",
            json!({"spec": {"attacher": "d.e", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        (RESOURCE, "ResourceClaim", claim(json!({"name": "r", "exactly": {"deviceClassName": "c"}}))),
        (RESOURCE, "ResourceSlice", slice()),
        (RESOURCE, "DeviceClass", json!({"spec": {"extendedResourceName": "e.com/gpu"}})),
        ("node.k8s.io", "RuntimeClass", json!({"handler": "h", "overhead": {"podFixed": {"cpu": "1m"}}})),
        (
            "apiregistration.k8s.io",
            "APIService",
            json!({"metadata": {"name": "v1.e.com"}, "spec": {"group": "e.com", "version": "v1",
                "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "s", "namespace": "n"}}}),
        ),
    ] {
        assert_eq!(created(group, kind, value), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn bad_objects_are_told_why() {
    let bad = |group: &str, kind: &str, value: Value, wanted: &str| {
        let errors = created(group, kind, value);
        assert!(errors.iter().any(|error| error == wanted), "{wanted}\nnot in {errors:#?}");
        errors
    };
    let kind = "ValidatingWebhookConfiguration";
    for (pointer, value, wanted) in [
        (
            "/webhooks/0/name",
            json!("a.b"),
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        ),
        (
            "/webhooks/0/sideEffects",
            json!("Some"),
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        ),
        (
            "/webhooks/0/clientConfig",
            json!({}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        ),
        (
            "/webhooks/0/clientConfig",
            json!({"url": "http://u@h/?q"}),
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ),
        (
            "/webhooks/0/clientConfig",
            json!({"service": {"name": "s", "namespace": "n", "path": "/a//b"}}),
            "webhooks[0].clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty",
        ),
        (
            "/webhooks/0/rules/0/resources",
            json!(["*/*", "pods"]),
            "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
        ),
        (
            "/webhooks/0/admissionReviewVersions",
            json!(["v2"]),
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        ),
        (
            "/webhooks/0/timeoutSeconds",
            json!(31),
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ),
    ] {
        assert!(bad(ADMISSION, kind, with(hook(), &[(pointer, value)]), wanted).len() <= 3);
    }
    let kind = "ValidatingAdmissionPolicy";
    for (pointer, value, wanted) in [
        (
            "/spec/validations",
            json!([]),
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ),
        (
            "/spec/variables",
            json!([{"name": "in", "expression": "1"}]),
            "spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier",
        ),
        (
            "/spec/paramKind",
            json!({"apiVersion": "a/b/c", "kind": "K"}),
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        ),
    ] {
        bad(ADMISSION, kind, with(policy(), &[(pointer, value)]), wanted);
    }
    bad(
        FLOWS,
        "PriorityLevelConfiguration",
        with(level(), &[("/spec/limited/limitResponse/queuing", json!({"queues": 512, "handSize": 10}))]),
        "spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 512 and handSize 10 should not be greater than 60",
    );
    bad(
        FLOWS,
        "FlowSchema",
        with(flow(), &[("/spec/matchingPrecedence", json!(1))]),
        "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
    );
    bad(
        NETWORKING,
        "Ingress",
        ingress(json!({"path": "/a/../b"})),
        "spec.rules[0].http.paths[0].path: Invalid value: \"/a/../b\": must not contain '/../'",
    );
    bad(
        NETWORKING,
        "Ingress",
        ingress(json!({"backend": {}})),
        "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
    );
    bad(
        NETWORKING,
        "NetworkPolicy",
        json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
        "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
    );
    bad(
        NETWORKING,
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.1/16"]}}),
        "spec.cidrs[0]: Invalid value: \"10.0.0.1/16\": must not have bits set beyond the prefix length",
    );
    bad(NETWORKING, "IPAddress", json!({"metadata": {"name": "10.0.0.1"}}), "spec.parentRef: Required value");
    bad(
        STORAGE,
        "VolumeAttributesClass",
        json!({"driverName": "d.e"}),
        "parameters: Required value: must contain at least one key/value pair",
    );
    bad(
        STORAGE,
        "VolumeAttachment",
        json!({"spec": {"attacher": "d.e", "nodeName": "n", "source": {}}}),
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
    );
    bad(
        RESOURCE,
        "ResourceClaim",
        claim(json!({"name": "r"})),
        "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
    );
    bad(
        RESOURCE,
        "ResourceSlice",
        with(slice(), &[("/spec/allNodes", json!(true))]),
        "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
    );
    bad(
        RESOURCE,
        "ResourceSlice",
        with(slice(), &[("/spec/devices/0/attributes", json!({"a": {"version": "1.02.3"}}))]),
        "spec.devices[0].attributes[a].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
    );
    bad(
        "apiregistration.k8s.io",
        "APIService",
        json!({"metadata": {"name": "x"}, "spec": {"group": "e.com", "version": "v1", "groupPriorityMinimum": 1,
            "versionPriority": 1}}),
        "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.e.com\"",
    );
}

#[test]
fn what_stays_stays() {
    for (group, kind, old, change, wanted) in [
        (
            NETWORKING,
            "ServiceCIDR",
            json!({"spec": {"cidrs": ["10.0.0.0/16"]}}),
            ("/spec/cidrs", json!(["10.1.0.0/16"])),
            "spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable",
        ),
        (
            NETWORKING,
            "IngressClass",
            json!({"spec": {"controller": "a.b/c"}}),
            ("/spec/controller", json!("a.b/d")),
            "spec.controller: Invalid value: \"a.b/d\": field is immutable",
        ),
        (
            STORAGE,
            "VolumeAttributesClass",
            json!({"driverName": "d.e", "parameters": {"a": "b"}}),
            ("/parameters", json!({"a": "c"})),
            "parameters: Forbidden: updates to parameters are forbidden.",
        ),
        (
            STORAGE,
            "CSIDriver",
            json!({"spec": {"attachRequired": true}}),
            ("/spec/attachRequired", json!(false)),
            "spec.attachedRequired: Invalid value: false: field is immutable",
        ),
        (
            RESOURCE,
            "ResourceSlice",
            slice(),
            ("/spec/driver", json!("e.example.com")),
            "spec.driver: Invalid value: \"e.example.com\": field is immutable",
        ),
    ] {
        let new = with(old.clone(), &[change]);
        assert_eq!(updated(group, kind, old, new), [wanted], "{kind}");
    }
    let (one, two) = (json!(["10.0.0.0/16"]), json!(["10.0.0.0/16", "fd00::/112"]));
    let ranges = |cidrs: &Value| json!({"spec": {"cidrs": cidrs}});
    assert!(updated(NETWORKING, "ServiceCIDR", ranges(&one), ranges(&two)).is_empty());
    assert_eq!(updated(NETWORKING, "ServiceCIDR", ranges(&two), ranges(&one)).len(), 1);
}

#[test]
fn decisions_and_certificates_stay() {
    let kind = "CertificateSigningRequest";
    let request = |status: Value| {
        let mut object = object(
            "certificates.k8s.io",
            kind,
            json!({"spec": {"request": "", "usages": ["client auth"], "signerName": "a.b/c"}, "status": status}),
        );
        object.set_resource_version("1");
        object
    };
    let gvk = Gvk::new("certificates.k8s.io", "v1", kind);
    let errors = |old: Value, new: Value| -> Vec<String> {
        update_status(&gvk, lookup(&gvk).unwrap(), &request(new), &request(old))
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    assert_eq!(
        errors(approved, json!({})),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
    let both = json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "False"}]});
    assert_eq!(
        errors(json!({}), both),
        [
            "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        ]
    );
    assert_eq!(
        errors(json!({"certificate": "YQ=="}), json!({"certificate": "Yg=="})),
        ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    );
    for (signer, wanted) in [
        ("a", "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        ("a/b", "should be a domain with at least two segments separated by dots"),
        ("kubernetes.io/legacy-unknown", "the legacy signerName is not allowed via this API version"),
    ] {
        let spec = json!({"spec": {"request": "", "usages": ["client auth"], "signerName": signer}});
        assert!(created("certificates.k8s.io", kind, spec)[0].ends_with(wanted), "{signer}");
    }
}

#[test]
fn a_claim_is_reserved_when_it_is_allocated() {
    let gvk = Gvk::new(RESOURCE, "v1", "ResourceClaim");
    let make = |status: Value| {
        let mut value = claim(json!({"name": "r", "exactly": {"deviceClassName": "c"}}));
        value["status"] = status;
        let mut object = object(RESOURCE, "ResourceClaim", value);
        object.set_resource_version("1");
        object
    };
    let pod = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
    let errors = update_status(&gvk, lookup(&gvk).unwrap(), &make(json!({"reservedFor": pod})), &make(json!({})));
    assert_eq!(errors.to_string(), "status.reservedFor: Forbidden: may not be specified when `allocated` is not set");
    let result = json!({"request": "r", "driver": "d.e", "pool": "p", "device": "d"});
    let allocated = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": pod});
    assert!(update_status(&gvk, lookup(&gvk).unwrap(), &make(allocated.clone()), &make(json!({}))).is_empty());
    let mut other = allocated.clone();
    other["allocation"]["devices"]["results"][0]["device"] = "e".into();
    assert!(
        update_status(&gvk, lookup(&gvk).unwrap(), &make(other), &make(allocated))
            .to_string()
            .contains("field is immutable")
    );
}

#[test]
fn services_nodes_and_namespaces() {
    let service = |more: serde_json::Value| {
        let mut spec = json!({"ports": [{"port": 1}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    };
    for (spec, wanted) in [
        (json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}), None),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
            Some("spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"),
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
            Some(
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            Some(
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
            ),
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            Some("spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"),
        ),
    ] {
        assert_eq!(created("", "Service", service(spec.clone())), Vec::from_iter(wanted), "{spec}");
    }
    let both = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    let mut one = both.clone();
    one["clusterIPs"] = json!(["10.0.0.1"]);
    one["ipFamilies"] = json!(["IPv4"]);
    let errors = updated("", "Service", service(both.clone()), service(one.clone()));
    assert_eq!(
        errors[0],
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP"
    );
    one["ipFamilyPolicy"] = json!("SingleStack");
    assert_eq!(updated("", "Service", service(both), service(one)), [""; 0]);

    let tainted =
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}});
    let errors = created("", "Node", tainted);
    assert!(
        errors[0].starts_with("metadata.taints[1]: Duplicate value: ")
            && errors[0].ends_with("taints must be unique by key and effect pair"),
        "{errors:?}"
    );
    assert_eq!(
        created("", "Node", json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}})),
        [
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family"
        ]
    );
    assert_eq!(
        created("", "Node", json!({"status": {"capacity": {"pods": "1500m"}}})),
        // What pods may use is all of it by default.
        ["capacity", "allocatable"]
            .map(|list| format!("status.{list}.pods: Invalid value: \"1500m\": must be an integer"))
    );
    assert_eq!(
        created(
            "",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1", "hostname": "a.b"}], "ports": [{"port": 1}]}]})
        )
        .len(),
        1
    );
}
