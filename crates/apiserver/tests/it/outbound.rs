//! Calls to other servers: over HTTPS by URL and by Service, verified, bounded, over kept connections, and what is said
//! when they fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::TestServer;
use crate::common::https::HttpsServer;
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use kminik_apiserver::outbound::{Bounds, Outbound, Target};
use kminik_base::pki::{Authority, Subject, Usage};
use kminik_meta::Object;
use serde_json::{Value, json};

const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(5), body: 1 << 16 };

fn target(config: Value, ca_pem: &str) -> Target {
    let mut config = config;
    config["caBundle"] = base64::prelude::BASE64_STANDARD.encode(ca_pem).into();
    Target::of_client_config(&config).unwrap()
}

async fn post(outbound: &Outbound, target: &Target, bounds: Bounds) -> Result<Response<Bytes>, String> {
    let request = Request::post(format!("{}?timeout=5s", target.url)).body(Bytes::from_static(b"{}")).unwrap();
    outbound.call(&target.peer, request, bounds).await.map_err(|error| error.to_string())
}

/// A service of the cluster whose one ready endpoint is here. No client may write an endpoint on loopback: it is put into the
/// store.
async fn publish(server: &TestServer, name: &str, port: u16) {
    let mut client = server.client().await;
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 443}]}});
    assert_eq!(client.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": false}},
            {"addresses": ["127.0.0.1"], "conditions": {"ready": true}},
        ],
    });
    let registry = server.api.server().registry();
    let row = registry.row("discovery.k8s.io", "endpointslices").unwrap();
    registry.insert(&row, &Object::try_from(slice).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_reached_at_a_ready_endpoint_and_known_by_their_name() {
    const CALLS: usize = 10;
    let server = TestServer::start().await;
    let outbound = server.api.server().outbound().clone();
    let authority = Authority::generate("webhooks", Duration::from_secs(3600)).unwrap();
    let hook =
        HttpsServer::start(&authority, &["hook.default.svc"], Arc::new(|_: &str, _: &[u8]| (200, b"yes".to_vec())))
            .await;
    publish(&server, "hook", hook.port).await;
    let config = json!({"service": {"namespace": "default", "name": "hook", "path": "/ask"}});
    let known = target(config.clone(), authority.cert_pem());

    for _ in 0..CALLS {
        let answer = loop {
            match post(&outbound, &known, BOUNDS).await {
                // The cache learns of the service a moment after the client has.
                Err(text) if text.contains("not found") || text.contains("no endpoints") => {
                    tokio::task::yield_now().await
                }
                answer => break answer.unwrap(),
            }
        };
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"yes"[..]));
    }
    // A connection is in the pool again a moment after its answer was read, which may be too late for the next call.
    let connections = hook.connections.load(Ordering::SeqCst);
    assert!(connections <= CALLS / 2, "{connections} connections for {CALLS} calls");
    assert_eq!(hook.paths.lock().as_slice(), ["/ask?timeout=5s"; CALLS]);

    let stranger = Authority::generate("other", Duration::from_secs(3600)).unwrap();
    let unknown = target(config, stranger.cert_pem());
    assert_eq!(
        post(&outbound, &unknown, BOUNDS).await.unwrap_err(),
        "Post \"https://hook.default.svc:443/ask?timeout=5s\": tls: failed to verify certificate: x509: \
         certificate signed by unknown authority"
    );
    let nowhere = target(json!({"service": {"namespace": "default", "name": "none"}}), authority.cert_pem());
    assert_eq!(
        post(&outbound, &nowhere, BOUNDS).await.unwrap_err(),
        "Post \"https://none.default.svc:443/?timeout=5s\": service \"none\" not found"
    );
    publish(&server, "alias", hook.port).await;
    let alias = target(json!({"service": {"namespace": "default", "name": "alias"}}), authority.cert_pem());
    let text = loop {
        match post(&outbound, &alias, BOUNDS).await.unwrap_err() {
            text if text.contains("not found") || text.contains("no endpoints") => tokio::task::yield_now().await,
            text => break text,
        }
    };
    assert!(
        text.ends_with("x509: certificate is valid for hook.default.svc, 127.0.0.1, not alias.default.svc"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_in_time_and_at_a_size() {
    let server = TestServer::start().await;
    let outbound = server.api.server().outbound().clone();
    // As openssl makes it by default: an authority that presents itself.
    let authority = Authority::generate("localhost", Duration::from_secs(3600)).unwrap();
    let hook = HttpsServer::start(
        &authority,
        &["localhost"],
        Arc::new(|path: &str, _: &[u8]| match path {
            "/slow?timeout=5s" => (0, Vec::new()),
            _ => (200, vec![b'x'; 2048]),
        }),
    )
    .await;
    let at = |path: &str| {
        let url = format!("https://127.0.0.1:{}{path}", hook.port);
        target(json!({ "url": url }), authority.cert_pem())
    };
    let short = Bounds { timeout: Duration::from_millis(200), body: 1024 };
    let slow = at("/slow");
    assert_eq!(
        post(&outbound, &slow, short).await.unwrap_err(),
        format!("Post \"{}?timeout=5s\": context deadline exceeded", slow.url)
    );
    let text = post(&outbound, &at("/long"), short).await.unwrap_err();
    assert!(text.ends_with("the answer is longer than 1024 bytes"), "{text}");
    assert_eq!(post(&outbound, &at("/long"), BOUNDS).await.unwrap().body().len(), 2048);

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{closed}/");
    let text = post(&outbound, &target(json!({ "url": url }), authority.cert_pem()), BOUNDS).await.unwrap_err();
    assert!(text.ends_with(&format!("dial tcp 127.0.0.1:{closed}: connect: connection refused")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_present_the_bundle_itself() {
    let server = TestServer::start().await;
    let outbound = server.api.server().outbound().clone();
    let authority = Authority::generate("own", Duration::from_secs(3600)).unwrap();
    let usage = Usage::Server { names: vec![], addresses: vec!["127.0.0.1".parse().unwrap()] };
    let leaf = authority.issue(&Subject::new("leaf", None), &usage, Duration::from_secs(3600)).unwrap();
    let hook = HttpsServer::start_as(&leaf, Arc::new(|_: &str, _: &[u8]| (200, b"yes".to_vec()))).await;
    // The bundle holds the server's own certificate, and not who signed it.
    let pinned = target(json!({ "url": format!("https://127.0.0.1:{}/", hook.port) }), &leaf.cert_pem);
    assert_eq!(post(&outbound, &pinned, BOUNDS).await.unwrap().status(), 200);
}
