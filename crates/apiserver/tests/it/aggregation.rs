//! An extension server behind the API server's door: registration, checks, requests, discovery, OpenAPI.

use std::convert::Infallible;
use std::time::Duration;

use crate::common::{Answer, Client, Events, TestServer, https};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kminik_base::pki::{Authority, Subject, Usage};
use kminik_meta::Object;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3600);
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "wardle.example.com";
const BASE: &str = "/apis/wardle.example.com/v1alpha1";
const NAME: &str = "v1alpha1.wardle.example.com";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The extension server: says what it was asked and by whom.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let document = match path.as_str() {
        BASE => {
            Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["create", "get", "list", "watch"], "shortNames": ["fl"]},
                {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]}))
        }
        "/openapi/v3" => Some(json!({"paths": {"apis/wardle.example.com/v1alpha1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC"}}})),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            Some(json!({"openapi": "3.0.0", "info": {"title": "wardle"}}))
        }
        "/openapi/v2" => Some(json!({"swagger": "2.0", "info": {"title": "wardle", "version": "1"},
            "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": {"responses": {"200": {"description": "OK"}}}},
                "/version/": {}},
            "definitions": {"com.example.Flunder": {"type": "object"}}})),
        _ => None,
    };
    let full = |text: String| Full::<Bytes>::from(text).boxed_unsync();
    if let Some(document) = document {
        return Ok(Response::new(full(document.to_string())));
    }
    if query.contains("watch=") {
        let events = futures::stream::iter(["A", "B"]).then(async |name| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let event = json!({"type": "ADDED", "object": {"metadata": {"name": name, "resourceVersion": "1"}}});
            Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n"))))
        });
        return Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(Box::pin(events)))));
    }
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            let mut asked = [0; 4];
            io.read_exact(&mut asked).await.unwrap();
            io.write_all(b"pong").await.unwrap();
            io.shutdown().await.unwrap();
        });
        let mut response = Response::new(full(String::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for name in ["connection", "upgrade"] {
            let value = if name == "upgrade" { "echo" } else { "Upgrade" };
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return Ok(response);
    }
    let values = |name: &str| -> Vec<String> {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let seen = json!({
        "method": request.method().as_str(), "path": path, "query": query,
        "user": values("x-remote-user"), "groups": values("x-remote-group"),
        "scopes": values("x-remote-extra-scopes"),
        "authorization": values("authorization"), "impersonate": values("impersonate-user"),
    });
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let answer = json!({"seen": seen, "body": String::from_utf8_lossy(&body)});
    Ok(Response::new(full(answer.to_string())))
}

/// Serves with a certificate of its own authority, to the front proxy only. Ends, with its connections, when dropped.
async fn extension_server(server: &TestServer, own: &Authority) -> (u16, JoinSet<()>) {
    let usage = Usage::Server { names: vec!["wardle.default.svc".into()], addresses: Vec::new() };
    let identity = own.issue(&Subject::new("wardle", None), &usage, HOUR).unwrap();
    let acceptor = https::mutual(&identity, &server.front_proxies);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(connection.with_upgrades().await);
            });
        }
    });
    (port, tasks)
}

/// Waits for the reason of the condition `Available`; gives its message.
async fn reason(admin: &mut Client, wanted: &str) -> String {
    let mut last = Value::Null;
    for _ in 0..400 {
        last = expect(&admin.get(&format!("{API_SERVICES}/{NAME}")).await, 200)["status"]["conditions"][0].clone();
        if last["reason"] == wanted {
            return last["message"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never {wanted}: {last}");
}

/// Puts the service's endpoint there as a controller would: not through validation, which refuses this machine's loopback.
async fn endpoint(server: &TestServer, port: u16, ready: bool) {
    let registry = server.api.server().registry();
    let row = registry.row("discovery.k8s.io", "endpointslices").unwrap();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "wardle-1", "namespace": "default", "uid": "u", "labels": {"kubernetes.io/service-name": "wardle"}},
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    let slice = Object::try_from(slice).unwrap();
    if registry.get(&row, "default", "wardle-1").await.unwrap().is_some() {
        let change = |_: &Object| Ok(kminik_apiserver::registry::Change::Put(slice.clone()));
        registry.modify(&row, "default", "wardle-1", change).await.unwrap();
    } else {
        registry.insert(&row, &slice).await.unwrap();
    }
}

async fn aggregated(admin: &mut Client, group: &str) -> Option<Value> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = admin.send("GET", "/apis", &[("accept", accept)], "").await.json();
    all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == group).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_server_is_part_of_the_api() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let own = Authority::generate("wardle-ca", HOUR).unwrap();
    let (port, serving) = extension_server(&server, &own).await;

    // Each step towards a working server has its reason.
    let registration = json!({"metadata": {"name": NAME}, "spec": {"group": GROUP, "version": "v1alpha1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": BASE64_STANDARD.encode(own.cert_pem()),
        "service": {"namespace": "default", "name": "wardle", "port": 443}}});
    expect(&admin.post(API_SERVICES, &registration).await, 201);
    assert_eq!(reason(&mut admin, "ServiceNotFound").await, "service/wardle in \"default\" is not present");
    let down = admin.get(BASE).await;
    assert_eq!((down.code, &down.body[..]), (503, &b"service unavailable\n"[..]));
    assert_eq!(aggregated(&mut admin, GROUP).await.unwrap()["versions"][0]["freshness"], "Stale");
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    expect(&admin.post("/api/v1/namespaces/default/services", &service).await, 201);
    reason(&mut admin, "EndpointsNotFound").await;
    endpoint(&server, port, false).await;
    let message = reason(&mut admin, "MissingEndpoints").await;
    assert_eq!(message, "endpointslices for service/wardle in \"default\" have no addresses with port name \"https\"");
    endpoint(&server, port, true).await;
    assert_eq!(reason(&mut admin, "Passed").await, "all checks passed");

    // Requests: rights are asked here, the user is named there, credentials stay here.
    let day = server.authority.issue(&Subject::new("alice", Some("team")), &Usage::Client, HOUR).unwrap();
    let mut alice = server.client_as(Some(&day)).await;
    let flunder = format!("{BASE}/namespaces/x/flunders/f/sub/deep?x=1&y=a%2Fb");
    assert_eq!(alice.get(&flunder).await.code, 403);
    let headers = [
        ("authorization", "Bearer x"),
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
        ("impersonate-user", "bob"),
        ("impersonate-group", "team"),
        ("impersonate-extra-scopes", "a"),
        ("content-type", "application/json"),
    ];
    let rules = json!([{"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    expect(
        &admin.post(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "w"}, "rules": rules})).await,
        201,
    );
    let binding = json!({"metadata": {"name": "w"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "w"}});
    expect(&admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await, 201);
    let mut answer = admin.send("PUT", &flunder, &headers, "{\"a\":1}").await;
    for _ in 0..100 {
        // The rule and the table both follow the writes a moment later.
        if !matches!(answer.code, 403 | 503) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = admin.send("PUT", &flunder, &headers, "{\"a\":1}").await;
    }
    let answer = expect(&answer, 200);
    let seen = &answer["seen"];
    assert_eq!((&seen["user"], &seen["groups"]), (&json!(["bob"]), &json!(["team", "system:authenticated"])));
    assert_eq!(
        (&seen["scopes"], &seen["authorization"], &seen["impersonate"]),
        (&json!(["a"]), &json!([]), &json!([]))
    );
    assert_eq!(seen["path"], "/apis/wardle.example.com/v1alpha1/namespaces/x/flunders/f/sub/deep");
    assert_eq!((&seen["query"], &answer["body"]), (&json!("x=1&y=a%2Fb"), &json!("{\"a\":1}")));
    let watcher = server.client().await;
    let mut events = Events::open(watcher, &format!("{BASE}/flunders?watch=1")).await;
    assert_eq!((events.brief().await.1, events.brief().await.1), ("A".into(), "B".into()));
    let mut upgrader = server.client().await;
    let path = format!("{BASE}/namespaces/x/flunders/f/talk");
    let response = upgrader.open("GET", &path, &[("connection", "Upgrade"), ("upgrade", "echo")], "").await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut pong = Vec::new();
    io.read_to_end(&mut pong).await.unwrap();
    assert_eq!(pong, b"pong");

    // Discovery and OpenAPI, merged.
    let groups = expect(&admin.get("/apis").await, 200);
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "apiregistration.k8s.io");
    assert!(names.ends_with(&[GROUP]), "{names:?}");
    assert_eq!(expect(&admin.get(&format!("/apis/{GROUP}")).await, 200)["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(expect(&admin.get(BASE).await, 200)["resources"][0]["name"], "flunders");
    let version = aggregated(&mut admin, GROUP).await.unwrap()["versions"][0].clone();
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Current"), &json!("flunders")));
    assert_eq!(version["resources"][0]["subresources"][0]["subresource"], "status");
    let index = expect(&admin.get("/openapi/v3").await, 200)["paths"].clone();
    assert_eq!(
        index["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"],
        "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC"
    );
    let document = expect(&admin.get("/openapi/v3/apis/wardle.example.com/v1alpha1").await, 200);
    assert_eq!(document["info"]["title"], "wardle");
    let swagger = expect(&admin.get("/openapi/v2").await, 200);
    assert!(swagger["paths"].get("/apis/wardle.example.com/v1alpha1/flunders").is_some());
    assert!(swagger["definitions"].get("com.example.Flunder").is_some());

    // A server that dies: nothing hangs, what is known stays listed as stale.
    drop(serving);
    let touched = json!({"metadata": {"annotations": {"touched": "1"}}});
    expect(&admin.patch("/api/v1/namespaces/default/services/wardle", "merge", &touched).await, 200);
    let message = reason(&mut admin, "FailedDiscoveryCheck").await;
    assert!(message.starts_with("failing or missing response from https://"), "{message}");
    assert_eq!(admin.get(&format!("{BASE}/flunders")).await.code, 503);
    let version = aggregated(&mut admin, GROUP).await.unwrap()["versions"][0].clone();
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Stale"), &json!("flunders")));

    // Removed without a trace.
    expect(&admin.delete(&format!("{API_SERVICES}/{NAME}")).await, 200);
    for _ in 0..200 {
        if admin.get(&format!("/apis/{GROUP}")).await.code == 404 {
            assert_eq!(admin.get(&format!("{BASE}/flunders")).await.code, 404);
            assert_eq!(aggregated(&mut admin, GROUP).await, None);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the group is still listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_serves_itself_is_registered_too() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let list = expect(&admin.get(API_SERVICES).await, 200);
    let find =
        |name: &str| list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).cloned();
    let apps = find("v1.apps").unwrap();
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let condition = &apps["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")));
    assert!(find("v1.").is_some() && find("v1.apiregistration.k8s.io").is_none());
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin.send("GET", &format!("{API_SERVICES}/v1.apps"), &[("accept", accept)], "").await.json();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("v1.apps"), json!("Local"), json!("True")]);
}
