//! Writes in upstream's words: field validation, patches, ownership, options, rights.

use crate::common::{Answer, Client, TestServer};
use kminik_base::pki::{Subject, Usage};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const APPLY: &str = "application/apply-patch+yaml";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn set(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    })
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
}

async fn send(client: &mut Client, method: &str, path: &str, media_type: &str, body: &str) -> Answer {
    client.send(method, path, &[("content-type", media_type)], body.to_owned()).await
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_every_kind_of_body() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let json_body =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","a":"2"},"odd":1}"#;
    let strict =
        send(&mut client, "POST", &format!("{MAPS}?fieldValidation=Strict"), "application/json", json_body).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        message(&strict),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"odd\""
    );
    let yaml_body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: \"1\"\n  a: \"2\"\nodd: 1\n";
    let strict =
        send(&mut client, "POST", &format!("{MAPS}?fieldValidation=Strict"), "application/yaml", yaml_body).await;
    assert_eq!(
        message(&strict),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map, unknown field \"odd\""
    );
    let warned = send(&mut client, "POST", MAPS, "application/yaml", yaml_body).await;
    assert_eq!((warned.code, &warned.json()["data"]["a"]), (201, &json!("2")));
    assert_eq!(
        warnings(&warned),
        ["299 - \"line 6: key \\\"a\\\" already set in map\"", "299 - \"unknown field \\\"odd\\\"\""]
    );

    let path = format!("{MAPS}/x?fieldValidation=Strict");
    let merge =
        send(&mut client, "PATCH", &path, "application/merge-patch+json", r#"{"odd":1,"data":{"b":"1","b":"2"}}"#)
            .await;
    assert_eq!(merge.code, 422);
    assert!(message(&merge).starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{}", message(&merge));
    assert!(message(&merge).ends_with("strict decoding error: duplicate field \"data.b\", unknown field \"odd\""));
    let strategic = send(&mut client, "PATCH", &path, "application/strategic-merge-patch+json", r#"{"odd":1}"#).await;
    assert_eq!(
        message(&strategic),
        " \"\" is invalid: patch: Invalid value: \"map[odd:1]\": strict decoding error: unknown field \"odd\""
    );
    let json_patch = r#"[{"op":"add","path":"/data/c","value":"1","extra":1}]"#;
    let patched = send(&mut client, "PATCH", &path, "application/json-patch+json", json_patch).await;
    assert!(message(&patched).ends_with("json patch unknown field \"[0].extra\""), "{}", message(&patched));
    let wrong_type = send(&mut client, "PATCH", &path, "application/merge-patch+json", r#"{"data":{"a":1}}"#).await;
    assert_eq!(wrong_type.code, 422, "{}", message(&wrong_type));

    let applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {z: \"1\", z: \"2\"}\n";
    let refused = send(&mut client, "PATCH", &format!("{path}&fieldManager=m"), APPLY, applied).await;
    assert_eq!(
        (refused.code, message(&refused).as_str()),
        (
            400,
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 4: key \"z\" already set in map"
        )
    );
    let warned = send(&mut client, "PATCH", &format!("{MAPS}/x?fieldManager=m"), APPLY, applied).await;
    assert_eq!((warned.code, warnings(&warned)), (200, vec!["299 - \"line 4: key \\\"z\\\" already set in map\""]));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_in_upstreams_words() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let created = client.post(MAPS, &map("x")).await.json();
    let path = format!("{MAPS}/x");
    let failing = client.patch(&path, "json", &json!([{"op": "remove", "path": "/none"}])).await;
    assert_eq!(
        (failing.code, message(&failing).as_str(), &failing.json()["reason"]),
        (422, "the server rejected our request due to an error in our request", &json!("Invalid"))
    );
    let mut versioned = map("y");
    versioned["metadata"]["resourceVersion"] = json!("7");
    let refused = client.post(MAPS, &versioned).await;
    assert_eq!(
        (refused.code, message(&refused).as_str(), &refused.json()["reason"]),
        (500, "resourceVersion should not be set on objects to be created", &Value::Null)
    );
    let mut other = created.clone();
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    other["metadata"]["resourceVersion"] = json!("");
    let put = client.put(&path, &other).await;
    assert_eq!((put.code, &put.json()["reason"]), (409, &json!("Conflict")));
    let words = "StorageError: invalid object, Code: 4, Key: /registry/";
    assert!(message(&put).contains(words), "{}", message(&put));
    assert!(message(&put).contains("Precondition failed: UID in precondition: 00000000-"), "{}", message(&put));
    let meant = json!({"preconditions": {"uid": "other"}});
    let deleted = client.send("DELETE", &path, &[("content-type", "application/json")], meant.to_string()).await;
    assert_eq!(deleted.code, 409);
    assert!(
        message(&deleted).contains("the UID in the precondition (other) does not match the UID in record ("),
        "{}",
        message(&deleted)
    );
    let patched = client.patch(&path, "merge", &json!({"metadata": {"uid": "other"}})).await;
    assert_eq!((patched.code, patched.json()["details"]["causes"][0]["field"].as_str()), (422, Some("metadata.uid")));
    let anywhere =
        client.patch(&path, "merge", &json!({"metadata": {"resourceVersion": "0"}, "data": {"z": "1"}})).await;
    assert_eq!((anywhere.code, &anywhere.json()["data"]["z"]), (200, &json!("1")));

    let configuration = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: none, uid: {}}}}}", "u");
    let missing = send(&mut client, "PATCH", &format!("{MAPS}/none?fieldManager=m"), APPLY, &configuration).await;
    assert_eq!(missing.code, 409);
    assert!(
        message(&missing)
            .ends_with("uid mismatch: the provided object specified uid u, and no existing object was found")
    );
    let garbage = send(&mut client, "POST", MAPS, "application/json", "{\"apiVersion\": ").await;
    assert!(
        message(&garbage).starts_with("the object provided is unrecognized (must be of type ConfigMap): couldn't get")
    );
    assert!(message(&garbage).ends_with("({\"apiVersion\": )"), "{}", message(&garbage));
}

#[tokio::test]
async fn owners_stand_once() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let mut owned = map("x");
    owned["metadata"]["ownerReferences"] = json!([owner, owner]);
    let created = client.post(MAPS, &owned).await;
    assert_eq!(created.json()["metadata"]["ownerReferences"], json!([owner]));
    assert!(warnings(&created)[0].contains("duplicate UID(s) observed: u"));
}

#[tokio::test]
async fn options_of_deletes_come_from_the_body_or_the_query() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let json_type = [("content-type", "application/json")];
    client.post(MAPS, &map("x")).await;
    let dry = client.send("DELETE", &format!("{MAPS}/x"), &json_type, r#"{"dryRun":["All"]}"#).await;
    assert_eq!((dry.code, client.get(&format!("{MAPS}/x")).await.code), (200, 200));
    // A body is all that counts.
    let path = format!("{MAPS}/x?propagationPolicy=Foreground");
    let background = client.send("DELETE", &path, &json_type, r#"{"propagationPolicy":"Background"}"#).await;
    assert_eq!(background.json()["status"], "Success");
    let both = r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#;
    let refused = client.send("DELETE", &format!("{MAPS}/x"), &json_type, both).await;
    assert_eq!(refused.code, 422);
    assert!(message(&refused).contains("orphanDependents and deletionPropagation cannot be both set"));
    let number = client.delete(&format!("{MAPS}/x?gracePeriodSeconds=soon")).await;
    assert_eq!(number.code, 400);
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(MAPS, &held).await;
    assert_eq!(client.delete(&format!("{MAPS}/held?orphanDependents=false")).await.code, 202);
}

#[tokio::test]
async fn a_scale_is_applied_like_any_object() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let created = client.post(&format!("{SETS}?fieldManager=maker"), &set("web")).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let scale = |replicas: u32| {
        format!("{{apiVersion: autoscaling/v1, kind: Scale, metadata: {{name: web}}, spec: {{replicas: {replicas}}}}}")
    };
    let path = format!("{SETS}/web/scale?fieldManager=scaler");
    let conflict = send(&mut client, "PATCH", &path, APPLY, &scale(3)).await;
    assert_eq!(
        (conflict.code, conflict.json()["details"]["causes"][0]["field"].as_str()),
        (409, Some(".spec.replicas"))
    );
    let forced = send(&mut client, "PATCH", &format!("{path}&force=true"), APPLY, &scale(3)).await;
    assert_eq!((forced.code, &forced.json()["spec"]["replicas"]), (200, &json!(3)), "{}", forced.json());
    let owner = client.get(&format!("{SETS}/web")).await.json();
    let entries = owner["metadata"]["managedFields"].as_array().unwrap().clone();
    let scaler = entries.iter().find(|entry| entry["manager"] == "scaler").unwrap();
    assert_eq!(
        (&scaler["operation"], &scaler["subresource"], &scaler["apiVersion"], &scaler["fieldsV1"]),
        (&json!("Apply"), &json!("scale"), &json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    let maker = entries.iter().find(|entry| entry["manager"] == "maker").unwrap();
    assert!(maker["fieldsV1"]["f:spec"]["f:replicas"].is_null(), "{maker}");
    let wrong = send(&mut client, "PATCH", &path, APPLY, "{apiVersion: v1, kind: Scale}").await;
    assert_eq!(wrong.code, 400);
    let negative = client.patch(&format!("{SETS}/web/scale"), "merge", &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, 422);
}

#[tokio::test]
async fn creating_by_another_verb_needs_the_right_to_create() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["get", "patch", "update"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "changer"}],
    });
    let base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(client.post(&format!("{base}/roles"), &role).await.code, 201);
    assert_eq!(client.post(&format!("{base}/rolebindings"), &binding).await.code, 201);
    let day = std::time::Duration::from_secs(86_400);
    let identity = server.authority.issue(&Subject::new("changer", None), &Usage::Client, day).unwrap();
    let mut changer = server.client_as(Some(&identity)).await;
    client.post(MAPS, &map("x")).await;
    let configuration = |name: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}");
    // The rights are known as soon as the cache has them.
    for attempt in 0.. {
        let changed =
            send(&mut changer, "PATCH", &format!("{MAPS}/x?fieldManager=m"), APPLY, &configuration("x")).await;
        if changed.code == 200 {
            break;
        }
        assert!(attempt < 100, "{}", changed.json());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let created =
        send(&mut changer, "PATCH", &format!("{MAPS}/new?fieldManager=m"), APPLY, &configuration("new")).await;
    assert_eq!(created.code, 403);
    assert!(message(&created).contains("cannot create resource \"configmaps\""), "{}", message(&created));
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let put = changer.put("/api/v1/namespaces/default/services/s", &service).await;
    assert_eq!(put.code, 403, "{}", put.json());
    let allowed = client.put("/api/v1/namespaces/default/services/s", &service).await;
    assert_eq!(allowed.code, 201, "{}", allowed.json());
}

#[tokio::test]
async fn owners_of_fields_are_known_across_versions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "Start", "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Started",
        "note": "m", "type": "Normal",
    });
    let (old, new) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let made = client.post(&format!("{new}?fieldManager=maker"), &event).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let configuration = "{apiVersion: v1, kind: Event, metadata: {name: e}, message: n}";
    let conflict = send(&mut client, "PATCH", &format!("{old}/e?fieldManager=m"), APPLY, configuration).await;
    // The field has another name in the version in which its owner wrote it.
    assert_eq!((conflict.code, conflict.json()["details"]["causes"][0]["field"].as_str()), (409, Some(".note")));
    let forced = send(&mut client, "PATCH", &format!("{old}/e?fieldManager=m&force=true"), APPLY, configuration).await;
    assert_eq!((forced.code, &forced.json()["message"]), (200, &json!("n")), "{}", forced.json());
    let entry = |event: &Value, manager: &str| {
        let entries = event["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.into_iter().find(|entry| entry["manager"] == manager).unwrap_or_default()
    };
    let applied = entry(&forced.json(), "m");
    assert_eq!((&applied["apiVersion"], &applied["fieldsV1"]), (&json!("v1"), &json!({"f:message": {}})));
    assert!(entry(&forced.json(), "maker")["fieldsV1"]["f:note"].is_null());
    let taken = client.patch(&format!("{old}/e?fieldManager=taker"), "merge", &json!({"message": "t"})).await.json();
    assert_eq!(entry(&taken, "m"), Value::Null, "it owns nothing any more: {taken}");
    let taker = entry(&taken, "taker");
    assert_eq!((&taker["apiVersion"], &taker["fieldsV1"]), (&json!("v1"), &json!({"f:message": {}})));
}

#[tokio::test]
async fn what_a_status_leaves_alone_belongs_to_nobody() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"x": "1"}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    assert_eq!(client.post(path, &deployment).await.code, 201);
    let applied = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"x": "2"}, "annotations": {"y": "3"}},
        "spec": {"replicas": 7}, "status": {"observedGeneration": 1},
    });
    let headers = [("content-type", APPLY)];
    let answer = client.send("PATCH", &format!("{path}/d/status?fieldManager=m"), &headers, applied.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let found = answer.json();
    assert_eq!((&found["metadata"]["labels"], &found["spec"]["replicas"]), (&json!({"x": "1"}), &json!(1)));
    assert_eq!(
        (&found["metadata"]["annotations"]["y"], &found["status"]["observedGeneration"]),
        (&json!("3"), &json!(1))
    );
    let owners = found["metadata"]["managedFields"].as_array().unwrap();
    let own = owners.iter().find(|owner| owner["manager"] == "m").unwrap();
    let expected = json!({"f:metadata": {"f:annotations": {"f:y": {}}}, "f:status": {"f:observedGeneration": {}}});
    assert_eq!(own["fieldsV1"], expected);
}
