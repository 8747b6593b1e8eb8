//! Who comes to own which fields by which door: what a door leaves as it was belongs to nobody by writing there.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::cluster_kinds::signing_request;
use crate::common::{Answer, Client, TestServer};

const PODS: &str = "/api/v1/namespaces/default/pods";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// What a manager owns by a door; null if nothing.
fn owned(object: &Value, manager: &str, door: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let by = |entry: &&Value| entry["manager"] == manager && entry["subresource"].as_str().unwrap_or_default() == door;
    entries.iter().find(by).map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}

async fn apply(client: &mut Client, path: &str, body: &Value) -> Value {
    let headers = [("content-type", "application/apply-patch+yaml")];
    expect(&client.send("PATCH", &format!("{path}?fieldManager=m&force=true"), &headers, body.to_string()).await, 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_to_a_pod() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "10Mi"}});
    let pod = json!({"metadata": {"name": "p", "labels": {"x": "1"}}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": resources("100m")}]}});
    expect(&client.post(PODS, &pod).await, 201);
    let configuration = |spec: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"x": "2"}, "annotations": {"y": "3"}},
            "spec": spec, "status": {"phase": "Running"}})
    };
    let spec =
        json!({"hostname": "h", "containers": [{"name": "c", "image": "other", "resources": resources("200m")}]});
    let resized = apply(&mut client, &format!("{PODS}/p/resize"), &configuration(spec)).await;
    let metadata = &resized["metadata"];
    assert_eq!((&metadata["labels"], &metadata["annotations"]), (&json!({"x": "1"}), &Value::Null));
    let found = &resized["spec"]["containers"][0];
    assert_eq!((&found["image"], &found["resources"]), (&json!("i"), &resources("200m")));
    assert_eq!(
        owned(&resized, "m", "resize"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:resources": {"f:requests": {
            "f:cpu": {}, "f:memory": {}}}}}}})
    );

    let debugger = json!({"hostname": "h", "ephemeralContainers": [{"name": "d", "image": "i"}]});
    let debugged = apply(&mut client, &format!("{PODS}/p/ephemeralcontainers"), &configuration(debugger)).await;
    assert_eq!((&debugged["metadata"]["labels"], &debugged["spec"]["hostname"]), (&json!({"x": "1"}), &Value::Null));
    assert_eq!(
        owned(&debugged, "m", "ephemeralcontainers"),
        json!({"f:spec": {"f:ephemeralContainers": {"k:{\"name\":\"d\"}": {".": {}, "f:image": {}, "f:name": {}}}}})
    );
    // A plain write is tracked the same way.
    let change = json!({"metadata": {"labels": {"x": "4"}}, "spec": {"containers": [{"name": "c", "resources": resources("300m")}]}});
    let path = format!("{PODS}/p/resize?fieldManager=n");
    let resized = expect(&client.patch(&path, "strategic-merge", &change).await, 200);
    assert_eq!(resized["metadata"]["labels"], json!({"x": "1"}));
    assert_eq!(
        owned(&resized, "n", "resize"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:resources": {"f:requests": {"f:cpu": {}}}}}}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resized() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let container = |name: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": "1"}}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container("a"), container("b")]}});
    expect(&client.post(PODS, &pod).await, 201);
    let only = "spec: Forbidden: only cpu and memory resources are mutable";
    for (containers, wanted) in [
        (json!([container("b"), container("a")]), only),
        (json!([container("a")]), only),
        (json!([container("a"), container("b"), container("c")]), only),
        (
            json!([{"name": "a", "image": "i"}, container("b")]),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
    ] {
        let answer =
            client.patch(&format!("{PODS}/p/resize"), "merge", &json!({"spec": {"containers": containers}})).await;
        let refusal = expect(&answer, 422)["message"].as_str().unwrap().to_owned();
        assert!(refusal.contains(wanted), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_to_a_signing_request() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let request = json!({"metadata": {"name": "r", "labels": {"a": "b"}}, "spec": {"request": signing_request("me"),
        "usages": ["client auth"], "signerName": "example.com/signer"}});
    let made = expect(&client.post(&format!("{REQUESTS}?fieldManager=asker"), &request).await, 201);
    assert_eq!(owned(&made, "asker", ""), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
    let certificate = base64::prelude::BASE64_STANDARD.encode(server.authority.cert_pem());
    let conditions = |kind: &str| json!([{"type": kind, "status": "True", "reason": "r"}]);
    let change = |kind: &str| json!({"spec": {"usages": ["server auth"]}, "status": {"certificate": certificate, "conditions": conditions(kind)}});
    let path = format!("{REQUESTS}/r/approval?fieldManager=approver");
    let approved = expect(&client.patch(&path, "merge", &change("Approved")).await, 200);
    assert_eq!(approved["status"].get("certificate"), None);
    let fields = owned(&approved, "approver", "approval");
    assert_eq!(fields.as_object().unwrap().keys().collect::<Vec<_>>(), ["f:status"], "{fields}");
    assert!(fields["f:status"].get("f:conditions").is_some() && fields["f:status"].get("f:certificate").is_none());

    let mut signed = change("Approved");
    signed["status"]["conditions"] = approved["status"]["conditions"].clone();
    let path = format!("{REQUESTS}/r/status?fieldManager=signer");
    let signed = expect(&client.patch(&path, "merge", &signed).await, 200);
    assert_eq!(signed["spec"]["usages"], json!(["client auth"]));
    assert_eq!(owned(&signed, "signer", "status"), json!({"f:status": {"f:certificate": {}}}));
}
