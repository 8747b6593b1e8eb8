//! Load on an API server in this process: `cargo bench -p kminik-apiserver --bench load [-- OBJECTS...]`, 1, 10 and 100 thousand
//! objects where none are given. Over TLS and HTTP/1.1, the store in the temporary directory; every write is on disk before it is
//! answered. Prints creates and updates a second with 16 in flight, memory an object, the time of a list (over TLS, and of the
//! server alone), and how fast changes reach watchers. A number by itself means little: compare with one of the same machine.

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
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const IN_FLIGHT: usize = 16;
const LISTS: u32 = 5;
/// With it a ConfigMap is 1.4 kB, and a list of 8 000 has 11 MB.
const VALUE_BYTES: usize = 1100;
/// Writes that are measured beside the creates of all.
const MAX_UPDATES: usize = 10_000;
const WATCHERS: usize = 100;
const CHANGES: usize = 200;

#[tokio::main]
async fn main() {
    let mut sizes: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000];
    }
    for size in sizes {
        measure(size).await;
    }
}

#[allow(clippy::print_stdout, clippy::unwrap_used)]
async fn measure(objects: usize) {
    let server = Arc::new(TestServer::start().await);
    let before = resident_bytes();
    let creates = rate(&server, objects, |at| ("POST", MAPS.to_owned(), map(at, "x"))).await;
    let memory = resident_bytes().saturating_sub(before) / objects.max(1);
    let updated = objects.min(MAX_UPDATES);
    let updates = rate(&server, updated, |at| ("PUT", format!("{MAPS}/load-{at}"), map(at, "y"))).await;
    println!("{objects} objects: {creates:.0} creates/s, {updates:.0} updates/s, {memory} bytes of memory each");

    let (mut tls, mut alone, mut size) = (f64::MAX, f64::MAX, 0);
    let mut client = server.client().await;
    let service = server.api.service(UserInfo::new("bench", &["system:masters"]));
    for _ in 0..LISTS {
        let started = Instant::now();
        size = drain(client.open("GET", MAPS, &[], "").await.into_body()).await;
        tls = tls.min(started.elapsed().as_secs_f64());
        let request = Request::get(MAPS).body(Full::<Bytes>::default()).unwrap();
        let started = Instant::now();
        drain(service.clone().oneshot(request).await.unwrap().into_body()).await;
        alone = alone.min(started.elapsed().as_secs_f64());
    }
    println!(
        "  list: {:.1} ms over TLS, {:.1} ms of the server alone ({:.1} MB)",
        tls * 1000.0,
        alone * 1000.0,
        size as f64 / 1e6
    );
    println!("  watch: {:.0} events/s to {WATCHERS} watchers", fan_out(&server, &mut client).await);
}

fn map(at: usize, fill: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("load-{at}"), "labels": {"of": "load"}},
        "data": {"value": fill.repeat(VALUE_BYTES)},
    })
}

/// Requests a second, of so many.
#[allow(clippy::unwrap_used)]
async fn rate<F>(server: &TestServer, count: usize, request: F) -> f64
where
    F: Fn(usize) -> (&'static str, String, Value) + Copy + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..IN_FLIGHT {
        clients.push(server.client().await);
    }
    let started = Instant::now();
    let workers: Vec<_> = clients
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

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}
