//! Defaulting: what upstream fills in before an object is admitted and stored.
//!
//! Three sources, walked from the root to the leaves: defaults of the field table (upstream's declarative ones), rows "this member
//! of this type takes this value when it is unset", and rules for what depends on other members. A custom resource's schema
//! brings its defaults with it.

mod core;
mod network;
mod others;
mod workloads;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::schema::{Leaf, Schema, Shape};
use crate::{Object, Quantity};

/// A value for a member that is unset: type (without `io.k8s.api.`), member, JSON.
type Row = (&'static str, &'static str, &'static str);

/// What a rule changes: the JSON object of one type.
type Rule = (&'static str, fn(&mut Map<String, Value>));

#[derive(Default)]
struct Entry {
    rows: Vec<(&'static str, &'static str)>,
    rules: Vec<fn(&mut Map<String, Value>)>,
}

static INDEX: LazyLock<HashMap<&'static str, Entry>> = LazyLock::new(|| {
    let mut index: HashMap<&'static str, Entry> = HashMap::new();
    for (name, member, json) in [core::ROWS, workloads::ROWS, network::ROWS, others::ROWS].concat() {
        index.entry(name).or_default().rows.push((member, json));
    }
    for (name, rule) in [core::RULES, workloads::RULES, network::RULES, others::RULES].concat() {
        index.entry(name).or_default().rules.push(rule);
    }
    index
});

/// Fills in the defaults of an object in normal form (see [`crate::decode`]); doing it again changes nothing.
pub fn apply(object: &mut Object, schema: &Schema) {
    members(object.map_mut(), schema);
}

fn node(value: &mut Value, schema: &Schema) {
    match (&schema.shape, value) {
        (Shape::Struct { .. }, Value::Object(map)) => members(map, schema),
        (Shape::Map { value: inner, .. }, Value::Object(map)) => {
            let amounts = matches!(inner.get().shape, Shape::Leaf { leaf: Leaf::Quantity, .. });
            for value in map.values_mut() {
                if amounts { round_up_to_milli(value) } else { node(value, inner.get()) }
            }
        }
        (Shape::List { item, .. }, Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| node(element, item.get()));
        }
        _ => {}
    }
}

fn members(map: &mut Map<String, Value>, schema: &Schema) {
    for field in schema.fields() {
        let owned = field.schema().rules.as_ref().and_then(|r| r.default.as_ref());
        if let Some(value) = owned {
            if map.get(field.name.as_ref()).is_none_or(|found| found.is_null() && !field.schema().nullable) {
                map.insert(field.name.clone().into_owned(), value.clone());
            }
        } else if let Some(json) = &field.default
            && is_unset(map, &field.name, field.pointer)
            && let Ok(value) = serde_json::from_str::<Value>(json)
            // A zero says no more than absence does, unless absence is something else.
            && (field.pointer || !is_zero(&value))
        {
            map.insert(field.name.clone().into_owned(), value);
        }
    }
    if let Some(entry) =
        schema.name.strip_prefix("io.k8s.").and_then(|n| INDEX.get(n.strip_prefix("api.").unwrap_or(n)))
    {
        for (member, json) in &entry.rows {
            let pointer = schema.field(member).is_some_and(|f| f.pointer);
            if is_unset(map, member, pointer)
                && let Ok(value) = serde_json::from_str(json)
            {
                map.insert((*member).to_owned(), value);
            }
        }
        entry.rules.iter().for_each(|rule| rule(map));
    }
    for (name, value) in map.iter_mut() {
        if let Some(field) = schema.field(name) {
            node(value, field.schema());
        }
    }
}

/// Whether Go would see the zero value.
fn is_unset(map: &Map<String, Value>, member: &str, pointer: bool) -> bool {
    match map.get(member) {
        None | Some(Value::Null) => true,
        Some(value) => !pointer && is_zero(value),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(elements) => elements.is_empty(),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

/// Amounts of resources are kept in thousandths at the finest.
fn round_up_to_milli(value: &mut Value) {
    if let Some(Ok(quantity)) = Quantity::from_value(value) {
        *value = Value::String(quantity.round_up_to_milli().to_string());
    }
}

/// The text of a member, empty when absent.
fn text<'a>(map: &'a Map<String, Value>, member: &str) -> &'a str {
    map.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a member that is absent.
fn set_absent(map: &mut Map<String, Value>, member: &str, value: impl Into<Value>) {
    if map.get(member).is_none_or(Value::is_null) {
        map.insert(member.to_owned(), value.into());
    }
}

/// Whether a member is absent or has no elements.
fn is_empty(map: &Map<String, Value>, member: &str) -> bool {
    match map.get(member) {
        None | Some(Value::Null) => true,
        Some(Value::Object(m)) => m.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{FieldValidation, conform};
    use crate::gvk::Gvk;
    use crate::schema::{definition, lookup};

    fn defaulted(group: &str, kind: &str, object: Value) -> Value {
        let version = if kind == "HorizontalPodAutoscaler" { "v2" } else { "v1" };
        let schema = lookup(&Gvk::new(group, version, kind)).unwrap();
        let mut object = Object::try_from(object).unwrap();
        conform(&mut object, schema, FieldValidation::Strict).unwrap();
        apply(&mut object, schema);
        let once = object.clone();
        apply(&mut object, schema);
        assert_eq!(object, once, "defaulting {kind} twice");
        object.to_value()
    }

    #[test]
    fn every_row_names_a_member_and_every_rule_a_type() {
        for (name, entry) in INDEX.iter() {
            let schema = definition(&format!("io.k8s.api.{name}"))
                .or_else(|| definition(&format!("io.k8s.{name}")))
                .unwrap_or_else(|| panic!("{name}"));
            for (member, json) in &entry.rows {
                assert!(schema.field(member).is_some(), "{name}.{member}");
                assert!(serde_json::from_str::<Value>(json).is_ok(), "{name}.{member}: {json}");
            }
        }
    }

    #[test]
    fn pods() {
        let pod = defaulted(
            "",
            "Pod",
            json!({"spec": {
                "hostNetwork": true,
                "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}},
                    {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
                "containers": [
                    {"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                        "resources": {"limits": {"cpu": "0.0001", "memory": "1Gi"}},
                        "livenessProbe": {"httpGet": {"port": 80}}},
                    {"name": "b", "image": "r.io:5000/nginx:1.2"},
                    {"name": "c", "image": "nginx@sha256:0000000000000000000000000000000000000000000000000000000000000000"}],
            }}),
        );
        let spec = &pod["spec"];
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["schedulerName"], "default-scheduler");
        assert_eq!(spec["securityContext"], json!({}));
        assert_eq!(spec["enableServiceLinks"], true);
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
        assert_eq!(
            spec["volumes"][2]["projected"]["sources"][1]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"],
            "v1"
        );
        let a = &spec["containers"][0];
        assert_eq!(a["imagePullPolicy"], "Always");
        assert_eq!(a["terminationMessagePath"], "/dev/termination-log");
        assert_eq!(a["terminationMessagePolicy"], "File");
        assert_eq!(a["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(a["resources"]["limits"]["cpu"], "1m");
        assert_eq!(a["resources"]["requests"], json!({"cpu": "1m", "memory": "1Gi"}));
        assert_eq!(
            a["livenessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(spec["containers"][1]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["containers"][2]["imagePullPolicy"], "IfNotPresent");
    }

    #[test]
    fn workloads() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x",
            "resources": {"limits": {"cpu": "1"}}}]}});
        let spec = defaulted("apps", "Deployment", json!({"spec": {"template": template}}))["spec"].clone();
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        // Requests follow limits in pods, not in templates.
        assert_eq!(spec["template"]["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
        let recreate =
            defaulted("apps", "Deployment", json!({"spec": {"strategy": {"type": "Recreate"}, "template": template}}));
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
        let spec = defaulted(
            "apps",
            "StatefulSet",
            json!({"spec": {"template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}}),
        )["spec"]
            .clone();
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "partition": 0}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        assert_eq!(spec["volumeClaimTemplates"][0]["status"]["phase"], "Pending");
        let spec = defaulted("apps", "DaemonSet", json!({"spec": {"template": template}}))["spec"].clone();
        assert_eq!(spec["updateStrategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
        let job = defaulted("batch", "Job", json!({"spec": {"template": template}}));
        assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        let hpa = defaulted("autoscaling", "HorizontalPodAutoscaler", json!({"spec": {"maxReplicas": 3}}));
        assert_eq!(hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }

    #[test]
    fn services_and_the_rest() {
        let spec =
            defaulted("", "Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}))["spec"].clone();
        assert_eq!(
            spec,
            json!({"type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster",
                "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        );
        let spec = defaulted("", "Service", json!({"spec": {"sessionAffinity": "ClientIP"}}))["spec"].clone();
        assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
        assert_eq!(defaulted("", "Secret", json!({}))["type"], "Opaque");
        let namespace = defaulted("", "Namespace", json!({"metadata": {"name": "n"}}));
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
        assert_eq!(namespace["status"]["phase"], "Active");
        let class = defaulted("storage.k8s.io", "StorageClass", json!({"provisioner": "p"}));
        assert_eq!((&class["reclaimPolicy"], &class["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
        let binding = defaulted(
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        );
        assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
        let policy =
            defaulted("networking.k8s.io", "NetworkPolicy", json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}}));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let hook = defaulted(
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"clientConfig": {"service": {"name": "s"}}, "rules": [{}]}]}),
        );
        let hook = &hook["webhooks"][0];
        assert_eq!((&hook["failurePolicy"], &hook["timeoutSeconds"]), (&json!("Fail"), &json!(10)));
        assert_eq!((&hook["clientConfig"]["service"]["port"], &hook["rules"][0]["scope"]), (&json!(443), &json!("*")));
    }
}
