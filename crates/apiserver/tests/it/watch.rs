//! Watches, over HTTPS.

use std::time::Duration;

use futures::StreamExt;

use crate::common::{Events, TestServer};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let start = client.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = Events::open(server.client().await, &format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    client.post(MAPS, &map("a", json!({}))).await;
    client.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"x": "1"}})).await;
    client.delete(&format!("{MAPS}/a")).await;
    let mut last = start.parse::<u64>().unwrap();
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        let (kind, name, revision) = events.brief().await;
        assert_eq!((kind.as_str(), name.as_str()), (expected, "a"));
        let revision: u64 = revision.parse().unwrap();
        assert!(revision > last);
        last = revision;
    }
    // The same again for a watch that begins in the past.
    let mut replay = Events::open(server.client().await, &format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(replay.brief().await.0, expected);
    }
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut events =
        Events::open(server.client().await, &format!("{MAPS}?watch=1&labelSelector=on%3Dyes&resourceVersion=0")).await;
    client.post(MAPS, &map("a", json!({"on": "no"}))).await;
    client.patch(&format!("{MAPS}/a"), "merge", &json!({"metadata": {"labels": {"on": "yes"}}})).await;
    assert_eq!(events.brief().await.0, "ADDED");
    client.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"x": "1"}})).await;
    assert_eq!(events.brief().await.0, "MODIFIED");
    let left = client.patch(&format!("{MAPS}/a"), "merge", &json!({"metadata": {"labels": {"on": "no"}}})).await.json();
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["on"], "yes", "as it was while it was selected");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post(MAPS, &map("a", json!({"of": "test"}))).await;
    client.post(MAPS, &map("b", json!({"of": "test"}))).await;
    let query = "watch=1&labelSelector=of&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let mut events = Events::open(server.client().await, &format!("{MAPS}?{query}")).await;
    assert_eq!(events.brief().await.1, "a");
    assert_eq!(events.brief().await.1, "b");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let last = events.next().await.unwrap();
    assert_eq!((last["type"].as_str(), last["object"]["kind"].as_str()), (Some("BOOKMARK"), Some("ConfigMap")));
    assert!(events.next().await.is_none(), "the watch ends after timeoutSeconds");
    let refused = client.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
}

#[tokio::test]
async fn the_old_form_watches_one_object() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for name in ["a", "b"] {
        client.post(MAPS, &map(name, json!({}))).await;
    }
    let old = "/api/v1/watch/namespaces/default/configmaps/b?timeoutSeconds=1";
    let mut events = Events::open(server.client().await, old).await;
    assert_eq!(events.brief().await.1, "b");
    assert!(events.next().await.is_none());
    let other = client.get(&format!("{old}&fieldSelector=metadata.name%3Da")).await;
    assert_eq!(other.code, 400);
}

#[tokio::test]
async fn a_watch_of_what_is_forgotten_says_so_in_its_only_event() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for number in 0..3 {
        client.post(MAPS, &map(&format!("m{number}"), json!({}))).await;
    }
    drop(client);
    // A new server's log begins with what its store still knows.
    let server = TestServer::start_in(server.close().await).await;
    let store = server.api.server().registry().store().clone();
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let mut events = Events::open(server.client().await, &format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_compacted_revision_is_gone() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for number in 0..5 {
        client.post(MAPS, &map(&format!("m{number}"), json!({}))).await;
    }
    let first = client.get(&format!("{MAPS}?limit=2")).await.json();
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    client.post(MAPS, &map("later", json!({}))).await;
    let store = server.api.server().registry().store().clone();
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let expired = client.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    let again = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = client.get(&format!("{MAPS}?continue={again}")).await;
    assert_eq!(rest.code, 200);
    assert_eq!(rest.json()["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = TestServer::start().await;
    let mut events = Events::open(
        server.client().await,
        &format!("{MAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dnone"),
    )
    .await;
    let stopped = server.stop();
    assert!(events.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("a bounded drain").unwrap();
}

#[tokio::test]
async fn many_watchers_see_the_same() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(Events::open(server.client().await, "/api/v1/configmaps?watch=1&labelSelector=of").await);
    }
    for number in 0..20 {
        client.post(MAPS, &map(&format!("m{number}"), json!({"of": "test"}))).await;
    }
    for watcher in &mut watchers {
        for number in 0..20 {
            assert_eq!(watcher.brief().await.1, format!("m{number}"));
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let start = client.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    client.post(MAPS, &map("a", json!({}))).await;
    client.patch(&format!("{MAPS}/a"), "merge", &json!({"metadata": {"labels": {"on": "yes"}}})).await;
    drop(client);
    let server = TestServer::start_in(server.close().await).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={start}&labelSelector=on");
    let mut events = Events::open(server.client().await, &path).await;
    assert_eq!(events.brief().await.0, "ADDED", "the change before the restart, which made it selected");
    server.client().await.delete(&format!("{MAPS}/a")).await;
    assert_eq!(events.brief().await.0, "DELETED");
}

/// Opens a WebSocket as the administrator; gives the answer's headers too.
async fn socket(
    server: &TestServer,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(impl StreamExt<Item = Result<Message, Error>> + Unpin + use<>, http::HeaderMap), Error> {
    let mut request = format!("wss://localhost{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = server.connect(Some(&server.admin)).await;
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    Ok((socket, response.headers().clone()))
}

#[tokio::test]
async fn a_watch_over_a_websocket_is_a_message_an_event() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for name in ["a", "b"] {
        client.post(MAPS, &map(name, json!({}))).await;
    }
    let path = format!("{MAPS}?watch=1&timeoutSeconds=2");
    let dashboards = [("sec-websocket-protocol", "base64.binary.k8s.io")];
    let (mut events, headers) = socket(&server, &path, &dashboards).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "base64.binary.k8s.io");
    assert!(headers.contains_key("audit-id"));
    client.delete(&format!("{MAPS}/a")).await;
    for expected in [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")] {
        let Some(Ok(Message::Text(text))) = events.next().await else { panic!("no text") };
        let event: Value = serde_json::from_str(&text).unwrap();
        let found = (&event["type"], &event["object"]["metadata"]["name"]);
        assert_eq!(found, (&json!(expected.0), &json!(expected.1)));
    }
    assert!(matches!(events.next().await, Some(Ok(Message::Close(_)))), "the watch ends");

    // In protobuf each message is one event, without what would tell where it ends.
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    let (mut events, headers) = socket(&server, &path, &protobuf).await.unwrap();
    assert_eq!(headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let Some(Ok(Message::Binary(event))) = events.next().await else { panic!("no bytes") };
    assert!(event.starts_with(b"\x0a\x05ADDED"), "{event:?}");

    // What cannot be watched is answered, and so is what cannot be agreed on.
    for (path, headers, code) in [
        (format!("{MAPS}?watch=1&resourceVersion=x"), &[][..], 422),
        (path, &[("sec-websocket-protocol", "one, two")][..], 400),
        ("/api/v1/absent?watch=1".to_owned(), &[][..], 404),
    ] {
        let Err(Error::Http(refused)) = socket(&server, &path, headers).await.map(drop) else { panic!("{path}") };
        assert_eq!(refused.status(), code, "{path}");
    }
}
