//! CustomResourceDefinitions over HTTPS: how they become resources, what they refuse, and how they end.

use std::time::Duration;

use crate::common::{Answer, Client, Events, TestServer};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn message(answer: &Answer, code: u16) -> String {
    expect(answer, code)["message"].as_str().unwrap().to_owned()
}

fn version(name: &str, storage: bool, spec: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
        "properties": {"spec": {"type": "object", "properties": spec}, "status": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true}}}}})
}

fn definition(versions: Value) -> Value {
    json!({"metadata": {"name": "crontabs.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "versions": versions,
        "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]}}})
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

/// Waits until a condition of the definition is `True`; gives the definition.
async fn until(client: &mut Client, name: &str, kind: &str) -> Value {
    for _ in 0..200 {
        let found = client.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True") {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} never became {kind}: {}", client.get(&format!("{DEFINITIONS}/{name}")).await.json());
}

async fn define(client: &mut Client, versions: Value) -> Value {
    expect(&client.post(DEFINITIONS, &definition(versions)).await, 201);
    until(client, "crontabs.stable.example.com", "Established").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_becomes_a_resource() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let made = define(&mut client, json!([version("v1", true, json!({"cron": {"type": "string"}}))])).await;
    assert_eq!(
        (&made["spec"]["names"]["singular"], &made["spec"]["names"]["listKind"]),
        (&json!("crontab"), &json!("CronTabList"))
    );
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(made["status"]["acceptedNames"]["plural"], "crontabs");
    assert_eq!((&made["status"]["storedVersions"], &made["metadata"]["generation"]), (&json!(["v1"]), &json!(1)));

    let listed = expect(&client.get("/apis/stable.example.com/v1").await, 200);
    assert_eq!(listed["resources"][0]["shortNames"], json!(["ct"]));
    assert_eq!(listed["resources"][0]["storageVersionHash"].as_str().unwrap().len(), 12);
    let document = expect(&client.get("/openapi/v3/apis/stable.example.com/v1").await, 200);
    assert!(document["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"].is_object());
    let old = expect(&client.get("/openapi/v2").await, 200);
    assert!(old["definitions"]["com.example.stable.v1.CronTab"].is_object());

    let object = expect(&client.post(TABS, &tab("a", json!({"cron": "x", "other": 1}))).await, 201);
    assert_eq!((&object["spec"], &object["metadata"]["generation"]), (&json!({"cron": "x"}), &json!(1)));
    let head = client.send("HEAD", &format!("{TABS}/a"), &[], "").await;
    assert_eq!((head.code, head.body.len()), (200, 0), "custom resources take HEAD");
    let wrong = message(&client.post(TABS, &tab("b", json!({"cron": 1}))).await, 422);
    assert_eq!(
        wrong,
        "CronTab.stable.example.com \"b\" is invalid: spec.cron: Invalid value: \"integer\": spec.cron in body must be of type string: \"integer\""
    );
    let strict =
        message(&client.post(&format!("{TABS}?fieldValidation=Strict"), &tab("b", json!({"other": 1}))).await, 400);
    assert!(strict.ends_with("strict decoding error: unknown field \"spec.other\""), "{strict}");
    expect(&client.patch(&format!("{TABS}/a"), "strategic-merge", &json!({"spec": {"cron": "y"}})).await, 415);
    let patched = expect(&client.patch(&format!("{TABS}/a"), "merge", &json!({"spec": {"cron": "y"}})).await, 200);
    assert_eq!(patched["metadata"]["generation"], 2);
    let mut blind = patched.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert!(message(&client.put(&format!("{TABS}/a"), &blind).await, 422).contains("metadata.resourceVersion"));
    let table = client.send("GET", TABS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    let table = expect(&table, 200);
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    assert_eq!(table["rows"][0]["cells"][0], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_ends_watches_and_deletes_objects() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    define(&mut client, json!([version("v1", true, json!({}))])).await;
    let mut held = tab("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    expect(&client.post(TABS, &held).await, 201);
    expect(&client.post(TABS, &tab("free", json!({}))).await, 201);
    let mut events = Events::open(server.client().await, &format!("{TABS}?watch=1&resourceVersion=0")).await;
    for _ in 0..2 {
        assert_eq!(events.brief().await.0, "ADDED");
    }
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let going = expect(&client.delete(&path).await, 200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    until(&mut client, "crontabs.stable.example.com", "Terminating").await;
    for _ in 0..200 {
        if client.get(&format!("{TABS}/free")).await.code == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    expect(&client.get(&format!("{TABS}/free")).await, 404);
    expect(&client.post(TABS, &tab("late", json!({}))).await, 405);
    // Its turn comes after the other's.
    let mut going = false;
    for _ in 0..200 {
        going = expect(&client.get(&format!("{TABS}/held")).await, 200)["metadata"]["deletionTimestamp"].is_string();
        if going {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(going);
    let release = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    expect(&client.patch(&format!("{TABS}/held"), "json", &release).await, 200);
    for _ in 0..200 {
        if client.get(&path).await.code == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    expect(&client.get(&path).await, 404);
    while events.next().await.is_some() {}
    tokio::time::sleep(Duration::from_millis(100)).await;
    expect(&client.get(TABS).await, 404);
    expect(&client.get("/apis/stable.example.com").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_are_not_given() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    define(&mut client, json!([version("v1", true, json!({}))])).await;
    let mut other = definition(json!([version("v1", true, json!({}))]));
    other["metadata"]["name"] = "others.stable.example.com".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "CronTab"});
    expect(&client.post(DEFINITIONS, &other).await, 201);
    let mut found = Value::Null;
    for _ in 0..200 {
        found = client.get(&format!("{DEFINITIONS}/others.stable.example.com")).await.json();
        if found["status"]["conditions"].is_array() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let conditions = found["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions[0]["reason"], "ListKindConflict");
    assert_eq!((&conditions[1]["type"], &conditions[1]["status"]), (&json!("Established"), &json!("False")));
    expect(&client.get("/apis/stable.example.com/v1/others").await, 404);
    expect(&client.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await, 200);
    until(&mut client, "others.stable.example.com", "Established").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_definitions_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let bad = definition(json!([version("v1", true, json!({"cron": {}}))]));
    assert_eq!(
        message(&client.post(DEFINITIONS, &bad).await, 422),
        "CustomResourceDefinition.apiextensions.k8s.io \"crontabs.stable.example.com\" is invalid: \
         spec.validation.openAPIV3Schema.properties[spec].properties[cron].type: Required value: must not be empty for specified object fields"
    );
    define(&mut client, json!([version("v1", true, json!({}))])).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let rename = json!([{"op": "replace", "path": "/spec/versions/0/name", "value": "v2"}]);
    let refusal = message(&client.patch(&path, "json", &rename).await, 422);
    assert!(
        refusal.contains("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{refusal}"
    );
    let kind = json!({"spec": {"names": {"kind": "Other", "listKind": "OtherList"}}});
    assert!(
        message(&client.patch(&path, "merge", &kind).await, 422)
            .contains("spec.names.kind: Invalid value: \"Other\": field is immutable")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_come_when_written_and_when_read() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    define(&mut client, json!([version("v1", true, json!({"cron": {"type": "string"}, "old": {"type": "string"}}))]))
        .await;
    expect(&client.post(TABS, &tab("a", json!({"cron": "x", "old": "o"}))).await, 201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let schema = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size",
            "value": {"type": "integer", "default": 3}},
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/old"}]);
    expect(&client.patch(&path, "json", &schema).await, 200);
    let mut found = Value::Null;
    for _ in 0..100 {
        found = client.get(&format!("{TABS}/a")).await.json();
        if found["spec"]["size"] == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(found["spec"], json!({"cron": "x", "size": 3}));
    assert_eq!(client.get(TABS).await.json()["items"][0]["spec"], json!({"cron": "x", "size": 3}));
    let mut events = Events::open(server.client().await, &format!("{TABS}?watch=1&resourceVersion=0")).await;
    assert_eq!(events.next().await.unwrap()["object"]["spec"], json!({"cron": "x", "size": 3}));
    assert_eq!(expect(&client.post(TABS, &tab("b", json!({}))).await, 201)["spec"], json!({"size": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_without_conversion_differ_in_name_only() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let spec = || json!({"cron": {"type": "string"}});
    define(&mut client, json!([version("v1", true, spec()), version("v1beta1", false, spec())])).await;
    expect(&client.post(TABS, &tab("a", json!({"cron": "x"}))).await, 201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let store = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    assert_eq!(
        expect(&client.patch(&path, "json", &store).await, 200)["status"]["storedVersions"],
        json!(["v1", "v1beta1"])
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    let other = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";
    let mut second = tab("b", json!({"cron": "y"}));
    second["apiVersion"] = "stable.example.com/v1beta1".into();
    expect(&client.post(other, &second).await, 201);
    for (path, version) in [(TABS, "stable.example.com/v1"), (other, "stable.example.com/v1beta1")] {
        for name in ["a", "b"] {
            assert_eq!(client.get(&format!("{path}/{name}")).await.json()["apiVersion"], version);
        }
        assert_eq!(client.get(path).await.json()["items"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_scale_and_selectors_work() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut only = version("v1", true, json!({"replicas": {"type": "integer"}, "color": {"type": "string"}}));
    only["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    only["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    only["additionalPrinterColumns"] = json!([{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]);
    define(&mut client, json!([only])).await;
    let mut first = tab("a", json!({"replicas": 2, "color": "red"}));
    first["status"] = json!({"replicas": 9});
    let made = expect(&client.post(TABS, &first).await, 201);
    assert!(made.get("status").is_none());
    expect(&client.post(TABS, &tab("b", json!({"replicas": 1, "color": "blue"}))).await, 201);
    let status = json!({"status": {"replicas": 1}, "spec": {"color": "green"}});
    let changed = expect(&client.patch(&format!("{TABS}/a/status"), "merge", &status).await, 200);
    assert_eq!((&changed["status"]["replicas"], &changed["spec"]["color"]), (&json!(1), &json!("red")));
    assert_eq!(changed["metadata"]["generation"], 1);
    let scale = expect(&client.get(&format!("{TABS}/a/scale")).await, 200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(2), &json!(1)));
    expect(&client.patch(&format!("{TABS}/a/scale"), "merge", &json!({"spec": {"replicas": 5}})).await, 200);
    assert_eq!(client.get(&format!("{TABS}/a")).await.json()["spec"]["replicas"], 5);
    let red = expect(&client.get(&format!("{TABS}?fieldSelector=spec.color%3Dred")).await, 200);
    assert_eq!(red["items"].as_array().unwrap().len(), 1);
    assert!(
        message(&client.get(&format!("{TABS}?fieldSelector=spec.x%3Dred")).await, 400)
            .contains("field label not supported: spec.x")
    );
    let wrong = message(&client.post(TABS, &tab("c", json!({"replicas": -1}))).await, 422);
    assert!(wrong.contains(".spec.replicas: Invalid value: -1: should be a non-negative integer"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_checked_when_defined_and_hold_when_written() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let ruled = |rule: &str| {
        let spec = json!({"min": {"type": "integer"}, "max": {"type": "integer"},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}});
        let mut version = version("v1", true, spec);
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": rule, "messageExpression": "self.max < 5 ? 'min exceeds a small max' : 'min exceeds max'"}]);
        json!([version])
    };
    let refusal = message(&client.post(DEFINITIONS, &definition(ruled("self.min <= self.most"))).await, 422);
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: ";
    assert!(refusal.contains(place), "{refusal}");
    let why = "compilation failed: ERROR: <input>:1:17: undefined field 'most'\n | self.min <= self.most\n | ................^";
    assert!(refusal.contains(why), "{refusal}");
    define(&mut client, ruled("self.min <= self.max")).await;
    let refusal = message(&client.post(TABS, &tab("a", json!({"min": 3, "max": 2}))).await, 422);
    assert_eq!(refusal, "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: min exceeds a small max");
    expect(&client.post(TABS, &tab("a", json!({"min": 1, "max": 2, "fixed": "x"}))).await, 201);
    let path = format!("{TABS}/a");
    let refusal = message(&client.patch(&path, "merge", &json!({"spec": {"fixed": "y"}})).await, 422);
    assert_eq!(refusal, "CronTab.stable.example.com \"a\" is invalid: spec.fixed: Invalid value: \"y\": is immutable");
    expect(&client.patch(&path, "merge", &json!({"spec": {"max": 5}})).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_for_objects_and_their_changes() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let bad = json!({"size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self.x > 1"}]}});
    let refusal = message(&client.post(DEFINITIONS, &definition(json!([version("v1", true, bad)]))).await, 422);
    assert!(refusal.contains("x-kubernetes-validations[0].rule: Invalid value"), "{refusal}");
    assert!(refusal.contains("compilation failed"), "{refusal}");
    let mut only = version(
        "v1",
        true,
        json!({
        "size": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self <= 10", "message": "too big"},
            {"rule": "self >= oldSelf", "messageExpression": "oldSelf < 10 ? 'from less than ten' : 'from more'"}]},
        "name": {"type": "string"}}),
    );
    only["subresources"] = json!({"status": {}});
    define(&mut client, json!([only])).await;
    assert_eq!(
        message(&client.post(TABS, &tab("a", json!({"size": 11}))).await, 422),
        "CronTab.stable.example.com \"a\" is invalid: spec.size: Invalid value: 11: too big"
    );
    let wrong = message(&client.post(TABS, &tab("a", json!({"size": "x"}))).await, 422);
    assert!(wrong.contains("some validation rules were not checked because the object was invalid"), "{wrong}");
    expect(&client.post(TABS, &tab("a", json!({"size": 5}))).await, 201);
    let smaller = json!({"spec": {"size": 4}});
    assert!(
        message(&client.patch(&format!("{TABS}/a"), "merge", &smaller).await, 422)
            .contains("spec.size: Invalid value: 4: from less than ten")
    );
    expect(&client.patch(&format!("{TABS}/a"), "merge", &json!({"spec": {"size": 6}})).await, 200);
    expect(&client.patch(&format!("{TABS}/a/status"), "merge", &json!({"status": {"x": 1}})).await, 200);
}
