//! Load on an API server in this process: `cargo bench -p kminik-apiserver --bench load [-- OBJECTS...]`, 1, 10 and 100 thousand
//! objects where none are given. Over TLS and HTTP/1.1, the store in the temporary directory; every write is on disk before it is
//! answered. Prints creates and updates a second with 16 in flight and the processor time they take, memory an object, the time of
//! lists (over TLS, and of the server alone), whole and in pages, and how fast changes reach watchers. Clients have threads of
//! their own, so that what they cost is known. A number by itself means little: compare with one of the same machine.

#[path = "../tests/it/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use common::{Client, Events, TestServer};
use http::Request;
use http_body_util::{BodyExt, Full};
use kminik_apiserver::auth::UserInfo;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Where what is created without a connection is out of the lists' way.
const OTHER_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const IN_FLIGHT: usize = 16;
const LISTS: u32 = 5;
const PAGE: usize = 500;
/// With it a ConfigMap is 1.4 kB, and a list of 8 000 has 11 MB.
const VALUE_BYTES: usize = 1100;
/// Writes that are measured beside the creates of all.
const MAX_UPDATES: usize = 10_000;
const WATCHERS: usize = 100;
const CHANGES: usize = 200;
/// Name of the clients' threads.
const CLIENT: &str = "client";
/// What the names of the store's threads begin with.
const STORE: &str = "store-";

#[allow(clippy::unwrap_used)]
fn main() {
    let mut sizes: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000];
    }
    let clients = Builder::new_multi_thread().worker_threads(2).thread_name(CLIENT).enable_all().build().unwrap();
    let server = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for size in sizes {
        server.block_on(measure(clients.handle(), size));
    }
}

#[allow(clippy::print_stdout, clippy::unwrap_used)]
async fn measure(clients: &Handle, objects: usize) {
    let server = Arc::new(TestServer::start().await);
    let service = server.api.service(UserInfo::new("bench", &["system:masters"]));
    let before = resident_bytes();
    let (creates, costs) = rate(clients, &server, objects, |at| ("POST", MAPS.to_owned(), map(at, "x"))).await;
    let memory = resident_bytes().saturating_sub(before) / objects.max(1);
    let some = objects.min(MAX_UPDATES);
    let (updates, _) = rate(clients, &server, some, |at| ("PUT", format!("{MAPS}/load-{at}"), map(at, "y"))).await;
    println!("{objects} objects: {creates:.0} creates/s, {updates:.0} updates/s, {memory} bytes of memory each");
    let [store, client, rest] = costs.map(|nanoseconds| nanoseconds as f64 / 1000.0 / objects.max(1) as f64);
    println!("  of a core a create: {rest:.0} µs the server, {store:.0} µs its store, {client:.0} µs the client");
    println!("  without connections: {:.0} creates/s", rate_alone(&service, some).await);

    let mut client = server.client().await;
    for (what, accept, query) in [
        ("list", "application/json", ""),
        ("in protobuf", PROTOBUF, ""),
        ("for people", "application/json", "?pretty=1"),
        ("metadata", METADATA, ""),
    ] {
        let (mut tls, mut alone, mut size) = (f64::MAX, f64::MAX, 0);
        let path = format!("{MAPS}{query}");
        for _ in 0..LISTS {
            let started = Instant::now();
            size = drain(client.open("GET", &path, &[("accept", accept)], "").await.into_body()).await;
            tls = tls.min(milliseconds(started));
            let request = Request::get(&path).header("accept", accept).body(Full::<Bytes>::default()).unwrap();
            let started = Instant::now();
            drain(service.clone().oneshot(request).await.unwrap().into_body()).await;
            alone = alone.min(milliseconds(started));
        }
        println!("  {what}: {tls:.1} ms over TLS, {alone:.1} ms of the server alone ({:.1} MB)", size as f64 / 1e6);
    }
    let started = Instant::now();
    let pages = read_pages(&mut client).await;
    let took = milliseconds(started);
    println!("  in pages of {PAGE}: {took:.1} ms, {:.1} ms a page", took / pages as f64);
    println!("  watch: {:.0} events/s to {WATCHERS} watchers", fan_out(&server, &mut client).await);
}

fn map(at: usize, fill: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("load-{at}"), "labels": {"of": "load"}},
        "data": {"value": fill.repeat(VALUE_BYTES)},
    })
}

/// Requests a second, of so many, and the processor time they took (see [`processor_time`]).
#[allow(clippy::unwrap_used)]
async fn rate<F>(clients: &Handle, server: &Arc<TestServer>, count: usize, request: F) -> (f64, [u64; 3])
where
    F: Fn(usize) -> (&'static str, String, Value) + Copy + Send + 'static,
{
    let server = server.clone();
    let measured = clients.spawn(async move {
        let mut connections = Vec::new();
        for _ in 0..IN_FLIGHT {
            connections.push(server.client().await);
        }
        let (started, before) = (Instant::now(), processor_time());
        let next = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = connections
            .into_iter()
            .map(|mut client| {
                let next = next.clone();
                tokio::spawn(async move {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= count {
                            return;
                        }
                        let (method, path, body) = request(at);
                        let json = [("content-type", "application/json")];
                        let answer = client.send(method, &path, &json, body.to_string()).await;
                        assert!(answer.code < 300, "{}", answer.json());
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let (after, took) = (processor_time(), started.elapsed());
        let mut costs = [0; 3];
        for (cost, (after, before)) in costs.iter_mut().zip(after.into_iter().zip(before)) {
            *cost = after.saturating_sub(before);
        }
        (count as f64 / took.as_secs_f64(), costs)
    });
    measured.await.unwrap()
}

/// Creates a second through the server's chain, without TLS and HTTP.
#[allow(clippy::unwrap_used)]
async fn rate_alone<S>(service: &S, count: usize) -> f64
where
    S: tower::Service<Request<Full<Bytes>>, Response = http::Response<kminik_apiserver::http::body::ResponseBody>>
        + Clone
        + Send
        + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (next, service) = (next.clone(), service.clone());
            tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let request = Request::post(OTHER_MAPS).header("content-type", "application/json");
                    let request = request.body(Full::from(map(at, "x").to_string())).unwrap();
                    assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 201);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// Reads a body to its end without keeping it; its size.
#[allow(clippy::unwrap_used)]
async fn drain<B>(mut body: B) -> usize
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    size
}

/// Reads the list page by page; how many there are.
#[allow(clippy::unwrap_used)]
async fn read_pages(client: &mut Client) -> usize {
    let (mut pages, mut token) = (1, String::new());
    loop {
        let page = client.get(&format!("{MAPS}?limit={PAGE}&continue={token}")).await;
        assert_eq!(page.code, 200);
        // The token is near the beginning: the rest need not be read to go on.
        let head = String::from_utf8_lossy(&page.body[..page.body.len().min(1024)]).into_owned();
        let Some((_, rest)) = head.split_once("\"continue\":\"") else { return pages };
        token = rest.split('"').next().unwrap().to_owned();
        pages += 1;
    }
}

/// Events a second that watchers get, all together.
#[allow(clippy::unwrap_used)]
async fn fan_out(server: &TestServer, client: &mut Client) -> f64 {
    let mut tasks = Vec::new();
    for _ in 0..WATCHERS {
        let mut events = Events::open(server.client().await, &format!("{ENDPOINTS}?watch=1&labelSelector=of")).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..CHANGES {
                events.next().await.unwrap();
            }
        }));
    }
    let started = Instant::now();
    for at in 0..CHANGES {
        let metadata = json!({"name": format!("e{at}"), "labels": {"of": "load"}});
        let body = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata});
        assert_eq!(client.post(ENDPOINTS, &body).await.code, 201);
    }
    for task in tasks {
        task.await.unwrap();
    }
    (CHANGES * WATCHERS) as f64 / started.elapsed().as_secs_f64()
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}

/// Nanoseconds that this process' threads have run: the store's, the clients', the others.
fn processor_time() -> [u64; 3] {
    let mut times = [0; 3];
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let ran = read("schedstat").split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        times[match read("comm").trim() {
            name if name.starts_with(STORE) => 0,
            CLIENT => 1,
            _ => 2,
        }] += ran.unwrap_or_default();
    }
    times
}
