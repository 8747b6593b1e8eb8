//! In which form answers come: encodings, views, lines for people, errors, discovery.

use crate::common::{Answer, Client, TestServer};
use bytes::Bytes;
use http_body_util::BodyExt;
use kminik_meta::{Gvk, protobuf, schema};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "test"}}, "data": {"a": "1"}})
}

async fn get(client: &mut Client, path: &str, accept: &str) -> Answer {
    client.send("GET", path, &[("accept", accept)], "").await
}

fn decode(group: &str, kind: &str, bytes: &[u8]) -> Value {
    let schema = schema::lookup(&Gvk::new(group, "v1", kind)).unwrap();
    protobuf::decode(bytes, schema).unwrap().object.to_value()
}

#[tokio::test]
async fn protobuf_is_given_to_who_wants_it_first() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post(MAPS, &map("one")).await;
    let json = client.get(&format!("{MAPS}/one")).await.json();
    let both = "application/vnd.kubernetes.protobuf,application/json";
    let one = get(&mut client, &format!("{MAPS}/one"), both).await;
    assert_eq!(one.headers["content-type"], PROTOBUF);
    assert_eq!(decode("", "ConfigMap", &one.body), json);
    let list = get(&mut client, &format!("{MAPS}?labelSelector=of"), both).await;
    let list = decode("", "ConfigMapList", &list.body);
    assert_eq!((&list["kind"], &list["items"][0]["data"]), (&json!("ConfigMapList"), &json["data"]));

    let sent = protobuf::encode(&map("two"), schema::lookup(&Gvk::new("", "v1", "ConfigMap")).unwrap());
    let created = client.send("POST", MAPS, &[("content-type", PROTOBUF), ("accept", both)], sent).await;
    assert_eq!((created.code, &decode("", "ConfigMap", &created.body)["metadata"]["name"]), (201, &json!("two")));

    // An error is negotiated as well.
    let gone = get(&mut client, &format!("{MAPS}/none"), both).await;
    let status = decode("meta.k8s.io", "Status", &gone.body);
    assert_eq!((gone.code, &status["reason"], &status["code"]), (404, &json!("NotFound"), &json!(404)));
    let yaml = get(&mut client, &format!("{MAPS}/none"), "application/yaml").await;
    assert!(yaml.body.starts_with(b"apiVersion: v1\n"), "{:?}", yaml.body);

    let metadata =
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let partial = get(&mut client, &format!("{MAPS}?labelSelector=of"), metadata).await;
    let partial = decode("meta.k8s.io", "PartialObjectMetadataList", &partial.body);
    assert_eq!((partial["items"].as_array().unwrap().len(), &partial["items"][0]["data"]), (2, &Value::Null));
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(get(&mut client, MAPS, table).await.code, 406);
    assert_eq!(get(&mut client, MAPS, "application/cbor").await.code, 406);
    let cbor = client.send("POST", MAPS, &[("content-type", "application/cbor")], "x").await;
    assert_eq!(
        (cbor.code, cbor.json()["message"].as_str().unwrap()),
        (
            415,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    );
}

/// The frames of a watch in protobuf, until it ends.
async fn frames(mut client: Client, path: &str, accept: &str) -> (String, Vec<Bytes>) {
    let response = client.open("GET", path, &[("accept", accept)], "").await;
    assert_eq!(response.status(), 200);
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let mut body = response.into_body().collect().await.unwrap().to_bytes();
    let mut frames = Vec::new();
    while body.len() >= 4 {
        let length = u32::from_be_bytes(body.split_to(4)[..].try_into().unwrap()) as usize;
        frames.push(body.split_to(length));
    }
    assert!(body.is_empty(), "whole frames only");
    (media_type, frames)
}

#[tokio::test]
async fn watches_come_in_protobuf_too() {
    let server = TestServer::start().await;
    server.client().await.post(MAPS, &map("one")).await;
    let path = format!("{MAPS}?watch=1&labelSelector=of&timeoutSeconds=1&allowWatchBookmarks=true");
    let (media_type, events) = frames(server.client().await, &path, PROTOBUF).await;
    assert_eq!(media_type, "application/vnd.kubernetes.protobuf;stream=watch");
    // The type is the first field, the object with its envelope the second one's first.
    let object = |frame: &Bytes| {
        let at = frame.windows(4).position(|window| window == protobuf::MAGIC).unwrap();
        frame.slice(at..)
    };
    assert!(events[0].windows(5).any(|window| window == b"ADDED"));
    assert_eq!(decode("", "ConfigMap", &object(&events[0]))["metadata"]["name"], "one");
    assert!(events[1].windows(8).any(|window| window == b"BOOKMARK"));
    let end = decode("", "ConfigMap", &object(&events[1]));
    assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (_, events) = frames(server.client().await, &path, metadata).await;
    let partial = decode("meta.k8s.io", "PartialObjectMetadata", &object(&events[0]));
    assert_eq!((&partial["kind"], &partial["data"]), (&json!("PartialObjectMetadata"), &Value::Null));
    let yaml = get(&mut server.client().await, &path, "application/yaml").await;
    let text = String::from_utf8_lossy(&yaml.body).into_owned();
    assert_eq!(yaml.code, 406);
    assert!(text.contains("application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"), "{text}");
}

#[tokio::test]
async fn a_table_has_its_columns_once() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for name in ["one", "two"] {
        client.post(MAPS, &map(name)).await;
    }
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1beta1";
    let path = format!("{MAPS}?watch=1&labelSelector=of&timeoutSeconds=1&includeObject=Object");
    let body = get(&mut client, &path, table).await.body;
    let events: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
    assert!(
        events[0]["object"]["columnDefinitions"].is_array() && !events[1]["object"]["columnDefinitions"].is_array()
    );
    assert_eq!(events[1]["object"]["rows"][0]["object"]["data"], json!({"a": "1"}));
    let none = get(&mut client, &format!("{MAPS}?includeObject=None"), table).await.json();
    assert!(none["rows"][0]["object"].is_null());
}

/// JSON that was set in lines, as it was before; no string in it has what lines are made of.
fn one_line(pretty: &[u8]) -> String {
    let text = std::str::from_utf8(pretty).unwrap();
    text.lines().map(str::trim_start).collect::<String>().replace("\": ", "\":") + "\n"
}

#[tokio::test]
async fn long_lists_are_whole_in_every_form() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    // More than one slice of each form.
    for at in 0..40 {
        let mut map = map(&format!("m{at:02}"));
        map["data"] = json!({"a": "x\"".repeat(10_000)});
        client.post(MAPS, &map).await;
    }
    let path = format!("{MAPS}?labelSelector=of");
    let plain = client.get(&path).await.json();
    assert_eq!(plain["items"].as_array().unwrap().len(), 40);
    let pretty = client.get(&format!("{path}&pretty=true")).await;
    assert_eq!(pretty.json(), plain);
    let mut typed = decode("", "ConfigMapList", &get(&mut client, &path, PROTOBUF).await.body);
    for item in typed["items"].as_array_mut().unwrap() {
        assert_eq!(item.as_object_mut().unwrap().remove("kind"), None);
    }
    assert_eq!(typed, plain);
    let metadata = |media_type: &str| format!("{media_type};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let json = get(&mut client, &path, &metadata("application/json")).await.json();
    assert_eq!((&json["kind"], &json["metadata"]), (&json!("PartialObjectMetadataList"), &plain["metadata"]));
    for (partial, item) in json["items"].as_array().unwrap().iter().zip(plain["items"].as_array().unwrap()) {
        let wanted =
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]});
        assert_eq!(partial, &wanted);
    }
    let binary =
        decode("meta.k8s.io", "PartialObjectMetadataList", &get(&mut client, &path, &metadata(PROTOBUF)).await.body);
    assert_eq!(binary["items"][39]["metadata"], plain["items"][39]["metadata"]);
    let yaml = get(&mut client, &path, "application/yaml").await;
    assert_eq!(serde_yaml::from_slice::<Value>(&yaml.body).unwrap(), plain);
    let none = get(&mut client, &format!("{MAPS}?labelSelector=of%3Dnobody"), "application/yaml").await;
    assert_eq!(serde_yaml::from_slice::<Value>(&none.body).unwrap()["items"], json!([]));
    let table = |media_type: &str| format!("{media_type};as=Table;g=meta.k8s.io;v=v1");
    let whole = format!("{path}&includeObject=Object");
    let rows = get(&mut client, &whole, &table("application/json")).await.json();
    assert_eq!((&rows["kind"], &rows["metadata"]), (&json!("Table"), &plain["metadata"]));
    assert_eq!(rows["columnDefinitions"][0]["name"], "Name");
    assert_eq!((rows["rows"].as_array().unwrap().len(), &rows["rows"][39]["cells"][0]), (40, &json!("m39")));
    assert_eq!(rows["rows"][39]["object"]["data"], plain["items"][39]["data"]);
    // Ages grow from one answer to the next.
    let ageless = |mut table: Value| {
        table["rows"].as_array_mut().unwrap().iter_mut().for_each(|row| row["cells"][2] = json!("age"));
        table
    };
    let rows = ageless(rows);
    let pretty = get(&mut client, &format!("{whole}&pretty=true"), &table("application/json")).await;
    assert!(ageless(pretty.json()) == rows, "set in lines");
    let yaml = get(&mut client, &whole, &table("application/yaml")).await;
    assert!(ageless(serde_yaml::from_slice(&yaml.body).unwrap()) == rows, "as YAML");
}

#[tokio::test]
async fn people_get_lines() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post(MAPS, &map("one")).await;
    let path = format!("{MAPS}/one");
    let plain = client.get(&path).await;
    let pretty = client.get(&format!("{path}?pretty=true")).await;
    assert_eq!(pretty.json(), plain.json());
    assert!(pretty.body.starts_with(b"{\n  \"kind\": \"ConfigMap\",\n") && !plain.body[..20].contains(&b'\n'));
    assert_eq!(one_line(&pretty.body), String::from_utf8_lossy(&plain.body));
    let curl = client.send("GET", &path, &[("user-agent", "curl/8.0"), ("accept", "*/*")], "").await;
    assert_eq!(curl.body, pretty.body);
    let list = client.get(&format!("{MAPS}?labelSelector=of")).await;
    let pretty = client.get(&format!("{MAPS}?labelSelector=of&pretty=true")).await;
    assert!(pretty.body.starts_with(b"{\n  \"kind\": \"ConfigMapList\",\n"));
    assert_eq!(one_line(&pretty.body), String::from_utf8_lossy(&list.body));
    let error = client.send("GET", &format!("{MAPS}/none"), &[("user-agent", "curl/8.0")], "").await;
    assert!(error.body.starts_with(b"{\n  "));
}

#[tokio::test]
async fn headers_of_every_answer() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let named = client.send("GET", MAPS, &[("audit-id", "mine")], "").await;
    assert_eq!(named.headers["audit-id"], "mine");
    assert_eq!(named.headers["cache-control"], "no-cache, private");
    assert_eq!(client.get(MAPS).await.headers["audit-id"].len(), 36);
    let wrong = client.get(&format!("{MAPS}?timeout=soon")).await;
    assert_eq!(
        (wrong.code, wrong.json()["message"].as_str().unwrap()),
        (400, "invalid timeout specified in the request URL - time: invalid duration \"soon\"")
    );
    assert_eq!(client.get(&format!("{MAPS}?timeout=10s")).await.code, 200);
    let head = client.send("HEAD", "/readyz", &[], "").await;
    assert_eq!((head.code, head.body.len()), (200, 0));
    for (path, code) in [
        (MAPS, 405),
        ("/api/v1/namespaces/default", 405),
        ("/version", 405),
        ("/api", 405),
        ("/api/v1", 405),
        ("/apis/apps/v1", 405),
        ("/openid/v1/jwks", 405),
        ("/apis", 200),
        ("/apis/apps", 200),
        ("/openapi/v3", 200),
        ("/metrics", 200),
        ("/api/v1/nothings", 404),
        ("/nothing", 404),
    ] {
        let head = client.send("HEAD", path, &[], "").await;
        assert_eq!((head.code, head.body.len()), (code, 0), "{path}");
    }
    assert_eq!(client.send("OPTIONS", MAPS, &[], "").await.code, 405);
    // What was noticed before the refusal is told with it.
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not_A_Name"}, "surplus": 1});
    let refused = client.post(MAPS, &body).await;
    assert_eq!(refused.code, 422);
    assert_eq!(refused.headers["warning"], "299 - \"unknown field \\\"surplus\\\"\"");
}

#[tokio::test]
async fn discovery_is_negotiated_and_tagged() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let groups = get(&mut client, "/apis", PROTOBUF).await;
    let groups = decode("meta.k8s.io", "APIGroupList", &groups.body);
    assert!(groups["groups"].as_array().unwrap().len() > 5);
    let resources = get(&mut client, "/apis/apps/v1", PROTOBUF).await;
    let resources = decode("meta.k8s.io", "APIResourceList", &resources.body);
    assert_eq!(resources["groupVersion"], "apps/v1");
    assert_eq!(get(&mut client, "/apis", "text/html").await.code, 406);
    for version in ["v2", "v2beta1"] {
        for media_type in [PROTOBUF, "application/json"] {
            let accept =
                format!("{media_type};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json");
            let answer = get(&mut client, "/apis", &accept).await;
            let own = answer.headers["content-type"].to_str().unwrap();
            assert!(accept.starts_with(own), "{own}");
            let tag = answer.headers["etag"].to_str().unwrap().to_owned();
            let again = [("accept", accept.as_str()), ("if-none-match", &format!("\"other\", W/{tag}"))];
            assert_eq!(client.send("GET", "/apis", &again, "").await.code, 304);
        }
    }
    let aggregated = "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = get(&mut client, "/api", aggregated).await;
    let schema = schema::lookup(&Gvk::new("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList")).unwrap();
    let core = protobuf::decode(&answer.body, schema).unwrap().object.to_value();
    assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
    let index = client.get("/openapi/v3").await;
    let tag = index.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(client.send("GET", "/openapi/v3", &[("if-none-match", &tag)], "").await.code, 304);
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_accepts_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for name in ["a", "b"] {
        let mut large = map(name);
        large["data"] = json!({"x": "x".repeat(100 << 10)});
        assert_eq!(client.post(MAPS, &large).await.code, 201);
    }
    let plain = client.get(MAPS).await;
    assert_eq!(plain.headers.get("content-encoding"), None);
    for (path, accepts, compressed) in [
        (MAPS.to_owned(), "gzip", true),
        (MAPS.to_owned(), "deflate, gzip;q=0.5", true),
        (MAPS.to_owned(), "gzip;q=0", false),
        (format!("{MAPS}/a"), "gzip", false),
    ] {
        let answer = client.send("GET", &path, &[("accept-encoding", accepts)], "").await;
        let encoding = answer.headers.get("content-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(encoding, compressed.then_some("gzip"), "{path} {accepts}");
        if compressed {
            assert_eq!(answer.headers["vary"], "Accept-Encoding");
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&answer.body[..]), &mut unpacked).unwrap();
            assert!(unpacked == plain.body, "the same, but for its size");
            assert!(answer.body.len() < plain.body.len() / 10);
        }
    }
}

#[tokio::test]
async fn what_only_answers_a_create_has_no_table() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let refused = client.send("POST", reviews, &[("accept", TABLE)], review.clone()).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (406, &json!("NotAcceptable")));
    let either = format!("{TABLE},application/json");
    let given = client.send("POST", reviews, &[("accept", &either)], review).await;
    assert_eq!((given.code, &given.json()["kind"]), (201, &json!("SelfSubjectAccessReview")));
    let made = client.send("POST", MAPS, &[("accept", TABLE)], map("one").to_string()).await;
    assert_eq!((made.code, &made.json()["kind"]), (201, &json!("Table")));
}
