//! The verbs, over HTTPS, as any client sees them.

use crate::common::TestServer;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "test"}}, "data": {"a": "1"}})
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = TestServer::start().await;
    let mut client = server.client().await;

    let created = client.post(MAPS, &map("one")).await;
    assert_eq!(created.code, 201);
    let created = created.json();
    let metadata = &created["metadata"];
    assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("one"), &json!("default")));
    assert!(metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(metadata["creationTimestamp"].is_string());

    let again = client.post(MAPS, &map("one")).await;
    assert_eq!(again.code, 409);
    assert_eq!(again.json()["message"], "configmaps \"one\" already exists");
    assert_eq!(again.json()["reason"], "AlreadyExists");

    let read = client.get(&format!("{MAPS}/one")).await.json();
    assert_eq!(read, created);

    let mut changed = read.clone();
    changed["data"]["a"] = json!("2");
    let updated = client.put(&format!("{MAPS}/one"), &changed).await;
    assert_eq!(updated.code, 200);
    assert_ne!(updated.json()["metadata"]["resourceVersion"], metadata["resourceVersion"]);
    let stale = client.put(&format!("{MAPS}/one"), &changed).await;
    assert_eq!(stale.code, 409);
    assert_eq!(stale.json()["reason"], "Conflict");

    let same = client.put(&format!("{MAPS}/one"), &updated.json()).await.json();
    assert_eq!(
        same["metadata"]["resourceVersion"],
        updated.json()["metadata"]["resourceVersion"],
        "a write of nothing"
    );

    let deleted = client.delete(&format!("{MAPS}/one")).await;
    assert_eq!((deleted.code, &deleted.json()["status"]), (200, &json!("Success")));
    let gone = client.get(&format!("{MAPS}/one")).await;
    assert_eq!(gone.code, 404);
    assert_eq!(gone.json()["message"], "configmaps \"one\" not found");
    assert_eq!(gone.json()["details"], json!({"name": "one", "kind": "configmaps"}));
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post(MAPS, &map("one")).await;
    let path = format!("{MAPS}/one");

    let merged = client.patch(&path, "merge", &json!({"data": {"a": null, "b": "2"}})).await.json();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let strategic = client.patch(&path, "strategic-merge", &json!({"metadata": {"labels": {"x": "y"}}})).await.json();
    assert_eq!(strategic["metadata"]["labels"], json!({"of": "test", "x": "y"}));
    let operations = json!([{"op": "replace", "path": "/data/b", "value": "3"}]);
    assert_eq!(client.patch(&path, "json", &operations).await.json()["data"]["b"], "3");

    // The first finalizer of an object, as kube-rs adds it.
    let first = json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/a"]}]);
    assert_eq!(client.patch(&path, "json", &first).await.json()["metadata"]["finalizers"], json!(["example.com/a"]));
    assert_eq!(client.patch(&path, "json", &first).await.code, 422, "there is one by now");
    let missing = json!([{"op": "remove", "path": "/data/nothing"}]);
    assert_eq!(client.patch(&path, "json", &missing).await.code, 422);
    let renamed = json!({"metadata": {"name": "two"}});
    assert_eq!(client.patch(&path, "merge", &renamed).await.code, 400);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"c": "4"}});
    assert_eq!(client.patch(&path, "merge", &stale).await.code, 409);
    assert_eq!(client.send("PATCH", &path, &[("content-type", "application/json")], "{}").await.code, 415);
    assert_eq!(client.patch(&format!("{MAPS}/none"), "merge", &json!({})).await.code, 404);
}

#[tokio::test]
async fn lists_by_selector_and_page() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for number in 0..7 {
        let mut object = map(&format!("m{number}"));
        object["metadata"]["labels"]["parity"] = json!(if number % 2 == 0 { "even" } else { "odd" });
        assert_eq!(client.post(MAPS, &object).await.code, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = client.get(&format!("{MAPS}?labelSelector=of%3Dtest")).await.json();
    assert_eq!((all["kind"].as_str(), names(&all).len()), (Some("ConfigMapList"), 7));
    let odd = client.get(&format!("{MAPS}?labelSelector=parity%3Dodd")).await.json();
    assert_eq!(names(&odd), ["m1", "m3", "m5"]);
    let one = client.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm4").await.json();
    assert_eq!(names(&one), ["m4"]);
    assert_eq!(client.get(&format!("{MAPS}?fieldSelector=data.a%3D1")).await.code, 400);

    let first = client.get(&format!("{MAPS}?limit=3&labelSelector=of")).await.json();
    let revision = first["metadata"]["resourceVersion"].clone();
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert!(first["metadata"]["remainingItemCount"].is_null(), "unknown with a selector");
    // What happens between the pages is not in the list.
    client.post(MAPS, &map("m3a")).await;
    client.delete(&format!("{MAPS}/m4")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client.get(&format!("{MAPS}?limit=10&labelSelector=of&continue={token}")).await.json();
    assert_eq!(names(&second), ["m3", "m4", "m5", "m6"]);
    assert_eq!(second["metadata"]["resourceVersion"], revision);
    assert!(second["metadata"]["continue"].is_null());

    let counted = client.get(&format!("{MAPS}?limit=2")).await.json();
    assert!(counted["metadata"]["remainingItemCount"].as_u64().unwrap() >= 5);
    let query = format!("labelSelector=of&resourceVersion={}&resourceVersionMatch=Exact", revision.as_str().unwrap());
    let exact = client.get(&format!("{MAPS}?{query}")).await.json();
    assert_eq!(names(&exact).len(), 7);
    assert_eq!(client.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.code, 422);
    let nonsense = client.get(&format!("{MAPS}?continue=nonsense")).await;
    assert_eq!(nonsense.code, 400);
    assert!(
        nonsense.json()["message"].as_str().unwrap().starts_with("invalid continue token: continue key is not valid")
    );
    let no_number = client.get(&format!("{MAPS}?resourceVersion=x")).await;
    assert_eq!(
        (no_number.code, no_number.json()["message"].as_str().unwrap()),
        (
            400,
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax"
        )
    );
    let watched = client.get(&format!("{MAPS}?resourceVersion=x&watch=1")).await;
    assert_eq!(
        (watched.code, watched.json()["message"].as_str().unwrap().starts_with("configmaps \"\" is invalid: ")),
        (422, true)
    );
    assert_eq!(client.get(&format!("{MAPS}?limit=x")).await.code, 400);
    let both = format!("{MAPS}?continue={token}&resourceVersion={}", revision.as_str().unwrap());
    assert_eq!(client.get(&both).await.code, 400);
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut object = map("held");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(MAPS, &object).await;
    let path = format!("{MAPS}/held");
    let pending = client.delete(&path).await;
    assert_eq!((pending.code, pending.json()["metadata"]["deletionTimestamp"].is_string()), (200, true));
    let added = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(client.patch(&path, "merge", &added).await.code, 422);
    assert_eq!(client.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(client.get(&path).await.code, 404);

    client.post(MAPS, &map("kept")).await;
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    let json = [("content-type", "application/json")];
    let refused = client.send("DELETE", &format!("{MAPS}/kept"), &json, wrong.to_string()).await;
    assert_eq!(refused.code, 409);
    let foreground = client.delete(&format!("{MAPS}/kept?propagationPolicy=Foreground")).await;
    assert_eq!(foreground.code, 200);
    assert_eq!(foreground.json()["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_collection_goes_at_once() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for name in ["a", "b", "c"] {
        client.post(MAPS, &map(name)).await;
    }
    let dry = client.delete(&format!("{MAPS}?labelSelector=of&dryRun=All")).await;
    assert_eq!(dry.json()["items"].as_array().unwrap().len(), 3);
    let deleted = client.delete(&format!("{MAPS}?labelSelector=of")).await;
    assert_eq!(deleted.json()["items"].as_array().unwrap().len(), 3);
    let left = client.get(&format!("{MAPS}?labelSelector=of")).await.json();
    assert_eq!(left["items"], json!([]));
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(client.post(&format!("{MAPS}?dryRun=All"), &map("ghost")).await.code, 201);
    assert_eq!(client.get(&format!("{MAPS}/ghost")).await.code, 404);
    assert_eq!(client.post(&format!("{MAPS}?dryRun=Some"), &map("ghost")).await.code, 422);
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}});
    let name = client.post(MAPS, &generated).await.json()["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn unknown_fields_are_refused_reported_or_dropped() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut odd = map("odd");
    odd["surplus"] = json!(1);
    let strict = client.post(&format!("{MAPS}?fieldValidation=Strict"), &odd).await;
    assert_eq!(strict.code, 400);
    assert!(strict.json()["message"].as_str().unwrap().contains("unknown field \"surplus\""), "{:?}", strict.json());
    let warned = client.post(MAPS, &odd).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"surplus\\\"\"");
    assert!(warned.json()["surplus"].is_null());
}

#[tokio::test]
async fn wrong_requests_get_upstreams_codes() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let cases = [
        ("GET", "/api/v1/namespaces/default/nothings", 404),
        ("GET", "/apis/apps/v2/deployments", 404),
        ("POST", "/api/v1/configmaps", 405),
        ("PUT", MAPS, 405),
        ("POST", "/healthz", 405),
        ("GET", "/nothing", 404),
    ];
    for (method, path, code) in cases {
        assert_eq!(
            client.send(method, path, &[("content-type", "application/json")], "{}").await.code,
            code,
            "{method} {path}"
        );
    }
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = client.send("GET", &format!("{MAPS}?includeObject=All"), &table, "").await;
    let expected = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', \
                    'None', or empty";
    assert_eq!((answer.code, answer.json()["message"].as_str()), (400, Some(expected)));
    let named = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let unprintable = client.post(&format!("{MAPS}?fieldManager=a%07"), &named).await;
    assert_eq!((unprintable.code, &unprintable.json()["details"]["causes"][0]["field"]), (422, &json!("fieldManager")));
    let html = client.send("GET", MAPS, &[("accept", "text/html")], "").await;
    assert_eq!(html.code, 406);
    let text = client.send("POST", MAPS, &[("content-type", "text/plain")], "x").await;
    assert_eq!(text.code, 415);
    let broken = client.send("POST", MAPS, &[("content-type", "application/json")], "{").await;
    assert_eq!(broken.code, 400);
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
    assert_eq!(client.post(MAPS, &other).await.code, 400);
    let elsewhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "other"}});
    assert_eq!(client.post(MAPS, &elsewhere).await.code, 400);
    let large =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "x".repeat(4 << 20)}});
    assert_eq!(client.post(MAPS, &large).await.code, 413);
    let mut anonymous = server.client_as(None).await;
    assert_eq!(anonymous.get(MAPS).await.code, 401);
    assert_eq!(anonymous.get("/readyz").await.code, 200);
}

#[tokio::test]
async fn one_event_has_two_views() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Started", "message": "m", "type": "Normal",
        "count": 2, "source": {"component": "test"},
    });
    assert_eq!(client.post("/api/v1/namespaces/default/events", &event).await.code, 201);
    let other = client.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.json();
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    assert_eq!(
        (&other["regarding"]["name"], &other["note"], &other["deprecatedCount"]),
        (&json!("p"), &json!("m"), &json!(2))
    );
    let selected = client.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp,type%3DNormal").await.json();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    let created = client.post(path, &set).await;
    assert_eq!((created.code, &created.json()["metadata"]["generation"]), (201, &json!(1)), "{}", created.json());
    let scale = client.get(&format!("{path}/web/scale")).await.json();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(1), &json!("a=b"))
    );
    let scaled = client.patch(&format!("{path}/web/scale"), "merge", &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.json()["spec"]["replicas"]), (200, &json!(3)));
    let read = client.get(&format!("{path}/web")).await.json();
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(3), &json!(2)));
    let status = client
        .patch(&format!("{path}/web/status"), "merge", &json!({"status": {"replicas": 2}, "spec": {"replicas": 9}}))
        .await
        .json();
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"], &status["metadata"]["generation"]),
        (&json!(3), &json!(2), &json!(2))
    );
}

#[tokio::test]
async fn applying_owns_fields() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let path = format!("{MAPS}/applied");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let body = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: applied}}\ndata: {data}\n");
    let unnamed = client.send("PATCH", &path, &apply, body("{a: x}")).await;
    assert_eq!(unnamed.code, 422);
    let first = client.send("PATCH", &format!("{path}?fieldManager=one"), &apply, body("{a: x, b: y}")).await;
    assert_eq!(first.code, 201, "{}", first.json());
    let again = client.send("PATCH", &format!("{path}?fieldManager=one"), &apply, body("{a: x, b: y}")).await;
    assert_eq!(again.json(), first.json(), "applying the same changes nothing");
    let conflict = client.send("PATCH", &format!("{path}?fieldManager=two"), &apply, body("{a: z}")).await;
    assert_eq!((conflict.code, &conflict.json()["details"]["causes"][0]["field"]), (409, &json!(".data.a")));
    let forced = client.send("PATCH", &format!("{path}?fieldManager=two&force=true"), &apply, body("{a: z}")).await;
    assert_eq!((forced.code, &forced.json()["data"]), (200, &json!({"a": "z", "b": "y"})));
    let removed = client.send("PATCH", &format!("{path}?fieldManager=one"), &apply, body("{}")).await;
    assert_eq!(removed.json()["data"], json!({"a": "z"}));
    let plain = client.patch(&format!("{path}?fieldManager=three"), "merge", &json!({"data": {"c": "1"}})).await.json();
    let managers = plain["metadata"]["managedFields"].as_array().unwrap();
    let of_three = managers.iter().find(|entry| entry["manager"] == "three").unwrap();
    assert_eq!((&of_three["operation"], &of_three["fieldsV1"]), (&json!("Update"), &json!({"f:data": {"f:c": {}}})));
}

#[tokio::test]
async fn plain_strings_of_a_secret_become_data() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "yes"}});
    let path = "/api/v1/namespaces/default/secrets";
    let created = client.post(path, &secret).await.json();
    assert_eq!((&created["data"], &created["stringData"]), (&json!({"a": "eWVz"}), &Value::Null));
    let patched = client.patch(&format!("{path}/s"), "merge", &json!({"stringData": {"b": "x"}})).await.json();
    assert_eq!(patched["data"], json!({"a": "eWVz", "b": "eA=="}));
}

#[tokio::test]
async fn what_is_served_is_described() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = client.send("GET", "/apis", &[("accept", aggregated)], "").await;
    assert_eq!(groups.json()["kind"], "APIGroupDiscoveryList");
    let tag = groups.headers["etag"].to_str().unwrap().to_owned();
    let same = client.send("GET", "/apis", &[("accept", aggregated), ("if-none-match", &tag)], "").await;
    assert_eq!((same.code, same.body.len()), (304, 0));
    let old = client.get("/apis").await.json();
    assert_eq!(old["kind"], "APIGroupList");
    // Both forms tell the same.
    for group in groups.json()["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap();
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{name}/{}", version["version"].as_str().unwrap());
            let list = client.get(&path).await.json();
            let of = |list: &Value, key: &str| -> Vec<String> {
                let all = list["resources"].as_array().unwrap().iter();
                let names = all.map(|resource| resource[key].as_str().unwrap().to_owned());
                names.filter(|name| !name.contains('/')).collect()
            };
            let mut described = of(version, "resource");
            described.sort();
            assert_eq!(described, of(&list, "name"), "{path}");
        }
    }
    let index = client.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = client.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.json()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"].is_object());
    let all = client.get("/openapi/v2").await.json();
    assert!(all["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let version = client.get("/version").await.json();
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("35")));
}
