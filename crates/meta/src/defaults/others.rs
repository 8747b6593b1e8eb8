//! Defaults of the groups that have only a few: rbac, storage, scheduling, flowcontrol, admissionregistration, resource,
//! apiextensions, apiregistration.

use serde_json::{Map, Value, json};

use super::{Row, Rule, set_absent, text};
use crate::path::object_at;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const ROWS: &[Row] = &[
    ("rbac.v1.RoleRef", "apiGroup", r#""rbac.authorization.k8s.io""#),
    ("storage.v1.StorageClass", "reclaimPolicy", r#""Delete""#),
    ("storage.v1.StorageClass", "volumeBindingMode", r#""Immediate""#),
    ("storage.v1.CSIDriverSpec", "attachRequired", "true"),
    ("storage.v1.CSIDriverSpec", "podInfoOnMount", "false"),
    ("storage.v1.CSIDriverSpec", "storageCapacity", "false"),
    ("storage.v1.CSIDriverSpec", "fsGroupPolicy", r#""ReadWriteOnceWithFSType""#),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", r#"["Persistent"]"#),
    ("storage.v1.CSIDriverSpec", "requiresRepublish", "false"),
    ("storage.v1.CSIDriverSpec", "seLinuxMount", "false"),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", r#""PreemptLowerPriority""#),
    ("flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence", "1000"),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares", "30"),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", "nominalConcurrencyShares", "0"),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol.v1.QueuingConfiguration", "handSize", "8"),
    ("flowcontrol.v1.QueuingConfiguration", "queues", "64"),
    ("flowcontrol.v1.QueuingConfiguration", "queueLengthLimit", "50"),
    ("admissionregistration.v1.MutatingWebhook", "failurePolicy", r#""Fail""#),
    ("admissionregistration.v1.MutatingWebhook", "matchPolicy", r#""Equivalent""#),
    ("admissionregistration.v1.MutatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration.v1.MutatingWebhook", "objectSelector", "{}"),
    ("admissionregistration.v1.MutatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration.v1.MutatingWebhook", "reinvocationPolicy", r#""Never""#),
    ("admissionregistration.v1.ValidatingWebhook", "failurePolicy", r#""Fail""#),
    ("admissionregistration.v1.ValidatingWebhook", "matchPolicy", r#""Equivalent""#),
    ("admissionregistration.v1.ValidatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration.v1.ValidatingWebhook", "objectSelector", "{}"),
    ("admissionregistration.v1.ValidatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration.v1.RuleWithOperations", "scope", r#""*""#),
    ("admissionregistration.v1.NamedRuleWithOperations", "scope", r#""*""#),
    ("admissionregistration.v1.ServiceReference", "port", "443"),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "failurePolicy", r#""Fail""#),
    ("admissionregistration.v1.MatchResources", "matchPolicy", r#""Equivalent""#),
    ("admissionregistration.v1.MatchResources", "namespaceSelector", "{}"),
    ("admissionregistration.v1.MatchResources", "objectSelector", "{}"),
    ("admissionregistration.v1beta1.NamedRuleWithOperations", "scope", r#""*""#),
    ("admissionregistration.v1beta1.MutatingAdmissionPolicySpec", "failurePolicy", r#""Fail""#),
    ("admissionregistration.v1beta1.MatchResources", "matchPolicy", r#""Equivalent""#),
    ("admissionregistration.v1beta1.MatchResources", "namespaceSelector", "{}"),
    ("admissionregistration.v1beta1.MatchResources", "objectSelector", "{}"),
    ("resource.v1.ExactDeviceRequest", "allocationMode", r#""ExactCount""#),
    ("resource.v1.DeviceSubRequest", "allocationMode", r#""ExactCount""#),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference", "port", "443"),
    ("kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference", "port", "443"),
];

pub(super) const RULES: &[Rule] = &[
    ("rbac.v1.Subject", subject),
    ("resource.v1.ExactDeviceRequest", device_count),
    ("resource.v1.DeviceSubRequest", device_count),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", stored_versions),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec", definition),
];

fn subject(subject: &mut Map<String, Value>) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set_absent(subject, "apiGroup", RBAC_GROUP);
    }
}

fn device_count(request: &mut Map<String, Value>) {
    if text(request, "allocationMode") == "ExactCount" {
        set_absent(request, "count", 1);
    }
}

fn definition(spec: &mut Map<String, Value>) {
    let names = object_at(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        if text(names, "singular").is_empty() {
            names.insert("singular".into(), kind.to_lowercase().into());
        }
        if text(names, "listKind").is_empty() {
            names.insert("listKind".into(), format!("{kind}List").into());
        }
    }
    set_absent(spec, "conversion", json!({"strategy": "None"}));
}

fn stored_versions(definition: &mut Map<String, Value>) {
    let versions = definition.get("spec").and_then(|s| s.get("versions")).and_then(Value::as_array);
    let stored = versions.into_iter().flatten().find(|v| v.get("storage").and_then(Value::as_bool) == Some(true));
    let Some(name) = stored.and_then(|v| v.get("name")).cloned() else { return };
    let status = object_at(definition, "status");
    if super::is_empty(status, "storedVersions") {
        status.insert("storedVersions".into(), json!([name]));
    }
}
