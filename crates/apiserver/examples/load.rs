//! Load on an API server in this process, over TLS and HTTP/1.1: creates a second, a list of many objects, watch fan-out.
//!
//! `load [OBJECTS] [WATCHERS]`; the store is in the temporary directory, and every create is on disk before it is answered.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{Events, TestServer};
use serde_json::json;

const IN_FLIGHT: usize = 16;
const LISTS: u32 = 5;
const CHANGES: usize = 200;

#[tokio::main]
#[allow(clippy::print_stdout, clippy::unwrap_used)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (objects, watchers) = (number(8000), number(100));
    let server = Arc::new(TestServer::start().await);

    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..IN_FLIGHT {
        let (mut client, next) = (server.client().await, next.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= objects {
                    return;
                }
                let body = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("load-{at}")},
                    "data": {"value": "x".repeat(1000)},
                });
                let answer = client.post("/api/v1/namespaces/default/configmaps", &body).await;
                assert_eq!(answer.code, 201, "{}", answer.json());
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    println!("creates: {:.0}/s ({objects} with {IN_FLIGHT} in flight, {took:.2} s)", objects as f64 / took);

    let mut client = server.client().await;
    let mut best = f64::MAX;
    let mut size = 0;
    for _ in 0..LISTS {
        let started = Instant::now();
        size = client.get("/api/v1/configmaps").await.body.len();
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("list: {:.1} ms ({:.1} MB)", best * 1000.0, size as f64 / 1e6);

    let path = "/api/v1/namespaces/default/endpoints?watch=1";
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut events = Events::open(server.client().await, path).await;
        tasks.push(tokio::spawn(async move {
            // The endpoints of the API server itself are there from the beginning.
            for _ in 0..=CHANGES {
                events.next().await.unwrap();
            }
        }));
    }
    let started = Instant::now();
    for at in 0..CHANGES {
        let body = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": format!("e{at}")}});
        assert_eq!(client.post("/api/v1/namespaces/default/endpoints", &body).await.code, 201);
    }
    for task in tasks {
        task.await.unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    println!("watch: {:.0} events/s to {watchers} watchers", (CHANGES * watchers) as f64 / took);
}
