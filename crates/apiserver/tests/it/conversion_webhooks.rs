//! Conversion webhooks of custom resources, over HTTPS to a server of the test: two versions of different shapes, each served
//! as if it were the only one.

use std::time::Duration;

use crate::common::webhook::Webhook;
use crate::common::{Answer, Client, Events, TestServer};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/routes.example.com";
const V1: &str = "/apis/example.com/v1/namespaces/default/routes";
const V2: &str = "/apis/example.com/v2/namespaces/default/routes";

struct Fixture {
    server: TestServer,
    client: Client,
    webhook: Webhook,
}

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// v1 has `hostPort` and `ready`, v2 `host`, `port` and `phase`.
fn convert(object: &Value, desired: &str) -> Value {
    let mut converted = object.clone();
    converted["apiVersion"] = desired.into();
    let (spec, status) = (&object["spec"], &object["status"]);
    if desired == "example.com/v2" {
        let (host, port) = spec["hostPort"].as_str().and_then(|text| text.split_once(':')).unwrap_or_default();
        converted["spec"] = json!({"host": host, "port": port.parse::<i64>().unwrap_or_default()});
        if !spec["replicas"].is_null() {
            converted["spec"]["scale"] = json!({"count": spec["replicas"]});
        }
        if !status.is_null() {
            converted["status"] = json!({"phase": if status["ready"] == true { "Ready" } else { "Pending" }});
        }
    } else {
        let port = spec["port"].as_i64().unwrap_or_default();
        converted["spec"] = json!({"hostPort": format!("{}:{port}", spec["host"].as_str().unwrap_or_default())});
        if !spec["scale"]["count"].is_null() {
            converted["spec"]["replicas"] = spec["scale"]["count"].clone();
        }
        if !status.is_null() {
            converted["status"] = json!({"ready": status["phase"] == "Ready"});
        }
    }
    converted["metadata"]["annotations"]["example.com/converted-to"] = desired.into();
    converted
}

/// What the webhook says, by the path it is asked at.
fn respond(path: &str, request: &Value) -> Value {
    let desired = request["desiredAPIVersion"].as_str().unwrap();
    let mut objects: Vec<Value> =
        request["objects"].as_array().unwrap().iter().map(|object| convert(object, desired)).collect();
    match path {
        "/fails" => return json!({"result": {"status": "Failure", "message": "not today"}}),
        "/renames" => objects.iter_mut().for_each(|object| object["metadata"]["name"] = "other".into()),
        "/loses" => drop(objects.pop()),
        "/foreign" => return json!({"uid": "x", "result": {"status": "Success"}, "convertedObjects": objects}),
        _ => {}
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn version(name: &str, storage: bool, spec: Value, status: Value) -> Value {
    let (replicas, host) =
        if name == "v1" { (".spec.replicas", ".spec.hostPort") } else { (".spec.scale.count", ".spec.host") };
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": spec}, "status": {"type": "object", "properties": status}}}},
        "subresources": {"status": {}, "scale": {"specReplicasPath": replicas, "statusReplicasPath": ".status.replicas"}},
        "selectableFields": [{"jsonPath": host}],
        "additionalPrinterColumns": [{"name": "Host", "type": "string", "jsonPath": host}],
    })
}

impl Fixture {
    /// With the definition, whose objects are stored in v1.
    async fn start(path: &str, review_versions: Value) -> Self {
        let server = TestServer::start().await;
        let webhook = Webhook::start(respond).await;
        let client = server.client().await;
        let mut fixture = Fixture { server, client, webhook };
        let conversion = fixture.conversion(path, review_versions);
        fixture.define(conversion).await;
        fixture
    }

    fn conversion(&self, path: &str, review_versions: Value) -> Value {
        json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": review_versions, "clientConfig": self.webhook.client_config(path),
        }})
    }

    async fn define(&mut self, conversion: Value) {
        let text = || json!({"type": "string"});
        let number = || json!({"type": "integer", "maximum": 65535});
        let definition = json!({"metadata": {"name": "routes.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "routes", "kind": "Route"},
            "conversion": conversion,
            "versions": [
                version("v1", true, json!({"hostPort": text(), "replicas": number()}), json!({"ready": {"type": "boolean"},
                    "replicas": number()})),
                version("v2", false, json!({"host": text(), "port": number(), "scale": {"type": "object",
                    "properties": {"count": number()}}}), json!({"phase": text(), "replicas": number()})),
            ],
        }});
        expect(&self.client.post(DEFINITIONS, &definition).await, 201);
        for path in [V1, V2] {
            self.until(path, |answer| answer.code == 200).await;
        }
    }

    /// Asks again until the answer is as it should be.
    async fn until(&mut self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        for _ in 0..400 {
            let answer = self.client.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} never was as wanted: {}", String::from_utf8_lossy(&self.client.get(path).await.body));
    }

    /// Changes the definition and waits until the change is seen: the edition of the API's document changes with it.
    async fn redefine(&mut self, patch: &Value) {
        let before = self.document().await;
        expect(&self.client.patch(DEFINITION, "merge", patch).await, 200);
        for _ in 0..400 {
            if self.document().await != before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the definition was not taken up");
    }

    async fn document(&mut self) -> Value {
        self.client.get("/openapi/v3").await.json()["paths"]["apis/example.com/v1"].clone()
    }

    async fn ask_at(&mut self, path: &str) {
        let conversion = self.conversion(path, json!(["v1"]));
        self.redefine(&json!({"spec": {"conversion": conversion}})).await;
    }

    async fn store_v2(&mut self) {
        let mut versions = expect(&self.client.get(DEFINITION).await, 200)["spec"]["versions"].clone();
        versions[0]["storage"] = false.into();
        versions[1]["storage"] = true.into();
        self.redefine(&json!({"spec": {"versions": versions}})).await;
    }

    /// apiVersion in which an object is stored.
    async fn stored_in(&self, name: &str) -> String {
        let registry = self.server.api.server().registry();
        let row = registry.row("example.com", "routes").unwrap();
        let entry = registry.get(&row, "default", name).await.unwrap().unwrap();
        entry.object().unwrap().api_version().to_owned()
    }
}

fn v1(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Route", "metadata": {"name": name}, "spec": {"hostPort": host_port}})
}

fn v2(name: &str, host: &str, port: i64) -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Route", "metadata": {"name": name}, "spec": {"host": host, "port": port}})
}

fn message(answer: &Answer, code: u16) -> String {
    expect(answer, code)["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_in_the_version_of_its_request() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    let client = &mut fixture.client;
    let made = expect(&client.post(V2, &v2("a", "one", 80)).await, 201);
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &json!({"host": "one", "port": 80})));
    expect(&client.post(V1, &v1("b", "two:81")).await, 201);
    let found = expect(&client.get(&format!("{V1}/a")).await, 200);
    assert_eq!((&found["apiVersion"], &found["spec"]), (&json!("example.com/v1"), &json!({"hostPort": "one:80"})));
    assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(found["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let listed = expect(&client.get(V2).await, 200);
    assert_eq!((&listed["apiVersion"], &listed["kind"]), (&json!("example.com/v2"), &json!("RouteList")));
    let specs: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|item| &item["spec"]).collect();
    assert_eq!(specs, [&json!({"host": "one", "port": 80}), &json!({"host": "two", "port": 81})]);
    let page = expect(&client.get(&format!("{V2}?limit=1")).await, 200);
    assert_eq!(
        (&page["items"][0]["spec"]["host"], &page["metadata"]["remainingItemCount"]),
        (&json!("one"), &json!(1))
    );
    // Selectors see what the client sees.
    for (path, names) in [
        (format!("{V2}?fieldSelector=spec.host%3Dtwo"), json!(["b"])),
        (format!("{V1}?fieldSelector=spec.hostPort%3Done:80"), json!(["a"])),
        (format!("{V2}?fieldSelector=spec.host%3Dtwo&resourceVersion=0"), json!(["b"])),
    ] {
        let listed = expect(&client.get(&path).await, 200);
        let found: Vec<&Value> =
            listed["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        assert_eq!(json!(found), names, "{path}");
    }
    let table = client.send("GET", V2, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(expect(&table, 200)["rows"][1]["cells"][1], "two");

    // Validation and what is unknown are the version's own.
    let refusal = message(&client.post(V2, &v2("c", "three", 70000)).await, 422);
    assert!(refusal.contains("spec.port: Invalid value: 70000"), "{refusal}");
    let other =
        json!({"apiVersion": "example.com/v1", "kind": "Route", "metadata": {"name": "c"}, "spec": {"host": "x"}});
    let strict = client.post(&format!("{V1}?fieldValidation=Strict"), &other).await;
    assert!(message(&strict, 400).contains("unknown field \"spec.host\""));

    let mut whole = expect(&client.get(&format!("{V2}/b")).await, 200);
    whole["spec"]["port"] = 82.into();
    assert_eq!(expect(&client.put(&format!("{V2}/b"), &whole).await, 200)["spec"]["port"], 82);
    let patch = json!({"spec": {"hostPort": "four:83"}});
    let dry = expect(&client.patch(&format!("{V1}/b?dryRun=All"), "merge", &patch).await, 200);
    assert_eq!(dry["spec"]["hostPort"], "four:83");
    let patched = expect(&client.patch(&format!("{V1}/b"), "merge", &patch).await, 200);
    assert_eq!((&patched["spec"]["hostPort"], &patched["metadata"]["generation"]), (&json!("four:83"), &json!(3)));
    let patch = json!([{"op": "test", "path": "/spec/host", "value": "four"}, {"op": "replace", "path": "/spec/port", "value": 84}]);
    assert_eq!(
        expect(&client.patch(&format!("{V2}/b"), "json", &patch).await, 200)["spec"],
        json!({"host": "four", "port": 84})
    );
    expect(&client.delete(&format!("{V2}/a")).await, 200);
    expect(&client.get(&format!("{V1}/a")).await, 404);
    let gone = expect(&client.delete(V2).await, 200);
    assert_eq!(gone["items"][0]["spec"]["host"], "four");
    assert!(
        fixture
            .webhook
            .asked
            .lock()
            .iter()
            .all(|(_, request)| request["uid"].is_string() && request["objects"].is_array())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_scale_are_each_versions_own() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    let client = &mut fixture.client;
    expect(&client.post(V1, &v1("a", "one:80")).await, 201);
    let status = json!({"status": {"phase": "Ready"}, "spec": {"host": "ignored"}});
    let changed = expect(&client.patch(&format!("{V2}/a/status"), "merge", &status).await, 200);
    assert_eq!((&changed["status"]["phase"], &changed["spec"]["host"]), (&json!("Ready"), &json!("one")));
    assert_eq!(changed["metadata"]["generation"], 1);
    assert_eq!(expect(&client.get(&format!("{V1}/a/status")).await, 200)["status"]["ready"], true);
    let scale = json!({"spec": {"replicas": 3}});
    assert_eq!(expect(&client.patch(&format!("{V2}/a/scale"), "merge", &scale).await, 200)["spec"]["replicas"], 3);
    for (path, member) in [(V1, "/spec/replicas"), (V2, "/spec/scale/count")] {
        assert_eq!(expect(&client.get(&format!("{path}/a/scale")).await, 200)["spec"]["replicas"], 3);
        assert_eq!(expect(&client.get(&format!("{path}/a")).await, 200).pointer(member), Some(&json!(3)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_see_their_version() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    expect(&fixture.client.post(V1, &v1("a", "one:80")).await, 201);
    let mut all = Events::open(fixture.server.client().await, &format!("{V2}?watch=1&resourceVersion=0")).await;
    let selected = format!("{V2}?watch=1&resourceVersion=0&fieldSelector=spec.host%3Dtwo");
    let mut two = Events::open(fixture.server.client().await, &selected).await;
    let first = all.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]["spec"]["host"]), (&json!("ADDED"), &json!("one")));
    let client = &mut fixture.client;
    expect(&client.patch(&format!("{V1}/a"), "merge", &json!({"spec": {"hostPort": "two:80"}})).await, 200);
    expect(&client.patch(&format!("{V1}/a"), "merge", &json!({"spec": {"hostPort": "three:80"}})).await, 200);
    expect(&client.delete(&format!("{V1}/a")).await, 200);
    for (kind, host) in [("MODIFIED", "two"), ("MODIFIED", "three"), ("DELETED", "three")] {
        let event = all.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!(kind), &json!(host)));
        assert_eq!(event["object"]["apiVersion"], "example.com/v2");
    }
    // What enters and leaves a selection is judged by the fields of the client's version.
    for (kind, host) in [("ADDED", "two"), ("DELETED", "two")] {
        let event = two.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!(kind), &json!(host)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_converted_once_for_all_watchers() {
    const WATCHERS: usize = 40;
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    let made = expect(&fixture.client.post(V1, &v1("a", "zero:80")).await, 201);
    let from = format!("{V2}?watch=1&resourceVersion={}", made["metadata"]["resourceVersion"].as_str().unwrap());
    let mut watchers = Vec::new();
    for index in 0..WATCHERS {
        // Those who select by fields of their version need to see what was before, too.
        let selection = if index % 2 == 0 { "" } else { "&fieldSelector=spec.host%21%3Dnone" };
        watchers.push(Events::open(fixture.server.client().await, &format!("{from}{selection}")).await);
    }
    fixture.webhook.asked.lock().clear();
    for host in ["one", "two", "three"] {
        let patch = json!({"spec": {"hostPort": format!("{host}:80")}});
        expect(&fixture.client.patch(&format!("{V1}/a"), "merge", &patch).await, 200);
    }
    for watcher in &mut watchers {
        for host in ["one", "two", "three"] {
            let event = watcher.next().await.unwrap();
            assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("MODIFIED"), &json!(host)));
        }
    }
    let asked = fixture.webhook.asked.lock();
    let mut objects: Vec<&Value> = asked
        .iter()
        .flat_map(|(_, request)| request["objects"].as_array().unwrap())
        .map(|object| &object["spec"]["hostPort"])
        .collect();
    objects.sort_by_key(ToString::to_string);
    assert_eq!(objects, ["one:80", "three:80", "two:80", "zero:80"], "each state once");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_both_stored_versions_live_together() {
    let mut fixture = Fixture::start("/convert", json!(["v1beta1"])).await;
    expect(&fixture.client.post(V1, &v1("a", "one:80")).await, 201);
    expect(&fixture.client.post(V1, &v1("c", "three:80")).await, 201);
    fixture.store_v2().await;
    let client = &mut fixture.client;
    expect(&client.post(V1, &v1("b", "two:80")).await, 201);
    let stored = expect(&client.get(DEFINITION).await, 200)["status"]["storedVersions"].clone();
    assert_eq!(stored, json!(["v1", "v2"]));
    fixture.webhook.asked.lock().clear();
    let listed = expect(&fixture.client.get(V2).await, 200);
    let hosts: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|item| &item["spec"]["host"]).collect();
    assert_eq!(hosts, ["one", "two", "three"], "in the order of the names, whatever they are stored in");
    let asked: Vec<usize> =
        fixture.webhook.asked.lock().iter().map(|(_, request)| request["objects"].as_array().unwrap().len()).collect();
    assert_eq!(asked, [2], "old objects are converted together, others not at all");
    assert_eq!(fixture.stored_in("a").await, "example.com/v1");
    assert_eq!(fixture.stored_in("b").await, "example.com/v2");
    // A write that changes nothing stores an old object in the new version, and after that nothing.
    let client = &mut fixture.client;
    let before = expect(&client.get(&format!("{V1}/a")).await, 200);
    let after = expect(&client.put(&format!("{V1}/a"), &before).await, 200);
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    assert_eq!(
        (&before["spec"], &before["metadata"]["generation"]),
        (&after["spec"], &after["metadata"]["generation"])
    );
    let again = expect(&client.put(&format!("{V1}/a"), &after).await, 200);
    assert_eq!(again["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    assert_eq!(fixture.stored_in("a").await, "example.com/v2");
    expect(&fixture.client.delete(&format!("{V2}/c")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_fails_only_what_needs_it() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    expect(&fixture.client.post(V1, &v1("a", "one:80")).await, 201);
    let failed = "conversion webhook for example.com/v1, Kind=Route";
    for (path, text) in [
        ("/fails", "failed: not today"),
        ("/broken", "failed: an error on the server (\"out of order\") has prevented the request from succeeding"),
        ("/renames", "returned invalid object: must have the same name: a != other"),
        ("/loses", "returned 0 objects, expected 1"),
        ("/foreign", "failed: expected response.uid="),
    ] {
        fixture.ask_at(path).await;
        let client = &mut fixture.client;
        for answer in
            [client.get(&format!("{V2}/a")).await, client.get(V2).await, client.delete(&format!("{V2}/a")).await]
        {
            let refusal = message(&answer, 500);
            assert!(refusal.starts_with(&format!("{failed} {text}")), "{refusal}");
        }
        expect(&client.get(&format!("{V1}/a")).await, 200);
        expect(&client.patch(&format!("{V1}/a"), "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await, 200);
    }
    let refusal = message(&fixture.client.post(V2, &v2("b", "two", 80)).await, 500);
    assert!(refusal.starts_with("conversion webhook for example.com/v2, Kind=Route failed: "), "{refusal}");
    expect(&fixture.client.get(&format!("{V1}/b")).await, 404);
    let mut events = Events::open(fixture.server.client().await, &format!("{V2}?watch=1&resourceVersion=0")).await;
    let error = events.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(500)));
    assert!(events.next().await.is_none());
    expect(&fixture.client.get("/api/v1/namespaces/default/configmaps").await, 200);
    // Nobody answers any more; the definition and its objects can be removed all the same.
    let mut nowhere = fixture.conversion("/gone", json!(["v1"]));
    nowhere["webhook"]["clientConfig"]["url"] = "https://127.0.0.1:1/gone".into();
    fixture.redefine(&json!({"spec": {"conversion": nowhere}})).await;
    let unanswered = message(&fixture.client.get(&format!("{V2}/a")).await, 500);
    let refused = "Post \"https://127.0.0.1:1/gone?timeout=30s\": dial tcp 127.0.0.1:1: connect: connection refused";
    assert_eq!(unanswered, format!("{failed} failed: {refused}"));
    expect(&fixture.client.delete(DEFINITION).await, 200);
    fixture.until(DEFINITION, |answer| answer.code == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_of_fields_are_known_across_versions() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    let client = &mut fixture.client;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let one = v1("a", "one:80").to_string();
    expect(&client.send("PATCH", &format!("{V1}/a?fieldManager=first"), &apply, one.clone()).await, 201);
    let two = v2("a", "two", 80).to_string();
    let conflict =
        message(&client.send("PATCH", &format!("{V2}/a?fieldManager=second"), &apply, two.clone()).await, 409);
    assert!(conflict.contains("conflict with \"first\": .spec.hostPort"), "{conflict}");
    let forced = client.send("PATCH", &format!("{V2}/a?fieldManager=second&force=true"), &apply, two.clone()).await;
    assert_eq!(expect(&forced, 200)["spec"]["host"], "two");
    let entries = expect(&client.get(&format!("{V1}/a")).await, 200)["metadata"]["managedFields"].clone();
    let second = entries.as_array().unwrap().iter().find(|entry| entry["manager"] == "second").unwrap();
    assert_eq!(
        (&second["apiVersion"], &second["fieldsV1"]["f:spec"]),
        (&json!("example.com/v2"), &json!({"f:host": {}, "f:port": {}}))
    );
    assert!(!entries.as_array().unwrap().iter().any(|entry| entry["fieldsV1"]["f:spec"].get("f:hostPort").is_some()));
    // A plain write in the other version takes the fields over, too.
    let patch = json!({"spec": {"hostPort": "three:80"}});
    expect(&client.patch(&format!("{V1}/a?fieldManager=third"), "merge", &patch).await, 200);
    let conflict = message(&client.send("PATCH", &format!("{V2}/a?fieldManager=second"), &apply, two).await, 409);
    assert!(conflict.contains("\"third\" using example.com/v1"), "{conflict}");
    // What the same manager applies in another version, it applies anew.
    let again = v2("a", "three", 80).to_string();
    expect(&client.send("PATCH", &format!("{V2}/a?fieldManager=second"), &apply, again).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_sees_the_version_it_names() {
    let mut fixture = Fixture::start("/convert", json!(["v1"])).await;
    let policy = json!({"metadata": {"name": "ports"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["CREATE"],
            "resources": ["routes"]}]},
        "validations": [{"expression": "object.spec.port != 22", "message": "not this port"}]}});
    let binding =
        json!({"metadata": {"name": "ports"}, "spec": {"policyName": "ports", "validationActions": ["Deny"]}});
    for (plural, object) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        let revision = expect(&fixture.client.post(&path, &object).await, 201)["metadata"]["resourceVersion"].clone();
        let revision = revision.as_str().unwrap().parse().unwrap();
        fixture.server.api.server().registry().cache().reach(revision).await.unwrap();
    }
    let refusal = message(&fixture.client.post(V1, &v1("a", "one:22")).await, 422);
    assert!(refusal.ends_with("denied request: not this port"), "{refusal}");
    expect(&fixture.client.post(V1, &v1("a", "one:23")).await, 201);
}
