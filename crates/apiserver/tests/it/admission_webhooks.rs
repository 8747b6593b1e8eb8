//! Admission webhooks, over HTTPS to a server of the test: what they are asked, what their answers do, and what happens
//! when they give none.

use std::time::{Duration, Instant};

use crate::common::webhook::Webhook;
use crate::common::{Answer, Client, TestServer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What a webhook makes of a request.
type Hook = fn(&str, &Value) -> Value;

struct Fixture {
    server: TestServer,
    client: Client,
    webhook: Webhook,
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

impl Fixture {
    async fn start(hook: Hook) -> Self {
        let server = TestServer::start().await;
        let webhook = Webhook::start(hook).await;
        let client = server.client().await;
        Fixture { server, client, webhook }
    }

    /// Configures one webhook, `change`d, and waits until it holds.
    async fn configure(&mut self, kind: &str, name: &str, path: &str, change: Value) {
        let mut webhook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": self.webhook.client_config(path),
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1", "v1beta1"],
            "timeoutSeconds": 5,
        });
        for (key, value) in change.as_object().unwrap() {
            webhook[key] = value.clone();
        }
        let configuration = json!({"metadata": {"name": name}, "webhooks": [webhook]});
        let path = format!("{CONFIGURATIONS}/{}webhookconfigurations", kind.to_lowercase());
        let answer = self.client.post(&path, &configuration).await;
        assert_eq!(answer.code, 201, "{:?}", answer.json());
        let revision: u64 = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        self.server.api.server().registry().cache().reach(revision).await.unwrap();
    }

    async fn config_map(&mut self, name: &str) -> Answer {
        self.client.post(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await
    }
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutated_pod_is_defaulted_again_and_the_question_is_whole() {
    let mut fixture = Fixture::start(|_, request| {
        let mut answer = patch(&json!([
            {"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]},
            {"op": "add", "path": "/spec/unknown", "value": 1},
        ]));
        answer["warnings"] = json!([format!("hello {}", request["name"].as_str().unwrap())]);
        answer
    })
    .await;
    let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"]}]);
    fixture.configure("Mutating", "adds", "/add", json!({"rules": rules})).await;
    let account = json!({"metadata": {"name": "default"}});
    fixture.client.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let answer = fixture.client.post(&format!("{PODS}?fieldManager=me"), &pod).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    let added = &answer.json()["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
    assert!(answer.json()["spec"].get("unknown").is_none());
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"hello p\""]);

    let (_, request) = fixture.webhook.asked.lock().remove(0);
    let pods = json!({"group": "", "version": "v1", "resource": "pods"});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    for (key, expected) in [
        ("kind", &kind),
        ("requestKind", &kind),
        ("resource", &pods),
        ("requestResource", &pods),
        ("name", &json!("p")),
        ("namespace", &json!("default")),
        ("operation", &json!("CREATE")),
        ("dryRun", &json!(false)),
        ("oldObject", &Value::Null),
    ] {
        assert_eq!(&request[key], expected, "{key}");
    }
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["options"]["fieldManager"], "me");
    // Defaults and the plugins before it have had their turn.
    assert_eq!(request["object"]["spec"]["serviceAccountName"], "default");
    assert_eq!((&request["object"]["kind"], &request["object"]["apiVersion"]), (&json!("Pod"), &json!("v1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_relayed_and_nothing_is_stored() {
    let mut fixture = Fixture::start(|_, request| match request["operation"].as_str().unwrap() {
        "DELETE" => {
            json!({"allowed": request["oldObject"]["metadata"]["name"] != "kept" && request["object"].is_null()})
        }
        _ => match request["name"].as_str().unwrap() {
            "bad" => json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "bad name"}}),
            "silent" => json!({"allowed": false}),
            _ => json!({"allowed": true}),
        },
    })
    .await;
    let rules = json!([{"operations": ["CREATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["configmaps"], "scope": "Namespaced"}]);
    fixture.configure("Validating", "denies", "/deny", json!({"rules": rules})).await;
    let denied = "admission webhook \"denies.example.com\" denied the request";
    let answer = fixture.config_map("bad").await;
    assert_eq!((answer.code, message(&answer)), (403, format!("{denied}: bad name")));
    let answer = fixture.config_map("silent").await;
    assert_eq!((answer.code, message(&answer)), (400, format!("{denied} without explanation")));
    assert_eq!(fixture.client.get(&format!("{CONFIG_MAPS}/bad")).await.code, 404);
    for name in ["kept", "gone"] {
        assert_eq!(fixture.config_map(name).await.code, 201);
    }
    assert_eq!(fixture.client.delete(&format!("{CONFIG_MAPS}/kept")).await.code, 400);
    assert_eq!(fixture.client.delete(&format!("{CONFIG_MAPS}/gone")).await.code, 200);
    // Without its configuration the webhook has no say, at once.
    let configuration = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/denies");
    assert_eq!(fixture.client.delete(&configuration).await.code, 200);
    let end = Instant::now() + Duration::from_secs(2);
    while fixture.config_map("bad").await.code != 201 {
        assert!(Instant::now() < end, "the webhook is still asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_fails_or_is_ignored() {
    let mut fixture = Fixture::start(|_, _| json!({"allowed": true, "uid": "another"})).await;
    let slow = fixture.webhook.url("/slow");
    for (name, path, expected) in [
        ("slow", "/slow", format!("failed to call webhook: Post \"{slow}?timeout=1s\": context deadline exceeded")),
        (
            "broken",
            "/broken",
            "failed to call webhook: an error on the server (\"out of order\") has prevented the request from succeeding"
                .to_owned(),
        ),
        ("liar", "/liar", "received invalid webhook response: expected response.uid=".to_owned()),
    ] {
        fixture.configure("Validating", name, path, json!({"timeoutSeconds": 1})).await;
        let answer = fixture.config_map("x").await;
        let expected = format!("Internal error occurred: failed calling webhook \"{name}.example.com\": {expected}");
        assert_eq!(answer.code, 500);
        assert!(message(&answer).starts_with(&expected), "{}", message(&answer));
        let one = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/{name}");
        let ignored = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        let revision = fixture.client.patch(&one, "json", &ignored).await.json()["metadata"]["resourceVersion"].clone();
        let revision: u64 = revision.as_str().unwrap().parse().unwrap();
        fixture.server.api.server().registry().cache().reach(revision).await.unwrap();
        assert_eq!(fixture.config_map(name).await.code, 201);
        assert_eq!(fixture.client.delete(&one).await.code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_dry_run_and_exempt_kinds() {
    let mut fixture = Fixture::start(|_, _| json!({"allowed": false})).await;
    let change = json!({
        "namespaceSelector": {"matchLabels": {"guarded": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
        "sideEffects": "NoneOnDryRun",
    });
    fixture.configure("Validating", "guards", "/guard", change).await;
    let everything = json!([{"operations": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"],
        "resources": ["*/*"]}]);
    fixture.configure("Validating", "locks-itself", "/lock", json!({"rules": everything})).await;
    assert_eq!(fixture.config_map("elsewhere").await.code, 201);
    let namespace = json!({"metadata": {"name": "n", "labels": {"guarded": "yes"}}});
    assert_eq!(fixture.client.post("/api/v1/namespaces", &namespace).await.code, 201);
    let maps = "/api/v1/namespaces/n/configmaps";
    assert_eq!(fixture.client.post(maps, &json!({"metadata": {"name": "a"}})).await.code, 400);
    let dry = format!("{maps}?dryRun=All");
    assert_eq!(fixture.client.post(&dry, &json!({"metadata": {"name": "a"}})).await.code, 400);
    assert!(fixture.webhook.asked.lock().last().unwrap().1["dryRun"].as_bool().unwrap());
    let free = json!({"metadata": {"name": "a", "labels": {"free": ""}}});
    assert_eq!(fixture.client.post(maps, &free).await.code, 201);
    // Nobody is asked about configurations, so the lock does not lock itself.
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/locks-itself");
    assert_eq!(fixture.client.delete(&path).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_are_asked_in_order_and_again() {
    let mut fixture = Fixture::start(|path, request| {
        let mark = path.trim_start_matches('/');
        if request["object"]["data"].get(mark).is_some() {
            return json!({"allowed": true});
        }
        let operation = match request["object"]["data"].is_null() {
            true => json!([{"op": "add", "path": "/data", "value": {mark: "1"}}]),
            false => json!([{"op": "add", "path": format!("/data/{mark}"), "value": "1"}]),
        };
        patch(&operation)
    })
    .await;
    fixture.configure("Mutating", "b", "/second", json!({})).await;
    fixture.configure("Mutating", "a", "/first", json!({"reinvocationPolicy": "IfNeeded"})).await;
    fixture.configure("Mutating", "c", "/third", json!({"reinvocationPolicy": "IfNeeded"})).await;
    let answer = fixture.config_map("x").await;
    assert_eq!(answer.json()["data"], json!({"first": "1", "second": "1", "third": "1"}), "{:?}", answer.json());
    let order: Vec<String> = fixture.webhook.asked.lock().iter().map(|(path, _)| path.clone()).collect();
    // The first one is asked again, for others changed the object after it; the last one is not.
    assert_eq!(order, ["/first", "/second", "/third", "/first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn equivalent_requests_and_connections_are_seen() {
    let mut fixture =
        Fixture::start(|path, request| json!({"allowed": path != "/attach" || request["object"]["stdin"] != true}))
            .await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"],
        "resources": ["events"]}]);
    fixture.configure("Validating", "events", "/events", json!({"rules": rules})).await;
    let event = json!({"metadata": {"name": "e"}, "reason": "R", "message": "m", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let answer = fixture.client.post("/api/v1/namespaces/default/events", &event).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    let (_, request) = fixture.webhook.asked.lock().remove(0);
    assert_eq!(request["resource"]["group"], "events.k8s.io");
    assert_eq!(request["requestResource"]["group"], "");
    assert_eq!(
        (&request["object"]["apiVersion"], &request["object"]["note"]),
        (&json!("events.k8s.io/v1"), &json!("m"))
    );

    let rules = json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/attach"]}]);
    fixture.configure("Validating", "attach", "/attach", json!({"rules": rules})).await;
    let answer = fixture.client.send("POST", &format!("{PODS}/p/attach?stdin=true&container=c"), &[], "").await;
    let denied = "admission webhook \"attach.example.com\" denied the request without explanation";
    assert_eq!((answer.code, message(&answer).as_str()), (400, denied));
    let (_, request) = fixture.webhook.asked.lock().pop().unwrap();
    assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("attach")));
    assert_eq!(request["kind"]["kind"], "PodAttachOptions");
    assert_eq!((&request["object"]["container"], &request["options"]), (&json!("c"), &Value::Null));
    // What is allowed goes on to the pod, which there is none.
    assert_eq!(fixture.client.send("POST", &format!("{PODS}/p/attach?container=c"), &[], "").await.code, 404);
}
