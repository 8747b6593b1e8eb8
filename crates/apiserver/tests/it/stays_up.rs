//! What keeps the server up: limits, time-outs, a stop in order; and what tells how it is.

use std::time::Duration;

use crate::common::TestServer;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use kminik_apiserver::auth::UserInfo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The checks of a kube-apiserver in their order, but for those of what is not done here.
const READY: [&str; 32] = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "shutdown",
];

#[tokio::test]
async fn checks_have_upstreams_names_and_can_be_left_out() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let text = |body: Bytes| String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(text(client.get("/livez").await.body), "ok");
    let verbose = text(client.get("/readyz?verbose").await.body);
    for check in ["ping", "etcd", "etcd-readiness", "poststarthook/rbac/bootstrap-roles", "shutdown"] {
        assert!(verbose.contains(&format!("[+]{check} ok\n")), "{verbose}");
    }
    assert!(verbose.ends_with("readyz check passed\n"));
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.strip_prefix("[+]")?.strip_suffix(" ok")?.to_owned())).collect()
    };
    assert_eq!(names(&verbose), READY);
    for endpoint in ["healthz", "livez"] {
        let alive = text(client.get(&format!("/{endpoint}?verbose")).await.body);
        let only_ready = ["etcd-readiness", "informer-sync", "shutdown"];
        let wanted: Vec<&str> = READY.into_iter().filter(|name| !only_ready.contains(name)).collect();
        assert_eq!(names(&alive), wanted, "{endpoint}");
    }
    let excluded = text(client.get("/readyz?verbose&exclude=etcd&exclude=nothing").await.body);
    assert!(excluded.contains("[+]etcd excluded: ok\n") && excluded.contains("[+]etcd-readiness ok\n"), "{excluded}");
    assert!(excluded.contains("warn: some health checks cannot be excluded: no matches for \"nothing\"\n"));
    assert_eq!(text(client.get("/readyz/etcd").await.body), "ok");
    assert_eq!(client.get("/livez/shutdown").await.code, 404);
    let indicators = text(client.get("/metrics/slis").await.body);
    for line in [
        "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n",
        "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 2\n",
    ] {
        assert!(indicators.contains(line), "{indicators}");
    }
    assert_eq!(client.get("/livez").await.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    client.post(MAPS, &map).await;
    client.put(&format!("{MAPS}/x?dryRun=All"), &map).await;
    client.get(MAPS).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    client.send("PATCH", &format!("{MAPS}/x?fieldManager=m"), &apply, map.to_string()).await;
    let watch = crate::common::Events::open(server.client().await, &format!("{MAPS}?watch=1&resourceVersion=0")).await;
    let metrics = String::from_utf8(client.get("/metrics").await.body.to_vec()).unwrap();
    let labels = |verb: &str, dry_run: &str, scope: &str| {
        format!(
            "component=\"apiserver\",{dry_run}group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\""
        )
    };
    let lines = [
        format!("apiserver_request_total{{code=\"201\",{}}} ", labels("POST", "dry_run=\"\",", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", labels("PUT", "dry_run=\"All\",", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", labels("APPLY", "dry_run=\"\",", "resource")),
        format!("apiserver_request_duration_seconds_count{{{}}} 1", labels("LIST", "dry_run=\"\",", "namespace")),
        format!("apiserver_longrunning_requests{{{}}} 1", labels("WATCH", "", "namespace")),
        "apiserver_storage_objects{resource=\"namespaces\"}".to_owned(),
        "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0".to_owned(),
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\"} ".to_owned(),
        "etcd_requests_total{group=\"\",operation=\"get\",resource=\"configmaps\"}".to_owned(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} ".to_owned(),
        "process_resident_memory_bytes ".to_owned(),
        "kubernetes_build_info{".to_owned(),
    ];
    for line in lines {
        assert!(metrics.lines().any(|found| found.starts_with(&line)), "{line} in\n{metrics}");
    }
    drop(watch);
}

#[tokio::test]
async fn readiness_fails_before_anything_ends() {
    let delay = Duration::from_secs(2);
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| config.shutdown_delay = delay).await;
    let (mut client, late) = (server.client().await, server.connect(Some(&server.admin)).await);
    let mut events = crate::common::Events::open(
        server.client().await,
        &format!("{MAPS}?watch=1&resourceVersion=0&labelSelector=no"),
    )
    .await;
    let stopped = server.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ready = client.get("/readyz").await;
    assert_eq!(ready.code, 500);
    assert!(ready.body.windows(11).any(|window| window == b"[-]shutdown"), "{:?}", ready.body);
    assert_eq!((client.get("/livez").await.code, client.get(MAPS).await.code), (200, 200), "still served");
    drop(late);
    assert!(events.next().await.is_none(), "watches end cleanly");
    tokio::time::timeout(Duration::from_secs(15), stopped).await.expect("a bounded drain").unwrap();
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_end() {
    let server = TestServer::start().await;
    let mut stream = server.connect(Some(&server.admin)).await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}).to_string();
    let (begun, rest) = body.split_at(10);
    let length = body.len();
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{begun}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let address = server.address;
    let stopped = server.stop();
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("nobody new is let in");
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(answer.starts_with(b"HTTP/1.1 201 "), "{:?}", String::from_utf8_lossy(&answer));
    tokio::time::timeout(Duration::from_secs(15), stopped).await.expect("a bounded drain").unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.request_timeout = Duration::from_secs(2);
    })
    .await;
    let mut stream = server.connect(Some(&server.admin)).await;
    let head =
        format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read =
        tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("Timeout: request did not complete within the allotted timeout"), "{answer}");
    // The client may want it sooner.
    let mut stream = server.connect(Some(&server.admin)).await;
    stream.write_all(head.replace(MAPS, &format!("{MAPS}?timeout=10ms")).as_bytes()).await.unwrap();
    let mut code = [0; 12];
    let soon = tokio::time::timeout(Duration::from_millis(1500), stream.read_exact(&mut code)).await;
    assert!(soon.is_ok() && &code == b"HTTP/1.1 504", "{code:?}");
}

#[tokio::test]
async fn heads_and_bodies_are_limited() {
    let server = TestServer::start().await;
    let mut stream = server.connect(Some(&server.admin)).await;
    let head = format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(2 << 20));
    // The server may hang up while it is still being told.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{:?}", String::from_utf8_lossy(&answer));
    let mut client = server.client().await;
    let large =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "x".repeat(3 << 20)}});
    let refused = client.post(MAPS, &large).await;
    assert_eq!(
        (refused.code, refused.json()["message"].as_str().unwrap()),
        (413, "Request entity too large: limit is 3145728")
    );
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The server's own share: in process, so that no client's buffers are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watches_take_little_and_all_are_told() {
    const WATCHES: usize = 10_000;
    const BOUND: usize = 16 << 10;
    let server = TestServer::start().await;
    let service = server.api.service(UserInfo::new("admin", &["system:masters"]));
    let before = resident_bytes();
    let mut tasks = Vec::with_capacity(WATCHES);
    for _ in 0..WATCHES {
        let request =
            Request::get(format!("{MAPS}?watch=1&resourceVersion=0&labelSelector=of")).body(Full::<Bytes>::default());
        let response = service.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        tasks.push(tokio::spawn(async move { body.frame().await.unwrap().unwrap().into_data().unwrap() }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let each = resident_bytes().saturating_sub(before) / WATCHES;
    assert!(each < BOUND, "{each} bytes a watch");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": {"of": "test"}}});
    assert_eq!(server.client().await.post(MAPS, &map).await.code, 201);
    for task in tasks {
        let event = tokio::time::timeout(Duration::from_secs(60), task).await.expect("an event").unwrap();
        assert!(event.starts_with(b"{\"type\":\"ADDED\""));
    }
}
