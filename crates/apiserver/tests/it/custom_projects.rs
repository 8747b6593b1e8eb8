//! Custom resources in the shapes that large projects write theirs in; the schemas are made here, of the size that theirs have.

use std::time::Duration;

use crate::common::written::written;
use crate::common::{Answer, Client, TestServer};
use kminik_meta::schema::definition;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn version(name: &str, storage: bool, schema: &Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema}})
}

async fn define(client: &mut Client, group: &str, plural: &str, kind: &str, versions: Value) {
    let name = format!("{plural}.{group}");
    let definition = json!({"metadata": {"name": name, "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/1"}},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": versions}});
    expect(&client.post(DEFINITIONS, &definition).await, 201);
    for _ in 0..300 {
        let found = client.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let mut all = found["status"]["conditions"].as_array().into_iter().flatten();
        if all.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} was not established");
}

/// Conditions as all of them have them.
fn conditions() -> Value {
    json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
        "type": "object", "required": ["type", "status"], "properties": {
            "type": {"type": "string", "maxLength": 316}, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {"type": "string"}, "message": {"type": "string"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_show_whether_they_are_ready() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["issuerRef", "secretName"], "properties": {
            "secretName": {"type": "string"}, "commonName": {"type": "string"}, "duration": {"type": "string"},
            "dnsNames": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
            "usages": {"type": "array", "items": {"type": "string", "enum": ["signing", "server auth", "client auth"]}},
            "issuerRef": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "kind": {"type": "string"}, "group": {"type": "string"}}}}},
        "status": {"type": "object", "properties": {"conditions": conditions(), "notAfter": {"type": "string", "format": "date-time"}}}}});
    let mut only = version("v1", true, &schema);
    only["additionalPrinterColumns"] = json!([
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type == \"Ready\")].status"},
        {"name": "Secret", "type": "string", "jsonPath": ".spec.secretName"},
        {"name": "Issuer", "type": "string", "jsonPath": ".spec.issuerRef.name", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    define(&mut client, "cert-manager.io", "certificates", "Certificate", json!([only])).await;
    let all = "/apis/cert-manager.io/v1/namespaces/default/certificates";
    let wrong = json!({"metadata": {"name": "a"}, "spec": {"secretName": "s", "usages": ["other"]}});
    let refusal = expect(&client.post(all, &wrong).await, 422);
    let causes: Vec<&str> =
        refusal["details"]["causes"].as_array().unwrap().iter().filter_map(|c| c["field"].as_str()).collect();
    assert_eq!(causes, ["spec.issuerRef", "spec.usages[0]"]);
    let good = json!({"metadata": {"name": "a"}, "spec": {"secretName": "s", "issuerRef": {"name": "i"}}});
    expect(&client.post(all, &good).await, 201);
    for (manager, kind) in [("ready", "Ready"), ("issuing", "Issuing")] {
        let applied = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "a"},
            "status": {"conditions": [{"type": kind, "status": "True"}]}});
        let path = format!("{all}/a/status?fieldManager={manager}");
        let answer =
            client.send("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], applied.to_string()).await;
        expect(&answer, 200);
    }
    let found = client.get(&format!("{all}/a")).await.json();
    assert_eq!(found["status"]["conditions"].as_array().unwrap().len(), 2);
    let table = client.send("GET", all, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await.json();
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..4], [json!("a"), json!("True"), json!("s"), json!("i")]);
    assert_eq!(table["columnDefinitions"][3]["priority"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_match_one_way_only() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let ways = ["exact", "prefix", "regex"];
    let required: Vec<Value> = ways.iter().map(|way| json!({"required": [way]})).collect();
    let mut one_of = vec![json!({"not": {"anyOf": required.clone()}})];
    one_of.extend(required);
    let text = json!({"type": "object", "oneOf": one_of, "properties": {
        "exact": {"type": "string"}, "prefix": {"type": "string"}, "regex": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "spec": {"type": "object", "properties": {
            "hosts": {"type": "array", "items": {"type": "string"}},
            "http": {"type": "array", "items": {"type": "object", "properties": {
                "match": {"type": "array", "items": {"type": "object", "properties": {
                    "uri": text, "headers": {"type": "object", "additionalProperties": text}}}},
                "timeout": {"type": "string", "x-kubernetes-validations": [
                    {"message": "must be a valid duration greater than 1ms", "rule": "duration(self) >= duration('1ms')"}]},
                "weight": {"type": "integer", "format": "int32"}}}}}}}});
    let versions = ["v1", "v1beta1", "v1alpha3"].map(|name| version(name, name == "v1", &schema));
    define(&mut client, "networking.istio.io", "virtualservices", "VirtualService", json!(versions)).await;
    let all = |version: &str| format!("/apis/networking.istio.io/{version}/namespaces/default/virtualservices");
    let route = |name: &str, uri: Value| json!({"metadata": {"name": name}, "spec": {"hosts": ["a"], "http": [{"match": [{"uri": uri}]}]}});
    expect(&client.post(&all("v1beta1"), &route("a", json!({"prefix": "/"}))).await, 201);
    let both = expect(&client.post(&all("v1"), &route("b", json!({"prefix": "/", "exact": "/"}))).await, 422);
    assert!(both["message"].as_str().unwrap().contains(
        "\"spec.http[0].match[0].uri\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
    ));
    let found = client.get(&format!("{}/a", all("v1alpha3"))).await.json();
    assert_eq!(found["apiVersion"], "networking.istio.io/v1alpha3");
    let group = client.get("/apis/networking.istio.io").await.json();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_fill_in_what_is_left_out() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let parent = json!({"type": "object", "required": ["name"], "properties": {
        "group": {"type": "string", "default": "gateway.networking.k8s.io", "maxLength": 253},
        "kind": {"type": "string", "default": "Gateway", "minLength": 1, "maxLength": 63},
        "name": {"type": "string", "minLength": 1}, "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}}});
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "properties": {
            "parentRefs": {"type": "array", "maxItems": 32, "x-kubernetes-list-type": "atomic", "items": parent},
            "hostnames": {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1,
                "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}},
            "rules": {"type": "array", "maxItems": 16, "default": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
                "items": {"type": "object", "properties": {"matches": {"type": "array", "maxItems": 64,
                    "default": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "items": {"type": "object", "properties": {"path": {"type": "object",
                        "default": {"type": "PathPrefix", "value": "/"}, "properties": {
                            "type": {"type": "string", "default": "PathPrefix", "enum": ["Exact", "PathPrefix", "RegularExpression"]},
                            "value": {"type": "string", "default": "/", "maxLength": 1024}}}}}}}}}}},
        "status": {"type": "object", "properties": {"parents": {"type": "array", "items": {"type": "object", "properties": {
            "conditions": conditions()}}}}}}});
    define(&mut client, "gateway.networking.k8s.io", "httproutes", "HTTPRoute", json!([version("v1", true, &schema)]))
        .await;
    let all = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes";
    let route = json!({"metadata": {"name": "a"}, "spec": {"parentRefs": [{"name": "g"}], "rules": [{}, {"matches": [{"path": {"value": "/x"}}]}]}});
    let made = expect(&client.post(all, &route).await, 201);
    assert_eq!(
        made["spec"]["parentRefs"][0],
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"})
    );
    assert_eq!(made["spec"]["rules"][0], json!({"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}));
    assert_eq!(made["spec"]["rules"][1]["matches"][0]["path"], json!({"type": "PathPrefix", "value": "/x"}));
    let bad = json!({"metadata": {"name": "b"}, "spec": {"hostnames": ["*.ok.com", "Not OK"]}});
    assert!(
        expect(&client.post(all, &bad).await, 422)["message"]
            .as_str()
            .unwrap()
            .contains("spec.hostnames[1]: Invalid value: \"Not OK\": spec.hostnames[1] in body should match")
    );
    let approval = client.get(&format!("{DEFINITIONS}/httproutes.gateway.networking.k8s.io")).await.json();
    let conditions = approval["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|c| c["type"] == "KubernetesAPIApprovalPolicyConformant").unwrap();
    assert_eq!(found["reason"], "ApprovedAnnotation");
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_pods_stand_in_schemas_of_hundreds_of_kilobytes() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let pod = written(definition("io.k8s.api.core.v1.PodSpec").unwrap());
    let mut spec = pod.clone();
    spec.as_object_mut().unwrap().remove("x-kubernetes-map-type");
    spec["properties"]["replicas"] = json!({"type": "integer", "format": "int32"});
    spec["properties"]["retention"] =
        json!({"type": "string", "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?)$"});
    spec["properties"]["template"] = json!({"type": "object", "properties": {"spec": pod}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    assert!(schema.to_string().len() > 60_000, "{}", schema.to_string().len());
    define(&mut client, "monitoring.coreos.com", "prometheuses", "Prometheus", json!([version("v1", true, &schema)]))
        .await;
    let all = "/apis/monitoring.coreos.com/v1/namespaces/default/prometheuses";
    let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2, "retention": "15d", "containers": [
        {"name": "c", "image": "i", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "livenessProbe": {"httpGet": {"port": "web"}}}],
        "template": {"spec": {"containers": [{"name": "d", "unknown": true}]}}}});
    let made = expect(&client.post(all, &object).await, 201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": 1, "memory": "1Gi"}));
    assert_eq!(made["spec"]["template"]["spec"]["containers"], json!([{"name": "d"}]));
    expect(&client.post(all, &json!({"metadata": {"name": "b"}, "spec": {"retention": "soon"}})).await, 422);
    expect(&client.get("/openapi/v3/apis/monitoring.coreos.com/v1").await, 200);
}
